"""Guided attributes: texts that lean towards something, or away from it, with a strength.

A guide tells of every token how much it speaks for an attribute: an expected sum of word weights, or the log of a ratio
of two probabilities. Times the strength, and summed over the guides, that is added to the scores. Before that the
distribution is filtered, as in DExperts (Liu et al. 2021): what the model itself would hardly write is closed, so that
no strength brings it in. What top-p and the like leave out is closed by then, and nothing is cut off afterwards: cut
twice, texts would lose variety even by the weakest guide. This file knows nothing of how a guide finds out.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import LogitsProcessor

# Tokens that are less likely than the likeliest by more than this, in nats, are closed before anything is shifted.
MOST_BELOW = 5.0


class Guide(Protocol):
    """What guides a text."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """How much every token speaks for the attribute.

        Args:
            input_ids: (rows, length) token ids. What is known of a row has to follow from its tokens: beam search
                reorders rows, and assisted decoding takes tokens back.
            scores: (rows, vocabulary), as the processors before have left them.

        Returns:
            (rows, vocabulary) float, finite: what to add to the log-probabilities at a strength of 1.
        """
        ...


class GuidedAttributesLogitsProcessor(LogitsProcessor):
    """Shifts scores towards attributes.

    Stands behind all that closes tokens, temperature, top-k and top-p included, so one that is open always remains.

    Args:
        guides: guides, each with its strength; below 0 it steers away. Those with a strength of 0 do nothing.
        most_below: see `MOST_BELOW`.
        temperature: by which what is open is flattened before it is shifted.

    Example:

    ```python
    >>> import torch
    >>> from fundamentallm_hf import GuidedAttributesLogitsProcessor
    >>> second = lambda input_ids, scores: torch.tensor([[0.0, 1.0, 1.0]])
    >>> processor = GuidedAttributesLogitsProcessor([(second, 2.0)])
    >>> processor(torch.tensor([[0]]), torch.tensor([[0.0, -1.0, -9.0]]))
    tensor([[0., 1., -inf]])

    ```
    """

    def __init__(
        self,
        guides: Sequence[tuple[Guide, float]],
        *,
        most_below: float = MOST_BELOW,
        temperature: float = 1.0,
    ) -> None:
        self.guides = [(guide, strength) for guide, strength in guides if strength]
        self.most_below = most_below
        self.temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores, filtered and shifted."""
        if not self.guides:
            return scores
        shifts = [
            guide(input_ids, scores).to(scores.device, torch.float32) * strength for guide, strength in self.guides
        ]
        # Summed in one order whatever the order of the guides, so that it makes no difference to the last bit.
        shift = torch.stack(shifts).sort(dim=0).values.sum(dim=0)
        filtered = scores.masked_fill(scores < scores.amax(dim=-1, keepdim=True) - self.most_below, -torch.inf)
        return filtered / self.temperature + shift.to(scores.dtype)
