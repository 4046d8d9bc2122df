"""What a model has read of two kinds of texts: one part to learn from, and the other to measure what was learned."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .word_training import area_under_curve

SIDES = ("with", "without")
# Of this many passages of each side, the last is held out; below the second number none is.
HELD_OUT, LEAST = 5, 10


@dataclass(frozen=True)
class Side:
    """The states and tokens of one side.

    Attributes:
        states: (tokens, hidden size).
        teachers: (tokens, hidden size) the states after the teacher's prompt, nan where there is none; None where no
            passage has a teacher.
        targets: (tokens,) the next tokens.
        owners: (tokens,) the passage of each.
        passages: number of passages that were read.
    """

    states: torch.Tensor
    teachers: torch.Tensor | None
    targets: torch.Tensor
    owners: torch.Tensor
    passages: int

    def only(self, picked: torch.Tensor) -> "Side":
        """Some of the tokens; `picked` is (tokens,) bool."""
        teachers = None if self.teachers is None else self.teachers[picked]
        return Side(self.states[picked], teachers, self.targets[picked], self.owners[picked], self.passages)

    def passage_means(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of each passage; `values` is (tokens, ...) in float32, and the result (passages, ...)."""
        _, passages = self.owners.unique(return_inverse=True)
        counts = passages.bincount()
        sums = torch.zeros(len(counts), *values.shape[1:]).index_add_(0, passages, values)
        return sums / counts.view(-1, *[1] * (values.dim() - 1))


class Sides(NamedTuple):
    """Both sides.

    Attributes:
        having: the texts with the attribute.
        lacking: those without it.
    """

    having: Side
    lacking: Side

    def _held_out(self) -> list[torch.Tensor]:
        """(tokens,) bool for each side."""
        enough = min(side.passages for side in self) >= LEAST
        return [(side.owners % HELD_OUT == HELD_OUT - 1) & enough for side in self]

    def learned(self) -> Iterator[Side]:
        """Of each side the tokens to learn from."""
        return (side.only(~out) for side, out in zip(self, self._held_out(), strict=True))

    def results(
        self, score: Callable[[Side], Sequence[float]]
    ) -> tuple[float | None, tuple[int, int], tuple[int, int]]:
        """The fields of a `SidesTraining`; `score` gives one number for each passage of a held-out part."""
        held = self._held_out()
        separation = None
        if held[0].any():
            separation = area_under_curve(*(score(side.only(out)) for side, out in zip(self, held, strict=True)))
        having, lacking = (int((~out).sum()) for out in held)
        return separation, (self.having.passages, self.lacking.passages), (having, lacking)


@dataclass(frozen=True)
class SidesTraining:
    """What was learned from both sides, apart from the result itself.

    Attributes:
        separation: on held-out texts, the probability that one with the attribute has a higher score than one without
            (the area under the ROC curve: 0.5 is random); None where there were too few to hold some out.
        texts: number of texts that were read with the attribute, and without.
        tokens: number of tokens of the texts that were not held out, with the attribute, and without.
    """

    separation: float | None
    texts: tuple[int, int]
    tokens: tuple[int, int]
