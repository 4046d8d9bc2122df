"""The shortest text that completes a required entry, going round what must not appear.

The search goes on with one character for all that no pattern tells apart, and first where a match is nearest (A*: Hart,
Nilsson and Raphael, 1968). It has a bound and says when it gave up. This file knows nothing of tokens' order, of models
or of scores.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple

from ..text.characters import fold
from ..text.text_patterns import PatternState, TextPatterns
from ..text.token_tables import TokenTables
from ..text.vocabulary import Vocabulary
from ..text.word_lists import is_regex

# Characters that one search tries before it gives up: about a second.
_MOST_TRIED = 60_000
# Ways that are kept.
_MOST_WAYS = 20_000
_NEVER_SEARCHED = object()


class Search(NamedTuple):
    """Where a search begins.

    Attributes:
        entry: the index of what has to be completed.
        place: where the text stands in it.
        barred: where the text stands in what must not appear; None if that does not matter.
        tail: the end of the text, in which a text that stops it may have begun; None if that does not matter.
        begun: the first bytes of the character with which the text goes on.
    """

    entry: int
    place: PatternState
    barred: PatternState | None
    tail: str | None
    begun: bytes = b""


class Ways:
    """Finds, and keeps, texts that complete entries.

    Args:
        sources: the entries.
        tables: (entries,) their tables.
        vocabulary: what every token adds.
        barred: what must not appear, if anything.
        stops: texts that end the text.

    Attributes:
        alphabets: (entries,) the characters by which a search goes on.
        gave_up: the last search came to no end.
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
        self.gave_up = False
        self._found: dict[Search, str | None] = {}

    def __call__(self, search: Search) -> str | None:
        """The shortest text that completes an entry; None if there is none, or none was found."""
        # Calls in other threads may use the same ways, so what was found is not looked up again.
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
        """The characters by which a search goes on, one for all that no pattern tells apart.

        Of those the entry's own come first, then the space, then what words are made of.
        """
        vocabulary = self.vocabulary
        own = dict.fromkeys(source)
        seen = [patterns, *([self.barred] if self.barred is not None else [])]
        plain = all(each.is_plain for each in seen) and all(map(str.isascii, self.stops))
        letters = list(vocabulary.usual_letters(patterns.ignore_case if plain else None))
        if vocabulary.all_continuations(False) or vocabulary.all_continuations(True):
            letters += [char for each in seen if each.regex for char in each.classes.representatives()]
        in_stops = frozenset("".join(self.stops))
        # Of a letter that the entry holds no other case is written, if its own can be.
        spelled = (
            frozenset() if is_regex(source) else frozenset(fold(char) for char in own if vocabulary.can_write(char))
        )
        letters = [char for char in letters if char in own or fold(char) not in spelled]
        found: dict[object, str] = {}
        for char in (*own, *letters):
            key = (*(each.key(char) for each in seen), char if char in in_stops else "")
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
        """Best first: a text that is written so far, and the fewest characters that it takes from there."""
        patterns, alphabet = self.patterns[search.entry], self.alphabets[search.entry]
        first = (search.place, search.barred, search.tail)
        numbers, seen, tried = count(), {first}, 0
        queue: list[tuple[int, int, int, tuple[PatternState, PatternState | None, str | None] | None, str]] = []
        heappush(queue, (patterns.distance(search.place), 0, next(numbers), first, ""))
        self.gave_up = False
        while queue:
            *_, stand, text = heappop(queue)
            if stand is None:
                return text
            tried += len(alphabet)
            if tried > _MOST_TRIED:
                self.gave_up = True
                return None
            length = len(text) + 1
            for letter in alphabet if text else self._first_letters(search):
                after, hit = patterns.step(stand[0], letter)
                rest = self._beside(stand[1], stand[2], letter)
                if rest is None:
                    continue
                bar, tail, may_end = rest
                if (hit or patterns.ends(after)) and may_end:
                    written = self._spellable(search, text + letter)
                    if written is not None:
                        heappush(queue, (len(written), -len(written), next(numbers), None, written))
                key = (after, bar, tail)
                if key not in seen:
                    seen.add(key)
                    heappush(queue, (length + patterns.distance(after), -length, next(numbers), key, text + letter))
        return None

    def _first_letters(self, search: Search) -> list[str]:
        """The characters that can come next: those that go on with what was begun, or that a token begins with."""
        letters = self.alphabets[search.entry]
        if search.begun:
            return [letter for letter in letters if letter.encode("utf-8", "replace").startswith(search.begun)]
        return [letter for letter in letters if self.vocabulary.can_begin(letter)]

    def _beside(
        self, bar: PatternState | None, tail: str | None, letter: str
    ) -> tuple[PatternState | None, str | None, bool] | None:
        """Where the text stands behind a letter in what it must not hold, and whether it may end there.

        Returns:
            None if it must not be written.
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
        """The text, if need be behind a space: some tokenizers have characters only as the beginning of a word."""
        if self.vocabulary.spell(text[1:] if search.begun else text) is not None:
            return text
        spaced = " " + text
        if search.begun or self.vocabulary.spell(spaced) is None or self._is_barred(search, spaced):
            return None
        patterns = self.patterns[search.entry]
        state, hit = patterns.read(search.place, spaced)
        return spaced if hit or patterns.ends(state) else None
