"""The factor to be expected of a word that has begun, given the probabilities of all words.

A classifier of words has a class for each frequent word, and one for all others with a first letter. Words and classes
are sorted, so those with one prefix are neighbours. A prefix costs one product over its classes, however long the list
of weights is, and nothing where no word with it has a weight. Only the classes with a first letter that can be next are
computed at all.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .characters import fold_text, is_word
from .vocabulary import Vocabulary
from .weighted_patterns import LEAST_VALUE, WeightedPatterns
from .weighted_words import BegunPhrase, WeightedRest, WeightedWords

# The probability of words that are not known, whose factor is 1, relative to the likeliest with the same first letter.
_UNLISTED = 1e-4
_MOST_PREFIXES = 1 << 15
_HIGHEST = "\U0010ffff"


class Letter(NamedTuple):
    """The words with one first letter, and their classes: that of the others first, then those of single words.

    Attributes:
        first: the number of the first word.
        others: how many classes there are of words without a class of their own: 0 or 1.
        names: the single words, sorted.
        worth: (sums, single words) for each 1; its factor less one, g; and |g|, unless doubts do not matter.
        of_others: (sums + 1, words + 1) the sums of 1, g and |g|, each times the share, and of |g| times its square.
    """

    first: int
    others: int
    names: list[str]
    worth: np.ndarray
    of_others: np.ndarray


class Prefix(NamedTuple):
    """The words with one prefix.

    Attributes:
        first: the first of their classes.
        last: the one after the last.
        worth: (sums, classes) what these are worth.
        others: (sums + 1,) what the words without a class of their own are worth.
        share: what is not paid by the end of the prefix: 1, unless expressions are complete within words.
    """

    first: int
    last: int
    worth: np.ndarray
    others: tuple[float, ...]
    share: float


class Chances:
    """The probabilities of the words with one first letter, relative to the likeliest.

    Args:
        letter: these words.
        logits: (classes of this letter,) of their classes.
    """

    def __init__(self, letter: Letter, logits: np.ndarray) -> None:
        self.of_class = np.exp(logits - logits.max(initial=-np.inf))
        self.others = float(self.of_class[0]) if letter.others else 0.0

    def factor(self, prefix: Prefix) -> tuple[float, float]:
        """The factor to be expected of a word with a prefix, and how uncertain it is, 0 without doubts."""
        of_class, others, share = self.of_class[prefix.first : prefix.last], self.others, prefix.share
        mass, gain, *known = (prefix.worth @ of_class).tolist()
        mass += others * prefix.others[0] + _UNLISTED
        gain += others * prefix.others[1]
        value = max(LEAST_VALUE, share + (share * gain + (1.0 - share) * _UNLISTED) / mass)
        if not known:
            return value, 0.0
        square = float(prefix.worth[2] @ (of_class * of_class)) + others * others * prefix.others[3]
        return value, max(0.0, share * (known[0] + others * prefix.others[2] - square / mass) / mass)


class Expected:
    """The probabilities of all words where one begins, computed for the first letters that are asked about.

    Args:
        values: what words are worth.
        logits: those of the classes of words with a first letter.
    """

    def __init__(self, values: "WordValues", logits: Callable[[str], np.ndarray]) -> None:
        self._values, self._logits = values, logits
        self._of: dict[str, Chances] = {}

    def of(self, prefix: str) -> Chances:
        """Those of the words with the first letter of a prefix."""
        first = prefix[0]
        if first not in self._of:
            self._of[first] = Chances(self._values.letter(first), self._logits(first))
        return self._of[first]


class WordValues:
    """Computes expected factors of the words of a list of weights.

    Args:
        patterns: the list; compares without case.
        vocabulary: single characters.
        size: number of scores the model gives.
        classes: names of the classes that a classifier knows: words, and "a*" for the others that begin with "a".
        doubts: also compute how uncertain factors are.

    Attributes:
        distinct: the letters that tokens add to words, folded.
        letter_of: (vocabulary,) which of them each token adds; for other tokens their number.
        letter: the words with a first letter.
    """

    def __init__(
        self,
        patterns: WeightedPatterns,
        vocabulary: Vocabulary,
        size: int,
        classes: Sequence[str],
        doubts: bool = True,
    ) -> None:
        self.patterns, self.size = patterns, size
        counts = patterns.counts.counts
        self.words = sorted({*counts, *patterns.outcomes} - {""})
        self._weights = np.array([patterns.outcomes.get(word, 0.0) for word in self.words])
        self._weighted = self._weights.nonzero()[0]
        self._counts = np.array([counts.get(word, 0.0) + 0.5 for word in self.words])
        self._doubts = doubts
        # By first letter the names of the classes.
        self._classes: dict[str, set[str]] = {}
        for name in classes:
            self._classes.setdefault(name[0], set()).add(name)
        pieces = [str(vocabulary.piece(token) or "") if token < len(vocabulary.pieces) else "" for token in range(size)]
        letters = [fold_text(piece) if is_word(piece[:1] or " ") else "" for piece in pieces]
        self.distinct = sorted({letter for letter in letters if letter})
        numbers = {letter: number for number, letter in enumerate(self.distinct)}
        self.letter_of = np.array([numbers.get(letter, len(numbers)) for letter in letters])
        self._begun_by: dict[str, list[int]] = {}
        for letter, number in numbers.items():
            self._begun_by.setdefault(letter[0], []).append(number)
        self.letter = lru_cache(None)(self._letter)
        # Kept for the prefixes that were last asked for.
        self._with = lru_cache(_MOST_PREFIXES)(self._prefix)
        self._ahead = lru_cache(_MOST_PREFIXES)(self._continued)
        self._span = lru_cache(_MOST_PREFIXES)(self._bounds)

    def letters_of(self, tokens: np.ndarray) -> set[int]:
        """The letters, as in `letter_of`, that some tokens add."""
        found = {*self.letter_of[tokens].tolist()}
        found.discard(len(self.distinct))
        return found

    def value(self, expected: Expected, prefix: str) -> float:
        """The factor to be expected of a word that begins so, beyond what is paid."""
        of = self._with(prefix)
        return 1.0 if of is None else expected.of(prefix).factor(of)[0]

    def values(
        self, expected: Expected, prefix: str, letters: Collection[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """What to expect after each token that continues a prefix.

        Args:
            expected: of the word.
            prefix: what has begun of it; may be empty.
            letters: those that can be next, as in `letter_of`; by default all.

        Returns:
            (vocabulary,) the expected factors, and (vocabulary,) how uncertain they are, 0 without doubts; None if all
            factors are 1.
        """
        ahead = self._ahead(prefix)
        found = [(number, of) for number, of in ahead if letters is None or number in letters]
        if not found:
            return None
        values, doubts = [1.0] * (len(self.distinct) + 1), [0.0] * (len(self.distinct) + 1)
        for number, of in found:
            values[number], doubts[number] = expected.of(prefix or self.distinct[number]).factor(of)
        return np.array(values)[self.letter_of], np.array(doubts)[self.letter_of]

    def ways(self, expected: Expected, prefix: str, most: int) -> list[WeightedRest]:
        """The words with a prefix that matter most, as what is missing of them."""
        if not prefix or self._with(prefix) is None:
            return []
        first, last = self._span(prefix)
        numbers = self._weighted[slice(*np.searchsorted(self._weighted, [first, last]))].tolist()
        gains = np.expm1(self._weights[numbers])
        chances = np.array([self._mass(expected, number, number + 1) for number in numbers])
        chances /= self._mass(expected, first, last) + _UNLISTED
        best = np.argsort(-chances * abs(gains), kind="stable")[:most].tolist()
        return [
            WeightedRest(self.words[numbers[at]][len(prefix) :], float(chances[at]), float(gains[at])) for at in best
        ]

    def of_phrases(
        self, expected: Expected, prefix: str, phrases: WeightedWords, nodes: Iterable[int]
    ) -> tuple[float, dict[str, float]]:
        """What phrases add to the expected factor, more than word counts say, within their second word or a later one.

        Args:
            expected: of the word.
            prefix: what has begun of it.
            phrases: the list.
            nodes: where the text is in it.

        Returns:
            What they add after the text, and after each letter that continues them.
        """
        before, ahead = 0.0, dict[str, float]()
        for node in sorted(nodes) if phrases.begun_phrases else ():
            if prefix:
                before += self._of_begun(expected, prefix, phrases.begun_phrases.get(node, ()))
            for letter, child in phrases.nodes[node].next.items():
                if child in phrases.begun_phrases:
                    more = self._of_begun(expected, prefix + letter, phrases.begun_phrases[child])
                    ahead[letter] = ahead.get(letter, 0.0) + more
        return before, ahead

    def of_letters(self, found: Mapping[str, float]) -> np.ndarray:
        """(vocabulary,) numbers for the tokens of letters; 0 for others."""
        numbers = np.array([*(found.get(letter, 0.0) for letter in self.distinct), 0.0])
        return numbers[self.letter_of]

    def _bounds(self, prefix: str) -> tuple[int, int]:
        """The first word with a prefix, and the one after the last."""
        return bisect_left(self.words, prefix), bisect_left(self.words, f"{prefix}{_HIGHEST}")

    def _mass(self, expected: Expected, first: int, last: int) -> float:
        """The probability of some words with a common prefix, given by their numbers."""
        if first == last:
            return 0.0
        letter, chances = self.letter(self.words[first][0]), expected.of(self.words[first])
        begin, end = self._classes_of(letter, first, last)
        others = letter.of_others[0, last - letter.first] - letter.of_others[0, first - letter.first]
        return float(chances.of_class[begin:end].sum()) + chances.others * float(others)

    def _classes_of(self, letter: Letter, first: int, last: int) -> tuple[int, int]:
        """The first of the classes of some single words, and the one after the last."""
        begin = bisect_left(letter.names, self.words[first])
        return letter.others + begin, letter.others + bisect_right(letter.names, self.words[last - 1], begin)

    def _of_begun(self, expected: Expected, prefix: str, phrases: Iterable[BegunPhrase]) -> float:
        found, mass = 0.0, None
        for phrase in phrases:
            first, last = self._span(phrase.word)
            if not phrase.is_stem:
                last = first + (first < last and self.words[first] == phrase.word)
            if first < last:  # otherwise the word is not predicted
                if mass is None:
                    mass = self._mass(expected, *self._span(prefix)) + _UNLISTED
                chance = self._mass(expected, first, last) / mass
                found += phrase.way.gain * (chance * phrase.after - phrase.way.chance)
        return found

    def _letter(self, first: str) -> Letter:
        """The words with a first letter."""
        begin, end = self._span(first)
        names = self._classes.get(first, set())
        others = f"{first}*" in names
        single = sorted(names - {f"{first}*"})
        numbers = {word: number for number, word in enumerate(self.words[begin:end])}
        gains = np.expm1(self._weights[begin:end])
        worth = np.zeros((2 + self._doubts, len(single)), dtype=np.float32)
        worth[0] = [word in numbers for word in single]
        worth[1] = [gains[numbers[word]] if word in numbers else 0.0 for word in single]
        worth[2:] = abs(worth[1])
        counts = np.array([0.0 if word in names else self._counts[begin + at] for word, at in numbers.items()])
        shares = counts / max(float(counts.sum()), 0.5)
        of_others = np.zeros((4, len(gains) + 1))
        np.cumsum([shares, shares * gains, shares * abs(gains), shares**2 * abs(gains)], axis=1, out=of_others[:, 1:])
        return Letter(begin, int(others), single, worth, of_others)

    def _prefix(self, prefix: str) -> Prefix | None:
        """The words with a prefix; None if none of them has a weight."""
        first, last = self._span(prefix)
        weighted = np.searchsorted(self._weighted, [first, last])
        if weighted[0] == weighted[1]:
            return None
        letter = self.letter(prefix[0])
        begin, end = self._classes_of(letter, first, last)
        others = letter.of_others[:, last - letter.first] - letter.of_others[:, first - letter.first]
        # What words are due that have no weight is paid otherwise.
        before = self.patterns.read(self.patterns.start, f" {prefix[:-1]}")[0]
        due = self.patterns.read(before, prefix[-1])[0].regex.due
        worth = letter.worth[:, begin - letter.others : end - letter.others]
        return Prefix(begin, end, worth, tuple(others.tolist()), math.exp(-due))

    def _continued(self, prefix: str) -> list[tuple[int, Prefix]]:
        """The letters that continue a prefix, and the words with both, where some have a weight."""
        at, last = self._span(prefix) if prefix else (0, len(self.words))
        found: list[tuple[int, Prefix]] = []
        while at < last:
            begun = self.words[at][: len(prefix) + 1]
            if begun == prefix:
                at += 1
                continue
            at = bisect_left(self.words, f"{begun}{_HIGHEST}", at, last)
            for number in self._begun_by.get(begun[-1], ()):
                of = self._with(prefix + self.distinct[number])
                if of is not None:
                    found.append((number, of))
        return found
