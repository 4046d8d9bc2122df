"""Reads every token of a vocabulary from one state of the patterns.

Tokens with a common prefix are read together, and the transition of a state by a character is computed once. So a pass
over a large vocabulary takes a few steps per token. The walk handles only tokens that are whole characters, not bytes.
"""

from bisect import bisect_left
from collections.abc import Iterator
from string import ascii_letters
from typing import NamedTuple

from .pieces import PiecesInOrder, shared_length
from .text_patterns import PatternState, TextPatterns

_LAST = "\U0010ffff"
# Cached transitions; when there are more, the cache is cleared (about 100 MB).
_MOST_MOVES = 1 << 18


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


class _WalkState:
    """A state of the patterns, its transitions by character (None if it completes an entry), and its outcome."""

    __slots__ = ("moves", "outcome", "state")

    def __init__(self, state: PatternState, patterns: TextPatterns) -> None:
        self.state = state
        self.moves: dict[str, _WalkState | None] = {}
        self.outcome = Outcome(False, patterns.ends(state), patterns.chance(state))


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
        self.strips = strips
        self._order, self._starts, self._tokens, self._rough = in_order
        self._states: dict[PatternState, _WalkState] = {}
        self._moves = 0

    def everything(self) -> Iterator[int]:
        """All tokens that are whole characters."""
        yield from self._tokens

    def __call__(self, start: PatternState, base: PatternState | None) -> Iterator[tuple[int, Outcome, PatternState]]:
        """Read every piece from `start`; with `base`, only those on which the two states differ.

        Yields:
            Tokens, their outcomes and the states after them; without `base`, only tokens that have an effect.
        """
        if self._moves > _MOST_MOVES:
            self._states.clear()
            self._moves = 0
        order = self._order
        path = [self._state(start)]
        base_path = [self._state(base)] if base is not None else []
        # Where no match has started, letters have no effect: skip to a piece with other characters.
        rests = base is None and not self.patterns.is_restless
        before, index, rough = "", 0, 0
        while index < len(order):
            piece = order[index]
            following = len(order)
            if rests:
                while rough < len(self._rough) and self._rough[rough] < index:
                    rough += 1
                following = self._rough[rough] if rough < len(self._rough) else following
            shared = min(len(path) - 1, shared_length(piece, before))
            del path[shared + 1 :], base_path[shared + 1 :]
            before = piece
            fate = self._read(piece[shared:], path, base_path, rests and following > index)
            depth = len(path) - 1
            if fate == "masked":
                # Every piece with this prefix is masked as well.
                end = bisect_left(order, piece[: depth + 1] + _LAST, lo=index + 1)
                for token in self._tokens[self._starts[index] : self._starts[end]]:
                    yield token, _HIT, path[-1].state
                index = end
            elif fate == "same":
                index = bisect_left(order, piece[:depth] + _LAST, lo=index + 1)
            elif fate == "resting":
                index = min(following, bisect_left(order, piece[:depth] + _LAST, lo=index + 1))
            else:
                outcome = path[-1].outcome
                if self.strips and piece.endswith(" "):
                    outcome = outcome._replace(ends=path[-2].outcome.ends)
                if base is not None or outcome != NOTHING:
                    for token in self._tokens[self._starts[index] : self._starts[index + 1]]:
                        yield token, outcome, path[-1].state
                index += 1

    def _read(self, rest: str, path: list[_WalkState], base_path: list[_WalkState], hasty: bool) -> str:
        """Extend `path` by `rest`. Returns why it stopped early: "masked", "same" (as from `base`) or "resting"."""
        for char in rest:
            here = path[-1]
            after = here.moves[char] if char in here.moves else self._move(here, char)
            if after is None:
                return "masked"
            path.append(after)
            if base_path:
                other = base_path[-1]
                base_after = other.moves[char] if char in other.moves else self._move(other, char)
                # No match has started in `base`, so an entry completed there is completed here too.
                assert base_after is not None
                base_path.append(base_after)
                if base_after is after and not (self.strips and char == " "):
                    return "same"
            elif hasty and char in ascii_letters and self.patterns.idle(after.state):
                return "resting"
        return ""

    def _move(self, here: _WalkState, char: str) -> _WalkState | None:
        state, hit = self.patterns.step(here.state, char)
        here.moves[char] = after = None if hit else self._state(state)
        self._moves += 1
        return after

    def _state(self, state: PatternState) -> _WalkState:
        found = self._states.get(state)
        if found is None:
            found = self._states[state] = _WalkState(state, self.patterns)
        return found
