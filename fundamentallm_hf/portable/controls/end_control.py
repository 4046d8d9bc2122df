"""Adds `end_at`, `words`, `sentences` and `ends_with` to a call."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from ..decoding.call_processors import CallProcessors
from ..decoding.phases import ENDING_FIELDS, WHOLE_TEXT_FIELDS, Phase
from ..decoding.stop_strings import find_stop
from ..errors import UserError
from ..text.unit_tables import UnitTables
from ..text.vocabulary import Vocabulary
from .bad_words import BadWordsLogitsProcessor
from .end_settings import EndSettings, check_ending
from .ending_pace import word_rate
from .ending_plan import EndingPlan
from .last_text import LastText
from .must_include import MustIncludeLogitsProcessor, suppressed_tokens
from .spelled_text import Spelling, raw_end, spelled_within
from .text_ending import TextEndLogitsProcessor


def add_text_ending(step: CallProcessors) -> None:
    """Lead the texts of a call to an end as asked for.

    Raises:
        ValueError: a value is not valid, or no such text fits into the tokens that may be added.
    """
    call = step.call
    least = call.config.min_new_tokens or 0
    settings = check_ending({name: call.field(name) for name in (*ENDING_FIELDS, *WHOLE_TEXT_FIELDS)}, least)
    if settings is None:
        return
    _check_stops(settings, step.stop_strings)
    masked = suppressed_tokens(call.config)
    last = spelled_within("ends_with", settings.last, step)
    processor = _processor(step, settings, masked, last)
    rows = range(len(call.prompts))
    lasting = [ways for ways in last if all(processor.keeps_words(call.prompts, row, ways) for row in rows)]
    if 0 < len(lasting) < len(last):
        processor = _processor(step, settings, masked, lasting)
    try:
        processor.check(call.prompts)
    except UserError:
        if settings.lead == "word":
            raise
        # Last words that are a sentence may still fit after a word.
        processor = _processor(step, replace(settings, lead="word"), masked, lasting or last)
        processor.check(call.prompts)
    # The others have to be done while there is room for the end.
    for each in (*step.acting(BadWordsLogitsProcessor), *step.acting(MustIncludeLogitsProcessor)):
        if each.remaining is not None:
            each.remaining = _less(each.remaining, processor.plan.most_needed)
    for including in step.acting(MustIncludeLogitsProcessor):
        including.plan_within, including.is_led = processor.plan_within, processor.leads_words
    step.add(Phase.ENDING, processor)


def _processor(
    step: CallProcessors, settings: EndSettings, masked: frozenset[tuple[int, ...]], last: list[list[Spelling]]
) -> TextEndLogitsProcessor:
    call = step.call
    banning = step.acting(BadWordsLogitsProcessor)
    room = max(call.remaining(call.prompts), default=0)
    suppressed = frozenset(tokens[0] for tokens in masked if len(tokens) == 1)
    for ban in banning:
        # What is banned by itself is banned nearly everywhere, so no way to the end may need it.
        suppressed |= frozenset(ban.tables.table(ban.tables.start).completing.tolist())

    vocabulary = Vocabulary.of(call.reader)
    # The text ends before a stop text, so a token that holds one is on no way to the end either.
    suppressed |= {token for stop in step.stop_strings for token in vocabulary.completing("", stop)}

    def make() -> EndingPlan:
        tables = UnitTables(vocabulary, call.size, settings.make_units(), suppressed)
        return EndingPlan(tables, settings, room, last)

    counted = settings.words is not None
    spelled = tuple(map(tuple, last))
    plan = call.kept(("ending", settings, suppressed, spelled, room if counted else 0), make)
    including = next(iter(step.acting(MustIncludeLogitsProcessor)), None)
    least = call.config.min_new_tokens or 0
    closing = None
    if last:
        rate = word_rate(plan.tables.vocabulary)
        closing = LastText(plan, call.prompt_columns, banning, step.stop_strings, least, call.lookahead, rate)
    return TextEndLogitsProcessor(
        plan,
        call.remaining,
        end_tokens=call.end_tokens,
        closing_token=call.closing_token,
        complete=step.complete,
        prompt_columns=call.prompt_columns,
        temperature=step.temperature,
        requirements=None if including is None else including.requirements,
        progress=None if including is None else including.states,
        spare=plan.most_needed - plan.last_cost + 2 if banning or including is not None else 0,
        bad_stops=_bad_stops(plan, step.stop_strings, call.prompt_columns, closing) if step.stop_strings else None,
        last=closing,
    )


def _check_stops(settings: EndSettings, stops: Sequence[str]) -> None:
    """Refuse stop texts that come before every end as asked for."""
    breaks = {"line": 1, "paragraph": 2}.get(settings.unit, 0)
    for stop in stops:
        if len(stop) <= breaks and not stop.strip("\n"):
            line = f"stop: {stop!r} ends the text before it can end at a {settings.unit}: leave one of the two out"
            raise UserError(line, setting="stop", value=stop)


def _less(remaining: Callable[[torch.Tensor], Sequence[int]], kept: int) -> Callable[[torch.Tensor], list[int]]:
    return lambda input_ids: [min(room, max(1, room - kept)) for room in remaining(input_ids)]


def _bad_stops(
    plan: EndingPlan, stops: Sequence[str], columns: int, last: LastText | None
) -> Callable[[list[int]], list[int]]:
    """Finds the tokens that would complete a stop text where the text before it must not end.

    Those that leave nothing else to follow are among them: a mark after which every white space completes one.
    """
    tables = plan.tables
    vocabulary, longest = tables.vocabulary, max(map(len, stops))
    spaces = [space for space in " \n" if vocabulary.can_write(space)]
    marks = {stop[:-1] for stop in stops if stop[-1].isspace() and stop.strip()}
    marks = {mark for mark in marks if all(find_stop(mark + space, stops, len(mark)) is not None for space in spaces)}
    parts = vocabulary.parts
    inexact = {*parts, *vocabulary.silent}

    @lru_cache(maxsize=256)
    def may_end(text: str, start: int, length: int) -> bool:
        state, words, sentences = tables.units.read(tables.units.start, text[start:])
        end = tables.start._replace(place=tables.index(state), words=words, sentences=sentences, length=length)
        return plan.may_end(end) and (last is None or last.closes_text(text[start:], text))

    def found(row: list[int]) -> list[int]:
        before, start = raw_end(row, vocabulary, len(row)), len(raw_end(row[:columns], vocabulary, columns))
        # From the last token of whole characters on, the text does not depend on what is before.
        whole = (place for place in range(len(row) - 1, 0, -1) if row[place] not in inexact)
        count = len(row) - next(whole, 0)
        head = before.removesuffix(raw_end(row, vocabulary, count))
        tail, length, bad = before[-longest:], len(row) - columns, []
        for each in (*stops, *marks):
            for token in (*vocabulary.completing(tail, each), *(() if each.isascii() else parts)):
                text = head + raw_end([*row, token], vocabulary, count + 1)
                cut = find_stop(text, stops, len(before))
                if cut is not None:
                    fine = may_end(text[: max(start, cut)], start, length)
                else:
                    fine = not text.endswith(tuple(marks)) or may_end(text, start, length + 1)
                if not fine:
                    bad.append(token)
        return bad

    return found
