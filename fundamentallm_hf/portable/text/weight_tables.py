"""What each token of a vocabulary is worth, where words, phrases and regular expressions have weights.

A token is worth the logarithm of the factor on its probability: the weights of the entries that it completes, plus the
logarithm of the factor that may be expected of what is begun after it, less what was paid for that before it. Over a
text the expectations cancel, so exactly the weights of its entries are paid, whatever its tokens.

The tokens are read once from a state in which nothing has begun. For every node of the trie and every begun match only
the tokens that it adds something to are noted, when a text is there for the first time; a state is a sum of these.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from .characters import fold_text, is_word
from .pieces import PiecesInOrder, add_piece
from .text_patterns import PatternState
from .token_reader import MOST_STEPS, TextState, TokenReader
from .vocabulary import Vocabulary
from .weighted_patterns import LEAST_VALUE, WeightedPatterns
from .weighted_words import expected_of
from .word_matcher import LiteralState
from .worth_table import WeighedState, WorthTable

# Scores that the kept tables may hold together, and the number of tables that are kept whatever their size.
_MOST_WORTHS, _FEWEST_WORTHS = 1 << 24, 64
# Notes of nodes and matches that are kept.
_MOST_NOTES = 1 << 15
_HIGHEST = "\U0010ffff"

Reached = TypeVar("Reached")


class _Notes(NamedTuple):
    """What one node or one begun match adds to tokens: their ids, weights that are due, factors, those of phrases
    without their words, and stakes."""

    tokens: np.ndarray
    due: np.ndarray
    gain: np.ndarray
    stake: np.ndarray
    beyond: np.ndarray


class WeightTables(TokenReader):
    """Computes and keeps what tokens are worth under one list of weights.

    Args:
        vocabulary: the text that every token adds.
        patterns: the list.
        size: number of scores the model gives. Tokens beyond it are left out.

    Attributes:
        worths: tells of a state what all tokens are worth in it.
        follow_due: tells of a state and a token the state after it, and the weights of the entries that it completes.
    """

    def __init__(self, vocabulary: Vocabulary, patterns: WeightedPatterns, size: int) -> None:
        self._whole = vocabulary
        super().__init__(vocabulary.limited(size), patterns)
        self.weighted, self.size = patterns, size
        self.beginning = WeighedState(self.start)
        self._others: dict[int, WeightTables] = {}
        self.worths = lru_cache(max(_FEWEST_WORTHS, _MOST_WORTHS // size))(self._weigh_all)
        self._bases: dict[PatternState, _Notes] = {}
        self._notes: dict[Any, _Notes] = {}
        self._shares: dict[int, float] = {}
        # Most tokens of most texts lead from one of a few states to another.
        self.follow_due = lru_cache(MOST_STEPS)(self._follow_due)

    def of_size(self, size: int) -> "WeightTables":
        """The same tables for another number of scores; states are the same in both."""
        if size == self.size:
            return self
        if size not in self._others:
            self._others[size] = WeightTables(self._whole, self.weighted, size)
        return self._others[size]

    @cached_property
    def is_single(self) -> bool:
        """Whether every token is a single character."""
        return self.vocabulary.longest == 1 and not self.vocabulary.parts

    @cached_property
    def silent(self) -> np.ndarray:
        """The ids of the tokens that add no text."""
        pieces = self.vocabulary.pieces
        return np.array([*self.vocabulary.silent, *range(len(pieces), self.size)], dtype=np.int64)

    def follow(self, state: WeighedState, token: int) -> WeighedState:
        """The state after `token`."""
        return self.follow_due(state, token)[0]

    def _follow_due(self, state: WeighedState, token: int) -> tuple[WeighedState, float]:
        """The state after `token`, and the weights of the entries that it completes."""
        piece = self.vocabulary.piece(token)
        if not piece:
            return state, 0.0
        after, due = self.settled(self.advance(state.text, token))
        paid = math.log(self.value(token, after.patterns))
        begun, tokens = state.begun, state.tokens + 1
        for char in str(piece) if self.is_single else ():
            begun = begun + fold_text(char) if is_word(char) else ""
        return WeighedState(after, paid, begun, tokens if begun else 0), due

    def follow_prompt(self, state: WeighedState, token: int) -> WeighedState:
        """The state after `token` of a prompt, where a special token starts a new text."""
        return (
            WeighedState(self.restarted(state.text)) if self.vocabulary.is_border(token) else self.follow(state, token)
        )

    def forget_complete(self, state: WeighedState) -> WeighedState:
        """The state at the end of a prompt: what is complete there is not due."""
        return state._replace(text=self.forget(state.text))

    def neutral(self, state: TextState) -> TextState:
        """The same position in a text in which nothing has begun."""
        return TextState(self.weighted.neutral(self.flushed(state)))

    def settled(self, state: TextState) -> tuple[TextState, float]:
        """The same state with nothing due, and what was due."""
        tail = state.patterns.regex
        if not tail.due:
            return state, 0.0
        before = state.before
        if before is not None:
            before = before._replace(regex=before.regex._replace(due=before.regex.due - tail.due))
        patterns = state.patterns._replace(regex=tail._replace(due=0.0))
        return state._replace(patterns=patterns, before=before), tail.due

    def value(self, token: int, after: PatternState) -> float:
        """The factor expected after `token`, by word counts."""
        gain, _ = self._expected(token, after.literal.threads)
        return max(LEAST_VALUE, 1.0 + gain)

    def _weigh_all(self, state: TextState) -> WorthTable:
        """What all tokens are worth in a state."""
        flushed = self.flushed(state)
        if state.fresh or self.weighted.words.tangled:
            read = ((token, self.advance(state, token).patterns) for token in self._order.tokens)
            late = flushed.regex.due
            notes = [self._collected((token, after, after.regex.due - late) for token, after in read)]
        else:
            notes = [self._base(self.weighted.neutral(flushed)), *self._begun(flushed)]
        notes.append(self._partial(state))
        due, gain, stake, beyond = (np.zeros(self.size) for _ in range(4))
        for each in notes:
            due[each.tokens] += each.due
            gain[each.tokens] += each.gain
            stake[each.tokens] += each.stake
            beyond[each.tokens] += each.beyond
        if flushed.literal.pending and not state.fresh and not self.weighted.words.tangled:
            due[self._closing] += self.weighted.words.due_at_end(flushed.literal)
        due += flushed.regex.due
        due[self.silent] = 0.0
        worth = due + np.log(np.maximum(LEAST_VALUE, 1.0 + gain))
        worth[self.silent] = 0.0
        risky = stake.nonzero()[0]
        return WorthTable(
            worth=torch.from_numpy(worth).float(),
            end=flushed.regex.due + self.weighted.due_at_end(flushed),
            risky=risky,
            stakes=stake[risky],
            due=due,
            beyond=beyond,
        )

    def _base(self, base: PatternState) -> _Notes:
        """What tokens add where nothing has begun."""
        if base not in self._bases:
            read = self._read_all(base, lambda state, char: self.weighted.step(state, char)[0], lambda state: True)
            self._bases[base] = self._collected((token, after, after.regex.due) for token, after in read)
        return self._bases[base]

    def _begun(self, state: PatternState) -> Iterator[_Notes]:
        """What each node and each begun match adds to tokens."""
        if len(self._notes) > _MOST_NOTES:
            self._notes.clear()
        for node in state.literal.threads:
            if node not in self._notes:
                self._notes[node] = self._of_node(node)
            yield self._notes[node]
        for live in state.regex.live:
            key = (*live, state.regex.before)
            if key not in self._notes:
                self._notes[key] = self._of_match(*live)
            yield self._notes[key]

    def _of_node(self, node: int) -> _Notes:
        """What a node adds to tokens, but for what is due where no letter follows it."""
        words = self.weighted.words

        def step(read: tuple[LiteralState, float], char: str) -> tuple[LiteralState, float]:
            after, due = words.weigh(read[0], char, begins=False)
            return after, read[1] + due

        # Whether the node is within a word plays no part, because nothing begins.
        start = (LiteralState(frozenset([node]), False, False), 0.0)
        heads = words.followers(node, self._heads)
        read = self._read_all(start, step, lambda read: bool(read[0].threads or read[1]), heads)
        return self._collected((token, PatternState(after[0], None), after[1]) for token, after in read)

    def _of_match(self, number: int, state: Any) -> _Notes:
        """What a begun match of a regular expression adds to tokens, beside what they would add without it."""
        regexes = self.weighted.regexes
        assert regexes is not None
        machine = regexes.machines[number]

        def step(read: tuple[Any, Any, float], char: str) -> tuple[Any, Any, float]:
            if not fold_text(char):
                return read
            (one, due), (other, beside) = regexes.read(number, read[0], char), regexes.read(number, read[1], char)
            return one, other, read[2] + due - beside

        if not state.pending and (machine.distance(state) or 1) > self.vocabulary.longest:
            return self._collected(())
        start = (state, machine.neutral(state), 0.0)
        read = self._read_all(start, step, lambda read: read[0] != read[1] or bool(read[2]))
        return self._collected((token, None, after[2]) for token, after in read)

    def _partial(self, state: TextState) -> _Notes:
        """What tokens add that are not whole characters."""
        found: list[tuple[int, PatternState, float]] = []
        plain = not (state.pending or state.run or state.fresh)
        for tokens in self._parts if plain else [[token] for token in self.vocabulary.parts]:
            after, due = self.settled(self.advance(state, tokens[0]))
            found += [(token, after.patterns, due - self.flushed(state).regex.due) for token in tokens]
        return self._collected(found)

    def _collected(self, read: Iterable[tuple[int, PatternState | None, float]]) -> _Notes:
        """Notes on the tokens that are worth something.

        Args:
            read: tokens, the state after each, if it may expect entries, and what is due.
        """
        rows = []
        for token, after, due in read:
            gain, stake = (0.0, 0.0) if after is None else self._expected(token, after.literal.threads)
            if due or gain or stake:
                beyond = 0.0 if after is None else self.beyond(after)
                rows.append((token, due, gain, stake, beyond))
        columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
        return _Notes(columns[0].astype(np.int64), *columns[1:])

    def _expected(self, token: int, threads: frozenset[int]) -> tuple[float, float]:
        """What the ways on after `token` add to the expected factor, and how uncertain that is.

        A model writes words in the tokens it was trained on: where " ass" is one token, " a" does not begin it.
        """
        expected = self.weighted.words.expected
        known = [expected[node] for node in sorted(threads) if node in expected]
        if known and self.vocabulary.longest > 1 and not isinstance(self.vocabulary.piece(token), bytes):
            begins = self.vocabulary.begins_with
            ways = [way for way in self.weighted.words.ways(threads) if not way.text or begins(token, way.text)]
            return expected_of(ways, self._share(token))
        return sum(gain for gain, _ in known), sum(stake for _, stake in known)

    def beyond(self, state: PatternState) -> float:
        """What phrases, without their words, add to the expected factor in a state."""
        found = self.weighted.words.beyond
        return sum(found.get(node, 0.0) for node in sorted(state.literal.threads)) if found else 0.0

    def _share(self, token: int) -> float:
        """By how much words are likelier after `token` than after its text, which may be spelled in other tokens."""
        if token not in self._shares:
            piece, counts = str(self.vocabulary.piece(token)), self.weighted.counts
            begun = fold_text(piece[1:])
            self._shares[token] = 1.0
            if piece[0] == " " and begun and all(map(is_word, begun)):
                words = counts.beginning(begun)
                spelled = [word for word in words if self.vocabulary.begins_with(token, word[len(begun) :])]
                mass = math.fsum(counts.counts[word] for word in spelled)
                self._shares[token] = counts.mass(begun) / mass if mass else 1.0
        return self._shares[token]

    def _read_all(
        self,
        start: Reached,
        step: Callable[[Reached, str], Reached],
        alive: Callable[[Reached], bool],
        heads: Iterable[str] | None = None,
    ) -> Iterator[tuple[int, Reached]]:
        """The state after every token that is whole characters, as long as states are `alive`.

        Args:
            start: the state before.
            step: reads one character.
            alive: whether a state can still add something.
            heads: the first characters of the tokens; by default all.
        """
        pieces, starts, tokens = self._order
        waiting = [(*self._spans[char], 1, step(start, char)) for char in (self._spans if heads is None else heads)]
        while waiting:
            first, last, depth, state = waiting.pop()
            if not alive(state):
                continue
            if len(pieces[first]) == depth:
                for token in tokens[starts[first] : starts[first + 1]]:
                    yield token, state
                first += 1
            while first < last:
                char = pieces[first][depth]
                end = bisect_left(pieces, pieces[first][: depth + 1] + _HIGHEST, first, last)
                waiting.append((first, end, depth + 1, step(state, char)))
                first = end

    @cached_property
    def _order(self) -> PiecesInOrder:
        """The tokens that are whole characters, by text."""
        return self.vocabulary.in_order

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        """Where the texts with each first character are in `_order`: the first, and the one after the last."""
        pieces, found, first = self._order.order, dict[str, tuple[int, int]](), 0
        while first < len(pieces):
            end = bisect_left(pieces, pieces[first][0] + _HIGHEST, first)
            found[pieces[first][0]] = first, end
            first = end
        return found

    @cached_property
    def _heads(self) -> dict[str, list[str]]:
        """The first characters of tokens by the first folded character of each; none for invisible ones."""
        found: dict[str, list[str]] = {}
        for char in self._spans:
            found.setdefault(fold_text(char, self.weighted.ignore_case)[:1], []).append(char)
        return found

    @cached_property
    def _closing(self) -> np.ndarray:
        """The tokens that begin with a character that is not part of words: a word before them is complete."""
        begin = [
            (token, fold_text(piece)[:1])
            for token, piece in enumerate(self.vocabulary.pieces)
            if isinstance(piece, str)
        ]
        fallback = self.vocabulary.fallback
        return np.array(
            [token for token, char in begin if char and not is_word(char) and token not in fallback], dtype=np.int64
        )

    @cached_property
    def _parts(self) -> list[list[int]]:
        """The tokens that are not whole characters, those together that complete the same ones."""
        found: dict[tuple[str, bool], list[int]] = {}
        for token in self.vocabulary.parts:
            piece, fallback = self.vocabulary.piece(token), token in self.vocabulary.fallback
            text = (
                str(piece) if fallback and isinstance(piece, str) else add_piece(b"", piece, self.vocabulary.errors)[0]
            )
            found.setdefault((text, fallback), []).append(token)
        return [*found.values()]
