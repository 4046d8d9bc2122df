"""Regular expressions matched one character at a time.

`RegexMachine` finds in a growing text what `re.search` finds in a finished one: after every character it reports
whether a match is now certain, whatever follows. Its state is small and hashable, so many continuations of one text can
be tried from the same state, before the model generates them.

All threads of all patterns are followed at once, so a character costs the same however the patterns branch. Assertions
such as `\\b` and `$` are kept as a set of kinds of next character, and decided when that character is there.
"""

import re
from collections import deque
from collections.abc import Sequence
from functools import cached_property

# The parser of `re` itself, so that a pattern is read as `re.compile` reads it. It has no public name.
from re import _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

# Most nodes of one pattern; counted repeats are expanded, so `(a{1000}){1000}` would need a million.
MAX_NODES = 10_000
# Most threads in remembered steps before all are forgotten; a step counts as eight more threads: about 100 MB.
MAX_REMEMBERED = 1_000_000

# Kinds of neighbours of a position: an ASCII word character, another one, any other character, a newline, the edge.
WORD, LETTER, OTHER, NEWLINE, EDGE = 1, 2, 4, 8, 16
# Kinds of what can follow a position: all of these, and next to NEWLINE, which has more text after it, the newline that
# is the last character, because `$` holds only before that one.
LAST_NEWLINE = 32
BEFORE = (WORD, LETTER, OTHER, NEWLINE, EDGE)
ANYTHING = WORD | LETTER | OTHER | NEWLINE | EDGE | LAST_NEWLINE

_ACCEPT = 0
_UNREACHABLE = 1 << 30
_CHAR_FLAGS = re.IGNORECASE | re.DOTALL | re.ASCII | re.UNICODE
_TYPE_FLAGS = re.ASCII | re.UNICODE
_CATEGORIES = {
    _parser.CATEGORY_DIGIT: r"\d",
    _parser.CATEGORY_NOT_DIGIT: r"\D",
    _parser.CATEGORY_SPACE: r"\s",
    _parser.CATEGORY_NOT_SPACE: r"\S",
    _parser.CATEGORY_WORD: r"\w",
    _parser.CATEGORY_NOT_WORD: r"\W",
}
_UNSUPPORTED = {
    "ASSERT": "look-ahead",
    "ASSERT_NOT": "look-ahead",
    "FAILURE": "look-ahead",  # what newer versions make of `(?!)`
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive repeat",
    "GROUPREF": "a reference to a group",
    "GROUPREF_EXISTS": "a condition on a group",
}


class State(NamedTuple):
    """The state of a search.

    Attributes:
        threads: nodes of the patterns where started matches wait for their next character.
        before: the kind of the last character: WORD, LETTER, OTHER, NEWLINE, or EDGE if there is none.
        pending: the kinds of next character, as bits, that would complete a match already read.
    """

    threads: frozenset[int]
    before: int
    pending: int


_Condition = dict[int, int]  # kind of the character before -> kinds of what may follow
_FREE: _Condition = dict.fromkeys(BEFORE, ANYTHING)


class _Graph:
    """The patterns as nodes: some read a character, others lead on under a condition without reading.

    Attributes:
        reads: for every node, the number of the test that its character has to pass and the node after it, or None.
        skips: for every node, conditions and the nodes that they lead to.
        tests: patterns for exactly one character.
    """

    def __init__(self) -> None:
        self.reads: list[tuple[int, int] | None] = [None]
        self.skips: list[list[tuple[_Condition, int]]] = [[]]
        self.tests: list[re.Pattern[str]] = []
        self._numbers: dict[tuple[str, int], int] = {}

    def add(self, pattern: str, ignore_case: bool) -> int:
        """Add a pattern; its matches end in the node `_ACCEPT`.

        Returns:
            The node where the pattern starts.

        Raises:
            ValueError: it is invalid, not supported, too large, or matches the empty text.
        """
        self._pattern, self._limit = pattern, len(self.reads) + MAX_NODES
        try:
            parsed = _parser.parse(pattern, re.IGNORECASE if ignore_case else 0)
            start = self._sequence(parsed, parsed.state.flags, _ACCEPT)
        except RecursionError:
            raise ValueError(f"the regular expression {pattern!r} is nested too deeply: write it flatter") from None
        except (re.error, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{pattern!r} is not a valid regular expression: {reason}") from None
        if parsed.getwidth()[0] == 0:
            raise ValueError(
                f"the regular expression {pattern!r} matches the empty text: it has to need at least one character"
            )
        return start

    def _node(self, reads: tuple[int, int] | None, skips: list[tuple[_Condition, int]]) -> int:
        if len(self.reads) >= self._limit:
            raise ValueError(
                f"the regular expression {self._pattern!r} expands to more than {MAX_NODES:,} nodes: "
                f"ask for fewer repeats"
            )
        self.reads.append(reads)
        self.skips.append(skips)
        return len(self.reads) - 1

    def _sequence(self, items: Any, flags: int, after: int) -> int:
        """Add nodes for parsed items, from the last to the first; `after` is where they lead. Returns the first."""
        for operation, value in reversed(list(items)):
            after = self._item(operation, value, flags, after)
        return after

    def _item(self, operation: Any, value: Any, flags: int, after: int) -> int:
        if operation in (_parser.LITERAL, _parser.NOT_LITERAL, _parser.ANY, _parser.IN):
            key = (one_character(operation, value), flags & _CHAR_FLAGS)
            if key not in self._numbers:
                self._numbers[key] = len(self.tests)
                self.tests.append(re.compile(*key))
            return self._node((self._numbers[key], after), [])
        if operation is _parser.AT:
            return self._node(None, [(_condition(value, flags), after)])
        if operation is _parser.BRANCH:
            return self._node(None, [(_FREE, self._sequence(branch, flags, after)) for branch in value[1]])
        if operation is _parser.SUBPATTERN:
            _, added, removed, items = value
            if added & _TYPE_FLAGS:
                flags &= ~_TYPE_FLAGS
            return self._sequence(items, (flags | added) & ~removed, after)
        if operation in (_parser.MAX_REPEAT, _parser.MIN_REPEAT):  # the same texts match, greedy or not
            least, most, items = value
            return self._repeat(least, most, items, flags, after)
        name = _UNSUPPORTED.get(str(operation), str(operation).lower())
        if name == "look-ahead" and value and value[0] < 0:
            name = "look-behind"
        raise ValueError(
            f"{name} is not supported in the regular expression {self._pattern!r}: "
            f"it cannot be decided character by character"
        )

    def _repeat(self, least: int, most: int, items: Any, flags: int, after: int) -> int:
        if most == _parser.MAXREPEAT:
            loop = self._node(None, [(_FREE, after)])
            self.skips[loop].append((_FREE, self._sequence(items, flags, loop)))
            entry = loop
        else:
            entry = after
            for _ in range(most - least):
                entry = self._node(None, [(_FREE, after), (_FREE, self._sequence(items, flags, entry))])
        for _ in range(least):
            repeated = self._sequence(items, flags, entry)
            if repeated == entry:  # nothing to repeat, and a billion times nothing is nothing
                break
            entry = repeated
        return entry


def one_character(operation: Any, value: Any) -> str:
    """Convert a parsed item that reads one character back to a pattern, so that `re` decides what it matches."""
    if operation is _parser.ANY:
        return "."
    if operation is _parser.LITERAL:
        return f"\\U{value:08x}"
    if operation is _parser.NOT_LITERAL:
        return f"[^\\U{value:08x}]"
    parts = []
    for kind, part in value:
        if kind is _parser.NEGATE:
            parts.append("^")
        elif kind is _parser.CATEGORY:
            parts.append(_CATEGORIES[part])
        elif kind is _parser.RANGE:
            parts.append(f"\\U{part[0]:08x}-\\U{part[1]:08x}")
        else:
            parts.append(f"\\U{part:08x}")
    return f"[{''.join(parts)}]"


def _condition(place: Any, flags: int) -> _Condition:
    """When an assertion holds: for each kind of character before it, the kinds that may follow."""
    lines = flags & re.MULTILINE
    if place is _parser.AT_BEGINNING and lines:
        return {EDGE: ANYTHING, NEWLINE: ANYTHING}
    if place in (_parser.AT_BEGINNING, _parser.AT_BEGINNING_STRING):
        return {EDGE: ANYTHING}
    if place is _parser.AT_END:
        return dict.fromkeys(BEFORE, EDGE | LAST_NEWLINE | (NEWLINE if lines else 0))
    if place is _parser.AT_END_STRING:
        return dict.fromkeys(BEFORE, EDGE)
    word = WORD if flags & re.ASCII else WORD | LETTER
    same = place is _parser.AT_NON_BOUNDARY
    return {before: word if bool(before & word) == same else ANYTHING & ~word for before in BEFORE}


def _kind(char: str) -> int:
    if char == "\n":
        return NEWLINE
    if re.match(r"\w", char):
        return WORD if char.isascii() else LETTER
    return OTHER


class RegexMachine:
    """Searches a growing text for any of some regular expressions.

    Matches may begin anywhere and mean what they mean to `re`, with these limits: look-around, references to groups,
    atomic groups and possessive repeats are refused, and so is a pattern that matches the empty text or expands to more
    than `MAX_NODES` nodes.

    Args:
        patterns: regular expressions as in `re`, with inline flags if needed, such as `(?m)` or `(?-i:...)`.
        ignore_case: compile all of them with `re.IGNORECASE`.

    Attributes:
        start: the state where nothing has been read.

    Raises:
        ValueError: a pattern is invalid, not supported or too large, or matches the empty text.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.regex_matcher import RegexMachine
    >>> machine = RegexMachine([r"\\bcats?\\b"], ignore_case=True)
    >>> state, hits = machine.start, []
    >>> for char in "Cats!":
    ...     state, hit = machine.step(state, char)
    ...     hits.append(hit)
    >>> hits  # the "!" confirms that the word is over
    [False, False, False, False, True]

    ```
    """

    def __init__(self, patterns: Sequence[str], ignore_case: bool) -> None:
        self._graph = _Graph()
        self._starts = frozenset(self._graph.add(pattern, ignore_case) for pattern in patterns)
        self.start = State(frozenset(), EDGE, 0)
        self._verdicts: dict[tuple[int, str], bool] = {}
        self._steps: dict[tuple[State, str], tuple[State, bool]] = {}
        self._closures: dict[tuple[frozenset[int], int], tuple[list[tuple[int, int, int]], int]] = {}
        self._remembered = 0

    @property
    def tests(self) -> list[re.Pattern[str]]:
        """Patterns for exactly one character: the tests that separate characters."""
        return self._graph.tests

    def looks_on(self) -> bool:
        """Whether a match may depend on what follows it, be it that nothing does."""
        return any(set(condition.values()) != {ANYTHING} for skips in self._graph.skips for condition, _ in skips)

    def key(self, char: str) -> tuple[int, tuple[bool, ...]]:
        """The results of all tests for a character: two characters with the same key lead to the same state."""
        return _kind(char), tuple(self._passes(test, char) for test in range(len(self.tests)))

    def distance(self, state: State) -> int | None:
        """The fewest characters that may complete a started match; None if none has started."""
        return min((self._distances[thread] for thread in state.threads), default=1 if state.pending else None)

    def fewest(self, state: State) -> int:
        """The fewest characters that complete a match, begun or not, assertions taken to hold."""
        return 1 if state.pending else min(self._distances[thread] for thread in (*state.threads, *self._starts))

    @cached_property
    def _distances(self) -> list[int]:
        """For every node the fewest characters to the end of a match, assuming that assertions hold."""
        before: list[list[tuple[int, int]]] = [[] for _ in self._graph.reads]
        for node, read in enumerate(self._graph.reads):
            for after in [after for _, after in self._graph.skips[node]]:
                before[after].append((node, 0))
            if read is not None:
                before[read[1]].append((node, 1))
        found = [_UNREACHABLE] * len(before)
        found[_ACCEPT] = 0
        waiting = deque([_ACCEPT])
        while waiting:
            node = waiting.popleft()
            for other, characters in before[node]:
                if found[node] + characters < found[other]:
                    found[other] = found[node] + characters
                    (waiting.append if characters else waiting.appendleft)(other)
        return found

    def step(self, state: State, char: str) -> tuple[State, bool]:
        """Read one character.

        Returns:
            The new state, and whether this character made a match certain: one that ends with it, whatever follows, or
                one that ended earlier and depended on the next character.
        """
        known = self._steps.get((state, char))
        if known is None:
            known = self._step(state, char)
            self._remember(len(state.threads))
            self._steps[state, char] = known
        return known

    def ends(self, state: State) -> bool:
        """Whether a match that depends on the next character is complete if the text ends here."""
        return bool(state.pending & EDGE)

    def forget(self, state: State) -> State:
        """The same state without the matches that only depend on the next character; unfinished ones are kept."""
        return state._replace(pending=0)

    def neutral(self, state: State) -> State:
        """The same position in the text with no match started."""
        return State(frozenset(), state.before, 0)

    def alive(self, state: State) -> bool:
        """Whether a match has started that may still be completed."""
        return bool(state.threads or state.pending)

    def _step(self, state: State, char: str) -> tuple[State, bool]:
        kind = _kind(char)
        hit = bool(state.pending & kind)
        pending = EDGE if kind == NEWLINE and state.pending & LAST_NEWLINE and not hit else 0
        # A match may start at every character. The result depends on no thread, so it is computed once.
        threads = state.threads or self._starts
        reached: set[int] = set()
        reached_if_last: set[int] = set()
        for test, after, follows in self._closure(threads, state.before)[0]:
            if self._passes(test, char):
                if follows & kind:
                    reached.add(after)
                elif kind == NEWLINE and follows & LAST_NEWLINE:
                    reached_if_last.add(after)
        if reached_if_last:  # after a `$`: nothing more can be read, but the match may be complete
            pending |= self._closure(frozenset(reached_if_last), kind)[1] & EDGE
        threads = frozenset(reached - {_ACCEPT})
        reads, follows = self._closure(frozenset(reached), kind)
        pending |= follows
        if not reads:
            threads = frozenset()
        if state.threads:
            begun, begun_hit = self.step(self.neutral(state), char)
            threads |= begun.threads
            pending |= begun.pending
            hit = hit or begun_hit
        if pending == ANYTHING:
            hit, pending = True, 0
        return State(threads, kind, pending), hit

    def _passes(self, test: int, char: str) -> bool:
        verdict = self._verdicts.get((test, char))
        if verdict is None:
            verdict = self._verdicts[test, char] = self._graph.tests[test].fullmatch(char) is not None
        return verdict

    def _closure(self, threads: frozenset[int], before: int) -> tuple[list[tuple[int, int, int]], int]:
        """The next steps of the threads, for each kind of next character.

        Returns:
            Tests, the nodes after them, and the kinds of next character with which they can be reached; and the kinds
            with which a match is complete.
        """
        known = self._closures.get((threads, before))
        if known is not None:
            return known
        reach = dict.fromkeys(threads, ANYTHING)
        waiting = list(threads)
        while waiting:
            node = waiting.pop()
            for condition, after in self._graph.skips[node]:
                old = reach.get(after, 0)
                new = old | reach[node] & condition.get(before, 0)
                if new != old:
                    reach[after] = new
                    waiting.append(after)
        reads = [
            (*read, follows) for node, follows in reach.items() if follows & ~EDGE and (read := self._graph.reads[node])
        ]
        self._remember(len(reads))
        self._closures[threads, before] = reads, reach.get(_ACCEPT, 0)
        return reads, reach.get(_ACCEPT, 0)

    def _remember(self, threads: int) -> None:
        """Forget every step and closure when there are too many, before another one is kept."""
        self._remembered += threads + 8
        if self._remembered > MAX_REMEMBERED:
            self._steps.clear()
            self._closures.clear()
            self._remembered = 0
