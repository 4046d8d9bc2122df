"""Reads every token of a vocabulary from one state of the patterns.

Tokens that begin alike are read together, and what a character does in a state is looked up once, so that a pass over a
large vocabulary costs a few steps for each token. This file knows nothing of bytes: it reads whole characters.
"""

from bisect import bisect_left
from collections.abc import Iterator
from string import ascii_letters
from typing import NamedTuple

from .pieces import PiecesInOrder, shared_length
from .text_patterns import PatternState, TextPatterns

_LAST = "\U0010ffff"
# Steps that are remembered before all are forgotten: about 100 MB.
_MOST_MOVES = 1 << 18


class Outcome(NamedTuple):
    """What one token does.

    Attributes:
        hit: it completes an entry.
        ends: it leaves an entry complete if the text ends behind it.
        chance: that what it leaves begun becomes an entry.
        needs: tokens that have to follow before the text may end.
    """

    hit: bool
    ends: bool
    chance: float
    needs: int = 0


NOTHING = Outcome(False, False, 0.0)
_HIT = Outcome(True, False, 0.0)


class _Stand:
    """A state of the patterns: where each character leads, None if it completes an entry, and what it is worth."""

    __slots__ = ("moves", "outcome", "state")

    def __init__(self, state: PatternState, patterns: TextPatterns) -> None:
        self.state = state
        self.moves: dict[str, _Stand | None] = {}
        self.outcome = Outcome(False, patterns.ends(state), patterns.chance(state))


class TableWalk:
    """Finds the outcomes of all tokens that are whole characters.

    Args:
        patterns: what is looked for.
        in_order: the tokens, those that the patterns do not tell apart under one text.
        strips: the decoder takes one space from the end of the text, so a token that ends in one leaves the text
            complete where it was before the space.
    """

    def __init__(self, patterns: TextPatterns, in_order: PiecesInOrder, strips: bool = False) -> None:
        self.patterns = patterns
        self.strips = strips
        self._order, self._tokens, self._rough = in_order
        self._stands: dict[PatternState, _Stand] = {}
        self._moves = 0

    def everything(self) -> Iterator[int]:
        """All tokens that are whole characters."""
        for tokens in self._tokens:
            yield from tokens

    def __call__(self, start: PatternState, base: PatternState | None) -> Iterator[tuple[int, Outcome, PatternState]]:
        """Read every piece from `start`; with `base`, only those on which the two states differ.

        Yields:
            Tokens, their outcomes and the states behind them; without `base`, only tokens that do something.
        """
        if self._moves > _MOST_MOVES:
            self._stands.clear()
            self._moves = 0
        order = self._order
        path = [self._stand(start)]
        beside = [self._stand(base)] if base is not None else []
        # Behind nothing that was begun letters do nothing: on to a piece that holds something else.
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
            del path[shared + 1 :], beside[shared + 1 :]
            before = piece
            fate = self._read(piece[shared:], path, beside, rests and following > index)
            depth = len(path) - 1
            if fate == "closed":
                # Every piece with this beginning is closed as well.
                end = bisect_left(order, piece[: depth + 1] + _LAST, lo=index + 1)
                for tokens in self._tokens[index:end]:
                    for token in tokens:
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
                    for token in self._tokens[index]:
                        yield token, outcome, path[-1].state
                index += 1

    def _read(self, rest: str, path: list[_Stand], beside: list[_Stand], hasty: bool) -> str:
        """Read on from the end of `path`; tells why that ended early: "closed", "same" as beside, or "resting"."""
        for char in rest:
            here = path[-1]
            after = here.moves[char] if char in here.moves else self._move(here, char)
            if after is None:
                return "closed"
            path.append(after)
            if beside:
                other = beside[-1]
                behind = other.moves[char] if char in other.moves else self._move(other, char)
                # What `base` would complete is complete here, too: it is where nothing was begun.
                assert behind is not None
                beside.append(behind)
                if behind is after and not (self.strips and char == " "):
                    return "same"
            elif hasty and char in ascii_letters and self.patterns.idle(after.state):
                return "resting"
        return ""

    def _move(self, here: _Stand, char: str) -> _Stand | None:
        state, hit = self.patterns.step(here.state, char)
        here.moves[char] = after = None if hit else self._stand(state)
        self._moves += 1
        return after

    def _stand(self, state: PatternState) -> _Stand:
        found = self._stands.get(state)
        if found is None:
            found = self._stands[state] = _Stand(state, self.patterns)
        return found
