"""Predicts the next word from the state that a model's output layer reads where a word is about to begin.

It is a network of two layers, learned once from text like the model's own. Controls that must know which word a letter
begins thus need no pass of the model. Words that are not among the classes share that of their first letter.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .sidecar_names import NEXT_WORDS_FILE

_CLASSES = "fundamentallm-next-words"
_PARTS = ("inner", "inner_bias", "outer", "outer_bias")
# Ends the name of the class of all other words with a first letter.
OTHERS = "*"


class NextWords:
    """A classifier of the next word.

    Args:
        classes: words, folded, and for each first letter the other words that begin with it ("a*").
        inner: (width, hidden size).
        inner_bias: (width,).
        outer: (classes, width).
        outer_bias: (classes,).

    Raises:
        ValueError: the shapes do not fit together.
    """

    def __init__(
        self,
        classes: Sequence[str],
        inner: torch.Tensor,
        inner_bias: torch.Tensor,
        outer: torch.Tensor,
        outer_bias: torch.Tensor,
    ) -> None:
        shapes = [
            (len(inner_bias), inner.shape[-1]),
            (len(inner_bias),),
            (len(classes), len(inner_bias)),
            (len(classes),),
        ]
        tensors = inner, inner_bias, outer, outer_bias
        if [tuple(each.shape) for each in tensors] != shapes:
            raise ValueError(f"expected tensors of the shapes {shapes}")
        self.classes = [*classes]
        self.inner, self.inner_bias, self.outer, self.outer_bias = (each.detach().float() for each in tensors)

    @property
    def hidden_size(self) -> int:
        """How many numbers a state has."""
        return self.inner.shape[1]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """`states`: (texts, hidden size), where a word is about to begin. Returns (texts, classes)."""
        inner = nn.functional.gelu(nn.functional.linear(states.to(self.inner), self.inner, self.inner_bias))
        return nn.functional.linear(inner, self.outer, self.outer_bias)

    @classmethod
    def load(cls, file: str | Path) -> "NextWords":
        """Read a file that `save` wrote.

        Raises:
            ValueError: it is anything else.
        """
        try:
            with safe_open(file, "pt") as parts:
                classes = json.loads((parts.metadata() or {})[_CLASSES])
                if not isinstance(classes, list) or not all(isinstance(name, str) and name for name in classes):
                    raise ValueError("the classes have to be a list of words")
                return cls(classes, *(parts.get_tensor(name) for name in _PARTS))
        except (SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
            raise ValueError(
                f"{file} is no {NEXT_WORDS_FILE}: make one with `fundamentallm draft --next-words` ({error})"
            ) from error

    def save(self, file: str | Path) -> None:
        """Write the classifier, in half precision."""
        tensors = {name: getattr(self, name).half().contiguous() for name in _PARTS}
        save_file(tensors, file, {_CLASSES: json.dumps(self.classes, ensure_ascii=False)})
