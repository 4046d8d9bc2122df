"""The weights of the network's layers in the form in which `lean_step.py` multiplies them.

The product of a few tokens with a matrix takes up to a third less time if the matrix is transposed in memory. So the
matrices are copied and transposed. The copies of query, key and value are joined, and the weights of the norms and the
constants of GELU are multiplied into the matrices, which saves operations.
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch.nn import functional
from transformers.activations import GELUActivation

# Models with more bytes in their layers are not copied.
MOST_COPIED = 2**28
# A matrix (inputs, outputs) and a bias, (outputs,).
Affine = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LeanLayer:
    """The tensors of one layer.

    Attributes:
        attention_norm: weights of the norm before attention; None if `projections` contains them.
        projections: of query, key and value; one if they are joined.
        out: the output projection of attention.
        mlp_norm: weights of the norm before the feed-forward layer; None if `up` contains them.
        up, down: the feed-forward layer.
        activation: the function between the two.
    """

    attention_norm: torch.Tensor | None
    projections: tuple[Affine, ...]
    out: Affine
    mlp_norm: torch.Tensor | None
    up: Affine
    down: Affine
    activation: Callable[[torch.Tensor], torch.Tensor]


# For each model its layers, and the fingerprint of the weights that were copied.
_COPIES: "weakref.WeakKeyDictionary[Any, tuple[torch.Tensor, list[LeanLayer]]]" = weakref.WeakKeyDictionary()


@torch.inference_mode()
def lean_layers(model: Any) -> list[LeanLayer]:
    """The layers of a model; copied again when its weights have changed."""
    layers = model.model.layers
    if sum(each.nbytes for each in layers.parameters()) > MOST_COPIED:
        return [_as_it_is(layer) for layer in layers]
    now, known = _fingerprint(layers), _COPIES.get(model)
    if known is None or not torch.equal(known[0], now):
        known = _COPIES[model] = now, [_copied(layer) for layer in layers]
    return known[1]


@torch.inference_mode()
def steered_layers(layers: list[LeanLayer], vectors: Mapping[int, torch.Tensor]) -> list[LeanLayer]:
    """The layers, of which some add a vector, (hidden size,), to the states: as a part of their last bias, for free."""
    if not vectors:
        return layers
    return [
        replace(layer, down=(layer.down[0], layer.down[1] + vectors[index])) if index in vectors else layer
        for index, layer in enumerate(layers)
    ]


def linears_of(layer: Any) -> tuple[Any, ...]:
    """The six linear modules of a layer: query, key, value, output; up, down."""
    attention, mlp = layer.self_attn, layer.mlp
    return attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.fc1, mlp.fc2


def _fingerprint(layers: Any) -> torch.Tensor:
    """Changes with the weights: a product of each matrix with a fixed vector, and all else as it is.

    Comparing the weights themselves would take as long as several passes, and a write through `.data` leaves no other
    trace. A change that is lost in the rounding of these products is no larger than the rounding errors of a pass.
    """
    parts = []
    for layer in layers:
        for linear in linears_of(layer):
            parts += [torch.mv(linear.weight, _probe(linear.in_features, linear.weight.dtype)), linear.bias]
        parts += [layer.input_layernorm.weight, layer.post_attention_layernorm.weight]
    return torch.cat(parts)


@cache
def _probe(size: int, dtype: torch.dtype) -> torch.Tensor:
    """Random numbers from 1 to 2 with random signs."""
    generator = torch.Generator().manual_seed(size)
    signs = torch.randint(2, (size,), generator=generator) * 2 - 1
    return (signs * (1 + torch.rand(size, generator=generator))).to(dtype)


def _as_it_is(layer: Any) -> LeanLayer:
    *projections, out, up, down = ((each.weight.t(), each.bias) for each in linears_of(layer))
    activation = functional.gelu if type(layer.mlp.activation) is GELUActivation else layer.mlp.activation
    norms = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
    return LeanLayer(norms[0], tuple(projections), out, norms[1], up, down, activation)


def _copied(layer: Any) -> LeanLayer:
    *projections, out, up, down = linears_of(layer)
    joined = torch.cat([each.weight for each in projections]) * layer.input_layernorm.weight
    raised, activation, factor = up.weight * layer.post_attention_layernorm.weight, layer.mlp.activation, 1.0
    if type(activation) is GELUActivation:
        activation, factor = _gelu_of_scaled, 0.5**0.5
    return LeanLayer(
        attention_norm=None,
        projections=((_transposed(joined), torch.cat([each.bias for each in projections])),),
        out=(_transposed(out.weight), out.bias.clone()),
        mlp_norm=None,
        up=(_transposed(raised) * factor, up.bias * factor),
        down=(_transposed(down.weight) * factor, down.bias.clone()),
        activation=activation,
    )


def _transposed(weight: torch.Tensor) -> torch.Tensor:
    return weight.t().clone(memory_format=torch.contiguous_format)


def _gelu_of_scaled(scaled: torch.Tensor) -> torch.Tensor:
    """GELU(x) * sqrt(2), given x / sqrt(2). For few tokens, torch's takes four times as long."""
    return torch.addcmul(scaled, scaled, torch.erf(scaled))
