"""Makes steering vectors for a model from two kinds of texts.

The vector of a layer is the difference of the means of its states in texts with the attribute and in texts without it.
The mean is taken over passages, so that long ones count no more than short ones. Nothing is trained: the model reads a
few dozen texts once, up to that layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fundamentallm_hf.portable.decoding.steering import decoder_layers
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.steering_vectors import SteeringVectors

from .text_states import Passage, Reader, Side, read_sides
from .word_training import area_under_curve

# A strength of 1 is this part of the difference of the means, so that useful strengths are from 1 to 8.
UNIT = 0.25


@dataclass(frozen=True)
class SteeringTraining:
    """The result.

    Attributes:
        vectors: of one layer.
        separation: on held-out texts, the probability that the mean state of one with the attribute is further along
            the vector than that of one without (the area under the ROC curve: 0.5 is random); None where there were too
            few to hold some out.
        texts: number of texts that were read with the attribute, and without.
        tokens: number of tokens of the texts that were not held out, with the attribute, and without.
    """

    vectors: SteeringVectors
    separation: float | None
    texts: tuple[int, int]
    tokens: tuple[int, int]


def train_steering(
    model: Any,
    tokenizer: Any,
    with_texts: Sequence[str | Passage],
    without_texts: Sequence[str | Passage],
    progress: Callable[[str, int, int], None] = lambda *_: None,
    layer: int | None = None,
) -> SteeringTraining:
    """Make the steering vector of an attribute.

    Args:
        model: a causal language model.
        tokenizer: the tokenizer of the model, a fast one.
        with_texts: texts that have the attribute, such as the lines of a file.
        without_texts: texts that lack it.
        progress: called with the name of the current step, the work done, and the total.
        layer: the index of the layer after which the vector is added; by default the middle one.

    Raises:
        UserError: a side has nothing to learn from, the tokenizer does not report the positions of its tokens, or the
            model has no list of layers.
    """
    try:
        layers = len(decoder_layers(model))
    except ValueError as error:
        raise UserError(f"{error}: choose another --kind") from error
    layer = (layers - 1) // 2 if layer is None else layer
    having, lacking = ([_untaught(each) for each in texts] for texts in (with_texts, without_texts))
    sides = read_sides(Reader(model, tokenizer, layer=layer), having, lacking, progress)
    fewest = min(side.passages for side in sides)
    held = [side.held_out(fewest) for side in sides]
    means = [_means(side, ~out).mean(dim=0) for side, out in zip(sides, held, strict=True)]
    vector = means[0] - means[1]
    separation = None
    if held[0].any():
        along = [(_means(side, out) @ vector).tolist() for side, out in zip(sides, held, strict=True)]
        separation = area_under_curve(*along)
    tokens = [int((~out).sum()) for out in held]
    return SteeringTraining(
        SteeringVectors.of_model(model, {layer: vector * UNIT}),
        separation,
        (sides[0].passages, sides[1].passages),
        (tokens[0], tokens[1]),
    )


def _untaught(text: str | Passage) -> str | Passage:
    """The text without its teacher, whose states are those of other texts."""
    return text if isinstance(text, str) else replace(text, teacher="")


def _means(side: Side, picked: torch.Tensor) -> torch.Tensor:
    """(passages, hidden size) the mean states of passages, of the picked tokens; `picked` is (tokens,) bool."""
    _, passages = side.owners[picked].unique(return_inverse=True)
    sums = torch.zeros(int(passages.max()) + 1, side.states.shape[1])
    sums.index_add_(0, passages, side.states[picked].float())
    return sums / passages.bincount()[:, None]
