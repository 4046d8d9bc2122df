"""Asks the model how a text would continue, during a running generation.

The cache of the running call already holds every row. A few rows are borrowed from it, several short continuations are
appended to them in one pass, and the cache is left as it was. Continuations of one row are placed next to each other,
each hidden from the others by the attention mask, as in tree attention (Miao et al. 2024, SpecInfer), so that the keys
and values of the row are stored once. A model that ignores such a mask gets one row for each continuation. Where the
cache cannot be borrowed (there is none, or it does not grow by appending), the rows are computed again.
"""

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from .forward import forward, padding_of

# Returns how many of a row's tokens are visible to the model, given how many it has.
InSight = Callable[[int], int]

# Layers of a cache to which keys and values are appended in new tensors, so that a copy of one leaves it as it is.
_GROWING = (DynamicLayer, DynamicSlidingWindowLayer)
# Whether a model respects a mask with one row for each new token; tested at the first lookahead.
_HEEDS_MASK: "weakref.WeakKeyDictionary[Any, bool]" = weakref.WeakKeyDictionary()
# By how much two computations of the same log-probability may differ: in float32, and in lower precision.
_CLOSE, _ROUGHLY = 1e-3, 0.25


class ModelLookahead:
    """Scores continuations of the rows of a call of `generate()`.

    Args:
        model: the model that generates.
        cache: the call's keys and values, which the decoding loop extends.
        padding: (prompt rows,) columns of padding before each prompt; rows made of one prompt are adjacent. A negative
            number counts the tokens of the prompt that are not in `input_ids`, because they were given as embeddings.
        window: number of positions of the model, if it is fixed.
        in_sight: how many of a row's tokens are visible to the model; by default all.
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
        """Compute the logits of each continuation of its row.

        Args:
            input_ids: (all rows, length), as the processor received them.
            rows: for each continuation, the row it continues.
            continuations: token ids, at least one each.

        Returns:
            For each continuation its logits, (tokens, vocabulary), each predicting the token after that position. None
            where it does not fit into the model's window, or where its row cannot be read.
        """
        length = input_ids.shape[1]
        shown = [self.in_sight(length - padding_of(self.padding, row, len(input_ids))) for row in rows]
        fits = [
            index
            for index, tokens in enumerate(continuations)
            if self.window is None or shown[index] + len(tokens) <= self.window
        ]
        answers: list[torch.Tensor | None] = [None] * len(rows)
        if not fits:
            return answers
        asked = [list(continuations[index]) for index in fits]
        of_rows = [rows[index] for index in fits]
        sights = [shown[index] for index in fits]
        if self._heeds_mask(input_ids, of_rows, asked, sights):
            found: list[torch.Tensor] | None = self._side_by_side(input_ids, of_rows, asked, sights)
        else:
            found = self._row_each(input_ids, of_rows, asked, sights)
        for index, logits in zip(fits, found or (), strict=bool(found)):
            answers[index] = logits
        return answers

    def _heeds_mask(self, input_ids: torch.Tensor, rows: list[int], asked: list[list[int]], sights: list[int]) -> bool:
        """Whether these continuations can be read in one row; a model is tested the first time."""
        if len(set(rows)) == len(rows) or not _HEEDS_MASK.get(self.model, True):
            return False
        past = self._borrow(torch.tensor([0], device=input_ids.device), input_ids)
        if past is None or any(type(layer) is not DynamicLayer for layer in past.layers):
            return False
        if self.model not in _HEEDS_MASK:
            expected = self._row_each(input_ids, rows, asked, sights)
            try:
                _HEEDS_MASK[self.model] = expected is not None and _agree(
                    self._side_by_side(input_ids, rows, asked, sights), expected
                )
            except (RuntimeError, ValueError, TypeError, IndexError):  # the model takes no such mask
                _HEEDS_MASK[self.model] = False
        return _HEEDS_MASK[self.model]

    def _row_each(
        self, input_ids: torch.Tensor, rows: list[int], asked: list[list[int]], sights: list[int]
    ) -> list[torch.Tensor] | None:
        """Read each continuation in a row of its own; None if rows cannot be read."""
        widest = max(map(len, asked))
        device = input_ids.device
        # Continuations of different lengths are padded after their ends, which a causal model does not attend to.
        tokens = torch.tensor([[*each, *[each[-1]] * (widest - len(each))] for each in asked], device=device)
        picked = torch.tensor(rows, device=device)
        sight = torch.tensor(sights, device=device)
        past = self._borrow(picked, input_ids)
        if past is not None:
            columns = past.get_seq_length()
        elif min(self.padding) < 0:
            return None  # a prompt that was given as embeddings cannot be read again
        else:
            columns = max(sights)
            tokens = torch.cat([input_ids[picked, input_ids.shape[1] - columns :], tokens], dim=1)
        place = torch.arange(columns + widest, device=device) - (columns - sight)[:, None]
        positions = place[:, -tokens.shape[1] :].clamp(min=0)
        if self.window is not None:
            positions = positions.clamp(max=self.window - 1)  # only the padding is beyond
        mask = None if bool((place >= 0).all()) else (place >= 0).long()
        logits = self._forward(tokens, mask, positions, past, widest)[:, -widest:]
        return [of_row[: len(each)] for of_row, each in zip(logits, asked, strict=True)]

    def _side_by_side(
        self, input_ids: torch.Tensor, rows: list[int], asked: list[list[int]], sights: list[int]
    ) -> list[torch.Tensor]:
        """Read the continuations of each row in one row, hidden from each other."""
        distinct = sorted(set(rows))
        past = self._borrow(torch.tensor(distinct, device=input_ids.device), input_ids)
        assert past is not None
        columns = past.get_seq_length()
        starts, widths = [], [0] * len(distinct)
        for row, each in zip(rows, asked, strict=True):
            starts.append(widths[distinct.index(row)])
            widths[distinct.index(row)] += len(each)
        new = max(widths)
        dtype = past.layers[0].keys.dtype
        tokens = torch.full((len(distinct), new), asked[0][0])
        positions = torch.zeros((len(distinct), new), dtype=torch.long)
        visible = torch.zeros((len(distinct), 1, new, columns + new), dtype=torch.bool)
        visible[:, 0, range(new), range(columns, columns + new)] = True  # padding sees itself, so no row is empty
        for row, each, start, sight in zip(rows, asked, starts, sights, strict=True):
            index, own = distinct.index(row), slice(start, start + len(each))
            tokens[index, own] = torch.tensor(each)
            positions[index, own] = torch.arange(sight, sight + len(each))
            visible[index, 0, own, columns - sight : columns] = True
            visible[index, 0, own, columns + start : columns + start + len(each)] = torch.ones(
                len(each), len(each), dtype=torch.bool
            ).tril()
        mask = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
        device = input_ids.device
        logits = self._forward(tokens.to(device), mask.to(device), positions.to(device), past, new)
        return [
            logits[distinct.index(row), start : start + len(each)]
            for row, each, start in zip(rows, asked, starts, strict=True)
        ]

    def _forward(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        past: DynamicCache | None,
        kept: int,
    ) -> torch.Tensor:
        output = forward(
            self.model, tokens, mask=mask, positions=positions, cache=past, use_cache=past is not None, last=kept
        )
        return output.logits

    def _borrow(self, picked: torch.Tensor, input_ids: torch.Tensor) -> DynamicCache | None:
        """The picked rows of the running cache, if it holds exactly the tokens so far and grows by appending."""
        layers = getattr(self.cache, "layers", [])
        if (
            type(self.cache) is not DynamicCache
            or self.cache.offloading
            or not layers
            or any(type(layer) not in _GROWING or layer.keys is None for layer in layers)
        ):
            return None
        length = input_ids.shape[1]
        held = self.cache.get_seq_length()
        embedded = max(0, -min(self.padding))
        slid = self.window is not None and held <= self.window < length
        if held != length + embedded and not slid:
            return None
        borrowed = DynamicCache()
        for layer in layers:
            lent = copy.copy(layer)
            if picked.tolist() != list(range(len(input_ids))):
                lent.keys = layer.keys[picked.to(layer.keys.device)]
                lent.values = layer.values[picked.to(layer.values.device)]
            borrowed.layers.append(lent)
        return borrowed


def _agree(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    close = _CLOSE if some[0].dtype == torch.float32 else _ROUGHLY
    return all(
        bool((one.float().log_softmax(-1) - other.float().log_softmax(-1)).abs().max() <= close)
        for one, other in zip(some, others, strict=True)
    )
