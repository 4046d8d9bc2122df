"""Steering vectors: what to add to a model's hidden states after some layers, so that its texts have an attribute.

A vector is the difference of the mean states of texts with the attribute and of texts without it (activation addition,
Turner et al. 2023; contrastive activation addition, Rimsky et al. 2023). It costs nothing to compute, because it is one
addition in a pass. Unlike other guides, it changes what the model finds probable, before any control filters that.
"""

from collections.abc import Mapping
from typing import Any

import torch

from ..decoding.steering import decoder_layers
from .signed_tensors import Signature, SignedTensors, reading, same_signature, signature_of

_VECTORS = "fundamentallm-steering-vectors"
_PREFIX = "layers."


class SteeringVectors:
    """The vectors of an attribute for one model.

    Args:
        vectors: (hidden size,) each, by the index of the layer after which they are added, times the strength.
        signature: of the model's input embeddings; see `signature_of`.

    Raises:
        ValueError: there are none, or they have different sizes.
    """

    def __init__(self, vectors: Mapping[int, torch.Tensor], signature: Signature) -> None:
        shapes = {tuple(each.shape) for each in vectors.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError("steering vectors have to be vectors of one size, at least one")
        self.vectors = {layer: vectors[layer].float() for layer in sorted(vectors)}
        self.signature = signature

    @classmethod
    def of_model(cls, model: Any, vectors: Mapping[int, torch.Tensor]) -> "SteeringVectors":
        """Vectors for this model."""
        return cls(vectors, _signature(model))

    def misfit(self, model: Any) -> str | None:
        """Why these vectors cannot be used with a model; None if they can."""
        try:
            layers = decoder_layers(model)
        except ValueError as error:
            return str(error)
        width, theirs = len(next(iter(self.vectors.values()))), model.config.get_text_config().hidden_size
        if width != theirs:
            return f"its vectors have {width} numbers, and this model's states have {theirs}"
        if max(self.vectors) >= len(layers):
            return f"its vectors are for layer {max(self.vectors)}, and this model has {len(layers)} layers"
        if not same_signature(self.signature, _signature(model)):
            return "its vectors were made for another model"
        return None

    def to_bytes(self) -> bytes:
        """The vectors as the content of a safetensors file."""
        tensors = {f"{_PREFIX}{layer}": vector.contiguous() for layer, vector in self.vectors.items()}
        return SignedTensors(tensors, self.signature).to_bytes(_VECTORS)

    @classmethod
    def from_bytes(cls, content: bytes) -> "SteeringVectors":
        """Read the result of `to_bytes`.

        Raises:
            ValueError: it is anything else.
        """
        with reading("steering vectors"):
            tensors, signature = SignedTensors.from_bytes(content, _VECTORS)
            return cls({int(name.removeprefix(_PREFIX)): each for name, each in tensors.items()}, signature)


def _signature(model: Any) -> Signature:
    return signature_of(model.get_input_embeddings().weight.detach())
