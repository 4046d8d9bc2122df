"""Sums and shifts of unnormalized log-probabilities."""

import math
from collections.abc import Sequence

import numpy as np

from .ending_plan import NEVER

_LEAST = float(np.finfo(float).tiny)


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


def rest_scores(
    rests: Sequence[tuple[int, ...]], given: np.ndarray, chances: Sequence[float] = ()
) -> tuple[np.ndarray, float]:
    """The scores of the first tokens of some continuations, and the score that none of them follows.

    In beams, what comes after the first token counts once more, so they lean to an end.

    Args:
        rests: the continuations.
        given: (vocabulary,) scores of the next token.
        chances: the log-probability of each; by default that of its first token.
    """
    tokens = sorted({rest[0] for rest in rests})
    changed, total = np.full_like(given, -np.inf), log_sum(given)
    changed[tokens] = given[tokens]
    for token in tokens if chances else ():
        of_token = [chance for rest, chance in zip(rests, chances, strict=True) if rest[0] == token]
        changed[token] = log_sum(np.array(of_token)) + total
    share = float(np.exp(changed[tokens] - total).sum()) if math.isfinite(total) else 1.0
    return changed, math.log(max(1.0 - share, _LEAST)) + total


def begin_last(
    changed: np.ndarray, given: np.ndarray, begins: list[tuple[int, ...]], lost: float
) -> list[tuple[int, ...]]:
    """Give the first token of last words the probability of what would go on, in `changed`.

    Args:
        changed, given: (size,) the scores, as they are and as they were.
        begins: the tokens of each way to write the last words.
        lost: what would go on.

    Returns:
        The ways in which they have to go on if that token is chosen. None where the model itself would choose it more
        often than that.
    """
    best = max((way[0] for way in begins), key=lambda token: float(given[token]))
    weight = max(lost, float(given[best]))
    if np.isfinite(changed).any() and (weight == -np.inf or lost < given[best]):
        return []
    changed[best] = weight if math.isfinite(weight) else 0.0
    return [way for way in begins if way[0] == best]
