"""Finds what a model writes far more often than people do, as a list of word weights that makes it as rare.

The statistic is the log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008), as for
attributes: it is 0 where both write a word equally often, and words that were seen too rarely are left out. The weight
of an entry is the opposite, so with `word_weights` the entry gets about the frequency that it has in people's texts.

A text about a statue says "statue" ten times, which are not ten independent observations. So each phrase has an index
of dispersion. Where texts of L_i words hold it n_i times, n times in all, it is 1 + sum of n_i (n_i - 1) / n - n sum of
(L_i / sum of L)^2. That is 1 for what comes independently of the text, and 10 for a rare word that comes ten times or
not at all. The variance of the count is as many times that of independent observations.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.text.characters import fold_text, is_word

from .labelled_samples import Writing, write_texts
from .word_training import LARGEST, PRIOR, differences

# Words in the longest phrase, and in the openings that are taken from people's texts.
LONGEST, OPENING = 3, 3
# What a model writes less often, in independent observations, is not judged. Thousands of phrases are, so a weight has
# to be this many standard deviations from 0: 1 in 700 would be random.
_LEAST_COUNT, _CLEARLY = 5, 3.0


@dataclass(frozen=True)
class Search:
    """What is looked for.

    Attributes:
        texts: number of texts that the model writes.
        tokens: most tokens of each.
        seed: of the texts.
        ratio: an entry is listed if the model writes it at least this many times as often as people do.
        most: number of entries, the clearest first.
    """

    texts: int = 400
    tokens: int = 300
    seed: int = 0
    ratio: float = 2.0
    most: int = 1000


def find_overused(
    model: Any,
    tokenizer: Any,
    people: Sequence[str] | Mapping[str, float],
    openings: Sequence[str] = (),
    search: Search = Search(),
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, float]:
    """Let a model write texts, and compare them with people's.

    Args:
        model: a causal language model.
        tokenizer: the tokenizer of the model.
        people: texts by people, or counts of their words. With counts only words are compared, not phrases.
        openings: prompts; by default the first words of people's texts, or the model's start-of-text token.
        search: what is looked for.
        progress: called with the number of generated texts, and the total.

    Returns:
        The weight of each word and phrase, below 0; the clearest first.

    Raises:
        UserError: there is no opening to continue, or nothing to compare with.
    """
    counts = dict(people) if isinstance(people, Mapping) else None
    texts = [] if isinstance(people, Mapping) else [text.strip() for text in people if text.strip()]
    if not (counts or texts):
        raise UserError("there are no texts to compare with: give some, one a line")
    if not openings:
        cut = [_opening(text) for text in texts[: search.texts]]
        openings, texts = (cut or [""]), [text[len(_opening(text)) :] for text in texts]
    written = write_texts(model, tokenizer, Writing(openings, search.texts, search.tokens, search.seed), progress)
    of_people = [PhraseCounts(counts)] if counts else count_phrases(texts)
    return overused(count_phrases((each.text for each in written), len(of_people)), of_people, search)


@dataclass(frozen=True)
class PhraseCounts:
    """How often phrases occur in texts.

    Attributes:
        counts: number of occurrences.
        clusters: how many occurrences count as one independent observation: the index of dispersion, at least 1; 1 for
            what is not listed.
    """

    counts: Mapping[str, float] = field(default_factory=dict)
    clusters: Mapping[str, float] = field(default_factory=dict)


def overused(of_model: Sequence[PhraseCounts], of_people: Sequence[PhraseCounts], search: Search) -> dict[str, float]:
    """The weights of what a model says too often.

    A phrase is listed only if it is too frequent even where its words and shorter phrases have their weights.

    Args:
        of_model: how often each word occurs in the model's texts, each phrase of two words, and so on.
        of_people: the same of people's texts, for phrases of as many lengths.
        search: what is looked for.
    """
    listed: dict[str, tuple[float, float]] = {}
    for mine, theirs in zip(of_model, of_people, strict=True):
        found: dict[str, tuple[float, float]] = {}
        # People's texts may be far more than the model's: the prior must not outweigh these.
        size = sum(mine.counts.values())
        share = PRIOR * size / max(1, size + sum(theirs.counts.values()))
        for phrase, (difference, deviation) in differences(mine.counts, theirs.counts, share).items():
            # What comes in clusters on one side does so on the other, where it may not have been seen.
            cluster = max(mine.clusters.get(phrase, 1), theirs.clusters.get(phrase, 1))
            seen, deviation = mine.counts.get(phrase, 0) / cluster, deviation * math.sqrt(cluster)
            left = difference + sum(listed[part][0] for part in _parts(phrase) if part in listed)
            if seen >= _LEAST_COUNT and left >= max(_CLEARLY * deviation, math.log(search.ratio)):
                found[phrase] = -min(LARGEST, left), left / deviation
        listed |= found
    clearest = sorted(listed, key=lambda phrase: (-listed[phrase][1], phrase))[: search.most]
    return {phrase: round(listed[phrase][0], 2) for phrase in clearest}


def count_phrases(texts: Iterable[str], longest: int = LONGEST) -> list[PhraseCounts]:
    """How often each (folded) word occurs, each phrase of two words, and so on; no phrase goes across punctuation.

    Example:

    ```python
    >>> from fundamentallm_hf.training.overused import count_phrases
    >>> [each.counts for each in count_phrases(["A cat. A cat sat!", "A dog"], longest=2)]
    [{'a': 3, 'cat': 2, 'sat': 1, 'dog': 1}, {'a cat': 2, 'cat sat': 1, 'a dog': 1}]

    ```
    """
    found = [_Counter() for _ in range(longest)]
    for text in texts:
        runs = _runs(text)
        for length, counter in enumerate(found, 1):
            counter.add(" ".join(run[start : start + length]) for run in runs for start in range(len(run) - length + 1))
    return [counter.counts() for counter in found]


class _Counter:
    """Counts phrases, text by text."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        # For each phrase the ordered pairs of its occurrences within a text; few phrases have any.
        self.pairs: Counter[str] = Counter()
        self.length = self.squares = 0

    def add(self, phrases: Iterable[str]) -> None:
        """Count the phrases of a text."""
        of_text = Counter(phrases)
        self.total.update(of_text)
        self.pairs.update({phrase: count * (count - 1) for phrase, count in of_text.items() if count > 1})
        self.length += of_text.total()
        self.squares += of_text.total() ** 2

    def counts(self) -> PhraseCounts:
        """What was counted."""
        by_chance = self.squares / max(1, self.length) ** 2
        clusters = {
            phrase: max(1.0, 1 + pairs / self.total[phrase] - self.total[phrase] * by_chance)
            for phrase, pairs in self.pairs.items()
        }
        return PhraseCounts(dict(self.total), clusters)


def _runs(text: str) -> list[list[str]]:
    """The folded words of a text between its punctuation marks."""
    marked = "".join(char if is_word(char) or char.isspace() else " \0 " for char in fold_text(text))
    return [run.split() for run in marked.split("\0")]


def _parts(phrase: str) -> list[str]:
    """The shorter phrases in a phrase, its words included, as often as they occur."""
    words = phrase.split()
    return [
        " ".join(words[start : start + length])
        for length in range(1, len(words))
        for start in range(len(words) - length + 1)
    ]


def _opening(text: str) -> str:
    """The first words of a text."""
    words = text.split(maxsplit=OPENING)
    return text if len(words) <= OPENING else text[: len(text) - len(words[OPENING])].rstrip()
