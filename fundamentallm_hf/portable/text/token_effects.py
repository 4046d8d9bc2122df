"""The effects of many tokens as arrays: of those that have one."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .table_walk import Outcome


class TokenEffects(NamedTuple):
    """What tokens do to a text; all others do nothing.

    Attributes:
        tokens: (effects,) int64, their ids.
        hit, ends, chance, needs: (effects,) as in `Outcome`.
    """

    tokens: np.ndarray
    hit: np.ndarray
    ends: np.ndarray
    chance: np.ndarray
    needs: np.ndarray

    @classmethod
    def of(cls, outcomes: Sequence[tuple[int, Outcome]]) -> "TokenEffects":
        """Tokens with their outcomes."""
        tokens = np.array([token for token, _ in outcomes], dtype=np.int64)
        columns = zip(*(outcome for _, outcome in outcomes), strict=True) if outcomes else ([],) * 4
        kinds = (bool, bool, np.float64, np.int64)
        return cls(tokens, *(np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True)))

    @classmethod
    def complete(cls, tokens: np.ndarray) -> "TokenEffects":
        """(tokens,) ids, each of which completes an entry."""
        nothing = np.zeros(len(tokens), dtype=np.int64)
        return cls(tokens, nothing == 0, nothing > 0, nothing.astype(np.float64), nothing)

    def without(self, tokens: np.ndarray) -> "TokenEffects":
        """The effects of all others than some tokens, (tokens,)."""
        kept = ~np.isin(self.tokens, tokens)
        return TokenEffects(*(column[kept] for column in self))

    def updated(self, others: "TokenEffects") -> "TokenEffects":
        """These effects, but for the tokens of `others`, which have those; in the order of ids."""
        if not len(others.tokens):
            return self
        columns = zip(self.without(others.tokens), others, strict=True)
        joined = [np.concatenate(pair) for pair in columns]
        order = joined[0].argsort(kind="stable")
        return TokenEffects(*(column[order] for column in joined))


def alike_together(numbers: np.ndarray, which: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each number that occurs where `which` holds, and its places there; both are (numbers,)."""
    places = which.nonzero()[0]
    places = places[numbers[places].argsort(kind="stable")]
    ordered = numbers[places]
    borders = (ordered[1:] != ordered[:-1]).nonzero()[0] + 1
    for same in np.split(places, borders) if len(places) else ():
        yield int(numbers[same[0]]), same
