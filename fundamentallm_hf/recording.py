"""Sees the probabilities by which tokens are chosen, after every setting and control.

The scores that `generate()` returns will not do: `SeededSampling` closes all tokens but the one it has drawn. This file
knows nothing of text, and nothing of what shaped the probabilities.
"""

import torch
from transformers import LogitsProcessor

from .row_states import row_key


class ProbabilityRecorder(LogitsProcessor):
    """Changes no score and keeps what it sees, by the tokens of the row, so rows may change places.

    Given to `generate()` among the `logits_processor`, it is moved behind all that shapes the distribution and before
    the choice.

    Args:
        top: for how many tokens of every step, the likeliest, to keep the probability.
        greedy: the likeliest token is taken, whatever its probability.
        beams: rows are dropped and taken up again, so the whole distribution of every step has to be kept; without
            beams only that of the last one is.

    Attributes:
        first: (vocabulary,) the probabilities behind the first row's prompt; None before the first step.
    """

    def __init__(self, top: int, greedy: bool = False, beams: bool = False) -> None:
        self.top = top
        self.greedy = greedy
        self.beams = beams
        self.first: torch.Tensor | None = None
        self._whole: dict[bytes, torch.Tensor] = {}
        self._likeliest: dict[bytes, list[tuple[int, float]]] = {}
        self._chosen: dict[bytes, float] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores as they are."""
        if self.greedy:
            rows = torch.nn.functional.one_hot(scores.argmax(dim=-1), scores.shape[-1]).float().cpu()
        else:
            rows = scores.float().softmax(dim=-1).cpu()
        if self.first is None:
            self.first = rows[0]
        values, tokens = rows.topk(min(self.top, rows.shape[-1]))
        before, self._whole = self._whole, dict(self._whole) if self.beams else {}
        for row, whole, best in zip(input_ids, rows, zip(tokens.tolist(), values.tolist(), strict=True), strict=True):
            key = row_key(row)
            parent = before.get(row_key(row[:-1]))
            if parent is not None and not self.beams:
                self._chosen[key] = float(parent[int(row[-1])])
            self._whole[key] = whole
            self._likeliest[key] = [(token, value) for token, value in zip(*best, strict=True) if value > 0]
        return scores

    def chosen(self, row: torch.Tensor) -> float:
        """The probability that the last token of `row`, (length,), had when it was chosen."""
        known = self._chosen.get(row_key(row))
        return known if known is not None else float(self._whole[row_key(row[:-1])][int(row[-1])])

    def likeliest(self, row: torch.Tensor) -> list[tuple[int, float]]:
        """The likeliest tokens behind `row`, (length,), with their probabilities; those that are closed left out."""
        return self._likeliest[row_key(row)]
