"""The effect of each token on the patterns in a text: complete one, start one, or none.

Each generation step needs that for every token of the vocabulary at once. In most states only a few tokens have another
effect than in the state where nothing has started. So a full pass over the vocabulary is made for that state, and for
any other state only the tokens with another effect are examined. Results are kept, so a step costs the same for one
entry and for thousands.
"""

import codecs
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from string import ascii_letters
from typing import NamedTuple

import torch

from .character_classes import characters_behind, continues, is_surrogate
from .text_patterns import PatternState, TextPatterns
from .vocabulary import REPLACEMENT, Vocabulary, add_piece, as_bytes, decode_run

# Scores that the kept tables may hold together, and the number of tables that are kept whatever their size.
_KEPT_SCORES, _KEPT_TABLES = 1 << 24, 64
_LAST = "\U0010ffff"
_BROKEN = b"\xff"
# Most bytes of a character, and characters that are tried before all that start with the same bytes.
_LONGEST_CHARACTER, _SAMPLES = 4, 7
_UNWRITABLE = -1
# A probability never reaches 1, so that the only masked tokens are those that complete an entry.
CERTAIN = 1 - 1e-6


class TextState(NamedTuple):
    """The state of a text of tokens: in the patterns, and within a character.

    Attributes:
        patterns: the state after the last whole character.
        pending: the first bytes of the next character.
        run: the byte-fallback tokens at the end of the text.
        before: the state before them, which is restored if one of them is invalid; None if one was.
    """

    patterns: PatternState
    pending: bytes = b""
    run: bytes = b""
    before: PatternState | None = None


class Outcome(NamedTuple):
    """The effect of one token.

    Attributes:
        hit: it completes an entry.
        ends: an entry is complete if the text ends after it.
        chance: probability that a started match after it becomes an entry.
        needs: tokens that have to follow before the text may end.
    """

    hit: bool
    ends: bool
    chance: float
    needs: int = 0


NOTHING = Outcome(False, False, 0.0)


@dataclass(frozen=True)
class TokenTable:
    """The effect of every token in one state of a text.

    Attributes:
        shift: (vocabulary,) float32, to be added to scores: −inf for tokens that complete an entry, log(1 −
            probability) for the others.
        closed: (vocabulary,) bool, the tokens that complete an entry.
        completing: their ids.
        ending: ids of the tokens after which the text must not end.
        needs: (ending,) long, how many more tokens must follow each of them before it may.
        risky: ids of the tokens that start or continue an entry.
        chances: (risky,) float32, the probability of each that it becomes one.
        greatest: the greatest of `chances`.
    """

    shift: torch.Tensor
    closed: torch.Tensor
    completing: torch.Tensor
    ending: torch.Tensor
    needs: torch.Tensor
    risky: torch.Tensor
    chances: torch.Tensor
    greatest: float


class TokenTables:
    """Creates and caches the tables of one list of patterns over one vocabulary.

    Args:
        vocabulary: the text that every token adds.
        patterns: the patterns to look for.
        size: number of scores the model gives; by default the number of tokens. Tokens beyond it are left out.
    """

    def __init__(self, vocabulary: Vocabulary, patterns: TextPatterns, size: int) -> None:
        self.size = size or len(vocabulary.pieces)
        self._whole = vocabulary
        vocabulary = self.vocabulary = vocabulary.limited(self.size)
        self._others: dict[int, TokenTables] = {}
        self.patterns = patterns
        self.start = TextState(patterns.start)
        in_order = vocabulary.in_order
        if patterns.is_restless:
            in_order = in_order.merged(patterns.key, vocabulary.characters)
        self._order, self._tokens, self._rough, self._parts = in_order
        self._silent = [token for token in range(self.size) if not vocabulary.piece(token)]
        self._outcomes: dict[PatternState, dict[int, Outcome]] = {}
        self._tables: dict[TextState, TokenTable] = {}
        self._ways_on: dict[tuple[PatternState, bytes, bool], int | None] = {}

    def of_size(self, size: int) -> "TokenTables":
        """The same tables for another number of scores; states are the same in both."""
        if size == self.size:
            return self
        if size not in self._others:
            self._others[size] = TokenTables(self._whole, self.patterns, size)
        return self._others[size]

    def advance(self, state: TextState, token: int) -> TextState:
        """The state after `token`."""
        return self.read(state, token)[0]

    def advance_prompt(self, state: TextState, token: int) -> TextState:
        """The state after `token` of a prompt, where a special token starts a new text."""
        return self.start if self.vocabulary.is_border(token) else self.advance(state, token)

    def forget(self, state: TextState) -> TextState:
        """The same state, without matches that are complete already: for the end of a prompt."""
        before = state.before and self.patterns.forget(state.before)
        return state._replace(patterns=self.patterns.forget(state.patterns), before=before)

    def flushed(self, state: TextState) -> PatternState:
        """The state of the patterns if the current character is never completed."""
        return self._flush(state)[0] if state.pending else state.patterns

    def in_run(self, state: TextState) -> bool:
        """Whether the text ends in byte-fallback tokens that the decoder may still discard."""
        return bool(state.run) and state.before is not None

    def keeps_run(self, state: TextState, token: int) -> bool:
        """Whether the byte-fallback tokens at the end of the text form the same characters after `token`."""
        if token in self.vocabulary.fallback:
            return self.in_run(self.advance(state, token))
        return not state.pending or self.vocabulary.is_border(token)

    def ends(self, state: TextState) -> bool:
        """Whether an entry is complete if the text ends here."""
        patterns, hit = self._flush(state)
        return hit or self.patterns.ends(patterns)

    def chance(self, state: TextState) -> float:
        """The probability, by word counts, that a started match becomes an entry; 0 within a character."""
        return 0.0 if state.pending else min(CERTAIN, self.patterns.chance(state.patterns))

    def complete(self, state: TextState, tokens: list[int]) -> int | None:
        """How many of `tokens` it takes to complete an entry from here; None if none is completed."""
        for count, token in enumerate(tokens, 1):
            state, hit = self.read(state, token)
            if hit:
                return count
        return None

    def table(self, state: TextState) -> TokenTable:
        """The effects of all tokens in `state`."""
        table = self._tables.pop(state, None) or self._make(state)
        self._tables[state] = table  # the end of a dict is its newest part
        while len(self._tables) > max(_KEPT_TABLES, _KEPT_SCORES // self.size):
            del self._tables[next(iter(self._tables))]
        return table

    def read(self, state: TextState, token: int) -> tuple[TextState, bool]:
        """The state after `token`, and whether it completes an entry."""
        piece = self.vocabulary.piece(token)
        if not piece:
            return state, False
        if token in self.vocabulary.fallback:
            return self._read_fallback(state, as_bytes(piece))
        start, late = self._flush(state) if state.run else (state.patterns, False)
        text, pending = add_piece(b"" if state.run else state.pending, piece, self.vocabulary.errors)
        patterns, hit = self.patterns.read(start, text)
        return TextState(patterns, pending), late or hit

    def _read_fallback(self, state: TextState, byte: bytes) -> tuple[TextState, bool]:
        before = state.before if state.run else state.patterns
        if before is None:
            patterns, hit = self.patterns.read(state.patterns, REPLACEMENT)
            return state._replace(patterns=patterns), hit
        run = state.run + byte
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            text = decoder.decode(state.pending + byte)
        except UnicodeDecodeError:
            patterns, hit = self.patterns.read(before, decode_run(run))
            return TextState(patterns, run=_BROKEN), hit
        patterns, hit = self.patterns.read(state.patterns, text)
        return TextState(patterns, decoder.getstate()[0], run, before), hit

    def _flush(self, state: TextState) -> tuple[PatternState, bool]:
        """The state after an invalid character, where one has started."""
        if state.pending and state.before is not None:
            return self.patterns.read(state.before, decode_run(state.run))
        return self.patterns.read(state.patterns, state.pending.decode("utf-8", self.vocabulary.errors))

    def _make(self, state: TextState) -> TokenTable:
        flushed, broken = self._flush(state)
        if broken:
            outcomes = {token: Outcome(True, False, 0.0) for tokens in self._tokens for token in tokens}
        else:
            base = self.patterns.neutral(flushed)
            if base not in self._outcomes:
                self._outcomes[base] = self._judged(TextState(base), self._walk(base, None))
            outcomes = dict(self._outcomes[base])
            if flushed != base:
                outcomes |= self._judged(TextState(flushed), self._walk(flushed, base))
        if self.ends(state):
            outcomes |= self._judged(state, ((token, Outcome(False, True, 0.0)) for token in self._silent))
        outcomes |= self._judged(state, ((token, self._outcome(state, token)) for token in self._parts))
        return self._pack(outcomes)

    def _outcome(self, state: TextState, token: int) -> Outcome:
        after, hit = self.read(state, token)
        return Outcome(hit, not hit and self.ends(after), 0.0 if hit else self.chance(after))

    def _judged(self, state: TextState, outcomes: Iterable[tuple[int, Outcome]]) -> dict[int, Outcome]:
        """The effects of tokens after `state`, including effects that only show in the following tokens."""
        judged = {}
        for token, outcome in outcomes:
            if not outcome.hit and (outcome.ends or self._is_part(token)):
                outcome = self._with_way_on(self.advance(state, token), outcome)
            if outcome.chance:
                outcome = outcome._replace(chance=self._spelled(state, token, outcome.chance))
            judged[token] = outcome
        return judged

    def _pack(self, outcomes: dict[int, Outcome]) -> TokenTable:
        closed = [token for token, outcome in outcomes.items() if outcome.hit]
        ending = {token: outcome.needs for token, outcome in outcomes.items() if outcome.ends}
        risky = {token: outcome.chance for token, outcome in outcomes.items() if outcome.chance and not outcome.hit}
        shift = torch.zeros(self.size)
        ids = torch.tensor(list(risky), dtype=torch.long)
        chances = torch.tensor(list(risky.values())).clamp(max=CERTAIN)
        shift[ids] = torch.log1p(-chances)
        mask = torch.zeros(self.size, dtype=torch.bool)
        mask[closed] = True
        shift = shift.masked_fill(mask, -torch.inf)
        return TokenTable(
            shift=shift,
            closed=mask,
            completing=torch.tensor(closed, dtype=torch.long),
            ending=torch.tensor(list(ending), dtype=torch.long),
            needs=torch.tensor(list(ending.values()), dtype=torch.long),
            risky=ids,
            chances=chances,
            greatest=max(risky.values(), default=0.0),
        )

    def _spelled(self, state: TextState, token: int, chance: float) -> float:
        """The part of a token's probability that is real: a model writes words in the tokens it was trained on.

        After " a" a sub-word model does not write "ss" if " ass" is a token, so " a" does not start that word.
        """
        if self.vocabulary.longest <= 1 or isinstance(self.vocabulary.piece(token), bytes):
            return chance
        ways = self.patterns.ways(self.advance(state, token).patterns)
        if not ways:
            return chance
        real = 0.0
        for rest in ways:
            if not rest.text or self.vocabulary.begins_with(token, rest.text):
                real += rest.chance
        return min(chance, real)

    def _is_part(self, token: int) -> bool:
        return isinstance(self.vocabulary.piece(token), bytes) or token in self.vocabulary.fallback

    def _with_way_on(self, after: TextState, outcome: Outcome) -> Outcome:
        """The effect of a token, masked where the text may neither end nor continue after it."""
        if after.pending:
            key = (after.patterns, after.pending, bool(after.run))
            if key not in self._ways_on:
                self._ways_on[key] = self._bytes_to_go(*key)
            needs = self._ways_on[key]
            if needs == _UNWRITABLE:
                needs = None if outcome.ends else 0
        else:
            key = (after.patterns, b"", False)
            if key not in self._ways_on:
                self._ways_on[key] = 1 if self._leads_on(after.patterns) else None
            needs = self._ways_on[key] if outcome.ends else 0
        return outcome._replace(hit=True) if needs is None else outcome._replace(needs=needs)

    def _leads_on(self, place: PatternState) -> bool:
        """Whether some character may follow after which the text may end."""
        for letter in self.vocabulary.letters:
            patterns, hit = self.patterns.step(place, letter)
            if not hit and not self.patterns.ends(patterns):
                return True
        return False

    def _bytes_to_go(self, place: PatternState, pending: bytes, in_run: bool) -> int | None:
        """Fewest tokens that complete the character started by `pending` without an entry, so that the text may end.

        Returns:
            None if every such character completes an entry, `_UNWRITABLE` if no tokens complete it at all.
        """
        if not self.vocabulary.all_continuations(in_run):
            return self._parts_to_go(TextState(place, pending, pending if in_run else b"", place))
        first, last, missing = characters_behind(pending)
        samples = (chr(first + (last - first) * part // _SAMPLES) for part in range(_SAMPLES + 1))
        if any(self._may_stand(place, char) for char in samples if not is_surrogate(char)):
            return missing
        if any(self._may_stand(place, char) for char in self.patterns.classes.representatives(first, last)):
            return missing
        return None

    def _may_stand(self, place: PatternState, char: str) -> bool:
        patterns, hit = self.patterns.step(place, char)
        return not hit and not self.patterns.ends(patterns)

    def _parts_to_go(self, state: TextState, tokens: int = 1) -> int | None:
        """The same where only some bytes are tokens; `tokens` counts those used so far."""
        found: list[int | None] = []
        for token in self._parts if tokens <= _LONGEST_CHARACTER else ():
            raw = as_bytes(self.vocabulary.piece(token))
            if bool(state.run) != (token in self.vocabulary.fallback) or not continues(state.pending, raw):
                continue
            after, hit = self.read(state, token)
            if after.pending:
                found.append(None if hit else self._parts_to_go(after, tokens + 1))
            else:
                found.append(None if hit or self.patterns.ends(after.patterns) else tokens)
        writable = [needs for needs in found if needs != _UNWRITABLE]
        known = [needs for needs in writable if needs is not None]
        return min(known) if known else None if writable else _UNWRITABLE

    def _walk(self, start: PatternState, base: PatternState | None) -> Iterator[tuple[int, Outcome]]:
        """Read every piece from `start`; shared prefixes of pieces are read only once.

        With `base`, only the pieces that act differently in the two states are examined.

        Yields:
            Tokens and their effects; without `base`, only tokens that have one.
        """
        order, step, idle = self._order, self.patterns.step, self.patterns.idle
        path, beside = [start], [base]
        before, index, rough = "", 0, 0
        while index < len(order):
            piece = order[index]
            while rough < len(self._rough) and self._rough[rough] < index:
                rough += 1
            following = self._rough[rough] if rough < len(self._rough) else len(order)
            # Where nothing has started, letters have no effect: skip to a piece that contains something else.
            hasty = base is None and following > index
            shared = 0
            limit = min(len(piece), len(path) - 1, len(before))
            while shared < limit and piece[shared] == before[shared]:
                shared += 1
            del path[shared + 1 :], beside[shared + 1 :]
            before, closed, same, resting = piece, False, False, False
            for char in piece[shared:]:
                state, closed = step(path[-1], char)
                if closed:
                    break
                path.append(state)
                if base is not None:
                    other = step(beside[-1], char)[0]  # type: ignore[arg-type]
                    beside.append(other)
                    same = state == other
                    if same:
                        break
                elif hasty and char in ascii_letters and idle(state):
                    resting = True
                    break
            depth = len(path) - 1 + closed
            if closed or same:
                # Every piece with this prefix has the same effect: masked here, or as in the state where nothing has
                # started.
                end = bisect_left(order, piece[:depth] + _LAST, lo=index + 1)
                if closed:
                    for tokens in self._tokens[index:end]:
                        for token in tokens:
                            yield token, Outcome(True, False, 0.0)
                index = end
                continue
            if resting:
                index = min(following, bisect_left(order, piece[:depth] + _LAST, lo=index + 1))
                continue
            outcome = Outcome(False, self.patterns.ends(path[-1]), self.patterns.chance(path[-1]))
            if base is not None or outcome != NOTHING:
                for token in self._tokens[index]:
                    yield token, outcome
            index += 1
