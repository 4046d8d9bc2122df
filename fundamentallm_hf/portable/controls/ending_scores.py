"""Sums and shifts of unnormalized log-probabilities."""

import math

import numpy as np


def log_sum(scores: np.ndarray) -> float:
    """The logarithm of the summed probability of unnormalized scores."""
    most = float(scores.max(initial=-np.inf))
    return most + math.log(float(np.exp(scores - most).sum())) if math.isfinite(most) else -math.inf


def give_to(changed: np.ndarray, closers: np.ndarray, lost: float) -> None:
    """Add lost probability to some tokens, in proportion to theirs, in `changed` **in place**."""
    own = log_sum(np.where(closers, changed, -np.inf))
    if math.isfinite(lost) and math.isfinite(own):
        changed[closers] += np.logaddexp(own, lost) - own
