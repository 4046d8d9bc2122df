"""Reads every token of a vocabulary from one state of the patterns.

The tokens form a tree: those with a common prefix share a path. States and characters are numbered, so that all nodes
of one depth are advanced at once by a look-up in an array of transitions, and the patterns are asked only once for the
transition of a state by a character. The walk handles only tokens that are whole characters, not bytes.
"""

import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .pieces import PiecesInOrder
from .text_patterns import PatternState, TextPatterns

# Numbers that the transitions may take up; when there are more, they are forgotten (64 MB).
_MOST_MOVES = 1 << 24
# With more different characters than this, only the transitions that are known are stored.
_WIDEST = 1 << 11
# Results of whole passes that are kept.
_KEPT_PASSES = 4
# Characters of a piece that are read as part of the tree; the rest of a longer one is read alone.
_DEEPEST = 32
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


NOTHING = Outcome(False, False, 0.0)
_HIT = Outcome(True, False, 0.0)


class _Tree:
    """The prefixes of all pieces as nodes, ordered by their length.

    Attributes:
        alphabet: the characters, by number.
        parents: (nodes,) the node one character before each; the root is node 0.
        characters: (nodes,) the number of the last character of each.
        depths: the nodes of each length, as pairs of the first and the one after the last.
        ends: (pieces,) the node of each piece, or of its first `_DEEPEST` characters.
        longer: indices of the pieces that are longer.
    """

    def __init__(self, order: list[str]) -> None:
        self.alphabet = sorted(set("".join(order)))
        lengths = np.array([min(len(piece), _DEEPEST) for piece in order], dtype=np.int32)
        deepest = max(1, int(lengths.max(initial=0)))
        self.longer = [index for index, piece in enumerate(order) if len(piece) > _DEEPEST]
        filled = "".join(piece[:deepest].ljust(deepest, "\0") for piece in order)
        codes = np.frombuffer(filled.encode("utf-32-le", "surrogatepass"), dtype="<u4").reshape(len(order), deepest)
        places = np.zeros(1 + max(map(ord, self.alphabet), default=0), dtype=np.int32)
        places[list(map(ord, self.alphabet))] = np.arange(len(self.alphabet))
        # How many characters each piece shares with the one before.
        alike = np.logical_and.accumulate(codes[1:] == codes[:-1], axis=1)
        shared = np.zeros(len(order), dtype=np.int32)
        shared[1:] = np.minimum(alike.sum(axis=1), lengths[:-1])
        self.ends = np.zeros(len(order), dtype=np.int32)
        above = np.zeros(len(order), dtype=np.int32)
        parents, characters, self.depths = [np.zeros(1, np.int32)], [np.zeros(1, np.int32)], []
        count = 1
        for depth in range(deepest):
            reached = lengths > depth
            new = reached & (shared <= depth)
            nodes = np.cumsum(new, dtype=np.int32) - 1 + count
            parents.append(above[new])
            characters.append(places[codes[new, depth]])
            above = np.where(reached, nodes, above)
            self.ends[reached] = nodes[reached]
            self.depths.append((count, count + int(new.sum())))
            count = self.depths[-1][1]
        self.parents, self.characters = np.concatenate(parents), np.concatenate(characters)


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
        in_order: the tokens; those that the patterns do not distinguish share one text.
        strips: the decoder removes one space from the end of the text, so after a token that ends in a space the
            text ends before that space.
    """

    def __init__(self, patterns: TextPatterns, in_order: PiecesInOrder, strips: bool = False) -> None:
        self.patterns = patterns
        self._order, self._starts, self._tokens, derived = in_order
        if "tree" not in derived:
            derived["tree"] = _Tree(self._order)
        self._tree: _Tree = derived["tree"]
        self._stripped = np.array([strips and piece.endswith(" ") for piece in self._order], dtype=bool)
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[PatternState, int] = {}
        self._states: list[PatternState] = [self.patterns.start]  # `_COMPLETE` has no state: this one is not read
        self._outcomes: list[Outcome] = [_HIT]
        self._idle = [False]
        self._moves = _Moves(len(self._tree.alphabet))
        self._passes: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def everything(self) -> Iterator[int]:
        """All tokens that are whole characters."""
        yield from self._tokens

    def __call__(self, start: PatternState, base: PatternState | None) -> Iterator[tuple[int, Outcome, PatternState]]:
        """Read every piece from `start`; with `base`, only those on which the two states differ.

        Yields:
            Tokens, their outcomes and the states after them; without `base`, only tokens that have an effect.
        """
        with self._lock:  # several threads may use one table
            if self._moves.size > _MOST_MOVES:
                self._forget()
            others = self._pass(base) if base is not None else None
            last, before = self._pass(start)
            states, outcomes = self._states, self._outcomes
            idle = np.array(self._idle)
        if others is None:
            differs = ~idle[last] | self._stripped
        else:
            differs = (last != others[0]) & ~(idle[last] & idle[others[0]])
            differs |= self._stripped & ((before != others[1]) | (last != others[0]))
        for index in np.nonzero(differs)[0].tolist():
            outcome, after = outcomes[last[index]], states[last[index]]
            if self._stripped[index] and not outcome.hit:
                outcome = outcome._replace(ends=outcomes[before[index]].ends)
            if base is not None or outcome != NOTHING:
                for token in self._tokens[self._starts[index] : self._starts[index + 1]]:
                    yield token, outcome, after

    def _pass(self, start: PatternState) -> tuple[np.ndarray, np.ndarray]:
        """(pieces,) the numbers of the states after each piece, and before its last character."""
        number = self._number(start)
        if number in self._passes:
            return self._passes[number]
        tree = self._tree
        reached = np.empty(len(tree.parents), dtype=np.int32)
        reached[0] = number
        for first, last in tree.depths:
            above, chars = reached[tree.parents[first:last]], tree.characters[first:last]
            after = self._moves.after(above, chars)
            unknown = after == _UNKNOWN
            if unknown.any():
                self._learn(above[unknown], chars[unknown])
                after = self._moves.after(above, chars)
            reached[first:last] = after
        ends, before = reached[tree.ends], reached[tree.parents[tree.ends]]
        for index in tree.longer:
            for char in self._order[index][_DEEPEST:]:
                before[index] = ends[index]
                ends[index] = self._move(int(ends[index]), char)
        while len(self._passes) >= _KEPT_PASSES:
            del self._passes[next(iter(self._passes))]
        self._passes[number] = ends, before
        return ends, before

    def _learn(self, states: np.ndarray, chars: np.ndarray) -> None:
        """Ask the patterns for transitions, each once."""
        pairs = np.unique(states.astype(np.int64) * self._moves.width + chars)
        split = (divmod(pair, self._moves.width) for pair in pairs.tolist())
        after = [self._move(state, self._tree.alphabet[char]) for state, char in split]
        self._moves.store(pairs, np.array(after, dtype=np.int32))

    def _move(self, state: int, char: str) -> int:
        if state == _COMPLETE:
            return _COMPLETE
        after, hit = self.patterns.step(self._states[state], char)
        return _COMPLETE if hit else self._number(after)

    def _number(self, state: PatternState) -> int:
        found = self._numbers.get(state)
        if found is None:
            found = self._numbers[state] = len(self._states)
            self._states.append(state)
            outcome = Outcome(False, self.patterns.ends(state), self.patterns.chance(state))
            self._outcomes.append(outcome)
            self._idle.append(outcome == NOTHING)
        return found
