"""The shortest text that completes a required entry without anything that must not appear.

The search tries one of each group of characters that no pattern distinguishes, and expands the state nearest to a match
first (A*: Hart, Nilsson and Raphael, 1968). It is bounded, and reports when it gave up. It works on characters, without
a model or scores.
"""

from collections.abc import Sequence
from functools import reduce
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple, Protocol

from ..text.character_classes import characters_behind, samples_between
from ..text.characters import fold
from ..text.text_patterns import PatternState, TextPatterns
from ..text.token_tables import TokenTables
from ..text.vocabulary import Vocabulary
from ..text.word_lists import is_regex

# Characters that one search tries before it gives up (about one second).
_MOST_TRIED = 60_000
# Cached results.
_MOST_WAYS = 20_000
_NEVER_SEARCHED = object()


class Condition(Protocol):
    """What has to hold at the end of a text, followed character by character. Its states are hashable."""

    def after(self, state: Any, char: str) -> Any:
        """The state after one more character."""

    def holds(self, state: Any) -> bool:
        """Whether it holds if the text ends in this state."""

    def distance(self, state: Any) -> int:
        """About the fewest characters after which it holds; never more."""

    def letters(self) -> Sequence[str]:
        """One of each kind of characters that it tells apart."""


class Included:
    """The condition that an entry is there. Its state is that of the patterns; None once they have matched."""

    def __init__(self, patterns: TextPatterns, alphabet: Sequence[str]) -> None:
        self.patterns, self.alphabet = patterns, alphabet

    def after(self, state: PatternState | None, char: str) -> PatternState | None:
        """See `Condition`."""
        if state is None:
            return None
        after, hit = self.patterns.step(state, char)
        return None if hit else self.patterns.core(after)

    def holds(self, state: PatternState | None) -> bool:
        """See `Condition`."""
        return state is None or self.patterns.ends(state)

    def distance(self, state: PatternState | None) -> int:
        """See `Condition`."""
        return 0 if state is None else self.patterns.distance(state)

    def letters(self) -> Sequence[str]:
        """See `Condition`."""
        return self.alphabet


class Search(NamedTuple):
    """The starting state of a search.

    Attributes:
        entry: the index of the entry to complete.
        state: the state of the text in that entry's patterns.
        barred: its state in the patterns that must not appear; None to ignore them.
        tail: the end of the text, in which a stop string may have started; None to ignore stop strings.
        started: the bytes of an incomplete character at the end of the text; the next character must start with them.
        also: what else has to hold at the end, and the states of the text in it.
    """

    entry: int
    state: PatternState
    barred: PatternState | None
    tail: str | None
    started: bytes = b""
    also: tuple[tuple[Condition, Any], ...] = ()


class Ways:
    """Finds and caches texts that complete entries.

    Args:
        sources: the entries.
        tables: (entries,) their tables.
        vocabulary: the text that every token adds.
        barred: the tables of what must not appear; may be None.
        stops: the stop strings.

    Attributes:
        alphabets: (entries,) the characters that a search tries.
        included: (entries,) the conditions that they are there.
        gave_up: the last search reached its bound.
    """

    def __init__(
        self,
        sources: Sequence[str],
        tables: Sequence[TokenTables],
        vocabulary: Vocabulary,
        barred: TokenTables | None,
        stops: Sequence[str],
    ) -> None:
        self.vocabulary = vocabulary
        self.patterns = [table.patterns for table in tables]
        self.barred = barred.patterns if barred is not None else None
        self.stops = tuple(stops)
        self._tail = max((len(stop) - 1 for stop in self.stops), default=0)
        self.alphabets = [
            self._alphabet(source, patterns) for source, patterns in zip(sources, self.patterns, strict=True)
        ]
        self.included = [
            Included(patterns, alphabet) for patterns, alphabet in zip(self.patterns, self.alphabets, strict=True)
        ]
        self.gave_up = False
        self._found: dict[Search, str | None] = {}

    def __call__(self, search: Search) -> str | None:
        """The shortest text that completes an entry; None if none exists or none was found."""
        # Other threads may clear this cache, so the result is not looked up again.
        way: Any = self._found.get(search, _NEVER_SEARCHED)
        if way is _NEVER_SEARCHED:
            if len(self._found) > _MOST_WAYS:
                self._found.clear()
            straight = self._search(search._replace(barred=None, tail=None))
            around = straight
            if straight is not None and self._is_barred(search, straight):
                around = self._search(search)
            way = self._found[search] = around
        return way

    def _alphabet(self, source: str, patterns: TextPatterns) -> list[str]:
        """The characters that a search tries, one of each group that no pattern distinguishes.

        The entry's own characters are first, then the space, then lower case, then the others.
        """
        vocabulary = self.vocabulary
        own = dict.fromkeys(source)
        seen = [patterns, *([self.barred] if self.barred is not None else [])]
        plain = all(each.is_plain for each in seen) and all(map(str.isascii, self.stops))
        letters = list(vocabulary.usual_letters(patterns.ignore_case if plain else None))
        if vocabulary.all_continuations(False) or vocabulary.all_continuations(True):
            letters += [char for each in seen if each.regex for char in each.classes.representatives()]
        in_stops = frozenset("".join(self.stops))
        # A letter of the entry is not tried in another form ("S" or a part of "ß" for "s"), if its own can be spelled.
        parts = "" if is_regex(source) else "".join(fold(char) for char in own if vocabulary.can_write(char))
        if parts:
            letters = [char for char in letters if char in own or not set(fold(char) or char) <= set(parts)]
        chars = [*own, *letters]
        # With an expression, all characters are tried, which are classified faster together than one by one.
        keys = [map(each.key, chars) if plain else each.match_classes.of_all(chars) for each in seen]
        stopping = (char if char in in_stops else "" for char in chars)
        found: dict[object, str] = {}
        for char, key in zip(chars, zip(*keys, stopping, strict=True), strict=True):
            if key not in found and vocabulary.can_write(char):
                found[key] = char
        return list(found.values())

    def _is_barred(self, search: Search, text: str) -> bool:
        if search.tail is not None and any(stop in search.tail + text for stop in self.stops):
            return True
        if search.barred is None or self.barred is None:
            return False
        state, hit = self.barred.read(search.barred, text)
        return hit or self.barred.ends(state)

    def _search(self, search: Search) -> str | None:
        """Best-first search, ordered by the length of the text so far plus the fewest characters still needed."""
        conditions, alphabet = self._conditions(search), self._letters(search)
        first = (self._states(search), search.barred, search.tail)
        # A character that nothing sees completes a started one, and changes no state.
        numbers, seen, tried = count(), set() if search.started else {first}, 0
        queue: list[tuple[int, int, int, tuple[tuple[Any, ...], PatternState | None, str | None] | None, str]] = []
        heappush(queue, (0, 0, next(numbers), first, ""))
        self.gave_up = False
        while queue:
            *_, current, text = heappop(queue)
            if current is None:
                return text
            tried += len(alphabet)
            if tried > _MOST_TRIED:
                self.gave_up = True
                return None
            length = len(text) + 1
            for letter in alphabet if text else self._first_letters(search):
                rest = self._advance_barred(current[1], current[2], letter)
                if rest is None:
                    continue
                bar, tail, may_end = rest
                states = tuple([each.after(state, letter) for each, state in zip(conditions, current[0], strict=True)])
                if may_end and all(each.holds(state) for each, state in zip(conditions, states, strict=True)):
                    written = self._spellable(search, text + letter)
                    if written is not None:
                        heappush(queue, (len(written), -len(written), next(numbers), None, written))
                reached = (states, bar, tail)
                if reached not in seen:
                    seen.add(reached)
                    needed = max(each.distance(state) for each, state in zip(conditions, states, strict=True))
                    heappush(queue, (length + needed, -length, next(numbers), reached, text + letter))
        return None

    def _conditions(self, search: Search) -> list[Condition]:
        return [self.included[search.entry], *(condition for condition, _ in search.also)]

    def _states(self, search: Search) -> tuple[Any, ...]:
        return (search.state, *(state for _, state in search.also))

    def _letters(self, search: Search) -> list[str]:
        """The characters that a search tries."""
        more = (letter for condition, _ in search.also for letter in condition.letters())
        return list(dict.fromkeys([*self.alphabets[search.entry], *filter(self.vocabulary.can_write, more)]))

    def _first_letters(self, search: Search) -> list[str]:
        """The characters that can be next: those that complete `started`, or that a token starts with."""
        letters = self._letters(search)
        if not search.started:
            return [letter for letter in letters if self.vocabulary.can_begin(letter)]
        first, last, _ = characters_behind(search.started)
        own = [letter for letter in letters if first <= ord(letter) <= last]
        found = [*own, *samples_between(first, last)]
        if self.barred is not None and search.barred is not None:
            state = search.barred
            if all(self.barred.step(state, letter)[1] for letter in found):
                found += self.barred.classes.representatives(first, last)
        return found

    def _advance_barred(
        self, bar: PatternState | None, tail: str | None, letter: str
    ) -> tuple[PatternState | None, str | None, bool] | None:
        """Advance the state in what must not appear by one letter.

        Returns:
            The new `barred` and `tail`, and whether the text may end here; None if the letter is not allowed.
        """
        may_end = True
        if self.barred is not None and bar is not None:
            bar, banned = self.barred.step(bar, letter)
            if banned:
                return None
            may_end = not self.barred.ends(bar)
        if tail is not None:
            tail += letter
            if tail.endswith(self.stops):
                return None
            tail = tail[-self._tail :] if self._tail else ""
        return bar, tail, may_end

    def _spellable(self, search: Search, text: str) -> str | None:
        """The text, after a space if necessary: some tokenizers have certain characters only at the start of a word."""
        if self.vocabulary.spell(text[1:] if search.started else text) is not None:
            return text
        spaced = " " + text
        if search.started or self.vocabulary.spell(spaced) is None or self._is_barred(search, spaced):
            return None
        conditions = zip(self._conditions(search), self._states(search), strict=True)
        return spaced if all(each.holds(reduce(each.after, spaced, state)) for each, state in conditions) else None
