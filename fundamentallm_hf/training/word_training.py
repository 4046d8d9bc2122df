"""Makes word weights from two texts: one with an attribute, one without.

The weight of a word is the log-odds ratio of its use in the two, smoothed by an informative Dirichlet prior and kept
where it is significant (Monroe, Colaresi and Quinn 2008, section 3.4). So the sum of a text's weights is about the log
of how much more probable it is among the texts with the attribute.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.text.characters import fold_text, is_word

# A weight is kept if it is this many standard deviations from 0: 1 in 20 would be random.
_CLEAR = 1.96
# Weight of the prior for each observation of a word, and the largest weight.
PRIOR, LARGEST = 0.1, 4.0
# Of this many texts of each side, the last is held out; below the second number none is.
_HELD_OUT, _LEAST = 5, 10
MOST_WORDS = 20_000


@dataclass(frozen=True)
class Training:
    """The result of the training.

    Attributes:
        weights: of the words, the largest first.
        separation: on held-out texts, the probability that one with the attribute has a larger mean weight than one
            without (the area under the ROC curve: 0.5 is random); None where there were too few to hold some out.
        texts: number of texts with the attribute, and without.
    """

    weights: dict[str, float]
    separation: float | None
    texts: tuple[int, int]


def train_words(
    with_texts: Sequence[str], without_texts: Sequence[str], progress: Callable[[int, int], None] = lambda *_: None
) -> Training:
    """Compute word weights from the use of words in two kinds of texts.

    Args:
        with_texts: texts that have the attribute, such as the lines of a file.
        without_texts: texts that lack it.
        progress: called with the steps done, and their total.

    Raises:
        UserError: there are no words on one side, or no word separates the sides.
    """
    sides: list[list[list[str]]] = []
    done, total = 0, len(with_texts) + len(without_texts)
    for name, texts in (("with", with_texts), ("without", without_texts)):
        read = []
        for text in texts:
            if words := words_of(text):
                read.append(words)
            done += 1
            progress(done, total)
        if not read:
            raise UserError(f"the texts {name} the attribute hold no words: give some, one a line")
        sides.append(read)
    separation = None
    if min(map(len, sides)) >= _LEAST:
        kept = [[text for index, text in enumerate(side) if index % _HELD_OUT != _HELD_OUT - 1] for side in sides]
        held = [side[_HELD_OUT - 1 :: _HELD_OUT] for side in sides]
        weights = log_odds(*map(count_words, kept))
        means = [[sum(weights.get(word, 0.0) for word in text) / len(text) for text in side] for side in held]
        separation = area_under_curve(*means)
    weights = log_odds(*map(count_words, sides))
    if not weights:
        raise UserError(
            f"no word tells the {len(sides[0])} texts with the attribute and the {len(sides[1])} without it apart: "
            "give more of both"
        )
    return Training(weights, separation, (len(sides[0]), len(sides[1])))


def words_of(text: str) -> list[str]:
    """The (folded) words of a text."""
    return "".join(char if is_word(char) else " " for char in fold_text(text)).split()


def count_words(texts: Iterable[Sequence[str]]) -> dict[str, int]:
    """How often each word occurs in texts that are given as lists of words."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in text:
            counts[word] = counts.get(word, 0) + 1
    return counts


def log_odds(with_counts: Mapping[str, int], without_counts: Mapping[str, int]) -> dict[str, float]:
    """The weights of words whose use differs clearly: log-odds ratios with an informative Dirichlet prior.

    The prior of a word is a fraction of its count in both texts together.

    Example:

    ```python
    >>> from fundamentallm_hf.training.word_training import log_odds
    >>> log_odds({"good": 40, "the": 60}, {"bad": 40, "the": 60})
    {'bad': -2.821, 'good': 2.821}

    ```
    """
    scored = []
    for word, (difference, deviation) in differences(with_counts, without_counts).items():
        if abs(difference) > _CLEAR * deviation:
            scored.append((abs(difference) / deviation, word, difference))
    scored.sort(key=lambda each: (-each[0], each[1]))
    return {word: round(max(-LARGEST, min(LARGEST, weight)), 3) for _, word, weight in scored[:MOST_WORDS]}


def differences(
    with_counts: Mapping[str, float], without_counts: Mapping[str, float], prior_share: float = PRIOR
) -> dict[str, tuple[float, float]]:
    """The log-odds ratio of every word, with an informative Dirichlet prior, and its standard deviation.

    Args:
        with_counts: of the words on one side; the ratio of those that are more frequent there is above 0.
        without_counts: of the words on the other side.
        prior_share: the weight of the prior for each observation of a word.
    """
    background = {word: with_counts.get(word, 0) + without_counts.get(word, 0) for word in with_counts}
    background |= {word: count for word, count in without_counts.items() if word not in background}
    if len(background) < 2:
        return {}
    prior = {word: prior_share * count for word, count in background.items()}
    prior_sum, sums = sum(prior.values()), (sum(with_counts.values()), sum(without_counts.values()))
    found = {}
    for word, expected in prior.items():
        some, others = with_counts.get(word, 0) + expected, without_counts.get(word, 0) + expected
        difference = math.log(some / (sums[0] + prior_sum - some)) - math.log(others / (sums[1] + prior_sum - others))
        found[word] = difference, math.sqrt(1 / some + 1 / others)
    return found


def area_under_curve(higher: Sequence[float], lower: Sequence[float]) -> float:
    """The probability that one of `higher` is above one of `lower`; a tie counts half (Mann and Whitney 1947)."""
    ranked = sorted([(value, True) for value in higher] + [(value, False) for value in lower])
    ranks, first = 0.0, 0
    while first < len(ranked):
        end = first
        while end < len(ranked) and ranked[end][0] == ranked[first][0]:
            end += 1
        ranks += (first + end + 1) / 2 * sum(is_higher for _, is_higher in ranked[first:end])
        first = end
    return (ranks - len(higher) * (len(higher) + 1) / 2) / (len(higher) * len(lower))
