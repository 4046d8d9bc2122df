"""What a decoding loop needs of a network, and what is chosen from one of its passes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch


class Run(NamedTuple):
    """New tokens of one row of a cache.

    Attributes:
        row: the row.
        tokens: the tokens.
        column: of the first of them; earlier columns are computed already.
        positions: of the tokens.
        padding: columns of padding before the row.
        visible: (tokens, columns + tokens) bool, the columns that each token may attend to; by default the earlier
            ones.
    """

    row: int
    tokens: Sequence[int]
    column: int
    positions: Sequence[int]
    padding: int = 0
    visible: torch.Tensor | None = None


class Step(Protocol):
    """One pass of a network over new tokens, with cached keys and values. `LeanStep` implements it."""

    length: int
    cache: torch.Tensor
    states: torch.Tensor | None

    @property
    def rows(self) -> int: ...

    def __call__(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None = None, kept: int = 1
    ) -> torch.Tensor: ...

    def packed(self, runs: Sequence[Run]) -> torch.Tensor: ...

    def aside(
        self, tokens: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor, kept: int = 0
    ) -> torch.Tensor: ...

    def spread(self, copies: int) -> None: ...

    def keep_rows(self, rows: list[int]) -> None: ...


class Chosen(NamedTuple):
    """Choices after several steps of one row, each as if those before it were as they are.

    Attributes:
        scores: (steps, vocabulary) the final scores.
        tokens: the chosen tokens; empty where they are drawn one by one.
    """

    scores: torch.Tensor
    tokens: list[int]
