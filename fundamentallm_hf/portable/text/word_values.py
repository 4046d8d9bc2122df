"""The factor to be expected of a word that has begun, given the probabilities of all words.

The words are sorted, so those with one prefix are neighbours. Their probabilities and their factors are summed up once
for a position where a word begins. Every prefix then costs two differences, however long the list of weights is.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from .characters import fold_text, is_word
from .vocabulary import Vocabulary
from .weighted_patterns import LEAST_VALUE, WeightedPatterns
from .weighted_words import BegunPhrase, WeightedRest, WeightedWords

# The probability of words that are not known, whose factor is 1.
_UNLISTED = 1e-5
_MOST_PREFIXES = 1 << 15
_NOTHING = np.zeros(0)


class Expected(NamedTuple):
    """Sums over the first words in their order, from none to all.

    Attributes:
        mass: (words + 1,) of probabilities.
        sums: (3, weighted words + 1) of probabilities p times the factors less one, g; of p |g|; and of p² |g|. The
            first alone where doubts do not matter.
    """

    mass: np.ndarray
    sums: np.ndarray


class Prefixes(NamedTuple):
    """Of each of some prefixes, the words with it.

    Attributes:
        first: (prefixes,) the first.
        last: (prefixes,) the one after the last.
        first_weighted: (prefixes,) the same among the words with a weight.
        last_weighted: (prefixes,)
        due: (prefixes,) what is paid by the end of the prefix.
    """

    first: np.ndarray
    last: np.ndarray
    first_weighted: np.ndarray
    last_weighted: np.ndarray
    due: np.ndarray


class WordValues:
    """Computes expected factors of the words of a list of weights.

    Args:
        patterns: the list; compares without case.
        vocabulary: single characters.
        size: number of scores the model gives.
        classes: names of the classes that a classifier knows: words, and "a*" for the others that begin with "a".
        doubts: also compute how uncertain factors are.

    Attributes:
        letters: (vocabulary,) whether each token begins a word or continues one.
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
        self._folded = np.array(self.words)
        weights = np.array([patterns.outcomes.get(word, 0.0) for word in self.words])
        self._weighted = weights.nonzero()[0]
        gains = np.expm1(weights[self._weighted])
        self._gains = np.stack([gains, abs(gains), abs(gains)] if doubts else [gains])
        numbers = {name: index for index, name in enumerate(classes)}
        others = [numbers.get(f"{word[0]}*", -1) for word in self.words]
        self._class = np.array([numbers.get(word, other) for word, other in zip(self.words, others, strict=True)])
        count = np.array([counts.get(word, 0.0) + 0.5 for word in self.words])
        alone = np.array([word in numbers for word in self.words])
        total = np.bincount(self._class + 1, weights=np.where(alone, 0.0, count), minlength=len(classes) + 1)
        self._share = np.where(alone, 1.0, count / np.where(alone, 1.0, total[self._class + 1]))
        self._share[self._class < 0] = 0.0
        pieces = [str(vocabulary.piece(token) or "") if token < len(vocabulary.pieces) else "" for token in range(size)]
        self._letters = [fold_text(piece) if is_word(piece[:1] or " ") else "" for piece in pieces]
        self._distinct = sorted({letter for letter in self._letters if letter})
        self._of_token = np.array(
            [self._distinct.index(each) if each else len(self._distinct) for each in self._letters]
        )
        self.letters = torch.from_numpy(self._of_token < len(self._distinct))
        # The words with a prefix, and with a prefix and each letter; kept for the prefixes that were last asked for.
        self._with = lru_cache(_MOST_PREFIXES)(lambda prefix: self._of(prefix[:-1], [prefix[-1:]]))
        self._ahead = lru_cache(_MOST_PREFIXES)(lambda prefix: self._of(prefix, self._distinct))
        self._span = lru_cache(_MOST_PREFIXES)(self._bounds)

    def expect(self, chances: np.ndarray) -> Expected:
        """Sum up over all words.

        Args:
            chances: (classes,) probabilities of the classes where a word begins.
        """
        of_word = chances[self._class] * self._share
        weighted = of_word[self._weighted]
        mass, sums = np.zeros(len(of_word) + 1), np.zeros((len(self._gains), len(weighted) + 1))
        np.cumsum(of_word, out=mass[1:])
        for row, gains, power in zip(sums, self._gains, (1, 1, 2), strict=False):
            np.cumsum(gains * weighted**power, out=row[1:])
        return Expected(mass, sums)

    def value(self, expected: Expected, prefix: str) -> float:
        """The factor to be expected of a word that begins so, beyond what is paid."""
        of = self._with(prefix)
        return 1.0 if of is None else float(_value(expected, of)[0][0])

    def values(self, expected: Expected, prefix: str) -> tuple[np.ndarray, np.ndarray] | None:
        """What to expect after each token that continues a prefix.

        Returns:
            (vocabulary,) the expected factors, and (vocabulary,) how uncertain they are, empty without doubts; None if
            all factors are 1.
        """
        ahead = self._ahead(prefix)
        if ahead is None:
            return None
        found = np.ones(len(self._distinct) + 1)
        found[:-1], doubt = _value(expected, ahead)
        return found[self._of_token], np.append(doubt, 0.0)[self._of_token] if len(doubt) else doubt

    def ways(self, expected: Expected, prefix: str, most: int) -> list[WeightedRest]:
        """The words with a prefix that matter most, as what is missing of them."""
        if (of := self._with(prefix)) is None:
            return []
        span = slice(int(of.first_weighted[0]), int(of.last_weighted[0]))
        numbers = self._weighted[span]
        mass = expected.mass[of.last[0]] - expected.mass[of.first[0]] + _UNLISTED
        chances = (expected.mass[numbers + 1] - expected.mass[numbers]) / mass
        stakes = chances * self._gains[1, span]
        best = np.argsort(-stakes, kind="stable")[:most]
        gains = self._gains[0, span][best]
        rests = [self.words[number][len(prefix) :] for number in numbers[best]]
        return [WeightedRest(*each) for each in zip(rests, chances[best].tolist(), gains.tolist(), strict=True)]

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
            before += self._of_begun(expected, prefix, phrases.begun_phrases.get(node, ()))
            for letter, child in phrases.nodes[node].next.items():
                if child in phrases.begun_phrases:
                    more = self._of_begun(expected, prefix + letter, phrases.begun_phrases[child])
                    ahead[letter] = ahead.get(letter, 0.0) + more
        return before, ahead

    def of_letters(self, found: Mapping[str, float]) -> np.ndarray:
        """(vocabulary,) numbers for the tokens of letters; 0 for others."""
        numbers = np.array([*(found.get(letter, 0.0) for letter in self._distinct), 0.0])
        return numbers[self._of_token]

    def _bounds(self, prefix: str) -> tuple[int, int]:
        """The first word with a prefix, and the one after the last."""
        return bisect_left(self.words, prefix), bisect_left(self.words, f"{prefix}\U0010ffff")

    def _of_begun(self, expected: Expected, prefix: str, phrases: Iterable[BegunPhrase]) -> float:
        first, last = self._span(prefix)
        mass = expected.mass[last] - expected.mass[first] + _UNLISTED
        found = 0.0
        for phrase in phrases:
            first, last = self._span(phrase.word)
            if not phrase.is_stem:
                last = first + (first < last and self.words[first] == phrase.word)
            if first < last:  # otherwise the word is not predicted
                chance = float(expected.mass[last] - expected.mass[first]) / mass
                found += phrase.way.gain * (chance * phrase.after - phrase.way.chance)
        return found

    def _of(self, prefix: str, letters: Sequence[str]) -> Prefixes | None:
        """The words with a prefix and then each of some letters; None if none of them has a weight."""
        prefixes = [prefix + letter for letter in letters]
        ends = np.array([*prefixes, *(f"{each}\U0010ffff" for each in prefixes)])
        first, last = np.searchsorted(self._folded, ends).reshape(2, -1)
        of_weighted = np.searchsorted(self._weighted, [first, last])
        if (of_weighted[0] == of_weighted[1]).all():
            return None
        before = self.patterns.read(self.patterns.start, f" {prefix}")[0]
        # Where no word has a weight, nothing is due either that is not paid otherwise.
        read = zip(letters, of_weighted[0] < of_weighted[1], strict=True)
        dues = np.array(
            [self.patterns.read(before, letter)[0].regex.due if matters else 0.0 for letter, matters in read]
        )
        return Prefixes(first, last, of_weighted[0], of_weighted[1], dues)


def _value(expected: Expected, of: Prefixes) -> tuple[np.ndarray, np.ndarray]:
    """The factors to be expected of words with some prefixes, and how uncertain they are."""
    mass = expected.mass[of.last] - expected.mass[of.first] + _UNLISTED
    gain, *others = expected.sums[:, of.last_weighted] - expected.sums[:, of.first_weighted]
    share = np.exp(-of.due)
    value = np.maximum(LEAST_VALUE, share + (share * gain + (1.0 - share) * _UNLISTED) / mass)
    if not others:
        return value, _NOTHING
    known, square = others
    return value, np.maximum(0.0, share * (known - square / mass) / mass)
