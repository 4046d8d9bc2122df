"""The position of an unfinished text in a regular expression, and how it can be completed from there."""

import codecs
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..text.vocabulary import Vocabulary
from .pattern_words import JointMatch, PatternWords, WordsOfText
from .schema_scalars import Spelling, rests_of_character
from .shortest_match import Expression, Threads

# Number of completions that each use another next character.
_MOST_PATTERN_ROUND = 8


class PatternPosition(NamedTuple):
    """A position in a text.

    Attributes:
        threads: its nodes in the expression.
        pending: the first bytes of an incomplete character.
    """

    threads: Threads
    pending: bytes


class PatternPositions:
    """Follows texts by one regular expression.

    Args:
        pattern: the expression.
        spelling: the model's tokens.

    Raises:
        ValueError: this module cannot read the expression.
    """

    def __init__(self, pattern: str, spelling: Spelling) -> None:
        letters, pieces, cost = spelling.letters, spelling.pieces_to_fill, spelling.cost
        self._expression = Expression(pattern, letters, lambda letter: cost(letter.encode()) < math.inf, pieces=pieces)
        dearest = max((cost(letter.encode()) for letter in self._expression.chosen), default=1)
        worst = self._expression.worst
        self._worst = math.inf if worst is None else worst * dearest + 4
        self._letters = letters
        self._joined: PatternWords | None = None
        self.start = PatternPosition(self._expression.start, b"")

    def advance(self, position: PatternPosition, data: bytes) -> PatternPosition | None:
        """The position after more bytes; None where this module reads the expression differently from llguidance."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        threads = position.threads
        for char in decoder.decode(position.pending + data):
            threads = self._expression.step(threads, char)
        return PatternPosition(threads, decoder.getstate()[0]) if threads else None

    def worst(self, position: PatternPosition) -> float:
        """Most tokens that complete the text, whatever the next token is; infinite if that is not known."""
        return self._worst

    def key(self, position: PatternPosition) -> PatternPosition:
        """What of the position decides how the text can be completed: everything."""
        return position

    def settled(self, position: PatternPosition) -> bool:
        """Whether a plan holds in all texts at a position; False, as llguidance may read it otherwise."""
        return False

    def unlimited(self, position: PatternPosition) -> bool:
        """Whether the position is in free text; not known here, so False."""
        return False

    def closable(self, position: PatternPosition) -> bool:
        """Whether the text can be ended in the same way after any further characters; not known here, so False."""
        return False

    def stages(self, position: PatternPosition) -> list[list[bytes]]:
        """Ways to complete the text, the shortest first."""
        if position.pending:
            rests = rests_of_character(position.pending)
            behind = [(rest, self.advance(position, rest)) for rest in rests]
            ways = [(rest, self._expression.completion(after.threads)) for rest, after in behind if after is not None]
            return [[rest + way.encode() for rest, way in ways if way is not None]]
        found = [self._expression.completion(position.threads)]
        for letter in self._letters:
            if len(found) > _MOST_PATTERN_ROUND:
                break
            rest = self._expression.completion(self._expression.step(position.threads, letter))
            found += [] if rest is None else [letter + rest]
        return [list(dict.fromkeys(text.encode() for text in found if text is not None))]

    def slots(self, position: PatternPosition) -> Iterator[bytes]:
        """Texts after which other texts might be inserted, the shallowest first."""
        for ways in self.stages(position)[:1] if not position.pending else ():
            for way in ways:
                text = way.decode()
                yield from (text[:cut].encode() for cut in range(len(text) + 1))

    def with_words(self, position: PatternPosition, words: PatternWords, state: Any, effort: int) -> JointMatch:
        """The shortest text that completes a match and keeps to words, from their state `state`; see `PatternWords`."""
        return JointMatch(None, False, 0) if position.pending else words(position.threads, state, effort)

    def joined(self, words: WordsOfText, vocabulary: Vocabulary) -> PatternWords:
        """The search for texts of this expression with some words, kept for the words that were asked about last."""
        known = self._joined
        if known is None or known.words != words:
            known = self._joined = PatternWords(self._expression, words, vocabulary)
        return known

    @property
    def endless(self) -> bool:
        """Whether it is proven that no text that matches has an end: none of an expression goes on for ever."""
        return False

    def lacking(self) -> list[str]:
        """The characters that every text that matches needs and that cannot be written."""
        return self._expression.lacking(self._expression.start)
