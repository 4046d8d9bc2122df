"""Weighted words: what a word weighs, and what the word that is being written may be expected to weigh.

The letter at hand has no weight of its own, so a beginning is worth what the words that could come of it weigh on
average, by word counts. This file knows nothing of tokens or of what the weights stand for.
"""

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

from ..text.characters import fold_text, is_word
from ..text.word_counts import WordCounts

# How often a listed word counts that nobody has counted, and words that are not known at all.
_UNSEEN_COUNT, _UNKNOWN_COUNT = 0.5, 1.0


class WordWeights:
    """Words with weights, compared without case.

    Args:
        weights: the weight of each word; `lov*` is every word that begins so and has no longer entry of its own.
        counts: how often words occur.

    Raises:
        ValueError: an entry is neither a word nor the beginning of one.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.word_counts import WordCounts
    >>> from fundamentallm_hf.portable.guides.word_weights import WordWeights
    >>> weights = WordWeights({"happy": 2.0, "hurt": -2.0}, WordCounts({"happy": 60, "hurt": 20, "he": 119}))
    >>> weights.of("happy"), weights.expected("h"), round(weights.expected("hu"), 2)
    (2.0, 0.4, -1.9)

    ```
    """

    def __init__(self, weights: Mapping[str, float], counts: WordCounts) -> None:
        self._words: dict[str, float] = {}
        self.stems: dict[str, float] = {}
        for entry, weight in weights.items():
            stem = entry.endswith("*")
            word = fold_text(entry.removesuffix("*"))
            if not word or not all(map(is_word, word)):
                raise ValueError(f"an entry has to be a word, or its beginning with a * behind it, but is {entry!r}")
            (self.stems if stem else self._words)[word] = float(weight)
        self._longest = max(map(len, self.stems), default=0)
        listed = dict.fromkeys([*self._words, *self.stems], _UNSEEN_COUNT)
        self.counts = listed | {word: max(count, listed.get(word, 0.0)) for word, count in counts.counts.items()}
        self._sorted = sorted(self.counts)
        self._sums = [0.0, *accumulate(self.counts[word] for word in self._sorted)]
        self._weighted = [0.0, *accumulate(self.counts[word] * self.of(word) for word in self._sorted)]

    def of(self, word: str) -> float:
        """The weight of a (folded) word; 0 if it is not listed."""
        own = self._words.get(word)
        return self.of_stem(word) if own is None else own

    def of_stem(self, beginning: str) -> float:
        """The weight of any word that begins so and is not listed itself: that of the longest stem."""
        if self.stems:
            for cut in range(min(len(beginning), self._longest), 0, -1):
                if beginning[:cut] in self.stems:
                    return self.stems[beginning[:cut]]
        return 0.0

    def expected(self, beginning: str) -> float:
        """What a word with this (folded) beginning weighs on average."""
        first, last = self._span(beginning)
        weighted = self._weighted[last] - self._weighted[first]
        return self.average(self._sums[last] - self._sums[first], weighted, beginning)

    def average(self, count: float, weighted: float, beginning: str) -> float:
        """The average weight of words of which so many were counted, and of what else might begin so.

        Args:
            count: of all of them.
            weighted: the sum of count times weight.
            beginning: what they have in common.
        """
        return (weighted + _UNKNOWN_COUNT * self.of_stem(beginning)) / (count + _UNKNOWN_COUNT)

    def words(self, beginning: str) -> list[str]:
        """The known words that begin so."""
        first, last = self._span(beginning)
        return self._sorted[first:last]

    def leads_nowhere(self, beginning: str) -> bool:
        """Whether nothing that is known begins so, and no stem is its beginning."""
        first, last = self._span(beginning)
        return first == last and not self.of_stem(beginning)

    def _span(self, beginning: str) -> tuple[int, int]:
        first = bisect_left(self._sorted, beginning)
        return first, bisect_left(self._sorted, beginning + "\U0010ffff", lo=first)
