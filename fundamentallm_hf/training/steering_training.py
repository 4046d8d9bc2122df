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

from .text_sides import Side, SidesTraining
from .text_states import Passage, Reader, read_sides

# A strength of 1 is this part of the difference of the means, so that useful strengths are from 1 to 8.
UNIT = 0.25


@dataclass(frozen=True)
class SteeringTraining(SidesTraining):
    """The result. The score of a text is how far its mean state is along the vector.

    Attributes:
        vectors: of one layer.
    """

    vectors: SteeringVectors


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
    texts = _untaught(with_texts), _untaught(without_texts)
    sides = read_sides(Reader(model, tokenizer, layer=layer), *texts, progress)
    having, lacking = (_means(side).mean(dim=0) for side in sides.learned())
    vector = having - lacking
    results = sides.results(lambda side: (_means(side) @ vector).tolist())
    return SteeringTraining(*results, SteeringVectors.of_model(model, {layer: vector * UNIT}))


def _untaught(texts: Sequence[str | Passage]) -> list[str | Passage]:
    """The texts without their teachers, whose states are those of other texts."""
    return [each if isinstance(each, str) else replace(each, teacher="") for each in texts]


def _means(side: Side) -> torch.Tensor:
    """(passages, hidden size) the mean state of each passage."""
    return side.passage_means(side.states.float())
