"""Sees the probabilities by which tokens are chosen, after every setting and control.

The scores that `generate()` returns will not do: `SeededSampling` closes all tokens but the one it has drawn. This file
knows nothing of text, and nothing of what shaped the probabilities.
"""

import torch
from transformers import LogitsProcessor

from .row_states import row_key


class Recorder(LogitsProcessor):
    """Changes no score and keeps what it sees.

    Given to `generate()` among the `logits_processor`, it is moved behind all that shapes the distribution and before
    the choice; what `first_look` returns, before all of it.
    """

    def first_look(self) -> LogitsProcessor | None:
        """What sees the model's own scores of every step just before; None where nobody has to."""
        return None


class _FirstLook(LogitsProcessor):
    """Notes which tokens are likeliest before anything has changed the scores."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.tokens: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.tokens = scores.topk(min(self.top, scores.shape[-1])).indices.cpu()
        return scores


class ProbabilityRecorder(Recorder):
    """Keeps the probabilities of every step by the tokens of the row, so rows may change places.

    Args:
        top: for how many tokens of every step, the likeliest, to keep the probability: of those that are likeliest in
            the end, and of those that the model itself finds likeliest.
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
        self._likeliest: dict[bytes, dict[int, float]] = {}
        self._chosen: dict[bytes, float] = {}
        self._look = _FirstLook(top)

    def first_look(self) -> LogitsProcessor:
        """Sees which tokens the model itself finds likeliest."""
        return self._look

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores as they are."""
        if self.greedy:
            rows = torch.nn.functional.one_hot(scores.argmax(dim=-1), scores.shape[-1]).float().cpu()
        else:
            rows = scores.float().softmax(dim=-1).cpu()
        if self.first is None:
            self.first = rows[0]
        tokens = rows.topk(min(self.top, rows.shape[-1])).indices
        if self._look.tokens is not None:
            tokens = torch.cat([tokens, self._look.tokens], dim=-1)
        values = rows.gather(-1, tokens)
        before, self._whole = self._whole, dict(self._whole) if self.beams else {}
        for row, whole, best in zip(input_ids, rows, zip(tokens.tolist(), values.tolist(), strict=True), strict=True):
            key = row_key(row)
            parent = before.get(row_key(row[:-1]))
            if parent is not None and not self.beams:
                self._chosen[key] = float(parent[int(row[-1])])
            self._whole[key] = whole
            self._likeliest[key] = dict(zip(*best, strict=True))
        return scores

    def chosen(self, row: torch.Tensor) -> float:
        """The probability that the last token of `row`, (length,), had when it was chosen."""
        known = self._chosen.get(row_key(row))
        return known if known is not None else float(self._whole[row_key(row[:-1])][int(row[-1])])

    def likeliest(self, row: torch.Tensor) -> dict[int, float]:
        """The tokens behind `row`, (length,), that are likeliest before or after all, with their final probability."""
        return self._likeliest[row_key(row)]
