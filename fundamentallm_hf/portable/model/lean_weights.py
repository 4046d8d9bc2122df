"""The weights of the network's layers in the form in which `lean_step.py` multiplies them.

The product of a few tokens with a matrix takes up to a third less time if the matrix is transposed in memory. So the
matrices are copied and transposed. The copies of query, key and value are joined, and the weights of the norms and the
constants of GELU are multiplied into the matrices, which saves operations.

A larger model spends its time on reading the matrices. Where every weight is a float16 number, it is copied as one, and
multiplied and added up in float32: half as much is read, and the sums are those of float32.
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers.activations import GELUActivation

# Models with more bytes in their layers are not copied.
MOST_COPIED = 2**28
# Models with fewer bytes in their layers are not packed in float16: they fit into the processor's caches.
LEAST_PACKED = 2**25
# The most tokens for which a product with packed weights is the faster one.
FEW = 24


class Affine(NamedTuple):
    """A product with a matrix (inputs, outputs), and the sum with a bias, (outputs,)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, given: torch.Tensor) -> torch.Tensor:
        """(tokens, inputs) to (tokens, outputs)."""
        return torch.addmm(self.bias, given, self.weight)

    def plus(self, vector: torch.Tensor) -> "Affine":
        """The same with a vector, (outputs,), added to the bias."""
        return Affine(self.weight, self.bias + vector)


class HalfAffine(NamedTuple):
    """The same with weights that are stored in float16; the products and sums are in float32.

    `packed` is the matrix as torch's kernel reads it.
    """

    packed: Any
    bias: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor) -> "HalfAffine":
        """Pack a matrix (outputs, inputs) in float32 whose values are float16 numbers.

        Raises:
            RuntimeError, AttributeError: torch has no such product on this processor, or in this version.
        """
        return cls(torch.ops.quantized.linear_prepack_fp16(weight, None), bias)

    def __call__(self, given: torch.Tensor) -> torch.Tensor:
        """(tokens, inputs) to (tokens, outputs)."""
        found: torch.Tensor = torch.ops.quantized.linear_dynamic_fp16.default(given, self.packed)
        return found.add_(self.bias)

    def plus(self, vector: torch.Tensor) -> "HalfAffine":
        """The same with a vector, (outputs,), added to the bias."""
        return HalfAffine(self.packed, self.bias + vector)


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
    projections: tuple[Affine | HalfAffine, ...]
    out: Affine | HalfAffine
    mlp_norm: torch.Tensor | None
    up: Affine | HalfAffine
    down: Affine | HalfAffine
    activation: Callable[[torch.Tensor], torch.Tensor]


class LeanLayers(NamedTuple):
    """The layers of a model.

    Attributes:
        many: for any number of tokens.
        few: for at most `FEW` tokens.
    """

    many: list[LeanLayer]
    few: list[LeanLayer]


# For each model its layers, and the fingerprint of the weights that were copied.
_COPIES: "weakref.WeakKeyDictionary[Any, tuple[torch.Tensor, LeanLayers]]" = weakref.WeakKeyDictionary()


@torch.inference_mode()
def lean_layers(model: Any) -> LeanLayers:
    """The layers of a model; copied again when its weights have changed."""
    layers = model.model.layers
    size = sum(each.nbytes for each in layers.parameters())
    if size > MOST_COPIED:
        found = [_as_it_is(layer) for layer in layers]
        return LeanLayers(found, found)
    now, known = _fingerprint(layers), _COPIES.get(model)
    if known is None or not torch.equal(known[0], now):
        packed = _all_packed(layers) if size >= LEAST_PACKED else None
        many = [_copied(layer) if packed is None else _as_it_is(layer) for layer in layers]
        known = _COPIES[model] = now, LeanLayers(many, packed or many)
    return known[1]


@torch.inference_mode()
def steered_layers(layers: LeanLayers, vectors: Mapping[int, torch.Tensor]) -> LeanLayers:
    """The layers, of which some add a vector, (hidden size,), to the states: as a part of their last bias, for free."""
    if not vectors:
        return layers
    many, few = (
        [
            replace(layer, down=layer.down.plus(vectors[index])) if index in vectors else layer
            for index, layer in enumerate(each)
        ]
        for each in layers
    )
    return LeanLayers(many, few)


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
    *projections, out, up, down = (Affine(each.weight.t(), each.bias) for each in linears_of(layer))
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
        projections=(Affine(_transposed(joined), torch.cat([each.bias for each in projections])),),
        out=Affine(_transposed(out.weight), out.bias.clone()),
        mlp_norm=None,
        up=Affine(_transposed(raised) * factor, up.bias * factor),
        down=Affine(_transposed(down.weight) * factor, down.bias.clone()),
        activation=activation,
    )


def _all_packed(layers: Any) -> list[LeanLayer] | None:
    """The layers with weights in float16; None if that would change a weight, or torch cannot multiply them."""
    if not all(_is_half(linear.weight) for layer in layers for linear in linears_of(layer)):
        return None
    try:
        return [_packed_layer(layer) for layer in layers] if _multiplies_half() else None
    except (AttributeError, RuntimeError):
        return None


def _is_half(weight: torch.Tensor) -> bool:
    return weight.dtype == torch.float32 and torch.equal(weight.half().float(), weight)


def _multiplies_half() -> bool:
    """Whether the product with weights in float16 is as exact as one in float32."""
    given, weight = _probe(64, torch.float32)[None], _probe(64 * 64, torch.float32).view(64, 64).half().float()
    found = HalfAffine.of(weight, torch.ones(64))(given)
    return torch.allclose(found, functional.linear(given, weight) + 1, rtol=1e-5, atol=1e-4)


def _packed_layer(layer: Any) -> LeanLayer:
    *projections, out, up, down = linears_of(layer)
    joined = torch.cat([each.weight for each in projections]), torch.cat([each.bias for each in projections])
    return LeanLayer(
        attention_norm=layer.input_layernorm.weight,
        projections=(HalfAffine.of(*joined),),
        out=HalfAffine.of(out.weight, out.bias),
        mlp_norm=layer.post_attention_layernorm.weight,
        up=HalfAffine.of(up.weight, up.bias),
        down=HalfAffine.of(down.weight, down.bias),
        activation=_gelu if type(layer.mlp.activation) is GELUActivation else layer.mlp.activation,
    )


def _transposed(weight: torch.Tensor) -> torch.Tensor:
    return weight.t().clone(memory_format=torch.contiguous_format)


def _gelu(given: torch.Tensor) -> torch.Tensor:
    return _gelu_of_scaled(given * 0.5**0.5) * 0.5**0.5


def _gelu_of_scaled(scaled: torch.Tensor) -> torch.Tensor:
    """GELU(x) * sqrt(2), given x / sqrt(2). For few tokens, torch's takes four times as long."""
    return torch.addcmul(scaled, scaled, torch.erf(scaled))
