"""Matches a list of words and phrases against text, one character at a time, however long the list is.

All entries share one trie over folded characters, so the cost of a step depends on the few nodes that the current word
may still be at. The interface is that of `regex_matcher.py`.

What an entry means:

- `word`: matches as a whole word, in any case: with no letter, digit or underscore next to it. An edge that is no such
  character (as in `c++`), and scripts without spaces, need no boundary;
- `two words`: with any white space between them;
- `*`: any letters, or none. `curs*` matches every word that starts so, `*ing` every word that ends so, `*art*` every
  word that contains it;
- a backslash removes the special meaning of the `*`, the `/` or the backslash after it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from .characters import fold, is_word, needs_boundary
from .regex_matcher import RegexMachine
from .word_lists import is_regex

SPACE, STAR = " ", "*"
# A distance that no text has.
MANY = 1 << 30
_ITEM = re.compile(r"\\([\\*/])|(\*+)|(\s+)|(.)", re.DOTALL)
# Entries may start anywhere from the first of these nodes, but from the second only at the start of a word.
_ANYWHERE, _AT_BOUNDARY = 0, 1
# Steps that are remembered before all are forgotten: about 100 MB.
_KEPT_STEPS = 1 << 18


class LiteralState(NamedTuple):
    """The state of a search.

    Attributes:
        threads: the nodes reached by the last character.
        in_word: the last character was a letter, digit or underscore.
        pending: an entry is complete if no such character follows.
    """

    threads: frozenset[int]
    in_word: bool
    pending: bool


@dataclass(slots=True)
class Node:
    """One node of the trie.

    Attributes:
        next: the node after each folded character; after any white space for " ".
        repeats: characters that may be repeated here: " " for white space, "*" for letters, or nothing.
        star: a node reached without reading, at which any letters may be read first.
        complete: "now" if an entry ends here whatever follows, "boundary" if it ends here where no letter follows.
    """

    next: dict[str, int] = field(default_factory=dict)
    repeats: str = ""
    star: int | None = None
    complete: str = ""


@dataclass(frozen=True)
class Entry:
    """One parsed entry.

    Attributes:
        items: its visible characters as written, `SPACE` for white space and `STAR` for any letters.
        literal: for each item, whether it stands for itself.
        source: as the user wrote it.
    """

    items: tuple[str, ...]
    literal: tuple[bool, ...]
    source: str

    @classmethod
    def parse(cls, source: str) -> "Entry":
        """Read an entry.

        Raises:
            ValueError: it has no visible character other than `*`.
        """
        items: list[tuple[str, bool]] = []
        for escaped, stars, _, char in _ITEM.findall("".join(char for char in source if fold(char)).strip()):
            items.append((escaped or char, True) if escaped or char else (STAR if stars else SPACE, False))
        if not any(literal for _, literal in items):
            raise ValueError(f"an entry has to hold a character that can be seen but is {source!r}")
        return cls(tuple(item for item, _ in items), tuple(literal for _, literal in items), source)

    @property
    def is_plain(self) -> bool:
        """Whether it consists of words and phrases, except for letters that may follow (`curs*`)."""
        inner = self.items[:-1] if self.is_stem else self.items
        return all(literal or item == SPACE for item, literal in zip(inner, self.literal, strict=False))

    @property
    def is_stem(self) -> bool:
        """Whether it ends in any letters."""
        return self.items[-1] == STAR and not self.literal[-1]


def check_entry(source: str) -> None:
    """Check that an entry, words or a regular expression, can be read, before anything heavy is loaded.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if is_regex(source):
        RegexMachine([source[1:-1]], ignore_case=True)
    else:
        Entry.parse(source)


class LiteralMachine:
    """Finds entries in text.

    Args:
        entries: what to find.
        ignore_case: compare with case folded.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.word_matcher import Entry, LiteralMachine
    >>> machine = LiteralMachine([Entry.parse("ass")], ignore_case=True)
    >>> state, hits = machine.start, []
    >>> for char in "class: Ass!":
    ...     state, hit = machine.step(state, char)
    ...     hits.append(hit)
    >>> hits.index(True)
    10

    ```
    """

    start = LiteralState(frozenset(), False, False)

    def __init__(self, entries: Sequence[Entry], ignore_case: bool) -> None:
        self.ignore_case = ignore_case
        self.nodes = [Node(), Node()]
        self._all_complete = True
        self._steps: dict[tuple[LiteralState, str], tuple[LiteralState, bool]] = {}
        self.paths = [self.add(entry) for entry in entries]

    def step(self, state: LiteralState, char: str) -> tuple[LiteralState, bool]:
        """Read one character.

        Returns:
            The new state, and whether an entry is now complete: one that ends at `char` whatever follows, or one that
                only needed no letter to follow.
        """
        known = self._steps.get((state, char))
        if known is None:
            if len(self._steps) >= _KEPT_STEPS:
                self._steps.clear()
            known = self._steps[state, char] = self.step_once(state, char)
        return known

    def step_once(self, state: LiteralState, char: str) -> tuple[LiteralState, bool]:
        """Like `step`, for callers that remember the step themselves."""
        hit = False
        for part in fold(char, self.ignore_case):
            state, found = self._read(state, part)
            hit = hit or found
        return state, hit

    @property
    def alphabet(self) -> set[str]:
        """The folded characters that entries are made of."""
        return {part for node in self.nodes for part in node.next if part != SPACE}

    def ends(self, state: LiteralState) -> bool:
        """Whether an entry is complete if the text ends here."""
        return state.pending

    def distance(self, state: LiteralState) -> int:
        """The fewest characters that complete an entry, be it one that has begun; `MANY` if there is none."""
        if state.pending:
            return 1
        begun = [self._distances[place] for place in (*state.threads, _ANYWHERE)]
        return min(*begun, self._distances[_AT_BOUNDARY] + state.in_word)

    @cached_property
    def _distances(self) -> list[int]:
        """For every node the fewest characters between it and the end of an entry."""
        found = [0 if node.complete else MANY for node in self.nodes]
        # Children come after their parents, but for a star beside a node, which may have come earlier.
        changed = True
        while changed:
            changed = False
            for place in range(len(self.nodes) - 1, -1, -1):
                node = self.nodes[place]
                least = min([found[after] + 1 for after in node.next.values()], default=MANY)
                least = min(least, found[place], MANY if node.star is None else found[node.star])
                if least < found[place]:
                    found[place], changed = least, True
        return found

    def idle(self, state: LiteralState) -> bool:
        """Whether nothing has started in the current word, and none of its further letters can start anything."""
        return state.in_word and not state.threads and not state.pending and not self.begins_anywhere

    @property
    def begins_anywhere(self) -> bool:
        """Whether an entry may start within a word."""
        anywhere = self.nodes[_ANYWHERE]
        return bool(anywhere.next) or anywhere.star is not None

    def forget(self, state: LiteralState) -> LiteralState:
        """The same state, without matches that are complete already."""
        return state._replace(pending=False)

    def neutral(self, state: LiteralState) -> LiteralState:
        """The same position in a text in which nothing has started."""
        return LiteralState(frozenset(), state.in_word, False)

    def core(self, state: LiteralState) -> LiteralState:
        """The same state, without the nodes from which no entry can be completed: see `add`."""
        if self._all_complete:
            return state
        return state._replace(threads=frozenset(node for node in state.threads if self._distances[node] < MANY))

    def _read(self, state: LiteralState, part: str) -> tuple[LiteralState, bool]:
        word = is_word(part)
        hit = state.pending and not word
        reached, stays = self._follow((*state.threads, *self._begin(state)), part)
        reached |= stays
        reached |= {star for place in reached if (star := self.nodes[place].star) is not None}
        complete = {self.nodes[place].complete for place in reached}
        return LiteralState(frozenset(reached), word, "boundary" in complete), hit or "now" in complete

    @staticmethod
    def _begin(state: LiteralState) -> tuple[int, ...]:
        """The nodes at which entries may begin."""
        return (_ANYWHERE,) if state.in_word else (_ANYWHERE, _AT_BOUNDARY)

    def _follow(self, nodes: Iterable[int], part: str) -> tuple[set[int], set[int]]:
        """The nodes after some nodes and a folded character, and those of them that the character repeats."""
        word, space = is_word(part), part.isspace()
        reached, stays = set(), set()
        for place in nodes:
            node = self.nodes[place]
            follower = node.next.get(SPACE if space else part)
            if follower is not None:
                reached.add(follower)
            if (node.repeats == STAR and word) or (node.repeats == SPACE and space):
                stays.add(place)
        return reached, stays

    def add(self, entry: Entry, completes: bool = True) -> list[int]:
        """Add an entry.

        Args:
            entry: what to find.
            completes: if False, the entry has its nodes in the trie, but is never found.

        Returns:
            The node after each of its items, the start first.
        """
        self._steps.clear()
        self._all_complete = self._all_complete and completes
        self.__dict__.pop("_distances", None)
        marks = list(zip(entry.items, entry.literal, strict=True))
        begins_open = marks[0] == (STAR, False)
        edges = "".join(fold(item, self.ignore_case) for item, literal in marks if literal)
        place = _AT_BOUNDARY if not begins_open and needs_boundary(edges[0]) else _ANYWHERE
        path = [place]
        for index, (item, literal) in enumerate(marks):
            if literal:
                for part in fold(item, self.ignore_case):
                    place = self._child(place, part)
            elif item == SPACE:
                place = self._child(place, SPACE)
                self.nodes[place].repeats = SPACE
            elif index > 0:
                if index == len(marks) - 1 and completes:
                    self.nodes[place].complete = "now"
                place = self._starred(place)
            path.append(place)
        node = self.nodes[place]
        if not completes:
            return path
        if entry.is_stem or not needs_boundary(edges[-1]):
            node.complete = "now"
        elif not node.complete:
            node.complete = "boundary"
        return path

    def _child(self, place: int, part: str) -> int:
        following = self.nodes[place].next
        if part not in following:
            following[part] = len(self.nodes)
            self.nodes.append(Node())
        return following[part]

    def _starred(self, place: int) -> int:
        # A separate node: the entries that share the neighbouring one may have no star here.
        star = self.nodes[place].star
        if star is None:
            star = self.nodes[place].star = len(self.nodes)
            self.nodes.append(Node(repeats=STAR))
        return star
