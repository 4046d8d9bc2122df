"""What `weight_tables` computes: the state of a text under a list of weights, and what each token after it is worth."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from .token_reader import TextState
from .weighted_patterns import LEAST_VALUE


class WeighedState(NamedTuple):
    """The state of a text, and what was paid for what it has begun.

    Attributes:
        text: the state of the text; nothing is due.
        paid: the logarithm of the factor expected after its last token.
        begun: the part of a word that it ends with, folded.
        tokens: how many tokens that is.
    """

    text: TextState
    paid: float = 0.0
    begun: str = ""
    tokens: int = 0


@dataclass(frozen=True)
class WorthTable:
    """What every token is worth in one state, before what was paid for the state is taken off.

    Attributes:
        worth: (vocabulary,) float32; 0 for tokens that add no text, which leave everything as it is.
        end: what it is worth to end the text here.
        risky: (risky,) ids of the tokens that begin an entry or continue one.
        stakes: (risky,) float32, how uncertain the expected factor after each is, by word counts.
        due: (vocabulary,) the weights of the entries that each token completes.
        beyond: (vocabulary,) what phrases, without their words, add to the expected factor after each.
    """

    worth: torch.Tensor
    end: float
    risky: np.ndarray
    stakes: np.ndarray
    due: np.ndarray
    beyond: np.ndarray

    @cached_property
    def without_words(self) -> np.ndarray:
        """(vocabulary,) what each token is worth if no word that it begins has a weight."""
        return self.due + np.log(np.maximum(LEAST_VALUE, 1.0 + self.beyond))
