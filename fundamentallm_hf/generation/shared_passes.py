"""One pass of the network for the next tokens of many texts, whose loops do not know of each other."""

from collections.abc import Sequence
from typing import Any

import torch

from fundamentallm_hf.portable.decoding.network_step import Run
from fundamentallm_hf.portable.model.lean_step import LeanStep

# Columns beyond the context window, for tokens that a lookahead computes without keeping them.
_SPARE = 64


class SharedPasses:
    """Keys and values of many texts in one tensor, a row for each.

    Args:
        model: a model for which `plain_network` holds.
        rows: how many texts there can be at a time.

    Attributes:
        steps: those of the texts, in the order of their rows.
        passes: number of passes so far.
        advanced: number of texts in each pass, summed over all passes.
    """

    def __init__(self, model: Any, rows: int) -> None:
        self._network = LeanStep(model, rows, model.config.max_position_embeddings + _SPARE)
        self.cache = self._network.cache
        self.steps: list[TextStep] = []
        self.passes = self.advanced = 0

    def new_step(self, rows: int, columns: int) -> "TextStep":
        """The step of another text; see `LeanLoop`."""
        assert rows == 1
        assert len(self.steps) < self.cache.shape[2]
        step = TextStep(self, self._network, len(self.steps))
        self.steps.append(step)
        return step

    @torch.inference_mode()
    def remove(self, step: "TextStep") -> None:
        """Free the row of a text. The last text moves there, so that the rows in use stay adjacent."""
        last = self.steps.pop()
        if last is not step:
            self.cache[:, :, step.row, :, : last.length] = self.cache[:, :, last.row, :, : last.length]
            last.row = step.row
            self.steps[last.row] = last

    @torch.inference_mode()
    def grow(self, columns: int) -> None:
        """Extend the cache to at least this many columns."""
        now = self.cache.shape[4]
        if columns > now:
            more = max(columns, min(2 * now, self._network.columns)) - now
            self.cache = torch.nn.functional.pad(self.cache, (0, 0, 0, more))

    def compute(
        self, steps: Sequence["TextStep"], tokens: Sequence[Sequence[int]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Compute the next tokens of several texts in one pass.

        Args:
            steps: of the texts, in the order of their rows; their lengths grow by the numbers of their tokens.
            tokens: of each text.

        Returns:
            For each text the logits, (tokens, vocabulary) in float32, and the input of the output layer, (tokens,
            hidden size).
        """
        sizes = [len(each) for each in tokens]
        runs = [
            Run(step.row, each, step.length, range(step.length, step.length + len(each)))
            for step, each in zip(steps, tokens, strict=True)
        ]
        # The network would extend only the part that it is given.
        self.grow(max(step.length + size for step, size in zip(steps, sizes, strict=True)))
        self._network.cache = self.cache[:, :, : len(self.steps)]
        logits = self._network.packed(runs)
        logits = logits.to(torch.float32, copy=True)
        states = self._network.states
        assert states is not None
        for step, size in zip(steps, sizes, strict=True):
            step.length += size
        self.passes += 1
        self.advanced += len(steps)
        return list(zip(logits.split(sizes), states.split(sizes), strict=True))


class TextStep(LeanStep):
    """The step of one text, whose keys and values are a row of the shared ones.

    Args:
        shared: holds the keys and values of all texts.
        network: whose weights it uses.
        row: of the text; it changes when another text ends.
    """

    def __init__(self, shared: SharedPasses, network: LeanStep, row: int) -> None:
        self.__dict__.update({name: value for name, value in vars(network).items() if name != "cache"})
        self.shared, self.row = shared, row
        self.length, self.states = 0, None

    @property
    def cache(self) -> torch.Tensor:
        """(layers, 2, 1, heads, columns, head size) a view of the shared tensor."""
        return self.shared.cache[:, :, self.row : self.row + 1]

    @cache.setter
    def cache(self, value: torch.Tensor) -> None:
        self.shared.grow(value.shape[4])  # a lookahead has asked for more columns
