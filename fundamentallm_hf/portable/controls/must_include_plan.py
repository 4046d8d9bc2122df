"""What has to appear in a text: how much of it has, and the shortest way to write the rest.

A text is followed token by token through every entry that is still missing. From any place the plan tells tokens that
would write all of it, going round what must not appear, so that whoever generates knows what room to keep. This file
knows nothing of models or of scores.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from ..text.characters import fold
from ..text.text_patterns import PatternState, TextPatterns
from ..text.token_tables import TextState, TokenTables
from ..text.vocabulary import Vocabulary, add_piece
from ..text.word_counts import WordCounts
from ..text.word_lists import is_regex, split_alternatives

# Places where a word could begin, per token.
_PLACES_PER_CHARACTER, _PLACES_PER_TOKEN = 0.19, 0.75
# States that the search for the shortest way looks at before it gives up.
_MOST_STATES = 20_000
_NOT_TRIED = object()


class Progress(NamedTuple):
    """How far a text has come.

    Attributes:
        places: for every entry where the text stands in it; None where it has appeared.
        barred: where the text stands in what must not appear, if anything.
        in_prompt: it is still the prompt, in which nothing counts.
        held: the entries that have appeared among byte tokens, which a decoder may still give up.
        tail: the end of the text, as far as a text that stops it may have begun there.
    """

    places: tuple[TextState | None, ...]
    barred: TextState | None
    in_prompt: bool = False
    held: frozenset[int] = frozenset()
    tail: str = ""


class _Search(NamedTuple):
    """Where a search for the shortest way begins."""

    entry: int
    place: PatternState
    barred: PatternState | None
    tail: str | None
    begun: bytes = b""


class Requirements:
    """A list of entries that have to appear, for any number of calls.

    Args:
        must_include: the entries: a word or phrase, matched as in `BadWordsLogitsProcessor`; several alternatives
            separated by `|`; or a regular expression in slashes.
        tokenizer: the model's.
        size: number of scores the model gives.
        case_sensitive: match case.
        ordered: the entries have to appear in this order.
        counts: how words end; by default guessed from a sub-word tokenizer's vocabulary.
        barred: what must not appear (see `compile_bad_words`).
        prompt_counts: what the prompt holds has appeared.
        stops: texts that end the text, so no entry is written with one of them in it.

    Raises:
        ValueError: an entry cannot be read, cannot be written with the model's alphabet, or contains what must not
            appear or what ends the text; names it.
    """

    def __init__(
        self,
        must_include: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        size: int,
        case_sensitive: bool = False,
        ordered: bool = False,
        counts: WordCounts | None = None,
        barred: TokenTables | None = None,
        prompt_counts: bool = False,
        stops: Sequence[str] = (),
    ) -> None:
        self.sources = tuple(must_include)
        self.vocabulary = Vocabulary.of(tokenizer).limited(size)
        self.size = size
        self.ordered = ordered
        self.barred = barred
        self.prompt_counts = prompt_counts
        self.stops = tuple(stops)
        counts = counts if counts is not None else WordCounts.of_vocabulary(self.vocabulary)
        self.tables = [
            TokenTables(self.vocabulary, patterns, size)
            for patterns in (
                TextPatterns(split_alternatives(source), not case_sensitive, counts, expects=True)
                for source in self.sources
            )
        ]
        self.rate = _PLACES_PER_CHARACTER if self.vocabulary.longest <= 1 else _PLACES_PER_TOKEN
        self._tail = max((len(stop) - 1 for stop in self.stops), default=0)
        self.alphabets = [self._alphabet(index) for index in range(len(self.sources))]
        self.start = Progress(
            tuple(table.start for table in self.tables), self.barred.start if self.barred is not None else None, True
        )
        self._ways: dict[_Search, str | None] = {}
        self._gave_up = False
        self._plans: dict[Progress, list[int] | None] = {}
        for index, source in enumerate(self.sources):
            self._check(index, source)

    def _check(self, index: int, source: str) -> None:
        start = self.tables[index].patterns.start
        barred = self.barred.patterns.start if self.barred is not None else None
        for tried, reason in (
            (_Search(index, start, None, None), "with the model's alphabet: leave it out"),
            (_Search(index, start, barred, None), "without a bad word: change one of the lists"),
            (_Search(index, start, barred, ""), "without a text that stops the text: change one of the lists"),
        ):
            if self._way(tried) is None:
                if self._gave_up:
                    raise ValueError(f"must_include: no way to write {source!r} was found: make it simpler")
                raise ValueError(f"must_include: {source!r} cannot be written {reason}")

    def _alphabet(self, index: int) -> list[str]:
        """The characters by which a search goes on, one for all that no pattern tells apart.

        Of those the entry's own come first, then the space, then what words are made of.
        """
        vocabulary = self.vocabulary
        own = dict.fromkeys(self.sources[index])
        letters = sorted(vocabulary.characters, key=lambda letter: (letter != " ", not letter.islower(), letter))
        patterns = [self.tables[index].patterns, *([self.barred.patterns] if self.barred is not None else [])]
        if vocabulary.all_continuations(False) or vocabulary.all_continuations(True):
            letters += [char for each in patterns if each.regex for char in each.classes.representatives()]
        in_stops = frozenset("".join(self.stops))
        # Of a letter that the entry holds no other case is written, if its own can be.
        regex = is_regex(self.sources[index])
        spelled = frozenset() if regex else frozenset(fold(char) for char in own if vocabulary.can_write(char))
        letters = [char for char in letters if char in own or fold(char) not in spelled]
        found: dict[object, str] = {}
        for char in (*own, *letters):
            key = (*(each.key(char) for each in patterns), char if char in in_stops else "")
            if key not in found and vocabulary.can_write(char):
                found[key] = char
        return list(found.values())

    def advance(self, progress: Progress, token: int) -> Progress:
        """How far the text has come behind one more token."""
        places: list[TextState | None] = []
        held = set()
        waiting = False
        counts = self.prompt_counts or not progress.in_prompt
        for index, (table, place) in enumerate(zip(self.tables, progress.places, strict=True)):
            if place is None:
                places.append(None)
                continue
            after, hit = table.read(place, token)
            found = counts and hit
            if counts and index in progress.held and table.keeps_run(place, token):
                found = True
            if self.ordered and waiting and counts:
                # It is not its turn yet: only what is begun later counts.
                after, found = after._replace(patterns=table.patterns.neutral(after.patterns)), False
            waiting = waiting or not found
            if found and table.in_run(after):
                # The next byte may make the decoder give up all the bytes beside it.
                held.add(index)
                found = False
            places.append(None if found else after)
        barred = progress.barred
        if self.barred is not None and barred is not None:
            barred = self.barred.advance(barred, token)
        return Progress(tuple(places), barred, progress.in_prompt, frozenset(held), self._tail_behind(progress, token))

    def advance_prompt(self, progress: Progress, token: int) -> Progress:
        """The same within a prompt, where a special token begins a new text."""
        if not self.vocabulary.is_border(token):
            return self.advance(progress, token)
        places = [place and table.start for table, place in zip(self.tables, progress.places, strict=True)]
        return self.start._replace(places=tuple(places))

    def _tail_behind(self, progress: Progress, token: int) -> str:
        place = next((place for place in progress.places if place is not None), None)
        if not self._tail or place is None:
            return ""
        pending = place.pending if token in self.vocabulary.fallback or not place.run else b""
        text, _ = add_piece(pending, self.vocabulary.piece(token), self.vocabulary.errors)
        return (progress.tail + text)[-self._tail :]

    def prompt_end(self, progress: Progress) -> Progress:
        """How far a text has come that so far is a prompt: what the prompt holds does not count, unless asked."""
        places = list(progress.places)
        if not self.prompt_counts:
            places = [place and table.forget(place) for table, place in zip(self.tables, places, strict=True)]
        barred = progress.barred
        if self.barred is not None and barred is not None:
            barred = self.barred.forget(barred)
        return Progress(tuple(places), barred, tail=progress.tail)

    def missing(self, progress: Progress) -> list[int]:
        """The entries that have not appeared, should the text end here."""
        return [
            index
            for index, (table, place) in enumerate(zip(self.tables, progress.places, strict=True))
            if place is not None and not table.ends(place) and (index not in progress.held or place.pending)
        ]

    def waiting(self, progress: Progress) -> list[int]:
        """The entries that are looked for now: those that have not appeared, or the first of them in an order."""
        waiting = [index for index, place in enumerate(progress.places) if place is not None]
        return waiting[:1] if self.ordered else waiting

    def plan(self, progress: Progress) -> list[int] | None:
        """The fewest tokens found that write all that is missing; None if no way was found."""
        # Calls in other threads may use the same requirements, so what was found is not looked up again.
        plan: Any = self._plans.get(progress, _NOT_TRIED)
        if plan is _NOT_TRIED:
            if len(self._plans) > _MOST_STATES:
                self._plans.clear()
            plan = self._plans[progress] = self._make_plan(progress)
        return plan

    def most_needed(self, progress: Progress) -> int:
        """Tokens that a plan takes from the middle of some other word, whatever was begun."""
        lost: list[TextState | None] = []
        for table, place in zip(self.tables, progress.places, strict=True):
            if place is None:
                lost.append(None)
                continue
            neutral = table.patterns.neutral(place.patterns)
            lost.append(TextState(neutral._replace(literal=neutral.literal._replace(in_word=True))))
        plan = self.plan(Progress(tuple(lost), self.start.barred))
        return len(plan) if plan is not None else 10**9

    def _make_plan(self, progress: Progress) -> list[int] | None:
        tokens: list[int] = []
        while missing := self.missing(progress):
            possible = [
                (len(found), index, found)
                for index in (missing[:1] if self.ordered else missing)
                for found in self._spelled_ways(index, progress)
            ]
            if not possible:
                return None
            _, index, found = min(possible)
            for token in found:
                progress = self.advance(progress, token)
            tokens += found
            if index in self.missing(progress):
                return None
        return tokens

    def _spelled_ways(self, index: int, progress: Progress) -> Iterator[list[int]]:
        """Tokens that complete an entry: behind the character that was begun, and from a new one on."""
        place, barred = progress.places[index], progress.barred
        assert place is not None
        tail = progress.tail if self.stops else None
        if place.pending:
            begun = _Search(index, place.patterns, barred and barred.patterns, tail, place.pending)
            way = self._way(begun)
            if way is not None:
                first = self.vocabulary.spell_bytes(way[0].encode()[len(place.pending) :], bool(place.run))
                others = self.vocabulary.spell(way[1:])
                if first is not None and others is not None:
                    yield [*first, *others]
        table = self.tables[index]
        flushed = table.flushed(place)
        bars = None if barred is None or self.barred is None else self.barred.flushed(barred)
        way = self._way(_Search(index, flushed, bars, tail))
        tokens = self.vocabulary.spell(way) if way else None
        space = self.vocabulary.token(" ")
        broken = bool(place.run) and (place.before is None or bool(place.pending))
        if tokens and tokens[0] in self.vocabulary.fallback and broken and space is not None:
            # Bytes beside broken ones would be given up with them.
            if bars is not None and self.barred is not None:
                bars = self.barred.patterns.step(bars, " ")[0]
            way = self._way(_Search(index, table.patterns.step(flushed, " ")[0], bars, tail))
            rest = self.vocabulary.spell(way) if way else None
            tokens = rest and [space, *rest]
        if tokens:
            yield tokens

    def _way(self, search: _Search) -> str | None:
        """The shortest text that completes an entry, going round what is barred and what would stop the text."""
        way: Any = self._ways.get(search, _NOT_TRIED)
        if way is _NOT_TRIED:
            if len(self._ways) > _MOST_STATES:
                self._ways.clear()
            straight = self._search(search._replace(barred=None, tail=None))
            around = straight
            if straight is not None and self._is_barred(search, straight):
                around = self._search(search)
            way = self._ways[search] = around
        return way

    def _is_barred(self, search: _Search, text: str) -> bool:
        if search.tail is not None and any(stop in search.tail + text for stop in self.stops):
            return True
        if search.barred is None:
            return False
        assert self.barred is not None
        state, hit = self.barred.patterns.read(search.barred, text)
        return hit or self.barred.patterns.ends(state)

    def _search(self, search: _Search) -> str | None:
        """Breadth first, one character at a time."""
        patterns = self.tables[search.entry].patterns
        bars = self.barred.patterns if self.barred is not None else None
        first = (search.place, search.barred, search.tail)
        seen = {first}
        queue = deque([(*first, "")])
        self._gave_up = False
        while queue:
            state, bar, tail, text = queue.popleft()
            for letter in self.alphabets[search.entry]:
                if not text and not letter.encode("utf-8", "replace").startswith(search.begun):
                    continue
                after, hit = patterns.step(state, letter)
                bar_after, barred_end = bar, False
                if bars is not None and bar is not None:
                    bar_after, banned = bars.step(bar, letter)
                    if banned:
                        continue
                    barred_end = bars.ends(bar_after)
                tail_after = tail
                if tail is not None:
                    if (tail + letter).endswith(self.stops):
                        continue
                    tail_after = (tail + letter)[-self._tail :] if self._tail else ""
                if (hit or patterns.ends(after)) and not barred_end:
                    written = self._spellable(search, text + letter)
                    if written is not None:
                        return written
                key = (after, bar_after, tail_after)
                if key not in seen:
                    if len(seen) > _MOST_STATES:
                        self._gave_up = True
                        return None
                    seen.add(key)
                    queue.append((*key, text + letter))
        return None

    def _spellable(self, search: _Search, text: str) -> str | None:
        """The text, if need be behind a space: some tokenizers have characters only as the beginning of a word."""
        if self.vocabulary.spell(text[1:] if search.begun else text) is not None:
            return text
        spaced = " " + text
        if search.begun or self.vocabulary.spell(spaced) is None or self._is_barred(search, spaced):
            return None
        patterns = self.tables[search.entry].patterns
        state, hit = patterns.read(search.place, spaced)
        return spaced if hit or patterns.ends(state) else None
