"""Strings that several regular expressions match at once, as the product of their automata.

The expressions of a schema's `allOf` have to match the same string. A state of the product is one state of each; all of
them are visited, so the longest of the shortest ways to an end is proven, and also that there is none. The characters
are divided into classes that no test of any expression tells apart.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from .shortest_match import Expression, Threads

# Most steps in which a product is made, and in which a text of a given length is looked for.
_MOST_PRODUCT_STEPS, _MOST_STEPS_BY_LENGTH = 40_000, 200_000
_CODE_POINT = re.compile(r"\\U([0-9a-f]{8})")

States = tuple[Threads, ...]


class Intersection:
    """The strings that all of some expressions match. It can be used in place of an `Expression`.

    Args:
        expressions: the expressions.
        letters: the characters to choose from where any of several will do, the best first.
        can: returns whether a character can be written at all.

    Attributes:
        start: where nothing has been read.
        worst: characters in the longest of the shortest ways to an end, from any state that has one; None if a way
            cannot be written.
        least: characters in the shortest string, whether or not they can be written; None if there is no string at all.

    Raises:
        ValueError: the product is too large, or some test stands for characters that it does not list.
    """

    def __init__(self, expressions: Sequence[Expression], letters: Sequence[str], can: Callable[[str], bool]) -> None:
        self._expressions = list(expressions)
        # One character of each class, and the character in which it is written; None where none of it can be.
        self._classes = _classes([one.tests for one in expressions], letters, can)
        self.start: States = tuple(one.start for one in expressions)
        self._after: dict[States, list[States | None]] = {}
        self._visit()
        could = self._distances(lambda written: True)
        self._distance = self._distances(lambda written: written is not None)
        self.least = could.get(self.start)
        ways = [self._distance.get(states) for states in could]
        self.worst = None if None in ways else max((way or 0 for way in ways), default=0)

    @property
    def chosen(self) -> list[str]:
        """The characters that completions are written in."""
        return [written for _, written in self._classes if written is not None]

    def read(self, text: str) -> States:
        """The state after a text."""
        return tuple(one.read(text) for one in self._expressions)

    def accepts(self, states: States) -> bool:
        """Whether the text so far matches."""
        return all(one.accepts(threads) for one, threads in zip(self._expressions, states, strict=True))

    def completion(self, states: States, least: int = 0, most: int | None = None) -> str | None:
        """The shortest text that ends a match, of `least` to `most` characters; None if none was found."""
        way = self._distance.get(states)
        if way is None:
            return None
        if way < least:
            return self._of_length(states, least, most)
        if most is not None and way > most:
            return None
        text = ""
        while self._distance[states]:
            after, written = min(self._written(states), key=lambda one: self._distance.get(one[0], len(self._after)))
            text, states = text + written, after
        return text

    def _visit(self) -> None:
        steps, waiting = 0, deque([self.start])
        while waiting:
            states = waiting.popleft()
            if states in self._after:
                continue
            steps += len(self._classes)
            if steps > _MOST_PRODUCT_STEPS:
                raise ValueError("the expressions are too large together")
            self._after[states] = after = [self._step(states, char) for char, _ in self._classes]
            waiting += [each for each in after if each is not None]

    def _step(self, states: States, char: str) -> States | None:
        after = tuple(one.step(threads, char) for one, threads in zip(self._expressions, states, strict=True))
        return after if all(after) else None

    def _written(self, states: States) -> Iterator[tuple[States, str]]:
        for after, (_, written) in zip(self._after[states], self._classes, strict=True):
            if after is not None and written is not None:
                yield after, written

    def _distances(self, passable: Callable[[str | None], bool]) -> dict[States, int]:
        """The fewest characters from each state to an end, where the classes lead to one."""
        before: dict[States, list[States]] = {}
        for states, of_class in self._after.items():
            for after, (_, written) in zip(of_class, self._classes, strict=True):
                if after is not None and passable(written):
                    before.setdefault(after, []).append(states)
        distance = {states: 0 for states in self._after if self.accepts(states)}
        waiting = deque(distance)
        while waiting:
            here = waiting.popleft()
            for states in before.get(here, ()):
                if states not in distance:
                    distance[states] = distance[here] + 1
                    waiting.append(states)
        return distance

    def _of_length(self, states: States, least: int, most: int | None) -> str | None:
        """A text of at least this many characters: one text for each state after so many characters."""
        texts, length, steps = {states: ""}, 0, 0
        last = most if most is not None else least + len(self._after)
        while length < last and steps < _MOST_STEPS_BY_LENGTH:
            longer: dict[States, str] = {}
            for here, text in texts.items():
                for after, written in self._written(here):
                    if after in self._distance and after not in longer:
                        longer[after] = text + written
            texts, length = longer, length + 1
            steps += len(texts) * len(self._classes)
            ended = next((each for each in texts if not self._distance[each]), None)
            if ended is not None and length >= least:
                return texts[ended]
        return None


def _classes(
    tests: Sequence[Sequence[re.Pattern[str]]], letters: Sequence[str], can: Callable[[str], bool]
) -> list[tuple[str, str | None]]:
    """A character of each class, and the best one of it that can be written."""
    every = list(dict.fromkeys((test.pattern, test.flags) for of_one in tests for test in of_one))
    # A test is made of ranges, so a class begins where a range begins or behind its end.
    borders = {
        code + more
        for source, _ in every
        for found in _CODE_POINT.findall(source)
        for code in [int(found, 16)]
        for more in (0, 1)
    }
    chars = [
        *letters,
        *map(chr, range(128)),
        *(chr(code) for code in borders if code < 0x110000),
        "é",
        "一",
    ]
    compiled = [re.compile(source, flags) for source, flags in every]
    found: dict[tuple[bool, ...], tuple[str, str | None]] = {}
    for char in dict.fromkeys(chars):
        if 0xD800 <= ord(char) < 0xE000:
            continue
        passed = tuple(test.fullmatch(char) is not None for test in compiled)
        first, written = found.get(passed, (char, None))
        found[passed] = (first, written if written is not None else char if can(char) else None)
    return list(found.values())
