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
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from .forward import forward
from .network_step import Run
from .texts import Texts

# Returns how many of a row's tokens are visible to the model, given how many it has.
InSight = Callable[[int], int]

# Reads continuations (third) behind these (second) of some texts (first), of which so many tokens are in sight.
Reader = Callable[[Texts, list[int], list[list[int]], list[int]], list[torch.Tensor] | None]

# Of a continuation: the key of its text, and its tokens.
ContinuationKey = tuple[bytes, tuple[int, ...]]

# Layers of a cache to which keys and values are appended in new tensors, so that a copy of one leaves it as it is.
_GROWING = (DynamicLayer, DynamicSlidingWindowLayer)
# Whether a model respects a mask with one row for each new token; tested at the first lookahead.
_HEEDS_MASK: "weakref.WeakKeyDictionary[Any, bool]" = weakref.WeakKeyDictionary()
# Caches that may hold candidates for the next tokens, which assisted decoding has read, after the text.
CANDIDATES_LAST: "weakref.WeakSet[DynamicCache]" = weakref.WeakSet()
# By how much two computations of the same log-probability may differ: in float32, and in lower precision.
_CLOSE, _ROUGHLY = 1e-3, 0.25


class Branches(NamedTuple):
    """Continuations laid side by side in the rows that they continue, each hidden from the others.

    Attributes:
        tokens: (rows, new) with filling where a row has fewer.
        positions: (rows, new).
        visible: (rows, 1, new, columns + new) bool, what each token may see.
        places: for each continuation its row, where it begins among the new tokens, and its end.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    visible: torch.Tensor
    places: list[tuple[int, int, int]]

    @classmethod
    def of(
        cls,
        rows: Sequence[int],
        asked: Sequence[Sequence[int]],
        sights: Sequence[int],
        reads: Sequence[int],
        columns: int,
    ) -> "Branches":
        """Lay them out.

        Args:
            rows: for each continuation the row it continues, from 0 on without a gap.
            asked: their tokens.
            sights: for each, how many of the row's tokens the model sees.
            reads: for each, columns of the cache that hold the row's tokens; those in sight are the last of them.
            columns: columns in front of the new ones; those behind `reads` are hidden.
        """
        widths, places = [0] * (max(rows) + 1), []
        for row, each in zip(rows, asked, strict=True):
            places.append((row, widths[row], widths[row] + len(each)))
            widths[row] += len(each)
        new = max(widths)
        tokens = np.full((len(widths), new), asked[0][0])
        positions = np.zeros((len(widths), new), dtype=np.int64)
        visible = np.zeros((len(widths), 1, new, columns + new), dtype=bool)
        visible[:, 0, range(new), range(columns, columns + new)] = True  # filling sees itself, so no row is empty
        for (row, start, end), each, sight, read in zip(places, asked, sights, reads, strict=True):
            tokens[row, start:end] = each
            positions[row, start:end] = range(sight, sight + len(each))
            visible[row, 0, start:end, read - sight : read] = True
            visible[row, 0, start:end, columns + start : columns + end] = np.tri(len(each), dtype=bool)
        return cls(torch.from_numpy(tokens), torch.from_numpy(positions), torch.from_numpy(visible), places)

    def runs(self, rows: Sequence[int]) -> list[Run]:
        """The tokens without filling, given for each row the row of the cache that it is."""
        columns = self.visible.shape[-1] - self.tokens.shape[1]
        widths = [max(end for row, _, end in self.places if row == index) for index in range(len(rows))]
        return [
            Run(
                row,
                self.tokens[index, :width].tolist(),
                columns,
                self.positions[index, :width].tolist(),
                visible=self.visible[index, 0, :width, : columns + width],
            )
            for index, (row, width) in enumerate(zip(rows, widths, strict=True))
        ]

    def apart(self, logits: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The logits of each continuation, given for each row (new, vocabulary)."""
        return [logits[row][start:end] for row, start, end in self.places]


class Wishes:
    """Continuations that processors ask for while they process texts a first time, read in one pass before the next.

    Attributes:
        wanted: by a text's key and its continuation: the text's length and how many of its tokens are in sight.
        known: the logits of each.
    """

    def __init__(self) -> None:
        self.wanted: dict[ContinuationKey, tuple[int, int]] = {}
        self.known: dict[ContinuationKey, torch.Tensor] = {}

    def answer(
        self, texts: Texts, rows: Sequence[int], asked: Sequence[Sequence[int]], sights: Sequence[int]
    ) -> list[torch.Tensor] | None:
        """The logits of continuations; None if any is not known yet, or any wanted for these texts or earlier ones is.

        What is asked about a text may depend on the answers for those that it begins with, so these come first.
        """
        lengths = [texts.lengths[row] for row in rows]
        open_before = any(length <= max(lengths) for length, _ in self.wanted.values())
        names = [(texts.keys[row], tuple(each)) for row, each in zip(rows, asked, strict=True)]
        new = {
            name: (length, sight)
            for name, length, sight in zip(names, lengths, sights, strict=True)
            if name not in self.known
        }
        self.wanted |= new
        return None if new or open_before else [self.known[name] for name in names]


class ModelLookahead:
    """Scores continuations of the rows of a call of `generate()`.

    Args:
        model: the model that generates.
        cache: the call's keys and values, which the decoding loop extends.
        padding: (prompt rows,) columns of padding before each prompt; rows made of a prompt stand side by side. Below 0
            it tells how many tokens of the prompt are not in `input_ids`, because they were given as embeddings.
        window: positions the model has, if their number is fixed.
        in_sight: how many of a row's tokens the model sees; by default all.

    Attributes:
        reader: a decoding loop's own way to read ahead, asked first. It may answer None.
        wishes: if set, continuations that it does not know are noted there and answered None.
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
        self.reader: Reader | None = None
        self.wishes: Wishes | None = None

    @torch.no_grad()
    def logits(
        self, texts: torch.Tensor | Texts, rows: Sequence[int], continuations: Sequence[Sequence[int]]
    ) -> list[torch.Tensor | None]:
        """Compute the logits of each continuation of its text.

        Args:
            texts: the texts, or all rows (rows, length), as the processor received them.
            rows: for each continuation, the text it continues.
            continuations: token ids, at least one each.

        Returns:
            For each continuation its logits, (tokens, vocabulary), each predicting the token after that position. None
            where it does not fit into the model's window, or where its row cannot be read.
        """
        texts = Texts.of(texts)
        shown = [self.in_sight(texts.lengths[row] - texts.padding(row, self.padding)) for row in rows]
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
        if self.wishes is not None:
            found = self.wishes.answer(texts, of_rows, asked, sights)
            if found is None:
                return answers
        else:
            of_rows = [texts.rows[row] for row in of_rows]
            found = self.reader(texts, of_rows, asked, sights) if self.reader is not None else None
        input_ids = texts.ids
        if found is None and self._heeds_mask(input_ids, of_rows, asked, sights):
            found = self._side_by_side(input_ids, of_rows, asked, sights)
        elif found is None:
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
        dtype, device = past.layers[0].keys.dtype, input_ids.device
        branches = Branches.of([distinct.index(row) for row in rows], asked, sights, [columns] * len(asked), columns)
        mask = torch.zeros(branches.visible.shape, dtype=dtype).masked_fill(~branches.visible, torch.finfo(dtype).min)
        tokens, positions = branches.tokens.to(device), branches.positions.to(device)
        return branches.apart(self._forward(tokens, mask.to(device), positions, past, tokens.shape[1]))

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
        ahead = held > length + embedded and self.cache in CANDIDATES_LAST
        if held != length + embedded and not slid and not ahead:
            return None
        borrowed = DynamicCache()
        for layer in layers:
            lent = copy.copy(layer)
            if ahead:
                lent.keys, lent.values = (each[:, :, : length + embedded] for each in (layer.keys, layer.values))
            if picked.tolist() != list(range(len(input_ids))):
                lent.keys = lent.keys[picked.to(layer.keys.device)]
                lent.values = lent.values[picked.to(layer.values.device)]
            borrowed.layers.append(lent)
        return borrowed


def _agree(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    close = _CLOSE if some[0].dtype == torch.float32 else _ROUGHLY
    return all(
        bool((one.float().log_softmax(-1) - other.float().log_softmax(-1)).abs().max() <= close)
        for one, other in zip(some, others, strict=True)
    )
