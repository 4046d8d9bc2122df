"""The strength of an attribute at which most texts lean towards it, measured on texts that the model writes.

A judge gives each text the log-odds that it has the attribute; above 0 the text leans towards it. The strength at which
90% do is one scale for all attributes, whatever a strength of 1 does to a single one.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from fundamentallm_hf.portable.guides.attributes import Attribute

from .labelled_samples import OwnText, Writing, write_texts
from .text_likelihood import likelihoods

# The share of texts that have to lean, and the strengths that are tried.
SHARE, STRENGTHS = 0.9, (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
# A suggested strength is a multiple of this.
_STEP = 0.5
_NAME = "measured"

Judge = Callable[[Sequence[OwnText]], list[float]]


class Leaning(NamedTuple):
    """How many texts lean towards an attribute.

    Attributes:
        shares: by strength, the smallest first: the share of the texts that lean; 0 is without a guide.
        perplexities: by strength: the perplexity of the texts under the model without a guide, per token.
        suggested: the least strength at which `SHARE` of them do; None where none of those tried reached it. 0 where
            so many lean without a guide.
        texts: number of texts for each strength.
    """

    shares: dict[float, float]
    perplexities: dict[float, float]
    suggested: float | None
    texts: int

    @property
    def best(self) -> float:
        """The strength that was tried at which most texts lean; the smallest of several."""
        return max(self.shares, key=lambda strength: (self.shares[strength], -strength))


def measure_leaning(
    model: Any,
    tokenizer: Any,
    attribute: Attribute,
    judge: Judge,
    writing: Writing,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Leaning:
    """Write texts with a guide at several strengths, and find the least strength at which most of them lean.

    The strengths are searched by bisection, so that about half of them are tried, and a result between two of them is
    interpolated.

    Args:
        model: a causal language model.
        tokenizer: the tokenizer of the model.
        attribute: it guides the texts.
        judge: gives the log-odds of each text; nan for one that it cannot judge, which does not lean.
        writing: the texts at each strength; best after openings that the attribute was not learnt from.
        progress: called with the number of strengths that were measured, and how many these may be.
    """
    shares: dict[float, float] = {}
    perplexities: dict[float, float] = {}
    most = 2 + math.ceil(math.log2(len(STRENGTHS)))

    def share(strength: float) -> float:
        controls = {"guide_attribute": [_NAME], "guide_strength": strength} if strength else None
        with _carrying(model, attribute):
            texts = write_texts(model, tokenizer, writing, controls=controls)
        shares[strength] = sum(odds > 0 for odds in judge(texts)) / len(texts)
        perplexities[strength] = _perplexity(model, tokenizer, texts)
        progress(len(shares), most)
        return shares[strength]

    below, above = -1, len(STRENGTHS)
    if share(0.0) < SHARE:
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (below, middle) if share(STRENGTHS[middle]) >= SHARE else (middle, above)
    progress(most, most)
    ordered = sorted(shares)
    return Leaning(
        {each: shares[each] for each in ordered},
        {each: perplexities[each] for each in ordered},
        _suggested(shares),
        writing.number,
    )


def _suggested(shares: dict[float, float]) -> float | None:
    """The least strength at which enough texts lean, by the straight line between two that were measured."""
    enough = [strength for strength in sorted(shares) if shares[strength] >= SHARE]
    if not enough:
        return None
    above = enough[0]
    below = max((strength for strength in shares if strength < above), default=above)
    if below == above:
        return above
    part = (SHARE - shares[below]) / (shares[above] - shares[below])
    return min(above, math.ceil((below + part * (above - below)) / _STEP) * _STEP)


def _perplexity(model: Any, tokenizer: Any, texts: Sequence[OwnText]) -> float:
    read = likelihoods(model, tokenizer, texts)
    return math.exp(-sum(each.log for each in read) / max(1, sum(each.tokens for each in read)))


@contextmanager
def _carrying(model: Any, attribute: Attribute) -> Any:
    """Puts the attribute on the model for a while."""
    before = getattr(model, "attributes", None)
    model.attributes = {**(before or {}), _NAME: attribute}
    try:
        yield
    finally:
        if before is None:
            del model.attributes
        else:
            model.attributes = before
