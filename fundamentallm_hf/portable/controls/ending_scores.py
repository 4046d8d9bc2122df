"""Sums and shifts of unnormalized log-probabilities."""

import math

import numpy as np

from .ending_plan import NEVER


def log_sum(scores: np.ndarray) -> float:
    """The logarithm of the summed probability of unnormalized scores."""
    most = float(scores.max(initial=-np.inf))
    return most + math.log(float(np.exp(scores - most).sum())) if math.isfinite(most) else -math.inf


def give_to(changed: np.ndarray, closers: np.ndarray, lost: float) -> None:
    """Add lost probability to some tokens, in proportion to theirs, in `changed` **in place**."""
    own = log_sum(np.where(closers, changed, -np.inf))
    if math.isfinite(lost) and math.isfinite(own):
        changed[closers] += np.logaddexp(own, lost) - own


def last_way(needs: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Other controls have masked all that fits: what is left that leads to an end soonest.

    Args:
        needs: (size,) the least number of tokens to an end after each token.
        given: (size,) their scores.
    """
    open_tokens = np.isfinite(given)
    if not open_tokens.any():
        return given
    least = needs[open_tokens].min()
    return np.where(open_tokens & (needs == least), given, -np.inf) if least < NEVER else given
