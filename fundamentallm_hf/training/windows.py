"""Texts as training windows: encoding, shorter windows first, held-out windows with context."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast


def encode_texts(texts: list[str], tokenizer: PreTrainedTokenizerFast, end: int) -> torch.Tensor:
    """Encode all texts as one row of token ids, `end` after each: `(tokens,)` long."""
    rows = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    return torch.tensor([token for row in rows for token in (*row, end)], dtype=torch.long)


def stage_length(stages: Sequence[tuple[int, float]], progress: float, window: int) -> int:
    """The window length at a point of the run.

    Attention costs more the longer the window, and most of what a small model learns first is local, so a run that
    starts with short windows sees more text in the same time (Press et al., 2021, "Shortformer").

    Args:
        stages: (length, share of the steps) pairs; the remaining steps have full windows.
        progress: share of the steps that are done, 0 to 1.
        window: the full length.

    Example:

    ```python
    >>> from fundamentallm_hf.training.windows import stage_length
    >>> [stage_length([(128, 0.6), (256, 0.2)], progress, 512) for progress in (0.0, 0.7, 0.9)]
    [128, 256, 512]

    ```
    """
    for length, share in stages:
        if progress < share:
            return min(length, window)
        progress -= share
    return window


class TextWindows(Dataset):
    """Training windows over a row of tokens, in an order that depends only on `seed`.

    An epoch cuts the tokens into adjacent windows, starting from a different token each time, and takes them in a
    random order, so every token is seen once per epoch and no two epochs have the same cuts. Item i is the i-th window
    of this endless sequence, so a run that continues at step n only needs to know n.

    `collate` cuts a batch of full windows into the shorter ones of their stage; the number of tokens in a batch stays
    the same. A short window gets a random offset among the positions, so that every position is trained early (a
    quarter of them stay at position 0, where generation starts).

    Args:
        tokens: `(tokens,)` ids, more than `window`.
        window: tokens of a full window.
        stages: see `stage_length`.
        steps: number of steps of the run.
        per_step: windows that one step reads, over all processes.
        seed: for the order and the offsets.
    """

    def __init__(
        self,
        tokens: torch.Tensor,
        window: int,
        stages: Sequence[tuple[int, float]],
        steps: int,
        per_step: int,
        seed: int,
    ) -> None:
        self.tokens = tokens
        self.window = window
        self.stages = stages
        self.steps = steps
        self.per_step = per_step
        self.seed = seed
        # The first tokens of an epoch are skipped, so one window fewer than would fit.
        self.per_epoch = max(1, len(tokens) // window - 1)
        self.order: tuple[int, torch.Tensor, int] = (-1, torch.empty(0), 0)

    def __len__(self) -> int:
        return self.steps * self.per_step

    def length(self, step: int) -> int:
        """The window length of a step."""
        return stage_length(self.stages, step / self.steps, self.window)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        epoch, number = divmod(index, self.per_epoch)
        if self.order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(self.per_epoch, generator=generator)
            spare = len(self.tokens) - self.per_epoch * self.window
            first = int(torch.randint(0, spare + 1, (1,), generator=generator))
            self.order = (epoch, order, first)
        _, order, first = self.order
        start = first + int(order[number]) * self.window
        return index, self.tokens[start : start + self.window]

    def collate(self, examples: list[Any]) -> dict[str, torch.Tensor]:
        if isinstance(examples[0], dict):  # held-out windows come with their labels and stay full
            return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}
        ids = torch.stack([tokens for _, tokens in examples])
        # By the items, not by a step counter: batches are fetched ahead of the step that reads them.
        length = self.length(examples[0][0] // self.per_step)
        ids = ids[:, : self.window - self.window % length].reshape(-1, length)
        positions = torch.arange(length).expand(len(ids), -1)
        if length < self.window:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + examples[0][0])
            offsets = torch.randint(0, self.window - length + 1, (len(ids), 1), generator=generator)
            positions = positions + offsets * (torch.rand(len(ids), 1, generator=generator) > 0.25)
        return {"input_ids": ids, "labels": ids, "position_ids": positions}


class HeldOutWindows(Dataset):
    """Half-overlapping windows over held-out tokens; only the second half of each is scored (the whole of the first).

    So every scored character has at least half a window of context, as in `fundamentallm evaluate`.
    """

    def __init__(self, tokens: torch.Tensor, window: int) -> None:
        self.tokens = tokens
        self.window = min(window, len(tokens))
        self.stride = max(1, self.window // 2)

    def __len__(self) -> int:
        return 1 + (len(self.tokens) - self.window) // self.stride

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start = index * self.stride
        ids = self.tokens[start : start + self.window]
        labels = ids.clone()
        if index:
            labels[: self.window - self.stride] = -100
        return {"input_ids": ids, "labels": labels}
