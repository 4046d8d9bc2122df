"""Asks the model itself how a text would go on, beside the generation that is under way.

The cache of the running call already holds every row, so a few rows are borrowed from it, several short continuations
are read behind them in one pass, and the cache is left as it was. Where it cannot be borrowed (there is none, or it is
of a kind that does not grow by appending), the rows are read anew. This file knows nothing of why it is asked.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

# Tells how many of a row's tokens the model has in sight, given how many it has.
InSight = Callable[[int], int]

# Layers of a cache to which keys and values are appended in new tensors, so that a copy of one leaves it as it is.
_GROWING = (DynamicLayer, DynamicSlidingWindowLayer)


class ModelLookahead:
    """Reads continuations behind the rows of a call of `generate()`.

    Args:
        model: the model that generates.
        cache: the call's `past_key_values`, which the decoding loop extends.
        padding: (prompt rows,) columns of padding before each prompt; rows made of a prompt stand side by side. Below 0
            it tells how many tokens of the prompt are not in `input_ids`, because they were given as embeddings.
        window: positions the model has, if their number is fixed.
        in_sight: how many of a row's tokens the model sees; by default all.
    """

    def __init__(
        self,
        model: Any,
        cache: Any,
        padding: Sequence[int],
        window: int | None = None,
        in_sight: InSight = lambda length: length,
    ) -> None:
        self.model = model
        self.cache = cache
        self.padding = list(padding)
        self.window = window
        self.in_sight = in_sight

    @torch.no_grad()
    def logits(
        self, input_ids: torch.Tensor, rows: Sequence[int], continuations: Sequence[Sequence[int]]
    ) -> list[torch.Tensor | None]:
        """Read each continuation behind its row.

        Args:
            input_ids: (all rows, length), as the processor was given them.
            rows: for each continuation, the row it continues.
            continuations: token ids, at least one each.

        Returns:
            For each continuation its logits, (tokens, vocabulary): what comes after each of its tokens. None where it
            does not fit into the model's window, or where its row cannot be read.
        """
        length = input_ids.shape[1]
        shown = [self.in_sight(length - self.padding[row * len(self.padding) // len(input_ids)]) for row in rows]
        fits = [
            index
            for index, tokens in enumerate(continuations)
            if self.window is None or shown[index] + len(tokens) <= self.window
        ]
        answers: list[torch.Tensor | None] = [None] * len(rows)
        if not fits:
            return answers
        widest = max(len(continuations[index]) for index in fits)
        device = input_ids.device
        # Continuations of different lengths are filled up behind their ends, where a causal model does not look.
        asked = torch.tensor(
            [[*continuations[i], *[continuations[i][-1]] * (widest - len(continuations[i]))] for i in fits],
            device=device,
        )
        picked = torch.tensor([rows[i] for i in fits], device=device)
        sight = torch.tensor([shown[i] for i in fits], device=device)
        past = self._borrow(picked, length)
        if past is not None:
            columns = past.get_seq_length()
        elif min(self.padding) < 0:
            return answers  # a prompt that was given as embeddings cannot be read again
        else:
            columns = max(shown[i] for i in fits)
            asked = torch.cat([input_ids[picked, length - columns :], asked], dim=1)
        place = torch.arange(columns + widest, device=device) - (columns - sight)[:, None]
        positions = place[:, -asked.shape[1] :].clamp(min=0)
        if self.window is not None:
            positions = positions.clamp(max=self.window - 1)  # only the filling lies beyond
        given = {
            "attention_mask": None if bool((place >= 0).all()) else (place >= 0).long(),
            "position_ids": positions,
            "past_key_values": past,
            "use_cache": past is not None,
            "logits_to_keep": widest,
        }
        known = inspect.signature(self.model.forward).parameters
        output = self.model(asked, return_dict=True, **{name: given[name] for name in given if name in known})
        for logits, index in zip(output.logits[:, -widest:], fits, strict=True):
            answers[index] = logits[: len(continuations[index])]
        return answers

    def _borrow(self, picked: torch.Tensor, length: int) -> DynamicCache | None:
        """The picked rows of the running cache, if it holds exactly the tokens so far and grows by appending."""
        layers = getattr(self.cache, "layers", [])
        if (
            type(self.cache) is not DynamicCache
            or self.cache.offloading
            or not layers
            or any(type(layer) not in _GROWING or layer.keys is None for layer in layers)
        ):
            return None
        held = self.cache.get_seq_length()
        embedded = max(0, -min(self.padding))
        slid = self.window is not None and held <= self.window < length
        if held != length + embedded and not slid:
            return None
        borrowed = DynamicCache()
        for layer in layers:
            lent = copy.copy(layer)
            lent.keys = layer.keys[picked.to(layer.keys.device)]
            lent.values = layer.values[picked.to(layer.values.device)]
            borrowed.layers.append(lent)
        return borrowed
