"""The shortest text that matches a regular expression as a whole, and the shortest completion of a started one.

llguidance's mask is the same throughout `.*the end`, so a search by the mask cannot see how to complete such a text;
the expression shows it. It is converted to a graph whose edges are characters, and the completion is the shortest path.
The standard library is enough for that.
"""

import math
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import reduce

# The parser of `re` itself, because its nodes are needed. It has no public name.
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from ..text.regex_matcher import one_character
from .rust_patterns import python_pattern

# Most nodes of an expression; counted repeats are expanded.
MOST_NODES = 20_000
# Most steps of a search for a text of a given length: its length times the nodes.
_MOST_STEPS = 400_000
_ACCEPT, _ACCEPT_AT_END = 0, 1
_CHAR_FLAGS = re.IGNORECASE | re.DOTALL | re.ASCII
_ANY = r"[\s\S]"
# In the test of a character: a category, or the mark of a property.
_VAGUE = re.compile(r"\\[dDwWsS]|\\U00(?:0f|10)[0-9a-f]{4}")

Threads = frozenset[int]


class Expression:
    """A regular expression as a graph.

    Args:
        pattern: in Rust's syntax.
        letters: the characters to choose from where any of several will do, the best first.
        can: returns whether a character can be written at all.
        pieces: longer texts that are tried before characters, the longest first, to save tokens.
        search: the expression may match anywhere in the text, as in a JSON schema.
        ascii_only: `\\d`, `\\w` and `\\s` stand for characters of ASCII.

    Attributes:
        start: where nothing has been read.
        worst: characters in the longest of the shortest ways to an end, from any node; None if from some there is none.
        least: characters in the shortest text, whether or not they can be written; None if there is no text at all.

    Raises:
        ValueError: it is not a regular expression, cannot be expressed as a graph, or is too large.
    """

    def __init__(
        self,
        pattern: str,
        letters: Sequence[str],
        can: Callable[[str], bool] = lambda letter: True,
        *,
        pieces: Sequence[str] = (),
        search: bool = False,
        ascii_only: bool = False,
    ) -> None:
        self._letters, self._can, self._pieces = letters, can, pieces
        self._properties: dict[str, Callable[[str], bool]] = {}
        self._reads: list[tuple[int, int] | None] = [None, None]
        self._skips: list[list[int]] = [[], []]
        self._tests: list[re.Pattern[str]] = []
        self._test_numbers: dict[tuple[str, int], int] = {}
        self._literals: list[list[str]] = []
        self._closures: dict[int, Threads] = {}
        self._verdicts: dict[tuple[int, str], bool] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                source, self._properties = python_pattern(pattern)
                parsed = _parser.parse(source, re.ASCII if ascii_only else 0)
                entry = self._whole(parsed, search)
        except (re.error, OverflowError, RecursionError, MemoryError, ValueError) as error:
            raise ValueError(f"{pattern!r} cannot be read: {error}") from None
        self._chosen = [self._choose(number) for number in range(len(self._tests))]
        self._distance = self._distances(lambda test: self._chosen[test] is not None)
        self.start = self._closure(entry)
        # Some nodes lead nowhere whatever the alphabet, such as those of a `^` after other characters.
        could = self._distances(lambda test: True)
        self.least = min((way for node in self.start if (way := could[node]) is not None), default=None)
        ways = [self._distance[node] for node in self._reachable(self.start) if could[node] is not None]
        self.worst = None if any(way is None for way in ways) else max((way or 0 for way in ways), default=0)

    @property
    def chosen(self) -> list[str]:
        """The characters that completions are written in."""
        return [letter for letter in self._chosen if letter is not None]

    @property
    def tests(self) -> list[re.Pattern[str]]:
        """The tests of single characters; raises ValueError if some mean characters that they do not list."""
        if self._properties or any(test.flags & re.IGNORECASE for test in self._tests):
            raise ValueError("the characters of a test are not listed")
        return self._tests

    @property
    def all_tests(self) -> list[re.Pattern[str]]:
        """The same, where a class that `re` does not have is a mark."""
        return self._tests

    def step(self, threads: Threads, char: str, loosely: bool = False) -> Threads:
        """The state after one more character; empty where it can no longer match.

        Loosely, all but the printable characters of ASCII pass each test that Rust may read otherwise: by a category,
        or without case.
        """
        after: set[int] = set()
        for node in threads:
            reads = self._reads[node]
            if reads is not None and self._passes(reads[0], char, loosely and not " " <= char <= "~"):
                after |= self._closure(reads[1])
        return frozenset(after)

    def key(self, char: str) -> tuple[bool, ...]:
        """The results of all tests for a character."""
        return tuple(self._passes(number, char) for number in range(len(self._tests)))

    def read(self, text: str) -> Threads:
        """The state after a text."""
        return reduce(self.step, text, self.start)

    def accepts(self, threads: Threads) -> bool:
        """Whether the text so far matches."""
        return _ACCEPT in threads or _ACCEPT_AT_END in threads

    def completion(self, threads: Threads, least: int = 0, most: int | None = None) -> str | None:
        """The shortest text that ends a match, of `least` to `most` characters; None if none was found."""
        ways = [(way, node) for node in threads if (way := self._distance[node]) is not None]
        if not ways:
            return None
        way, node = min(ways)
        if way < least:
            return self._of_length(threads, least, most)
        return self._shortest(node) if most is None or way <= most else None

    def lacking(self, threads: Threads) -> list[str]:
        """The characters that every completion needs and that cannot be written; one for each choice of several."""
        cost = dict.fromkeys((_ACCEPT, _ACCEPT_AT_END), 0)
        step: dict[int, tuple[int, str]] = {}
        queue = deque(cost)
        backwards = self._backwards()
        while queue:
            node = queue.popleft()
            for before, test in backwards[node]:
                lacks = test is not None and self._chosen[test] is None
                if cost[node] + lacks < cost.get(before, len(self._reads) + 1):
                    cost[before] = cost[node] + lacks
                    step[before] = (node, self._any_of(test) if test is not None and lacks else "")
                    (queue.append if lacks else queue.appendleft)(before)
        node = min((node for node in threads if node in cost), key=cost.__getitem__, default=_ACCEPT)
        found: dict[str, None] = {}
        while node in step:
            node, char = step[node]
            found |= {char: None} if char else {}
        return list(found)

    # Construction of the graph.

    def _whole(self, parsed: Any, search: bool) -> int:
        flags = parsed.state.flags
        if not search:
            return self._sequence(parsed, flags, _ACCEPT, at_start=True)
        anything = self._test(_ANY, 0)
        behind = self._node(None, [_ACCEPT])
        self._skips[behind].append(self._node((anything, behind), []))
        before = self._node(None, [])
        later = self._sequence(parsed, flags, behind, at_start=False)
        self._skips[before] += [later, self._node((anything, before), [])]
        first = self._sequence(parsed, flags, behind, at_start=True)
        return self._node(None, [first, self._node((anything, before), [])])

    def _node(self, reads: tuple[int, int] | None, skips: list[int]) -> int:
        if len(self._reads) >= MOST_NODES:
            raise ValueError("the regular expression is too large")
        self._reads.append(reads)
        self._skips.append(skips)
        return len(self._reads) - 1

    def _test(self, source: str, flags: int, literals: Sequence[str] = ()) -> int:
        if (key := (source, flags)) not in self._test_numbers:
            self._test_numbers[key] = len(self._tests)
            self._tests.append(re.compile(source, flags))
            self._literals.append(list(literals))
        return self._test_numbers[key]

    def _sequence(self, items: Any, flags: int, after: int, at_start: bool) -> int:
        """Add nodes for parsed items, from the last to the first. Returns the first."""
        items = list(items)
        for index in range(len(items) - 1, -1, -1):
            first = at_start and all(_reads_nothing(item) for item in items[:index])
            after = self._item(items[index], flags, after, first)
        return after

    def _item(self, item: Any, flags: int, after: int, at_start: bool) -> int:
        operation, value = item
        name = str(operation)
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            literals = [chr(value)] if name == "LITERAL" else []
            if name == "IN":
                for kind, part in value:
                    literals += [chr(part)] if str(kind) == "LITERAL" else []
                    literals += [chr(part[0])] if str(kind) == "RANGE" else []
            literals = [char for char in literals if char not in self._properties]
            return self._node((self._test(one_character(operation, value), flags & _CHAR_FLAGS, literals), after), [])
        if name == "BRANCH":
            return self._node(None, [self._sequence(branch, flags, after, at_start) for branch in value[1]])
        if name == "SUBPATTERN":
            _, added, removed, items = value
            return self._sequence(items, (flags | added) & ~removed, after, at_start)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(value, flags, after, at_start)
        if name == "POSSESSIVE_REPEAT":  # in Rust's syntax what is repeated may be repeated again
            return self._repeat((1, _parser.MAXREPEAT, [(_parser.MAX_REPEAT, value)]), flags, after, at_start)
        if name == "AT" and str(value) in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            return after if at_start else self._node(None, [])
        if name == "AT" and str(value) in ("AT_END", "AT_END_STRING"):
            return _ACCEPT_AT_END
        raise ValueError(f"{name.lower()} cannot be read")

    def _repeat(self, value: Any, flags: int, after: int, at_start: bool) -> int:
        least, most, items = value
        if most == _parser.MAXREPEAT:
            entry = self._node(None, [after])
            self._skips[entry].append(self._sequence(items, flags, entry, at_start=at_start and not least))
        else:
            entry = after
            for _ in range(most - least):
                entry = self._node(None, [after, self._sequence(items, flags, entry, at_start and most == 1)])
        for left in range(least):
            repeated = self._sequence(items, flags, entry, at_start and left == least - 1)
            if repeated == entry:  # nothing to repeat, and a billion times nothing is nothing
                break
            entry = repeated
        return entry

    # Paths through the graph.

    def _passes(self, test: int, char: str, loosely: bool = False) -> bool:
        if loosely and (self._tests[test].flags & re.IGNORECASE or _VAGUE.search(self._tests[test].pattern)):
            return True
        verdict = self._verdicts.get((test, char))
        if verdict is None:
            expression, source = self._tests[test], self._tests[test].pattern
            has = any(f"{ord(mark):08x}" in source and holds(char) for mark, holds in self._properties.items())
            verdict = expression.fullmatch(char) is not None
            verdict = verdict and not has if source.startswith("[^") else verdict or has
            self._verdicts[test, char] = verdict
        return verdict

    def _choose(self, test: int) -> str | None:
        known = self._literals[test] if len(self._literals[test]) == 1 else ()
        both = (*known, *self._letters, *self._literals[test])
        return next((letter for letter in both if self._passes(test, letter) and self._can(letter)), None)

    def _any_of(self, test: int) -> str:
        """A character that passes, whether or not it can be written."""
        return next((char for char in (*self._literals[test], *self._letters) if self._passes(test, char)), "?")

    def _closure(self, node: int) -> Threads:
        known = self._closures.get(node)
        if known is None:
            reached, waiting = {node}, [node]
            while waiting:
                for after in self._skips[waiting.pop()]:
                    if after not in reached:
                        reached.add(after)
                        waiting.append(after)
            ends = (_ACCEPT, _ACCEPT_AT_END)
            known = frozenset(each for each in reached if self._reads[each] is not None or each in ends)
            self._closures[node] = known
        return known

    def _backwards(self) -> list[list[tuple[int, int | None]]]:
        """For every node its predecessors, and the test that is passed on the edge."""
        found: list[list[tuple[int, int | None]]] = [[] for _ in self._reads]
        for node, (reads, skips) in enumerate(zip(self._reads, self._skips, strict=True)):
            if reads is not None:
                found[reads[1]].append((node, reads[0]))
            for after in skips:
                found[after].append((node, None))
        return found

    def _distances(self, passable: Callable[[int], bool]) -> list[int | None]:
        """The fewest characters from every node to an end; None where no passable tests lead to one."""
        distance: list[int | None] = [None] * len(self._reads)
        distance[_ACCEPT] = distance[_ACCEPT_AT_END] = 0
        backwards = self._backwards()
        queue = deque([_ACCEPT, _ACCEPT_AT_END])
        while queue:
            node = queue.popleft()
            here = distance[node]
            assert here is not None
            for before, test in backwards[node]:
                there = distance[before]
                if test is None and (there is None or here < there):
                    distance[before] = here
                    queue.appendleft(before)
                elif test is not None and passable(test) and (there is None or here + 1 < there):
                    distance[before] = here + 1
                    queue.append(before)
        return distance

    def _reachable(self, threads: Threads) -> set[int]:
        reached = set(threads)
        waiting = list(threads)
        while waiting:
            reads = self._reads[waiting.pop()]
            if reads is not None:
                fresh = self._closure(reads[1]) - reached
                reached |= fresh
                waiting += fresh
        return reached

    def _shortest(self, node: int) -> str:
        text = ""
        while left := self._distance[node]:
            longer = self._longer(node, left)
            reads = self._reads[node]
            assert reads is not None
            text += longer[0] if longer is not None else self._chosen[reads[0]] or ""
            node = longer[1] if longer is not None else min(self._closure(reads[1]), key=self._order)
        return text

    def _longer(self, node: int, left: int) -> tuple[str, int] | None:
        """A longer text that leads straight to the end, and the node after it."""
        for piece in self._pieces if left > 1 else ():
            if len(piece) <= left:
                threads = frozenset({node})
                for char in piece:
                    threads = self.step(threads, char)
                    if not threads:
                        break
                after = min(threads, key=self._order, default=None)
                if after is not None and self._order(after) == left - len(piece):
                    return piece, after
        return None

    def distance(self, threads: Threads) -> float:
        """Characters in the shortest completion; infinite if none can be written."""
        return min(map(self._order, threads), default=math.inf)

    def _order(self, node: int) -> float:
        distance = self._distance[node]
        return math.inf if distance is None else distance

    def _of_length(self, threads: Threads, least: int, most: int | None) -> str | None:
        """A text of at least this many characters: one text for each node after so many characters."""
        texts, length, steps = dict.fromkeys(threads, ""), 0, 0
        while length < (most if most is not None else least + len(self._reads)):
            longer: dict[int, str] = {}
            for node, text in texts.items():
                reads = self._reads[node]
                letter = self._chosen[reads[0]] if reads is not None else None
                if reads is not None and letter is not None:
                    begun = text + letter
                    for after in self._closure(reads[1]):
                        longer.setdefault(after, begun)
            texts, length = longer, length + 1
            steps += len(texts)
            ended = next((node for node in (_ACCEPT, _ACCEPT_AT_END) if node in texts), None)
            if ended is not None and length >= least:
                return texts[ended]
            if not texts or steps > _MOST_STEPS:
                return None
        return None


def shortest_match(pattern: str, letters: Iterable[str], can: Callable[[str], bool] = lambda text: True) -> str | None:
    r"""The shortest text that `pattern` matches as a whole.

    Args:
        pattern: a regular expression in Python's syntax.
        letters: the characters to choose from where any of several will do, the best first.
        can: returns whether a character can be written at all.

    Returns:
        The text; None where none is found, or the pattern is not a valid Python regular expression.
    """
    try:
        expression = Expression(pattern, list(letters), can)
    except ValueError:
        return None
    return expression.completion(expression.start)


def _reads_nothing(item: Any) -> bool:
    operation, value = item
    if str(operation) == "SUBPATTERN":
        return all(_reads_nothing(each) for each in value[-1])
    return str(operation) == "AT"
