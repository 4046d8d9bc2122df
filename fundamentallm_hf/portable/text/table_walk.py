"""Reads every token of a vocabulary from one state of the patterns.

The tokens form a tree: those with a common prefix share a path. States and characters are numbered, so that all nodes
of one depth are advanced at once by a look-up in an array of transitions, and the patterns are asked only once for the
transition of a state by a character. The walk handles only tokens that are whole characters, not bytes.
"""

import threading
from typing import NamedTuple

import numpy as np

from .prefix_tree import CodedTexts, PrefixTree
from .text_patterns import PatternState, TextPatterns

# Numbers that the transitions may take up; when there are more, they are forgotten (64 MB).
_MOST_MOVES = 1 << 24
# With more different characters than this, only the transitions that are known are stored.
_WIDEST = 1 << 11
# Results of whole passes that are kept.
_KEPT_PASSES = 4
# The number of the state in which an entry is complete, and the mark of a transition that is not known yet.
_COMPLETE, _UNKNOWN = 0, -1


class Outcome(NamedTuple):
    """The effect of one token.

    Attributes:
        hit: the token completes an entry.
        ends: an entry is complete if the text ends after the token.
        chance: the probability that the match in progress after the token becomes an entry.
        needs: tokens that must follow before the text may end.
    """

    hit: bool
    ends: bool
    chance: float
    needs: int = 0


class Outcomes(NamedTuple):
    """The effects of some tokens, the places of which are ascending.

    Attributes:
        places: (outcomes,) which of the tokens that were read.
        hit, ends, chance: (outcomes,) as in `Outcome`.
        after: (outcomes,) the numbers of the states after them.
        states: the states by number.
    """

    places: np.ndarray
    hit: np.ndarray
    ends: np.ndarray
    chance: np.ndarray
    after: np.ndarray
    states: list[PatternState]


class _Moves:
    """The transitions of numbered states by numbered characters.

    Args:
        width: how many characters there are.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._table = np.full((64, width), _UNKNOWN, dtype=np.int32) if width <= _WIDEST else None
        # Without a table: the known pairs of state and character, sorted, and the states after them.
        self._pairs, self._after = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)

    @property
    def size(self) -> int:
        """How many numbers are stored."""
        return self._table.size if self._table is not None else 3 * len(self._pairs)

    def after(self, states: np.ndarray, characters: np.ndarray) -> np.ndarray:
        """The states after each of some states and characters; `_UNKNOWN` where that is not stored."""
        if self._table is not None:
            missing = int(states.max(initial=0)) + 1 - len(self._table)
            if missing > 0:
                more = np.full((max(missing, len(self._table)), self.width), _UNKNOWN, dtype=np.int32)
                self._table = np.concatenate([self._table, more])
            return np.asarray(np.where(states == _COMPLETE, _COMPLETE, self._table[states, characters]))
        pairs = states.astype(np.int64) * self.width + characters
        found = np.full(len(pairs), _UNKNOWN, dtype=np.int32)
        if len(self._pairs):
            place = np.searchsorted(self._pairs, pairs).clip(max=len(self._pairs) - 1)
            found = np.where(self._pairs[place] == pairs, self._after[place], _UNKNOWN)
        return np.asarray(np.where(states == _COMPLETE, _COMPLETE, found))

    def store(self, pairs: np.ndarray, after: np.ndarray) -> None:
        """Store transitions; a pair is the number of the state times `width`, plus that of the character."""
        if self._table is not None:
            self._table.reshape(-1)[pairs] = after
            return
        joined = np.concatenate([self._pairs, pairs])
        order = np.argsort(joined, kind="stable")
        self._pairs, self._after = joined[order], np.concatenate([self._after, after])[order]


class TableWalk:
    """Computes the outcomes of all tokens that are whole characters.

    Args:
        patterns: the patterns to look for.
        texts: the text of each token.
        tree: their prefixes; characters that the patterns do not distinguish are one letter.
        strips: the decoder removes one space from the end of the text, so after a token that ends in a space the
            text ends before that space.
    """

    def __init__(self, patterns: TextPatterns, texts: CodedTexts, tree: PrefixTree, strips: bool = False) -> None:
        self.patterns = patterns
        self._tree = tree
        self._stripped = texts.ending(" ") if strips else np.zeros(len(texts.lengths), dtype=bool)
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[PatternState, int] = {}
        self._states: list[PatternState] = [self.patterns.start]  # `_COMPLETE` has no state: this one is not read
        self._ends, self._chances = [False], [0.0]
        self._moves = _Moves(len(self._tree.letters))
        self._passes: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, start: PatternState, base: PatternState | None) -> Outcomes:
        """Read every token from `start`.

        Returns:
            The outcomes of the tokens that have an effect; with `base`, of those on which the two states differ.
        """
        with self._lock:  # several threads may use one table
            if self._moves.size > _MOST_MOVES:
                self._forget()
            others = self._pass(base) if base is not None else None
            after, before = self._pass(start)
            states, ends, chances = self._states, np.array(self._ends), np.array(self._chances)
        idle = ~ends & (chances == 0)
        idle[_COMPLETE] = False
        if others is None:
            differs = ~idle[after] | (self._stripped & ends[before])
        else:
            differs = (after != others[0]) & ~(idle[after] & idle[others[0]])
            differs |= self._stripped & ((before != others[1]) | (after != others[0]))
        places = differs.nonzero()[0]
        after, shown = after[places], np.where(self._stripped, before, after)[places]
        hit = after == _COMPLETE
        return Outcomes(places, hit, ends[shown] & ~hit, chances[after], after, states)

    def _pass(self, start: PatternState) -> tuple[np.ndarray, np.ndarray]:
        """(tokens,) the numbers of the states after each token, and before its last character."""
        number = self._number(start)
        found = self._passes.pop(number, None) or self._read_tree(number)
        while len(self._passes) >= _KEPT_PASSES:
            del self._passes[next(iter(self._passes))]
        self._passes[number] = found  # the end of a dict is its newest item
        return found

    def _read_tree(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        tree = self._tree
        reached = np.empty(len(tree.parents), dtype=np.int32)
        reached[0] = number
        for first, last in tree.depths:
            above, letters = reached[tree.parents[first:last]], tree.characters[first:last]
            after = self._moves.after(above, letters)
            unknown = after == _UNKNOWN
            if unknown.any():
                self._learn(above[unknown], letters[unknown])
                after = self._moves.after(above, letters)
            reached[first:last] = after
        ends, before = reached[tree.ends], reached[tree.parents[tree.ends]]
        for place, rest in tree.longer.items():
            for char in rest:
                before[place] = ends[place]
                ends[place] = self._move(int(ends[place]), char)
        return ends, before

    def _learn(self, states: np.ndarray, letters: np.ndarray) -> None:
        """Ask the patterns for transitions, each once."""
        pairs = np.unique(states.astype(np.int64) * self._moves.width + letters)
        split = (divmod(pair, self._moves.width) for pair in pairs.tolist())
        after = [self._move(state, self._tree.letters[letter]) for state, letter in split]
        self._moves.store(pairs, np.array(after, dtype=np.int32))

    def _move(self, state: int, char: str) -> int:
        if state == _COMPLETE:
            return _COMPLETE
        after, hit = self.patterns.step_once(self._states[state], char)
        return _COMPLETE if hit else self._number(after)

    def _number(self, state: PatternState) -> int:
        found = self._numbers.get(state)
        if found is None:
            found = self._numbers[state] = len(self._states)
            self._states.append(state)
            self._ends.append(self.patterns.ends(state))
            self._chances.append(self.patterns.chance(state))
        return found
