"""The shortest text that matches a regular expression and keeps to lists of words, or the proof that there is none.

A state is that of the expression and that of the words together. Of characters that neither of them distinguishes, one
is tried. The state nearest to an end is expanded first (A*: Hart, Nilsson and Raphael, 1968). If all states have been
expanded without an end, there is no such text, however it is tokenized; if the search gave up before, nothing is known.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple, Protocol

from ..text.character_classes import CharacterClasses
from ..text.vocabulary import Vocabulary
from .shortest_match import Expression, Threads

# Characters that one search may try for each state that it may expand.
_TRIED_FOR_EACH = 20
# Results that are kept.
_MOST_KNOWN = 20_000


class WordsOfText(Protocol):
    """Words that must and must not appear, read character by character."""

    @property
    def classes(self) -> Sequence[CharacterClasses]:
        """The characters as each list of words groups them."""

    def key(self, char: str) -> Hashable:
        """What the words see of a character: two with the same key lead to the same state."""

    def step(self, state: Any, char: str) -> Any | None:
        """The state after one more character; None if it completes a banned word."""

    def may_end(self, state: Any) -> bool:
        """Whether the text may end here."""

    def distance(self, state: Any) -> int:
        """At least so many characters are missing until it may."""


class JointMatch(NamedTuple):
    """The result of a search for a text that matches an expression and keeps to lists of words.

    Attributes:
        text: a text; None if none was found.
        proven: there is none.
        looked: states that were expanded.
    """

    text: str | None
    proven: bool
    looked: int


@dataclass(frozen=True)
class Letters:
    """The characters that a search tries.

    Attributes:
        written: one of each group that the model can write.
        others: one of each group of which that is not known.
    """

    written: list[str]
    others: list[str]

    @classmethod
    def of(cls, expression: Expression, words: WordsOfText, vocabulary: Vocabulary) -> "Letters":
        """The groups of characters that neither the expression nor the words distinguish."""
        crossed = CharacterClasses.crossed(
            words.classes, expression.all_tests, lambda char: (expression.key(char), words.key(char))
        )
        found: dict[int, str] = {}
        for char in vocabulary.usual_letters(None):
            found.setdefault(crossed.of(char), char)
        others = []
        if vocabulary.parts:
            for char in crossed.representatives():
                if crossed.of(char) not in found and vocabulary.can_write(char):
                    found[crossed.of(char)] = char
                elif crossed.of(char) not in found and not any(map(vocabulary.all_continuations, (False, True))):
                    others.append(char)
        return cls(list(found.values()), others)


class PatternWords:
    """Searches for texts of one expression with some words.

    Args:
        expression: the expression.
        words: the words.
        vocabulary: the model's tokens.
    """

    def __init__(self, expression: Expression, words: WordsOfText, vocabulary: Vocabulary) -> None:
        self.expression, self.words = expression, words
        self._letters = Letters.of(expression, words, vocabulary)
        self._steps: dict[tuple[Threads, bool], list[tuple[str, Threads]]] = {}
        self._known: dict[tuple[Threads, Any], tuple[int, JointMatch]] = {}

    def __call__(self, threads: Threads, state: Any, effort: int) -> JointMatch:
        """The shortest text that leads on from these states to an end.

        Args:
            threads: the state in the expression.
            state: the state in the words.
            effort: states that may be expanded.
        """
        spent, known = self._known.get((threads, state), (-1, JointMatch(None, False, 0)))
        if known.text is not None or known.proven or spent >= effort:
            return known._replace(looked=0)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        known = self._find(threads, state, effort)
        self._known[threads, state] = effort, known
        return known

    def _find(self, threads: Threads, state: Any, effort: int) -> JointMatch:
        found = self._search(threads, state, effort, self._letters.written, False)
        if found.text is not None or not found.proven:
            return found
        # llguidance may read the expression otherwise, so the proof has to hold for either reading.
        every = self._letters.written + self._letters.others
        loosely = self._search(threads, state, effort, every, True)
        return JointMatch(None, loosely.proven, found.looked + loosely.looked)

    def _search(self, threads: Threads, state: Any, effort: int, letters: Sequence[str], loosely: bool) -> JointMatch:
        numbers, looked, tried = count(), 0, 0
        first = (threads, state)
        seen = {first}
        queue = [(self._distance(*first), 0, next(numbers), first, "")]
        while queue:
            _, _, _, (threads, state), text = heappop(queue)
            if self.expression.accepts(threads) and self.words.may_end(state):
                return JointMatch(text, False, looked)
            steps = self._steps_from(threads, letters, loosely)
            looked, tried = looked + 1, tried + len(steps)
            if looked > effort or tried > effort * _TRIED_FOR_EACH:
                return JointMatch(None, False, looked)
            for char, after in steps:
                there = self.words.step(state, char)
                if there is not None and (after, there) not in seen:
                    seen.add((after, there))
                    length = len(text) + 1
                    far = length + self._distance(after, there)
                    heappush(queue, (far, -length, next(numbers), (after, there), text + char))
        return JointMatch(None, True, looked)

    def _steps_from(self, threads: Threads, letters: Sequence[str], loosely: bool) -> list[tuple[str, Threads]]:
        """The characters that may come next in the expression, each with the state after it."""
        steps = self._steps.get((threads, loosely))
        if steps is None:
            if len(self._steps) >= _MOST_KNOWN // max(1, len(letters)):
                self._steps.clear()
            after = ((char, self.expression.step(threads, char, loosely)) for char in letters)
            steps = self._steps[threads, loosely] = [each for each in after if each[1]]
        return steps

    def _distance(self, threads: Threads, state: Any) -> float:
        return max(self.expression.distance(threads), self.words.distance(state))
