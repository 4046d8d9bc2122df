"""Texts as training windows: encoding, shorter windows first, held-out windows with context.

Knows nothing of models or of the Trainer.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast


def encode_texts(texts: list[str], tokenizer: PreTrainedTokenizerFast, end: int) -> torch.Tensor:
    """All texts as one row of token ids, `end` after each: `(tokens,)` long."""
    rows = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    return torch.tensor([token for row in rows for token in (*row, end)], dtype=torch.long)


@dataclass(frozen=True)
class Stages:
    """Window lengths by progress: `(length, share of the steps)`, and the whole window for what is left.

    Attention costs the more the longer the window, and most of what a small model learns first is local, so a run
    that begins with short windows sees more text in the same time (Press et al., 2021, "Shortformer").
    """

    lengths: tuple[tuple[int, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Stages":
        """Read `"128:0.6,256:0.2"`; raises ValueError on anything else."""
        pairs = tuple(
            (int(length), float(share)) for length, share in (part.split(":") for part in text.split(",") if part)
        )
        if any(length < 2 or share <= 0 for length, share in pairs) or sum(share for _, share in pairs) > 1:
            raise ValueError(f"stages have to be LENGTH:SHARE pairs whose shares sum up to 1 at most but are {text!r}")
        return cls(pairs)

    def length(self, progress: float, window: int) -> int:
        """The window length at `progress` (0 to 1)."""
        for length, share in self.lengths:
            if progress < share:
                return min(length, window)
            progress -= share
        return window


class TextWindows(Dataset):
    """Training windows over a row of tokens, in an order that depends on `seed` alone.

    An epoch cuts the tokens into adjacent windows, from a first token of its own, and takes them in a random order, so
    every token is seen once an epoch and no two epochs have the same cuts. Item i is the i-th window of this endless
    sequence: whoever goes on from step n needs to know nothing but n.

    `collate` cuts a batch of whole windows into the shorter ones of the present stage; the number of tokens in a batch
    stays. A short window is put at a random place among the positions, so that every position is trained from the
    start (a quarter of them stay at the beginning, where generation starts).
    """

    def __init__(self, tokens: torch.Tensor, window: int, stages: Stages, items: int, seed: int) -> None:
        self.tokens = tokens
        self.window = window
        self.stages = stages
        self.items = items
        self.seed = seed
        self.progress = 0.0
        # The first tokens of an epoch are skipped, so one window fewer than would fit.
        self.per_epoch = max(1, len(tokens) // window - 1)
        self.order: tuple[int, torch.Tensor, int] = (-1, torch.empty(0), 0)

    def __len__(self) -> int:
        return self.items

    def length(self) -> int:
        """The window length of the present stage."""
        return self.stages.length(self.progress, self.window)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        epoch, place = divmod(index, self.per_epoch)
        if self.order[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(self.per_epoch, generator=generator)
            spare = len(self.tokens) - self.per_epoch * self.window
            first = int(torch.randint(0, spare + 1, (1,), generator=generator))
            self.order = (epoch, order, first)
        _, order, first = self.order
        start = first + int(order[place]) * self.window
        return index, self.tokens[start : start + self.window]

    def collate(self, examples: list[Any]) -> dict[str, torch.Tensor]:
        if isinstance(examples[0], dict):  # held-out windows come with their labels and stay whole
            return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}
        ids = torch.stack([tokens for _, tokens in examples])
        length = self.length()
        ids = ids[:, : self.window - self.window % length].reshape(-1, length)
        positions = torch.arange(length).expand(len(ids), -1)
        if length < self.window:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + examples[0][0])
            offsets = torch.randint(0, self.window - length + 1, (len(ids), 1), generator=generator)
            positions = positions + offsets * (torch.rand(len(ids), 1, generator=generator) > 0.25)
        return {"input_ids": ids, "labels": ids, "position_ids": positions}


class HeldOutWindows(Dataset):
    """Half-overlapping windows over held-out tokens; only the second half of each is scored (the first one whole).

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
