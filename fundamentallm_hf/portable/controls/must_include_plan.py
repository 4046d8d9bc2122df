"""What has to appear in a text: how much of it has, and the shortest way to write the rest.

A text is followed token by token through every entry that is still missing. From any place the plan tells tokens that
would write all of it, going round what must not appear, so that whoever generates knows what room to keep. This file
knows nothing of models or of scores.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from ..text.text_patterns import PatternState, TextPatterns
from ..text.token_tables import TextState, TokenTables
from ..text.vocabulary import REPLACEMENT, Vocabulary
from ..text.word_counts import WordCounts
from ..text.word_lists import split_alternatives

# Places where a word could begin, per token.
_PLACES_PER_CHARACTER, _PLACES_PER_TOKEN = 0.19, 0.75
# States that the search for the shortest way looks at before it gives up.
_MOST_STATES = 20_000


class Progress(NamedTuple):
    """How far a text has come.

    Attributes:
        places: for every entry where the text stands in it; None where it has appeared.
        barred: where the text stands in what must not appear, if anything.
        in_prompt: it is still the prompt, in which nothing counts.
    """

    places: tuple[TextState | None, ...]
    barred: TextState | None
    in_prompt: bool = False


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

    Raises:
        ValueError: an entry cannot be read, cannot be written with the model's alphabet, or contains what must not
            appear; names it.
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
    ) -> None:
        self.sources = tuple(must_include)
        self.vocabulary = Vocabulary.of(tokenizer)
        self.ordered = ordered
        self.barred = barred
        self.prompt_counts = prompt_counts
        counts = counts if counts is not None else WordCounts.of_vocabulary(self.vocabulary)
        self.tables = [
            TokenTables(self.vocabulary, patterns, size)
            for patterns in (
                TextPatterns(split_alternatives(source), not case_sensitive, counts, self.vocabulary.letters)
                for source in self.sources
            )
        ]
        self.rate = _PLACES_PER_CHARACTER if self.vocabulary.longest <= 1 else _PLACES_PER_TOKEN
        # A space first, then what words are made of: the shortest way is looked for in this order.
        self.alphabet = sorted(
            self.vocabulary.letters, key=lambda letter: (letter != " ", not letter.islower(), letter)
        )
        self.start = Progress(
            tuple(table.start for table in self.tables), self.barred.start if self.barred is not None else None, True
        )
        self._ways: dict[tuple[int, PatternState, PatternState | None], str | None] = {}
        self._plans: dict[Progress, list[int] | None] = {}
        for index, source in enumerate(self.sources):
            self._check(index, source)

    def _check(self, index: int, source: str) -> None:
        start = self.tables[index].patterns.start
        if self._way(index, start, None) is None:
            raise ValueError(f"must_include: {source!r} cannot be written with the model's alphabet: leave it out")
        if self.barred is not None and self._way(index, start, self.barred.patterns.start) is None:
            raise ValueError(f"must_include: {source!r} cannot be written without a bad word: change one of the lists")

    def advance(self, progress: Progress, token: int) -> Progress:
        """How far the text has come behind one more token."""
        places: list[TextState | None] = []
        waiting = False
        for table, place in zip(self.tables, progress.places, strict=True):
            if place is None:
                places.append(None)
                continue
            after = table.advance(place, token)
            found = (self.prompt_counts or not progress.in_prompt) and table.complete(place, [token]) is not None
            if self.ordered and waiting and (self.prompt_counts or not progress.in_prompt):
                # It is not its turn yet: only what is begun later counts.
                after, found = after._replace(patterns=table.patterns.neutral(after.patterns)), False
            waiting = waiting or not found
            places.append(None if found else after)
        barred = progress.barred
        if self.barred is not None and barred is not None:
            barred = self.barred.advance(barred, token)
        return Progress(tuple(places), barred, progress.in_prompt)

    def prompt_end(self, progress: Progress) -> Progress:
        """How far a text has come that so far is a prompt: what the prompt holds does not count, unless asked."""
        places = list(progress.places)
        if not self.prompt_counts:
            places = [place and table.forget(place) for table, place in zip(self.tables, places, strict=True)]
        barred = progress.barred
        if self.barred is not None and barred is not None:
            barred = self.barred.forget(barred)
        return Progress(tuple(places), barred)

    def missing(self, progress: Progress) -> list[int]:
        """The entries that have not appeared, should the text end here."""
        return [
            index
            for index, (table, place) in enumerate(zip(self.tables, progress.places, strict=True))
            if place is not None and not table.ends(place)
        ]

    def waiting(self, progress: Progress) -> list[int]:
        """The entries that are looked for now: those that have not appeared, or the first of them in an order."""
        waiting = [index for index, place in enumerate(progress.places) if place is not None]
        return waiting[:1] if self.ordered else waiting

    def plan(self, progress: Progress) -> list[int] | None:
        """The fewest tokens found that write all that is missing; None if no way was found."""
        if progress not in self._plans:
            if len(self._plans) > _MOST_STATES:
                self._plans.clear()
            self._plans[progress] = self._make_plan(progress)
        return self._plans[progress]

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
            ways = [
                (index, self._way(index, self._flushed(index, progress), progress.barred and progress.barred.patterns))
                for index in (missing[:1] if self.ordered else missing)
            ]
            spelled = [(index, self.vocabulary.spell(way)) for index, way in ways if way]
            possible = [(len(found), index, found) for index, found in spelled if found]
            if not possible:
                return None
            _, _, found = min(possible)
            for token in found:
                progress = self.advance(progress, token)
            tokens += found
            if len(tokens) > 100_000:
                return None
        return tokens

    def _flushed(self, index: int, progress: Progress) -> PatternState:
        place = progress.places[index]
        assert place is not None
        patterns = self.tables[index].patterns
        return patterns.step(place.patterns, REPLACEMENT)[0] if place.pending else place.patterns

    def _way(self, index: int, place: PatternState, barred: PatternState | None) -> str | None:
        """The shortest text that completes an entry from `place`, going round what is barred (breadth first)."""
        key = (index, place, barred)
        if key not in self._ways:
            straight = self._search(index, place, None)
            around = straight
            if barred is not None and straight is not None and self._is_barred(barred, straight):
                around = self._search(index, place, barred)
            self._ways[key] = around
        return self._ways[key]

    def _is_barred(self, barred: PatternState, text: str) -> bool:
        assert self.barred is not None
        state, hit = self.barred.patterns.read(barred, text)
        return hit or self.barred.patterns.ends(state)

    def _search(self, index: int, place: PatternState, barred: PatternState | None) -> str | None:
        patterns = self.tables[index].patterns
        bars = self.barred.patterns if self.barred is not None else None
        seen = {(place, barred)}
        queue = deque([(place, barred, "")])
        while queue:
            state, bar, text = queue.popleft()
            for letter in self.alphabet:
                after, hit = patterns.step(state, letter)
                bar_after = bar
                if bars is not None and bar is not None:
                    bar_after, banned = bars.step(bar, letter)
                    if banned:
                        continue
                barred_end = bars is not None and bar_after is not None and bars.ends(bar_after)
                if (hit or patterns.ends(after)) and not barred_end:
                    return text + letter
                if (after, bar_after) not in seen:
                    if len(seen) > _MOST_STATES:
                        return None
                    seen.add((after, bar_after))
                    queue.append((after, bar_after, text + letter))
        return None
