"""Required words: how many of them have appeared, and the shortest way to write the rest.

A text is followed token by token through every entry that is still missing. In any state the plan is a list of tokens
that would write all of them while avoiding banned words, so that the caller knows how much of the budget to keep.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache, reduce
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from ..text.characters import needs_boundary
from ..text.text_patterns import TextPatterns
from ..text.token_tables import TextState, TokenTables
from ..text.vocabulary import Vocabulary, add_piece
from ..text.word_counts import WordCounts
from ..text.word_lists import split_alternatives
from .must_include_search import Condition, Search, Ways
from .must_include_spelling import CLOSED, FREE, edge_after

# Positions where a word could start, per token.
_PLACES_PER_CHARACTER, _PLACES_PER_TOKEN = 0.19, 0.75
# What is written between two words if no space can be.
_BETWEEN_WORDS = (",", ".", "!", "?")
# Plans, and steps of texts, that are kept.
_MOST_PLANS = 20_000
_NOT_PLANNED = object()


class Progress(NamedTuple):
    """The progress of a text.

    Attributes:
        places: for every entry the state of its search; None where it has appeared.
        barred: the state of the search for banned words, if there are any.
        in_prompt: the text is still the prompt, in which nothing counts.
        held: the entries that have appeared among byte tokens, which a decoder may still discard.
        tail: the end of the text, in which a stop string may have started.
        edge: what the text ends with, such as a mark that needs a space before the next word: see `edge_after`.
    """

    places: tuple[TextState | None, ...]
    barred: TextState | None
    in_prompt: bool = False
    held: frozenset[int] = frozenset()
    tail: str = ""
    edge: int = FREE


class Requirements:
    """A list of entries that have to appear, for any number of calls.

    Args:
        must_include: the entries: a word or phrase, matched as in `BadWordsLogitsProcessor`; several alternatives
            separated by `|`; or a regular expression in slashes.
        tokenizer: the tokenizer of the model.
        size: number of scores the model gives.
        case_sensitive: match case.
        ordered: the entries have to appear in this order.
        counts: word counts; by default estimated from a sub-word tokenizer's vocabulary.
        barred: banned words (see `compile_bad_words`).
        prompt_counts: entries in the prompt count as included.
        stops: texts that end the text, so no entry is written with one of them in it.
        suppressed: tokens, and sequences of tokens, that the call masks everywhere, so no entry is written with them.

    Attributes:
        open_ended: the indices of the expressions that depend on what follows them.

    Raises:
        ValueError: an entry cannot be read, cannot be written with the model's alphabet, or contains a banned word or a
            stop string; the message names it.
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
        suppressed: frozenset[tuple[int, ...]] = frozenset(),
    ) -> None:
        self.sources = tuple(must_include)
        alone = frozenset(tokens[0] for tokens in suppressed if len(tokens) == 1)
        self.vocabulary = Vocabulary.of(tokenizer).limited(size).without(alone)
        self._sequences = [list(tokens) for tokens in suppressed if len(tokens) > 1]
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
        self.open_ended = frozenset(
            index for index, table in enumerate(self.tables) if table.patterns.regex and table.patterns.regex.looks_on()
        )
        self.rate = _PLACES_PER_CHARACTER if self.vocabulary.longest <= 1 else _PLACES_PER_TOKEN
        self._tail = max((len(stop) - 1 for stop in self.stops), default=0)
        self.ways = Ways(self.sources, self.tables, self.vocabulary, self.barred, self.stops)
        # The steps of texts, which repeat themselves.
        self.follow = lru_cache(_MOST_PLANS)(self.advance)
        self._needed = lru_cache(_MOST_PLANS)(self._most_needed)
        self.start = Progress(
            tuple(table.start for table in self.tables), self.barred.start if self.barred is not None else None, True
        )
        self._plans: dict[tuple[Progress, tuple[Condition, Any] | None], list[int] | None] = {}
        for index, source in enumerate(self.sources):
            self._check(index, source)

    def _check(self, index: int, source: str) -> None:
        start = self.tables[index].patterns.start
        barred = self.barred.patterns.start if self.barred is not None else None
        for tried, reason in (
            (Search(index, start, None, None), "with the model's alphabet: leave it out"),
            (Search(index, start, barred, None), "without a bad word: change one of the lists"),
            (Search(index, start, barred, ""), "without a text that stops the text: change one of the lists"),
        ):
            if self.ways(tried) is None:
                if self.ways.gave_up:
                    raise ValueError(f"must_include: no way to write {source!r} was found: make it simpler")
                raise ValueError(f"must_include: {source!r} cannot be written {reason}")

    def advance(self, progress: Progress, token: int) -> Progress:
        """The progress after one more token."""
        places: list[TextState | None] = []
        held = set()
        waiting, rest = False, None
        counts = self.prompt_counts or not progress.in_prompt
        for index, (table, place) in enumerate(zip(self.tables, progress.places, strict=True)):
            if place is None:
                places.append(None)
                continue
            after, hit = table.read(place, token) if rest is None else table.read_rest(place, token, rest)
            found = counts and hit
            if counts and index in progress.held and table.keeps_run(place, token):
                found = True
            if self.ordered and waiting and counts:
                # It is not its turn yet: only what is started later counts.
                after, found = after._replace(patterns=table.patterns.neutral(after.patterns)), False
            waiting = waiting or not found
            if found and self.ordered:
                rest = table.rest_after(place, token, rest)
            if found and table.in_run(after):
                # The next byte may make the decoder discard all adjacent bytes.
                held.add(index)
                found = False
            places.append(None if found else after)
        barred = progress.barred
        if self.barred is not None and barred is not None:
            barred = self.barred.advance(barred, token)
        added = self._added(progress, token)
        tail = (progress.tail + added)[-self._tail :] if self._tail else ""
        edge = edge_after(progress.edge, added)
        return Progress(tuple(places), barred, progress.in_prompt, frozenset(held), tail, edge)

    def advance_prompt(self, progress: Progress, token: int) -> Progress:
        """The same within a prompt, where a special token starts a new text."""
        if not self.vocabulary.is_border(token):
            return self.advance(progress, token)
        places = [place and table.restarted(place) for table, place in zip(self.tables, progress.places, strict=True)]
        barred = progress.barred
        if self.barred is not None and barred is not None:
            barred = self.barred.restarted(barred)
        return self.start._replace(places=tuple(places), barred=barred)

    def _added(self, progress: Progress, token: int) -> str:
        """The characters that a token completes; none where nothing is missing."""
        place = next((place for place in progress.places if place is not None), None)
        if place is None:
            return ""
        pending = place.pending if token in self.vocabulary.fallback or not place.run else b""
        return add_piece(pending, self.vocabulary.piece(token), self.vocabulary.errors)[0]

    def prompt_end(self, progress: Progress) -> Progress:
        """The progress at the end of a prompt: entries in the prompt do not count, unless `prompt_counts` is set."""
        places = list(progress.places)
        if not self.prompt_counts:
            places = [place and table.forget(place) for table, place in zip(self.tables, places, strict=True)]
        barred = progress.barred
        if self.barred is not None and barred is not None:
            barred = self.barred.prompt_end(barred)
        return Progress(tuple(places), barred, tail=progress.tail, edge=progress.edge)

    def missing(self, progress: Progress) -> list[int]:
        """The entries that are missing if the text ends here, or that would be a banned word if it did."""
        missing: list[int] = []
        ending: list[int] = []
        for index, (table, place) in enumerate(zip(self.tables, progress.places, strict=True)):
            if place is None or (index in progress.held and not place.pending):
                continue
            (ending if table.ends(place) else missing).append(index)
        if ending and self.barred is not None and progress.barred is not None and self.barred.ends(progress.barred):
            missing = sorted([*missing, *ending])
        return missing

    def waiting(self, progress: Progress) -> list[int]:
        """The entries that are searched for now: all missing ones, or the first of them if they are ordered."""
        waiting = [index for index, place in enumerate(progress.places) if place is not None]
        return waiting[:1] if self.ordered else waiting

    def plan(self, progress: Progress, end: tuple[Condition, Any] | None = None) -> list[int] | None:
        """The fewest tokens found that write all missing entries; None if no way was found.

        Args:
            progress: the progress of the text.
            end: what else has to hold at the end of an expression that depends on it, and the state of the text in it.
        """
        # Other threads may clear this cache, so the result is not looked up again.
        plan: Any = self._plans.get((progress, end), _NOT_PLANNED)
        if plan is _NOT_PLANNED:
            if len(self._plans) > _MOST_PLANS:
                self._plans.clear()
            plan = self._plans[progress, end] = self._make_plan(progress, end)
        return plan

    def plans(self, progress: Progress) -> list[list[int]]:
        """The plan, and the one without the space that its first word should have; none if there is none."""
        edges = [progress.edge, FREE] if progress.edge == CLOSED else [progress.edge]
        found = (self.plan(progress._replace(edge=edge)) for edge in edges)
        return [plan for plan in found if plan is not None]

    def plan_within(self, progress: Progress, room: int) -> list[int] | None:
        """The plan; if it does not fit into `room` tokens, one without the space that its first word should have."""
        plans = self.plans(progress)
        return next((plan for plan in plans if len(plan) <= room), plans[0] if plans else None)

    def most_needed(self, progress: Progress) -> int:
        """Most tokens that a plan takes from the middle of some other word, whatever was started."""
        return self._needed(progress.places)

    def _most_needed(self, places: Sequence[TextState | None]) -> int:
        lost: list[TextState | None] = []
        for table, place in zip(self.tables, places, strict=True):
            if place is None:
                lost.append(None)
                continue
            neutral = table.patterns.neutral(place.patterns)
            lost.append(TextState(neutral._replace(literal=neutral.literal._replace(in_word=True))))
        plan = self.plan(Progress(tuple(lost), self.start.barred))
        return len(plan) if plan is not None else 10**9

    def _make_plan(self, progress: Progress, end: tuple[Condition, Any] | None = None) -> list[int] | None:
        tokens: list[int] = []
        while (missing := self.missing(progress)) or end is not None:
            # What is written after an expression that depends on that would undo it.
            sure = missing[:1] if self.ordered else [index for index in missing if index not in self.open_ended]
            if not sure:
                together = self._write_together(progress, end)
                if together is not None or end is not None:
                    return None if together is None else tokens + together
            found = self._write_one(sure or missing, progress)
            if found is None:
                return None
            progress, tokens = found[0], tokens + found[1]
        return tokens

    def _write_together(self, progress: Progress, end: tuple[Condition, Any] | None) -> list[int] | None:
        """Complete all expressions that depend on what follows, and an end, at once; None if no way was found."""
        last = [index for index in self.waiting(progress) if index in self.open_ended]
        if len(last) + (end is not None) < 2:
            return None
        # The space between words may be a token of its own.
        between = self.vocabulary.token(" ")
        for before in ([], *([[between]] if between is not None else [])):
            after, state = progress, end
            for token in before:
                after, state = self.advance(after, token), state and (state[0], state[0].after(state[1], " "))
            places = [place and self.tables[index].flushed(place) for index, place in enumerate(after.places)]
            longest, *others = sorted(last, key=lambda index: -self.ways.included[index].distance(places[index]))
            also = [(self.ways.included[index], places[index]) for index in others]
            if (start := places[longest]) is None:
                continue
            bars = None if after.barred is None or self.barred is None else self.barred.flushed(after.barred)
            tail = after.tail if self.stops else None
            search = Search(longest, start, bars, tail, also=(*also, *([state] if state is not None else [])))
            text = self.ways(search)
            tokens = self.vocabulary.spell(text) if text else None
            if tokens is None or not self.is_open(progress, [*before, *tokens]):
                continue
            if not self.missing(reduce(self.advance, tokens, after)):
                return [*before, *tokens]
        return None

    def _write_one(self, turn: Sequence[int], progress: Progress) -> tuple[Progress, list[int]] | None:
        """Complete a missing entry, such that none that was complete is missing then: the progress, and the tokens."""
        missing = self.missing(progress)
        for ways in (self._usual_ways, self._spaced_ways):
            possible = [(len(found), index, found) for index in turn for found in ways(index, progress)]
            for _, _, found in sorted(possible):
                after = reduce(self.advance, found, progress)
                if len(self.missing(after)) < len(missing):
                    return after, found
        return None

    def _usual_ways(self, index: int, progress: Progress) -> list[list[int]]:
        """Tokens that complete an entry, after a space where a mark such as a comma asks for one."""
        ways = self._open_ways(index, progress)
        place = progress.places[index]
        if progress.edge != CLOSED or place is None or not ways:
            return ways
        patterns, text = self.tables[index].patterns, self.vocabulary.text(ways[0], continues=True)
        flushed = self.tables[index].flushed(place)
        if flushed != patterns.neutral(flushed) or not needs_boundary(text[:1] or " "):
            return ways
        spaced = self.vocabulary.spell(f" {text}")
        if spaced is None or any(stop in f"{progress.tail} {text}" for stop in self.stops):
            return ways
        after = progress
        for token in spaced:
            after = self.advance(after, token)
        usual = self.is_open(progress, spaced) and index not in self.missing(after)
        return [spaced] if usual else ways

    def _open_ways(self, index: int, progress: Progress) -> list[list[int]]:
        """Tokens that complete an entry, as the decoder reads them, without a banned word."""
        found = [way for way in self._spelled_ways(index, progress) if self.is_open(progress, way)]
        return found or self._spaced_ways(index, progress)

    def _spaced_ways(self, index: int, progress: Progress) -> list[list[int]]:
        """Tokens that complete an entry after a space, or a mark if none can be written, without a banned word.

        After one, bytes are not discarded with broken ones, and letters are no part of the word before.
        """
        found, between = [], self.vocabulary.token(" ")
        if between is None:  # some tokenizers have a space only at the start of a word, or at its end
            text = self._text_after_space(index, progress)
            spelled = None if text is None else self.vocabulary.spell(f" {text}")
            if spelled is not None:
                found = [spelled]
            else:
                marks = (mark for mark in _BETWEEN_WORDS if not (progress.tail + mark).endswith(self.stops))
                tokens = map(self.vocabulary.token, marks)
                between = next((token for token in tokens if token is not None), None)
        if between is not None:
            after = self.advance(progress, between)
            ways = self._spelled_ways(index, after) if after.places[index] is not None else [[]]
            found = [[between, *way] for way in ways]
        return [way for way in found if self.is_open(progress, way)]

    def _text_after_space(self, index: int, progress: Progress) -> str | None:
        """A text that completes an entry after a space; None if none was found."""
        place, barred, tail = progress.places[index], progress.barred, f"{progress.tail} "
        assert place is not None
        table, bars, banned = self.tables[index], None, tail.endswith(self.stops)
        if barred is not None and self.barred is not None:
            bars, hit = self.barred.patterns.step(self.barred.flushed(barred), " ")
            banned = banned or hit
        state = table.patterns.step(table.flushed(place), " ")[0]
        return None if banned else self.ways(Search(index, state, bars, tail if self.stops else None))

    def is_open(self, progress: Progress, tokens: list[int]) -> bool:
        """Whether the text may continue with these tokens and end after them, as far as bans go."""
        starts = range(len(tokens))
        if any(tokens[start : start + len(each)] == each for each in self._sequences for start in starts):
            return False
        state = progress.barred
        if self.barred is None or state is None:
            return True
        if self.barred.complete(state, tokens) is not None:
            return False
        for token in tokens:
            state = self.barred.advance(state, token)
        return not self.barred.ends(state)

    def _spelled_ways(self, index: int, progress: Progress) -> Iterator[list[int]]:
        """Tokens that complete an entry: after the character that was started, and from a new one on."""
        place, barred = progress.places[index], progress.barred
        assert place is not None
        tail = progress.tail if self.stops else None
        if place.pending:
            started = Search(index, place.patterns, barred and barred.patterns, tail, place.pending)
            way = self.ways(started)
            if way is not None:
                first = self.vocabulary.spell_bytes(way[0].encode()[len(place.pending) :], bool(place.run))
                others = self.vocabulary.spell(way[1:])
                if first is not None and others is not None:
                    yield [*first, *others]
        table = self.tables[index]
        bars = None if barred is None or self.barred is None else self.barred.flushed(barred)
        way = self.ways(Search(index, table.flushed(place), bars, tail))
        tokens = self.vocabulary.spell(way) if way else None
        broken = bool(place.run) and (place.before is None or bool(place.pending))
        # Bytes next to broken ones would be discarded with them.
        if tokens and not (tokens[0] in self.vocabulary.fallback and broken):
            yield tokens
        # Some tokenizers have a space only at the end of a word; without one, the next word would continue this one.
        closed = self.vocabulary.spell(f"{way} ") if way and self.vocabulary.strips_trailing_space else None
        if closed:
            yield closed
