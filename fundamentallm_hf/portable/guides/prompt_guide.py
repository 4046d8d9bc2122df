"""Guides by two contexts: the model's probabilities after a text that has the attribute, and after one that lacks it.

The shift is the log of the ratio of the two probabilities, as in classifier-free guidance (Sanchez et al. 2023) with
both contexts given. Both contexts are computed with the text in one batch, in a separate cache. The rows of the cache
are identified by their tokens, so they follow reordered beams; missing rows are computed again, with the same result.
The texts after all drafted tokens of a pass are computed in one pass, too. A text that exceeds the model's window after
a context loses its oldest part, never the context.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from ..decoding.cache_names import cache_of
from ..decoding.context_window import window_start
from ..decoding.forward import forward, padding_of, positions_of
from ..decoding.row_states import row_key
from ..decoding.texts import TOKEN_BYTES, Texts

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
        # The shifts after the texts that were judged last, by their tokens.
        self._judged: dict[bytes, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """See `Guide`."""
        keys = [row_key(row) for row in input_ids]
        # Beams start as copies of each other, and each text needs to be computed only once.
        distinct: dict[bytes, int] = {}
        for index, key in enumerate(keys):
            distinct.setdefault(key, index)
        picked = list(distinct.values())
        padding = [padding_of(self.padding, index, len(input_ids)) for index in picked]
        shifts = self._shifts(input_ids[picked], padding, 1)[:, -1]
        of_key = {key: place for place, key in enumerate(distinct)}
        return shifts[[of_key[key] for key in keys], : scores.shape[-1]]

    @torch.no_grad()
    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`."""
        if len({*texts.rows}) > 1:
            rows = [torch.stack([texts.tokens(index) for index in group]) for group in texts.groups()]
            return torch.cat([self(each, scores) for each in rows])
        pad = texts.padding(0, self.padding)
        known = dict(self._judged)
        new = [index for index, key in enumerate(texts.keys) if key not in known]
        for _, path in groupby(new, lambda index: self._starts_of([texts.lengths[index] - pad])):
            known |= self._judge_path(texts.part([*path]), pad)
        self._judged = {key: known[key] for key in texts.keys}
        return torch.stack([*self._judged.values()])[:, : scores.shape[-1]]

    def _judge_path(self, texts: Texts, pad: int) -> dict[bytes, torch.Tensor]:
        """The shifts after texts of one row, each the beginning of the next, by their tokens."""
        first, longest = texts.lengths[0], texts.lengths[-1]
        kept = self._go_back(texts.keys[-1], first - 1)
        shifts = self._shifts(texts.tokens(len(texts) - 1)[None], [pad], longest - first + 1, longest - kept)[0]
        return {key: shifts[length - first] for key, length in zip(texts.keys, texts.lengths, strict=True)}

    def _go_back(self, text: bytes, most: int) -> int:
        """Remove from the cache of one row what is not the beginning of a text, or exceeds `most` of its tokens.

        Returns:
            How many of its tokens are left, at most `most`.
        """
        if self._cache is None or len(self._places) != 1:
            return most
        (cached,) = (np.frombuffer(key, dtype=np.int64) for key in self._places)
        size = min(most, len(cached))
        differs = (cached[:size] != np.frombuffer(text, dtype=np.int64)[:size]).nonzero()[0]
        kept = int(differs[0]) if len(differs) else size
        if kept < len(cached):
            self._cache.crop(kept - len(cached))
            self._mask = self._mask[:, : kept - len(cached)]
            self._places = {text[: TOKEN_BYTES * kept]: 0}
        return kept

    def _shifts(self, rows: torch.Tensor, padding: list[int], last: int, new: int = 1) -> torch.Tensor:
        """The shifts after each of the last tokens of rows that differ.

        Args:
            rows: (rows, length) token ids.
            padding: (rows,) columns of padding before each.
            last: how many of the last tokens.
            new: how many of them may be missing from the cache.

        Returns:
            (rows, last, vocabulary).
        """
        starts = self._starts_of([rows.shape[1] - pad for pad in padding])
        logits = self._go_on(rows, starts, new, last) if self.cached else None
        if logits is None:
            logits = self._read(rows, padding, starts, last)
        self._places = {row_key(row): place for place, row in enumerate(rows)}
        self._starts = starts
        logs = logits.float().log_softmax(dim=-1)
        return (logs[: len(rows)] - logs[len(rows) :]).nan_to_num(0.0)

    def _starts_of(self, lengths: Sequence[int]) -> list[int]:
        """The first token that is read after each context, of texts of these lengths."""
        return [self._start(context, length) for context in self.contexts for length in lengths]

    def _start(self, context: Sequence[int], length: int) -> int:
        """The first token of a text of this length that is read after a context."""
        if self.window is None:
            return 0
        return window_start(length, self.window - len(context))

    def _go_on(self, rows: torch.Tensor, starts: list[int], new: int, last: int) -> torch.Tensor | None:
        """Compute the new tokens of every row from the cache; None where the cache does not hold the others."""
        if self._cache is None or rows.shape[1] < new:
            return None
        places = [self._places.get(row_key(row[:-new])) for row in rows]
        if None in places:
            return None
        before = len(self._places)
        picked = [place + side * before for side in range(2) for place in places]  # type: ignore[operator]
        if [self._starts[place] for place in picked] != starts:
            return None  # the window has moved
        order = torch.tensor(picked, device=rows.device)
        if picked != list(range(2 * before)):
            self._cache.batch_select_indices(order)
        mask = self._mask[order]
        self._mask = torch.cat([mask, mask.new_ones(len(mask), new)], dim=1)
        return self._forward(rows[:, -new:].repeat(2, 1), last)

    def _read(self, rows: torch.Tensor, padding: list[int], starts: list[int], last: int) -> torch.Tensor:
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
        return self._forward(tokens, last)

    def _forward(self, tokens: torch.Tensor, last: int) -> torch.Tensor:
        mask = None if bool(self._mask.all()) else self._mask
        positions = positions_of(self._mask)[:, -tokens.shape[1] :]
        output = forward(
            self.model, tokens, mask=mask, positions=positions, cache=self._cache, use_cache=self.cached, last=last
        )
        cache = cache_of(output)
        fits = type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)
        self._cache = cache if self.cached and fits else None
        return output.logits[:, -last:]
