"""Guides by two contexts: the model's probabilities after a text that has the attribute, and after one that lacks it.

The shift is the log of the ratio of the two probabilities, as in classifier-free guidance (Sanchez et al. 2023) with
both contexts given. Both contexts are computed with the text in one batch, in a separate cache. The rows of the cache
are identified by their tokens, so they follow reordered beams; missing rows are computed again, with the same result. A
text that exceeds the model's window after a context loses its oldest part, never the context.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from ..decoding.cache_names import cache_of
from ..decoding.context_window import window_start
from ..decoding.forward import forward, padding_of, positions_of
from ..decoding.row_states import row_key

# A context may use up to this part of the model's window.
_LARGEST_PART = 0.5


class PromptGuide:
    """Guides by two contexts. See `Guide`.

    Args:
        model: the model that generates.
        contexts: token ids of the context that has the attribute, and of the one that lacks it.
        padding: (prompt rows,) columns of padding before each prompt; rows made of one prompt are adjacent.
        window: number of positions of the model, if it is fixed.
        start_token: a token that a text may begin with; it is not repeated after a context.
        cached: keep keys and values from step to step.

    Raises:
        ValueError: a context leaves too little of the window for the text, or a prompt was given as embeddings.
    """

    def __init__(
        self,
        model: Any,
        contexts: tuple[Sequence[int], Sequence[int]],
        padding: Sequence[int] = (0,),
        window: int | None = None,
        start_token: int | None = None,
        cached: bool = True,
    ) -> None:
        if min(padding, default=0) < 0:
            raise ValueError("a guide by prompts reads the text itself, and inputs_embeds gives none: pass input_ids")
        longest = max(map(len, contexts))
        if window is not None and longest > window * _LARGEST_PART:
            raise ValueError(
                f"a context of a guide has {longest} tokens, and the model's window of {window} has room for "
                f"{int(window * _LARGEST_PART)}: shorten it"
            )
        self.model = model
        self.contexts = [list(context) for context in contexts]
        self.padding = list(padding) or [0]
        self.window = window
        self.start_token = start_token
        self.cached = cached
        self._cache: DynamicCache | None = None
        # The rows in the cache, by their tokens; the rows of the two contexts follow each other.
        self._places: dict[bytes, int] = {}
        self._mask = torch.zeros(0, 0, dtype=torch.long)
        self._starts: list[int] = []

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """See `Guide`."""
        keys = [row_key(row) for row in input_ids]
        # Beams start as copies of each other, and each text needs to be computed only once.
        distinct: dict[bytes, int] = {}
        for index, key in enumerate(keys):
            distinct.setdefault(key, index)
        picked = list(distinct.values())
        rows = input_ids[picked]
        padding = [padding_of(self.padding, index, len(input_ids)) for index in picked]
        starts = [self._start(context, rows.shape[1] - pad) for context in self.contexts for pad in padding]
        logits = self._go_on(rows, starts) if self.cached else None
        if logits is None:
            logits = self._read(rows, padding, starts)
        self._places = {key: place for place, key in enumerate(distinct)}
        self._starts = starts
        logs = logits.float().log_softmax(dim=-1)
        shift = logs[: len(rows)] - logs[len(rows) :]
        of_key = {key: place for place, key in enumerate(distinct)}
        return shift.nan_to_num(0.0)[[of_key[key] for key in keys], : scores.shape[-1]]

    def _start(self, context: Sequence[int], length: int) -> int:
        """The first token of a text of this length that is read after a context."""
        if self.window is None:
            return 0
        return window_start(length, self.window - len(context))

    def _go_on(self, rows: torch.Tensor, starts: list[int]) -> torch.Tensor | None:
        """Compute the last token of every row from the cache; None where the cache does not hold all rows."""
        if self._cache is None:
            return None
        places = [self._places.get(row_key(row[:-1])) for row in rows]
        if None in places or not rows.shape[1]:
            return None
        before = len(self._places)
        picked = [place + side * before for side in range(2) for place in places]  # type: ignore[operator]
        if [self._starts[place] for place in picked] != starts:
            return None  # the window has moved
        order = torch.tensor(picked, device=rows.device)
        if picked != list(range(2 * before)):
            self._cache.batch_select_indices(order)
        mask = self._mask[order]
        self._mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        return self._forward(rows[:, -1:].repeat(2, 1))

    def _read(self, rows: torch.Tensor, padding: list[int], starts: list[int]) -> torch.Tensor:
        """Compute every row from its start after both contexts."""
        texts = []
        for index, start in enumerate(starts):
            row = index % len(rows)
            text = rows[row, padding[row] :].tolist()[start:]
            context = self.contexts[index // len(rows)]
            if context and start == 0 and text[:1] == [self.start_token]:
                text = text[1:]
            texts.append(context + text)
        width = max(map(len, texts))
        tokens = torch.tensor([[text[0]] * (width - len(text)) + text for text in texts], device=rows.device)
        self._mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts], device=rows.device)
        self._cache = None
        return self._forward(tokens)

    def _forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = None if bool(self._mask.all()) else self._mask
        positions = positions_of(self._mask)[:, -tokens.shape[1] :]
        output = forward(
            self.model, tokens, mask=mask, positions=positions, cache=self._cache, use_cache=self.cached, last=1
        )
        cache = cache_of(output)
        fits = type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)
        self._cache = cache if self.cached and fits else None
        return output.logits[:, -1]
