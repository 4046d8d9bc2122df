"""The weighted words of an attribute: the weight of a word, and the expected weight of an unfinished word.

A letter has no weight, so the start of a word gets the average weight of the words that could follow from it, by word
counts.
"""

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

from ..text.characters import fold_text, is_word
from ..text.word_counts import WordCounts

# The count of a listed word that was never counted, and of all unknown words together.
_UNSEEN_COUNT, _UNKNOWN_COUNT = 0.5, 1.0


class AttributeWords:
    """The words of an attribute with their weights, compared without case.

    Args:
        weights: the weight of each word; `lov*` is every word that starts so and has no longer item.
        counts: how often words occur.

    Raises:
        ValueError: an item is neither a word nor the start of one.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.word_counts import WordCounts
    >>> from fundamentallm_hf.portable.guides.attribute_words import AttributeWords
    >>> weights = AttributeWords({"happy": 2.0, "hurt": -2.0}, WordCounts({"happy": 60, "hurt": 20, "he": 119}))
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
        """The weight of any unlisted word that starts so: that of the longest stem."""
        if self.stems:
            for cut in range(min(len(beginning), self._longest), 0, -1):
                if beginning[:cut] in self.stems:
                    return self.stems[beginning[:cut]]
        return 0.0

    def expected(self, beginning: str) -> float:
        """The average weight of a word with this (folded) start."""
        first, last = self._span(beginning)
        weighted = self._weighted[last] - self._weighted[first]
        return self.average(self._sums[last] - self._sums[first], weighted, beginning)

    def average(self, count: float, weighted: float, beginning: str) -> float:
        """The average weight of words with this total count, and of other words that might start so.

        Args:
            count: the count of all of them.
            weighted: the sum of count times weight.
            beginning: their common start.
        """
        return (weighted + _UNKNOWN_COUNT * self.of_stem(beginning)) / (count + _UNKNOWN_COUNT)

    def words(self, beginning: str) -> list[str]:
        """The known words that start so."""
        first, last = self._span(beginning)
        return self._sorted[first:last]

    def leads_nowhere(self, beginning: str) -> bool:
        """Whether no known word starts so, and no stem is its start."""
        first, last = self._span(beginning)
        return first == last and not self.of_stem(beginning)

    def _span(self, beginning: str) -> tuple[int, int]:
        first = bisect_left(self._sorted, beginning)
        return first, bisect_left(self._sorted, beginning + "\U0010ffff", lo=first)
