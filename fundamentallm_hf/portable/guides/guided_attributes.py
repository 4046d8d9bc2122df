"""Guided attributes: steer texts towards an attribute, or away from it, with a strength.

A guide scores every token for an attribute: with an expected sum of word weights, or with the log of a ratio of two
    probabilities. The scores times the strength, summed over the guides, are added to the logits. Before that the
    distribution is filtered, as in DExperts (Liu et al. 2021): tokens that are very unlikely under the model are
    masked, so that no strength can select them. Tokens that top-p and the like remove are masked by then, and nothing
    is cut off afterwards: a second cut would reduce the variety of texts even with the weakest guide.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from ..decoding.texts import JudgesTexts, Texts, undecided

# Tokens whose log-probability is below the most probable one's by more than this, in nats, are masked before the shift.
MOST_BELOW = 5.0


class Guide(Protocol):
    """Scores tokens for an attribute."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """How much every token contributes to the attribute.

        Args:
            input_ids: (rows, length) token ids. The state of a row has to follow from its tokens: beam search reorders
                rows, and assisted decoding takes tokens back.
            scores: (rows, vocabulary), after the preceding processors.

        Returns:
            (rows, vocabulary) float, finite: what to add to the log-probabilities at a strength of 1.
        """
        ...


class GuidedAttributesLogitsProcessor(JudgesTexts):
    """Shifts scores towards attributes.

    Comes after all processors that mask tokens, temperature, top-k and top-p included, so one allowed token always
    remains.

    Args:
        guides: guides, each with its strength; below 0 it steers away. Those with a strength of 0 do nothing.
        most_below: see `MOST_BELOW`.
        temperature: flattens the distribution over the allowed tokens before the shift.

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
        self.has_cheap_texts = all(getattr(guide, "has_cheap_texts", False) for guide, _ in self.guides)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores, filtered and shifted."""
        return self._shifted(scores, [guide(input_ids, scores) for guide, _ in self.guides])

    @property
    def judges(self) -> bool:
        """See `JudgesTexts`: whether all guides can."""
        return all(hasattr(guide, "judge_texts") for guide, _ in self.guides)

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. Guides are asked only about texts in which they can change anything."""
        left = undecided(scores)
        if not left:
            return scores
        at = torch.tensor(left)
        texts, given = texts.part(left), scores.index_select(0, at)
        shifted = self._shifted(given, [guide.judge_texts(texts, given) for guide, _ in self.guides])  # type: ignore[attr-defined]
        return scores.index_copy(0, at, shifted)

    def _shifted(self, scores: torch.Tensor, told: Sequence[torch.Tensor]) -> torch.Tensor:
        if not told:
            return scores
        shifts = [
            shift.to(scores.device, torch.float32) * strength
            for shift, (_, strength) in zip(told, self.guides, strict=True)
        ]
        # Summed in a fixed order whatever the order of the guides, so that the result is the same to the last bit.
        shift = shifts[0] if len(shifts) == 1 else torch.stack(shifts).sort(dim=0).values.sum(dim=0)
        filtered = scores.masked_fill(scores < scores.amax(dim=-1, keepdim=True) - self.most_below, -torch.inf)
        return filtered / self.temperature + shift.to(scores.dtype)
