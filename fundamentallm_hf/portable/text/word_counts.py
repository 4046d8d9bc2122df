"""How words end: the probability that the start of a word becomes a given word.

Controls over text act too late if they only look at the current token, so they need to know how the current word will
end. This file answers from word counts: those of the training text, stored next to the model, or, for a sub-word
tokenizer, estimated from the order in which it learned its tokens. `lookahead.py` asks the model itself where it
matters.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from .characters import fold_text, is_word
from .vocabulary import Vocabulary

FILE_NAME = "word_counts.json"
# Words that were never counted are possible all the same.
_UNSEEN = 0.5
_MANY = 64


class WordCounts:
    """Counted words, compared without case.

    Args:
        counts: how often each word occurs.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.word_counts import WordCounts
    >>> counts = WordCounts({"ran": 90, "rang": 10, "big": 100})
    >>> round(counts.chance("ra", "ran"), 2), round(counts.chance("", "big"), 2)
    (0.9, 0.5)

    ```
    """

    def __init__(self, counts: Mapping[str, float]) -> None:
        merged: dict[str, float] = {}
        for word, folded in zip(counts, _folded(list(counts)), strict=True):
            merged[folded] = merged.get(folded, 0.0) + counts[word]
        self.counts = merged
        self._words = sorted(merged)
        self._sums = [0.0, *accumulate(merged[word] for word in self._words)]
        self._likeliest: dict[str, str] = {}

    @classmethod
    def of_text(cls, text: str, least: int = 1) -> "WordCounts":
        """Count the words of a text, without those that occur fewer than `least` times."""
        counts: dict[str, float] = {}
        for word in "".join(char if is_word(char) else " " for char in fold_text(text)).split():
            counts[word] = counts.get(word, 0) + 1
        return cls({word: count for word, count in counts.items() if count >= least})

    @classmethod
    def of_vocabulary(cls, vocabulary: Vocabulary) -> "WordCounts":
        """Guess counts from a sub-word tokenizer: it learned the most frequent words first (Zipf's law).

        They are made once for each vocabulary.
        """
        if "word counts" not in vocabulary.derived:
            vocabulary.derived["word counts"] = cls._guessed(vocabulary)
        made: WordCounts = vocabulary.derived["word counts"]
        return made

    @classmethod
    def _guessed(cls, vocabulary: Vocabulary) -> "WordCounts":
        counts: dict[str, float] = {}
        for rank, piece in enumerate(vocabulary.pieces):
            if piece and isinstance(piece, str) and (piece[0] == " ") != (piece[-1] == " "):
                word = piece[1:] if piece[0] == " " else piece[:-1]
                if word.isalnum() or all(map(is_word, word)):
                    counts[word] = counts.get(word, 0) + 1e6 / (rank + 10)
        return cls(counts)

    @classmethod
    def load(cls, file: str | Path) -> "WordCounts":
        """Read a file that `save` wrote."""
        return cls(json.loads(Path(file).read_text(encoding="utf-8")))

    def save(self, file: str | Path) -> None:
        """Write the counts as one JSON object, the most frequent word first."""
        whole = {word: int(count) if count == int(count) else count for word, count in self.counts.items()}
        ordered = dict(sorted(whole.items(), key=lambda item: (-item[1], item[0])))
        Path(file).write_text(json.dumps(ordered, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")

    @property
    def words(self) -> Sequence[str]:
        """The words, folded, in the order of their characters."""
        return self._words

    def __len__(self) -> int:
        return len(self._words)

    def mass(self, beginning: str) -> float:
        """How often words with this (folded) prefix occur."""
        first, last = self._span(beginning)
        return self._sums[last] - self._sums[first]

    def beginning(self, beginning: str) -> Sequence[str]:
        """The words with this (folded) prefix."""
        first, last = self._span(beginning)
        return self._words[first:last]

    def likeliest(self, beginning: str) -> str | None:
        """The most frequent word with this (folded) prefix; None where there is none.

        Example:

        ```python
        >>> from fundamentallm_hf.portable.text.word_counts import WordCounts
        >>> WordCounts({"ran": 90, "rang": 10, "big": 100}).likeliest("ra")
        'ran'

        ```
        """
        found = self._likeliest.get(beginning)
        if found is None:
            first, last = self._span(beginning)
            found = max(self._words[first:last], key=self.counts.__getitem__, default=None)
            # Few prefixes have many words, so the cache of slow look-ups stays small.
            if found is not None and last - first > _MANY:
                self._likeliest[beginning] = found
        return found

    def _span(self, beginning: str) -> tuple[int, int]:
        first = bisect_left(self._words, beginning)
        return first, bisect_left(self._words, beginning + "\U0010ffff", lo=first)

    def chance(self, beginning: str, word: str, stem: bool = False) -> float:
        """The probability that a word which begins with `beginning` is `word`, or begins with it if it is a stem.

        Args:
            beginning: the part of the word that is written, folded; empty where a word is about to begin.
            word: folded; begins with `beginning`.
            stem: count every word that begins with `word`.
        """
        mass = self.mass(beginning)
        if not mass:
            return chance_of_letters(len(word) - len(beginning))
        wanted = self.mass(word) if stem else self.counts.get(word, 0.0)
        return (wanted + _UNSEEN) / (mass + _UNSEEN)


def _folded(words: list[str]) -> list[str]:
    """Words, folded; those in ASCII as one long text, which takes a fraction of the time."""
    if any("\n" in word for word in words):
        return [fold_text(word) for word in words]
    plain = iter("\n".join(filter(str.isascii, words)).casefold().split("\n"))
    return [next(plain) if word.isascii() else fold_text(word) for word in words]


def chance_of_letters(missing: int) -> float:
    """The probability that this many unknown letters follow: each makes it less likely."""
    return 0.5 * 0.3**missing
