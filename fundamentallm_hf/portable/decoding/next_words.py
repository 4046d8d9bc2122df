"""Predicts the next word from the state that a model's output layer reads where a word is about to begin.

It is a network of two layers, learned once from text like the model's own. Controls that must know which word a letter
begins thus need no pass of the model. Words that are not among the classes share that of their first letter.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
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
        self._letters: dict[str, np.ndarray] = {}

    @property
    def hidden_size(self) -> int:
        """How many numbers a state has."""
        return self.inner.shape[1]

    @property
    def width(self) -> int:
        """How many numbers `read` returns."""
        return self.inner.shape[0]

    def read(self, states: torch.Tensor) -> torch.Tensor:
        """`states`: (texts, hidden size), where a word is about to begin. Returns (texts, width)."""
        return nn.functional.gelu(nn.functional.linear(states.to(self.inner), self.inner, self.inner_bias))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """`states`: (texts, hidden size), where a word is about to begin. Returns (texts, classes)."""
        return nn.functional.linear(self.read(states), self.outer, self.outer_bias)

    def letter_logits(self, read: np.ndarray, letter: str) -> np.ndarray:
        """The logits of the classes with a first letter: that of the others, if there is one, then words, sorted.

        Most words begin with one of few letters, so most of the outer layer need not be computed.

        Args:
            read: (width + 1,) what `read` returned for a text, and 1, both divided by the temperature.
            letter: the letter.
        """
        if letter not in self._letters:
            numbers = [number for number, name in enumerate(self.classes) if name[0] == letter]
            numbers.sort(key=lambda number: (self.classes[number] != f"{letter}{OTHERS}", self.classes[number]))
            outer = torch.cat([self.outer[numbers], self.outer_bias[numbers, None]], dim=1)
            self._letters[letter] = outer.numpy()
        return self._letters[letter] @ read

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
