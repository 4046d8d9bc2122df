"""What every token of a vocabulary does to the words, sentences and lines of a text.

Tokens that consist of whole characters are sorted into a few hundred groups that the automaton of `text_units.py` does
not distinguish, and the effect of a group is computed once for each state. Tokens that are parts of a character are
read one by one.
"""

import codecs
from typing import NamedTuple

import numpy as np

from .pieces import REPLACEMENT, add_piece, as_bytes, decode_run
from .text_units import ONE_OF_EACH, TextUnits, UnitState, reduced_text
from .vocabulary import Vocabulary


class UnitText(NamedTuple):
    """The state of a text of tokens.

    Attributes:
        place: the index of the automaton's state after the last whole character.
        words: begun so far.
        sentences: over for certain so far.
        length: tokens so far.
        ends: how often an end as asked for was reached.
        ended_at: `length` at the last of those ends.
        pending: the first bytes of the next character.
        in_run: the text ends in byte-fallback tokens, which the decoder reads together.
        before: `place`, `words` and `sentences` before them, in case that one is invalid; None if one was.
        over: an end token was added.
    """

    place: int = 0
    words: int = 0
    sentences: int = 0
    length: int = 0
    ends: int = 0
    ended_at: int = 0
    pending: bytes = b""
    in_run: bool = False
    before: tuple[int, int, int] | None = None
    over: bool = False


class Effects(NamedTuple):
    """The effect of each group of tokens in one state.

    Attributes:
        after: (groups,) the index of the state after it.
        words, sentences: (groups,) how many words it begins, and sentences are over for certain.
    """

    after: np.ndarray
    words: np.ndarray
    sentences: np.ndarray


class UnitTables:
    """The effects of the tokens of one vocabulary.

    Args:
        vocabulary: the text that every token adds.
        size: number of scores the model gives.
        units: the automaton.
        suppressed: ids of tokens that are never added.

    Attributes:
        groups: a text for each group of tokens.
        group_of: (size,) the group of each token; -1 for those that add no text or part of a character.
        states: the states found so far; the first is that before any text.
    """

    def __init__(
        self, vocabulary: Vocabulary, size: int, units: TextUnits, suppressed: frozenset[int] = frozenset()
    ) -> None:
        self.vocabulary, self.size, self.units = vocabulary.limited(size), size, units
        self.groups, self.group_of = _grouped(self.vocabulary, size, suppressed)
        self.states: list[UnitState] = []
        self._indices: dict[UnitState, int] = {}
        self._effects: dict[int, Effects] = {}
        self.start = UnitText(self.index(units.start))

    def index(self, state: UnitState) -> int:
        """The number of a state."""
        if state not in self._indices:
            self._indices[state] = len(self.states)
            self.states.append(state)
        return self._indices[state]

    def effects(self, place: int) -> Effects:
        """What each group does in a state."""
        found = self._effects.get(place)
        if found is None:
            rows = [self.units.read(self.states[place], text) for text in self.groups]
            after = np.array([self.index(state) for state, _, _ in rows], dtype=np.int64)
            words, sentences = (np.array([row[part] for row in rows], dtype=np.int64) for part in (1, 2))
            found = self._effects[place] = Effects(after, words, sentences)
        return found

    def explore(self) -> None:
        """Find all states that tokens lead to, those that are parts of characters included."""
        place = 0
        while place < len(self.states):
            self.effects(place)
            for char in ONE_OF_EACH:
                self.index(self.units.read(self.states[place], char)[0])
            place += 1

    def advance(self, text: UnitText, token: int) -> UnitText:
        """The state after one more token."""
        text = text._replace(length=text.length + 1)
        piece = self.vocabulary.piece(token)
        if not piece:
            return text
        if token in self.vocabulary.fallback:
            return self._after_fallback(text, as_bytes(piece))
        text = self.flushed(text) if text.in_run else text
        if isinstance(piece, str) and not text.pending and token < self.size and self.group_of[token] >= 0:
            effects, group = self.effects(text.place), self.group_of[token]
            return text._replace(
                place=int(effects.after[group]),
                words=text.words + int(effects.words[group]),
                sentences=text.sentences + int(effects.sentences[group]),
            )
        added, pending = add_piece(text.pending, piece, self.vocabulary.errors)
        return self._add(text, added)._replace(pending=pending)

    def flushed(self, text: UnitText) -> UnitText:
        """The state if the bytes that end the text get no companions."""
        if text.in_run and text.pending and text.before is not None:
            place, words, sentences = text.before
            text = text._replace(place=place, words=words, sentences=sentences)
            text = self._add(text, REPLACEMENT)
        elif text.pending:
            text = self._add(text, text.pending.decode("utf-8", self.vocabulary.errors))
        return text._replace(pending=b"", in_run=False, before=None)

    def _after_fallback(self, text: UnitText, byte: bytes) -> UnitText:
        if text.in_run and text.before is None:
            return self._add(text, REPLACEMENT)
        if not text.in_run:
            if text.pending:
                text = self.flushed(text)
            text = text._replace(in_run=True, before=(text.place, text.words, text.sentences))
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            added = decoder.decode(text.pending + byte)
        except UnicodeDecodeError:
            # The decoder replaces all bytes of the run.
            assert text.before is not None
            place, words, sentences = text.before
            text = text._replace(place=place, words=words, sentences=sentences, pending=b"", before=None)
            return self._add(text, decode_run(b"\xff"))
        return self._add(text, added)._replace(pending=decoder.getstate()[0])

    def _add(self, text: UnitText, added: str) -> UnitText:
        state, words, sentences = self.units.read(self.states[text.place], added)
        return text._replace(place=self.index(state), words=text.words + words, sentences=text.sentences + sentences)


def _grouped(vocabulary: Vocabulary, size: int, suppressed: frozenset[int]) -> tuple[list[str], np.ndarray]:
    """The groups of whole-character tokens, and the group of each token."""
    key = ("units", size, suppressed)
    if key not in vocabulary.derived:
        groups: dict[str, int] = {}
        group_of = np.full(size, -1, dtype=np.int64)
        for token, piece in enumerate(vocabulary.pieces[:size]):
            if piece and isinstance(piece, str) and token not in vocabulary.fallback | suppressed:
                group_of[token] = groups.setdefault(reduced_text(piece), len(groups))
        vocabulary.derived[key] = (list(groups), group_of)
    found: tuple[list[str], np.ndarray] = vocabulary.derived[key]
    return found
