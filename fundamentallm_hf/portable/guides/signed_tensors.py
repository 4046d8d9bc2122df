"""Tensors made for one model, in a safetensors file with a signature by which that model is recognised."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch

# The signature is the lengths of this many rows of a matrix; they may differ by this part (rounding).
_SIGNED_ROWS, _ROUNDING = 8, 0.02

Signature = tuple[float, ...]


class SignedTensors(NamedTuple):
    """The content of such a file.

    Attributes:
        tensors: by name.
        signature: of the model.
    """

    tensors: Mapping[str, torch.Tensor]
    signature: Signature

    def to_bytes(self, kind: str) -> bytes:
        """The content of the file; `kind` is what the tensors are, the name of its only entry of metadata."""
        from safetensors.torch import save

        # One entry, because the order of several is random.
        return save(dict(self.tensors), {kind: json.dumps({"signature": self.signature})})

    @classmethod
    def from_bytes(cls, content: bytes, kind: str) -> "SignedTensors":
        """Read the result of `to_bytes`, within `reading`, which makes one error of all that it may raise."""
        from safetensors.torch import load

        tensors = load(content)
        # The header comes first: its length in eight bytes, then the header as JSON.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        signature = json.loads(header["__metadata__"][kind])["signature"]
        return cls(tensors, tuple(map(float, signature)))


@contextmanager
def reading(shown: str) -> Iterator[None]:
    """Read the content of a file of signed tensors, and make something of it.

    Args:
        shown: what it has to hold, for the error.

    Raises:
        ValueError: it holds anything else.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{shown} have to be a safetensors file that train-attribute has written") from error


def signature_of(weight: torch.Tensor) -> Signature:
    """Identifies a model by one of its matrices, (rows, width): the lengths of some rows."""
    rows = torch.linspace(0, len(weight) - 1, _SIGNED_ROWS).long()
    lengths = weight[rows.to(weight.device)].float().norm(dim=-1)
    return tuple(round(value, 5) for value in lengths.tolist())


def same_signature(one: Signature, other: Signature) -> bool:
    """Whether two signatures are those of one model, up to rounding."""
    return len(one) == len(other) and torch.allclose(torch.tensor(one), torch.tensor(other), rtol=_ROUNDING)
