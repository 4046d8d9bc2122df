"""The usual spelling of a required word: as in the entry, capitalised where a sentence starts, after a space.

Words are compared without case, and a word counts wherever no letter is next to it. So `mArMaLaDe` counts as well if a
model writes it, and so does "end.marmalade". But only tokens that continue the usual spelling are preferred or forced.
"""

import codecs
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from ..text.characters import is_word, needs_boundary
from ..text.pieces import MOST_BYTES, as_bytes
from ..text.vocabulary import Vocabulary
from ..text.word_lists import is_regex, split_alternatives
from ..text.word_matcher import Entry

_SENTENCE_BEGINS = re.compile(r"(?:\A|[.!?:\n][\"'\u201d\u2019)]*)\s*[\"'\u201c\u2018(]*\Z")
_IN_CAPITALS = re.compile(r"\b[A-Z]{2,}\W+\Z")
# Marks after which a space is written before a word, and quotes, which are such marks unless they open a quotation.
_CLOSING, _QUOTES, _APOSTROPHES = frozenset(".,;:!?)]}%\u2026"), frozenset('"\u201c\u201d\u00ab\u00bb'), "'\u2019"
_MOST_KNOWN = 1 << 16  # cached verdicts
# A dash after a space has one on its other side as well.
_DASHES = frozenset("-\u2013\u2014")
# What the end of a text is: a position for a word, part of a word, a mark that needs a space before the next word, or
# a space, which is a position for a word as well.
FREE, IN_WORD, CLOSED, SPACED = 0, 1, 2, 3


class Tail(NamedTuple):
    """The end of a text.

    Attributes:
        text: its last characters.
        started: the bytes of an incomplete character after them.
    """

    text: str
    started: bytes = b""


class Spellings:
    """Finds the tokens that continue the usual spelling of an entry.

    Args:
        sources: the entries, as in `Requirements`.
        vocabulary: the text that every token adds.
    """

    def __init__(self, sources: Sequence[str], vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._written = [_written_forms(source) for source in sources]
        self.longest = max((len(form) for forms in self._written for form in forms or ()), default=0) + 8
        self._known: dict[tuple[int, Tail, bool, int], bool] = {}
        self._added: dict[int, tuple[bytes, int]] = {}  # by token, its bytes, and the characters if these are whole

    def tail(self, row: torch.Tensor) -> Tail:
        """The end of the text of a row, `(length,)`: as long as the longest entry and a few characters more."""
        raw: list[bytes] = []
        whole = 0  # characters that are tokens, or parts of one
        for token in reversed(row[-MOST_BYTES * self.longest :].tolist()):
            if token not in self._added:
                piece = self.vocabulary.piece(token)
                self._added[token] = as_bytes(piece), len(piece) if isinstance(piece, str) else 0
            added, characters = self._added[token]
            if not added:
                break  # a special token starts a new text
            raw.append(added)
            whole += characters
            if whole >= self.longest:
                break
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(b"".join(reversed(raw)))
        return Tail(text[-self.longest :], decoder.getstate()[0])

    def customary(self, entry: int, tail: Tail, tokens: Sequence[int], ended: bool = False) -> list[bool]:
        """Whether each of some tokens that start, continue or complete an entry spells it in the usual way.

        Args:
            entry: its index.
            tail: the end of the text.
            tokens: their ids.
            ended: what looks like a started entry is another word, which ends here, as "the" before "theatre".
        """
        forms = self._written[entry]
        if forms is None or any(_end_of(form, tail.text) == len(form) for form in forms):
            return [True] * len(tokens)  # any token may complete a word that is written
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        verdicts = []
        for token in tokens:
            key = (entry, tail, ended, token)
            if key not in self._known:
                piece = self.vocabulary.piece(token)
                self._known[key] = any(_goes_on(form, tail, tail.started + as_bytes(piece), ended) for form in forms)
            verdicts.append(self._known[key])
        return verdicts

    def is_known(self, entry: int) -> bool:
        """Whether an entry has a usual spelling; a regular expression has none."""
        return self._written[entry] is not None

    def is_begun(self, entry: int, tail: Tail) -> bool:
        """Whether the text ends in the first letters of an entry."""
        return any(0 < _end_of(form, tail.text) < len(form) for form in self._written[entry] or ())


@lru_cache(maxsize=1024)
def _beginnings(form: str) -> list[tuple[int, tuple[str, ...]]]:
    """For each number of characters of an entry, longest first, how they may be written."""
    lengths = range(len(form), 0, -1)
    return [(done, (form[:done], form[0].upper() + form[1:done], form[:done].upper())) for done in lengths]


def _end_of(form: str, text: str) -> int:
    """How many characters of an entry, in its usual spelling or in capitals, a text ends in."""
    for done, written in _beginnings(form):
        if text.endswith(written):
            before = text[: len(text) - done]
            if not before or not is_word(before[-1]) or not needs_boundary(form[0]):
                return done
    return 0


def _goes_on(form: str, tail: Tail, added: bytes, ended: bool) -> bool:
    done = _end_of(form, tail.text)
    if done:
        written = tail.text[-done:]
        shouted = done > 1 and written != form[:done] and written == form[:done].upper()
        if _agree(added, form[done:].upper() if shouted else form[done:]):
            return True
        if not ended:
            return False  # a word that has been started is not started again
    text = added.decode("utf-8", "ignore")
    lead = text[: len(text) - len(text.lstrip())]
    rest = added[len(lead.encode()) :]
    if not rest:
        return False  # within a phrase, "very \n big" is not usual
    if not lead and needs_boundary(form[0]) and edge_after(FREE, tail.text) == CLOSED:
        return False
    return _agree(rest, _as_the_place_asks(form, tail.text + lead))


def edge_after(edge: int, text: str) -> int:
    """What the end of a text is (such as `FREE`), given what it was before `text` was added."""
    for char in text:
        if is_word(char):
            edge = IN_WORD
        elif char in _APOSTROPHES:
            edge = CLOSED if edge == CLOSED else FREE  # as in "l'eau"
        elif char in _QUOTES:
            edge = FREE if edge in (FREE, SPACED) else CLOSED
        elif char in _CLOSING or (char in _DASHES and edge == SPACED):
            edge = CLOSED
        else:
            edge = SPACED if char == " " else FREE
    return edge


def _agree(added: bytes, spelled: str) -> bool:
    """Whether one is the beginning of the other."""
    wanted = spelled.encode("utf-8", "surrogatepass")
    return wanted.startswith(added) or added.startswith(wanted)


def _written_forms(source: str) -> list[str] | None:
    """The alternatives of an entry as they are written; None where their spelling is not known."""
    if is_regex(source):
        return None
    entries = [Entry.parse(part) for part in split_alternatives(source)]
    if not all(entry.is_plain for entry in entries):
        return None
    return ["".join(entry.items[:-1] if entry.is_stem else entry.items) for entry in entries]


def _as_the_place_asks(form: str, before: str) -> str:
    if _IN_CAPITALS.search(before):
        return form.upper()
    if form[1:] != form[1:].lower() or not _SENTENCE_BEGINS.search(before):
        return form  # as written, "iPhone" too
    return form[0].upper() + form[1:]
