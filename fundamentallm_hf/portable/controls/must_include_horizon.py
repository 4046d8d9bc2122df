"""Predicts where a text would end naturally, since missing words must appear before that, not just within the budget.

The prediction uses the lengths of this model's texts, and the model's probability of an end in each step. As soon as
the text would have ended with a probability above one half, each missing word gets one more sentence. Once all words
are there, a text that would have ended before is owed that end: it comes with the same probability at the next sentence
that the model might end at.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..decoding.texts import Texts

# An end that is less probable than this in one step is ignored: top-k and top-p cut it off.
_COUNTED = 0.02
# From this probability in one step on, the text is about to end, so no word is started here.
_WANTS_END = 0.3
# Once the text would have ended with the first probability, its end is near; with the second, the text is past it.
_NEAR, _BEYOND = 0.1, 0.5
# Share of the texts at least this long that may end before the missing words are included.
_SHORTEST = 0.15
# For a model of unknown text lengths: positions up to the end at the start, and their growth with the text.
_UNKNOWN, _GROWTH = 45.0, 0.5
# An end that would have come with less than this is not owed.
LEAST_OWED = 0.1
# No end is surer than this.
_SURE = 0.99
# Word positions in a sentence.
_SENTENCE = 15.0
# The end of a sentence, after which the text may end. A number with a full stop often begins an item of a list.
_SENTENCE_ENDS = re.compile(r"(?<![0-9])[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*\s*\Z")


class End(NamedTuple):
    """The predicted end of a row.

    Attributes:
        room: tokens until the text would end naturally; may be negative.
        wanted: the text is about to end here.
    """

    room: float
    wanted: bool


class Horizon:
    """Follows the rows of one call and predicts where they would end naturally.

    Args:
        rate: positions where a word could start, per token.
        lengths: lengths of this model's texts in tokens, prompts left out; empty if unknown.
        prompt_columns: width of the prompts in tokens; by default that of the first call.
    """

    def __init__(self, rate: float, lengths: Sequence[float] = (), prompt_columns: int | None = None) -> None:
        self.rate = rate
        self.lengths = sorted(lengths)
        self.prompt_columns = prompt_columns
        # For each length and text: the probability that it would not have ended, and the position where it would have.
        self._known: dict[int, dict[bytes, tuple[float, int | None]]] = {}

    def __call__(self, texts: torch.Tensor | Texts, ends: Sequence[float], missing: Sequence[int]) -> list[End]:
        """Predict the end of every text.

        Args:
            texts: the texts, or rows, (rows, length).
            ends: (texts,) the model's probability that the text ends here.
            missing: (texts,) how many entries are missing.
        """
        texts = Texts.of(texts)
        if self.prompt_columns is None:
            self.prompt_columns = texts.lengths[0]
        for old in texts.far(self._known):
            del self._known[old]
        found = []
        for index, (length, end, entries) in enumerate(zip(texts.lengths, ends, missing, strict=True)):
            here, before = self._known.setdefault(length, {}), self._known.get(length - 1, {})
            written, key = length - self.prompt_columns, texts.keys[index]
            survives, beyond = before.get(texts.parents[index], (1.0, None))
            # Where nothing is missing the text may end, so an end that does not come is no end that was refused.
            survives *= 1.0 - end if entries and end >= _COUNTED else 1.0
            if beyond is None and survives < 1.0 - _BEYOND:
                beyond = written
            here[key] = survives, beyond
            sentence = _SENTENCE / self.rate
            if beyond is not None:
                room = beyond + sentence * entries - written
            elif survives < 1.0 - _NEAR:
                room = min(2 * sentence, self.expected(written))
            else:
                room = self.expected(written)
            found.append(End(room, end >= _WANTS_END))
        return found

    def owed(self, texts: Texts) -> list[float]:
        """For each text in which nothing is missing, the probability with which it would have ended before.

        It is that of the last step in which something was missing, and 0 where nothing ever was.
        """
        for old in texts.far(self._known):
            del self._known[old]
        found = []
        for index, length in enumerate(texts.lengths):
            before = self._known.get(length - 1, {}).get(texts.parents[index])
            if before is not None:
                self._known.setdefault(length, {})[texts.keys[index]] = before
            found.append(0.0 if before is None else 1.0 - before[0])
        return found

    def expected(self, written: int) -> float:
        """A cautious estimate of the tokens until the end of a text that has `written` tokens."""
        longer = [length for length in self.lengths if length > written]
        if longer:
            return longer[int(_SHORTEST * len(longer))] - written
        if self.lengths:
            return _SENTENCE / self.rate
        return max(_UNKNOWN / self.rate, _GROWTH * written)


def repaid(text: str, end: float, owed: float) -> float:
    """By how much the log-odds of an end grow where a text is owed one.

    Args:
        text: the end of the text.
        end: the model's probability of an end here.
        owed: the probability of an end that the text is owed.
    """
    if not _COUNTED <= end < owed or not _SENTENCE_ENDS.search(text):
        return 0.0
    return math.log(min(owed, _SURE) / (1.0 - min(owed, _SURE))) - math.log(end / (1.0 - end))
