"""The states that a model's output layer reads at each step of `generate()`, for controls that use them.

They are recorded while the model runs, so they cost nothing. Where they were not (assisted decoding checks several
tokens in one pass), the rows are computed again, with the same result.
"""

import threading
import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from ..decoding.forward import forward, padding_of, positions_of
from ..decoding.lookahead import InSight
from ..decoding.row_states import row_key
from ..decoding.texts import Texts
from ..decoding.watched_states import StatesWatcher, optional_hook
from .output_experts import OutputWeights


class OutputStates(StatesWatcher):
    """Takes down the states of every row. Stands before all processors that ask the model something themselves.

    Args:
        model: the model that generates.
        padding: (prompt rows,) columns of padding before each prompt; rows made of one prompt are adjacent.
        in_sight: how many of a row's tokens are visible to the model.
        watch: whether the states of a step belong to the rows that the processors receive.
    """

    has_cheap_texts = True

    def __init__(self, model: Any, padding: Sequence[int], in_sight: InSight, watch: bool = True) -> None:
        self.model = model
        self.padding = list(padding) or [0]
        self.in_sight = in_sight
        self.watch = watch
        self._passing: torch.Tensor | None = None
        # The states of a pass, and which of its tokens is the last now, where a loop shows them.
        self.shown: tuple[torch.Tensor, int] | None = None
        self._ids = torch.zeros(0, 0, dtype=torch.long)
        self._of_texts: tuple[torch.Tensor, dict[tuple[int, int], int]] = torch.zeros(0, 0), {}
        self._states: torch.Tensor | None = None
        # The hook is removed with this processor.
        handle = model.get_output_embeddings().register_forward_pre_hook(_watcher(weakref.ref(self)))
        weakref.finalize(self, handle.remove)

    @cached_property
    def output(self) -> OutputWeights:
        """The output layer of the model in float32: a second copy, kept with this, if it has lower precision.

        Raises:
            ValueError: it has no plain weights, such as one that is quantized. Its states are read all the same.
        """
        return OutputWeights.of(self.model).in_float32()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary), returned unchanged."""
        passed, self._passing = self._passing, None
        fits = self.watch and passed is not None and len(passed) == len(input_ids)
        self._ids, self._states = input_ids, passed[:, -1].detach() if fits and passed is not None else None
        return scores

    def show(self, states: torch.Tensor, index: int) -> None:
        """See `StatesWatcher`."""
        self._passing = states[:, index : index + 1]
        self.shown = states, index

    def show_all(self, states: torch.Tensor, texts: Texts) -> None:
        """See `StatesWatcher`."""
        places = enumerate(zip(texts.rows, texts.lengths, strict=True))
        self._of_texts = states, {text: place for place, text in places}

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. `scores` are returned unchanged."""
        return scores

    def of_texts(self, texts: Texts) -> tuple[torch.Tensor, list[int]]:
        """The states of the pass over these texts, (texts of it, hidden size), and the place of each among them."""
        states, places = self._of_texts
        return states, [places[text] for text in zip(texts.rows, texts.lengths, strict=True)]

    def is_current(self, input_ids: torch.Tensor) -> bool:
        """Whether the states at hand are those behind `input_ids`, (rows, length)."""
        return self._states is not None and torch.equal(self._ids, input_ids)

    def of(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(rows, hidden size) what the output layer reads behind every row of `input_ids`, (rows, length)."""
        if self._states is not None and self.is_current(input_ids):
            return self._states
        return self._read(input_ids)

    @torch.no_grad()
    def _read(self, input_ids: torch.Tensor) -> torch.Tensor:
        if min(self.padding) < 0:
            raise ValueError("a guide by experts reads the text itself, and inputs_embeds gives none: pass input_ids")
        keys = [row_key(row) for row in input_ids]
        places: dict[bytes, int] = {}
        texts: list[list[int]] = []
        for index, key in enumerate(keys):
            if key not in places:
                places[key] = len(texts)
                text = input_ids[index, padding_of(self.padding, index, len(input_ids)) :].tolist()
                texts.append(text[len(text) - self.in_sight(len(text)) :])
        width = max(map(len, texts))
        device = input_ids.device
        tokens = torch.tensor([[text[0]] * (width - len(text)) + text for text in texts], device=device)
        mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts], device=device)
        forward(self.model, tokens, mask=None if bool(mask.all()) else mask, positions=positions_of(mask), last=1)
        passed, self._passing = self._passing, None
        assert passed is not None  # the output layer has been passed
        return passed[:, -1][[places[key] for key in keys]]


def _watcher(states: "weakref.ref[OutputStates]") -> Any:
    """A hook that records states only in the thread it was made in: other threads may use the model meanwhile."""
    thread = threading.get_ident()

    def passing(_: Any, given: tuple[torch.Tensor, ...]) -> None:
        found = states()
        if found is not None and threading.get_ident() == thread:
            found._passing = given[0]

    return optional_hook(passing)
