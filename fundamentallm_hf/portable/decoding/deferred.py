"""Prepares a call of `generate()` without running it, so that a scheduler can run the loops of many calls together."""

from collections.abc import Callable

import torch

from .lean_loop import LeanLoop
from .network_step import Step


class CannotDefer(Exception):
    """The call needs transformers' loop, which runs to its end."""


class Deferred:
    """Passed as `custom_generate`: takes the prepared loop; `generate()` then returns the prompts alone.

    Args:
        make_step: creates the step of the loop for a number of rows and a number of columns; None for the usual one.
        plain: `make_step` suits the model, which was checked at an earlier call and has not changed since.

    Attributes:
        loop: the loop, once `generate()` has returned. Whoever runs it calls `open` before and `close` after.
    """

    def __init__(self, make_step: Callable[[int, int], Step] | None = None, plain: bool = False) -> None:
        self.make_step, self.plain = make_step, plain
        self.loop: LeanLoop | None = None

    def take(self, loop: LeanLoop) -> torch.Tensor:
        """Keep the loop. Returns what `generate()` returns, (rows, length)."""
        self.loop = loop
        return loop.call.prompts

    def __call__(self) -> None:
        """Never called: `Decoding` recognises the object."""
        raise CannotDefer
