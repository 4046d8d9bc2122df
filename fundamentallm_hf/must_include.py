"""Must include: words and patterns that always appear, where the text has a place for them.

Forcing a word when the budget runs out is easy and reads badly. So every token is weighed from the start by how well
what is missing could still come by itself: with c the chance that what the token begins becomes an entry, and b the
chance that the entry comes anyway in the tokens that are left, the score of the token gets log((c + (1 − c) b) / b).
That is the distribution of the next token given that the entry appears, if words are independent; with much room left
it hardly moves anything, with little it moves everything. Beneath it lies a plan: the shortest way to write what is
missing. A token behind which the plan would not fit into the budget is closed, so whatever happens before, all
entries are there at the end.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from .entries import split_alternatives
from .row_states import RowStates
from .text_patterns import PatternState, TextPatterns
from .token_tables import TextState, TokenTables
from .vocabulary import REPLACEMENT, Vocabulary
from .word_counts import WordCounts

# Words per token, by which a word's frequency among words becomes one among tokens.
_WORDS_PER_CHARACTER, _WORDS_PER_TOKEN = 0.19, 0.75
# Sampling at low temperatures, top-p and greedy decoding write a given word less often than counts say. With this
# correction words fell evenly over 16 texts of 400 characters at temperature 0.8 and top-p 0.9: their mean place was
# 0.55 of the text, against 0.80 without it (12 texts) and 0.29 with 0.05.
_RARER = 0.2
# A chance below this is no chance.
_LEAST = 1e-7
# States that the search for the shortest way looks at before it gives up.
_MOST_STATES = 20_000
# Of a vocabulary larger than the first number, only the likeliest tokens are tried when the budget is nearly used up.
_ALL_TRIED, _TRIED = 512, 48


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
    ) -> None:
        self.sources = tuple(must_include)
        self.vocabulary = Vocabulary.of(tokenizer)
        self.ordered = ordered
        self.barred = barred
        counts = counts if counts is not None else WordCounts.of_vocabulary(self.vocabulary)
        self.tables = [
            TokenTables(self.vocabulary, TextPatterns(split_alternatives(source), not case_sensitive, counts), size)
            for source in self.sources
        ]
        rate = _WORDS_PER_CHARACTER if self.vocabulary.longest <= 1 else _WORDS_PER_TOKEN
        self.frequencies = [max(_LEAST, table.patterns.frequency * rate) for table in self.tables]
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
            found = not progress.in_prompt and table.complete(place, [token]) is not None
            if self.ordered and waiting and not progress.in_prompt:
                # It is not its turn yet: only what is begun later counts.
                after, found = after._replace(patterns=table.patterns.neutral(after.patterns)), False
            waiting = waiting or not found
            places.append(None if found else after)
        barred = progress.barred
        if self.barred is not None and barred is not None:
            barred = self.barred.advance(barred, token)
        return Progress(tuple(places), barred, progress.in_prompt)

    def prompt_end(self, progress: Progress) -> Progress:
        """How far a text has come that so far is a prompt: what the prompt holds does not count."""
        places = [place and table.forget(place) for table, place in zip(self.tables, progress.places, strict=True)]
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

    def plan(self, progress: Progress) -> list[int] | None:
        """The fewest tokens found that write all that is missing; None if no way was found."""
        if progress not in self._plans:
            if len(self._plans) > _MOST_STATES:
                self._plans.clear()
            self._plans[progress] = self._make_plan(progress)
        return self._plans[progress]

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


class MustIncludeLogitsProcessor(LogitsProcessor):
    """Brings entries into the text, fluently while there is room and by force when there is none.

    Args:
        must_include: the entries, or `Requirements` made of them.
        tokenizer: the model's tokenizer; not needed with `Requirements`.
        remaining: called with the token ids `(rows, length)`, tells how many tokens each row may still get.
        end_tokens: ids that end the text; closed until all is there.
        stop_strings: texts that end the text; not completed until all is there.
        prompt_columns: width of the prompts in tokens; by default that of the first call.
        temperature: by which scores are divided later on.

    Raises:
        ValueError: see `Requirements`; or the entries do not fit into the tokens that may be added.
    """

    def __init__(
        self,
        must_include: Sequence[str] | Requirements,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        remaining: Callable[[torch.Tensor], Sequence[int]],
        end_tokens: Sequence[int] = (),
        stop_strings: Sequence[str] = (),
        prompt_columns: int | None = None,
        temperature: float = 1.0,
    ) -> None:
        if not isinstance(must_include, Requirements):
            if tokenizer is None:
                raise ValueError("must_include needs the model's tokenizer to read its tokens as text: pass tokenizer=")
            must_include = Requirements(must_include, tokenizer, len(tokenizer))
        self.requirements = must_include
        self.remaining = remaining
        self.end_tokens = list(end_tokens)
        self.stop_strings = list(stop_strings)
        self.temperature = temperature
        self.states: RowStates[Progress] = RowStates(
            must_include.start,
            must_include.advance,
            must_include.prompt_end,
            prompt_columns,
        )

    def check(self, input_ids: torch.Tensor) -> None:
        """See that the entries fit into what may be added behind every prompt, `(rows, length)`.

        Raises:
            ValueError: they do not; says how many tokens they need.
        """
        for progress, room in zip(self.states(input_ids), self.remaining(input_ids), strict=True):
            plan = self.requirements.plan(progress)
            if plan is None or len(plan) > room:
                entries = ", ".join(map(repr, self.requirements.sources))
                needed = "more" if plan is None else f"at least {len(plan)}"
                raise ValueError(
                    f"must_include: {entries} need {needed} tokens but {room} may be added: "
                    "allow more, or ask for fewer"
                )

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores, weighed and closed."""
        shift = torch.zeros(scores.shape)
        for index, (progress, room) in enumerate(zip(self.states(input_ids), self.remaining(input_ids), strict=True)):
            if all(place is None for place in progress.places):
                continue
            self._weigh(progress, room, shift[index])
            if self.requirements.missing(progress):
                shift[index, self.end_tokens] = -torch.inf
                self._close_stops(input_ids[index], shift[index])
            self._keep_room(progress, room, scores[index], shift[index])
        return torch.add(scores, shift.to(scores.device, scores.dtype), alpha=self.temperature)

    def _weigh(self, progress: Progress, room: int, shift: torch.Tensor) -> None:
        """Prefer the tokens from which what is missing can still come by itself."""
        requirements = self.requirements
        first = True
        for table, place, frequency in zip(requirements.tables, progress.places, requirements.frequencies, strict=True):
            if place is None or (requirements.ordered and not first):
                continue
            first = False
            anyway = max(_LEAST, 1.0 - (1.0 - frequency * _RARER) ** max(0, room - 1 - self._reserved(progress)))
            outcomes = table.table(place)
            begun = table.chance(place)
            now = torch.tensor(begun + (1 - begun) * anyway)
            gain = torch.full_like(shift, float(torch.log(anyway / now)))
            chances = outcomes.chances
            gain[outcomes.risky] = torch.log((chances + (1 - chances) * anyway) / now)
            gain[outcomes.closed[: len(shift)]] = float(-torch.log(now))
            shift += gain

    def _reserved(self, progress: Progress) -> int:
        plan = self.requirements.plan(progress)
        return len(plan) if plan is not None else 0

    def _close_stops(self, row: torch.Tensor, shift: torch.Tensor) -> None:
        if not self.stop_strings:
            return
        vocabulary = self.requirements.vocabulary
        tail = vocabulary.text(row.tolist()[-max(map(len, self.stop_strings)) :])
        for stop in self.stop_strings:
            for token in vocabulary.completing(tail[-len(stop) :], stop):
                shift[token] = -torch.inf

    def _keep_room(self, progress: Progress, room: int, scores: torch.Tensor, shift: torch.Tensor) -> None:
        """Close the tokens behind which what is missing would not fit any more."""
        requirements = self.requirements
        plan = requirements.plan(progress)
        if plan is None or room > self._worst(progress) + 2:
            return
        tried: Iterable[int] = range(len(shift))
        if len(shift) > _ALL_TRIED:
            tried = {*plan[:1], *torch.topk(scores.float().cpu() + shift, _TRIED).indices.tolist()}
        kept = torch.full_like(shift, -torch.inf)
        for token in tried:
            after = requirements.plan(requirements.advance(progress, token))
            if after is not None and len(after) <= room - 1 and not self._bars(progress, token):
                kept[token] = 0.0
        if not bool((kept + shift > -torch.inf).any()) and plan:
            shift[plan[0]] = 0.0  # another control has closed the last way out
            kept[plan[0]] = 0.0
        shift += kept

    def _bars(self, progress: Progress, token: int) -> bool:
        barred = self.requirements.barred
        return barred is not None and progress.barred is not None and barred.complete(progress.barred, [token]) == 1

    def _worst(self, progress: Progress) -> int:
        """Tokens that are needed from the middle of some other word."""
        requirements = self.requirements
        lost: list[TextState | None] = []
        for table, place in zip(requirements.tables, progress.places, strict=True):
            if place is None:
                lost.append(None)
                continue
            neutral = table.patterns.neutral(place.patterns)
            literal = neutral.literal._replace(in_word=True)
            lost.append(TextState(neutral._replace(literal=literal)))
        plan = requirements.plan(Progress(tuple(lost), requirements.start.barred))
        return len(plan) if plan is not None else 10**9
