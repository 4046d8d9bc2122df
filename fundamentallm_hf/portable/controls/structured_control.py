"""Adds `pattern`, `json_schema` and `grammar` to a call."""

from ..decoding.call_processors import CallProcessors
from ..decoding.phases import WHOLE_TEXT_FIELDS, Phase
from ..errors import UserError
from ..structured.grammar_states import GrammarAutomaton
from ..structured.grammars import read_grammar
from ..structured.structured_output import WholeTextLogitsProcessor
from .bad_words import compiled_bad_words
from .must_include import MustIncludeLogitsProcessor
from .whole_text_words import WordPartner


def add_structured_output(step: CallProcessors) -> None:
    """Make the texts of a call match its pattern, schema or grammar as a whole.

    Raises:
        ValueError: more than one of the fields is set, the grammar is not valid, or no text that matches it fits.
    """
    call = step.call
    fields = {name: call.field(name) for name in WHOLE_TEXT_FIELDS}
    grammar = read_grammar(fields, bool(call.field("json_whitespace")))
    if grammar is None:
        return
    name = next(name for name in WHOLE_TEXT_FIELDS if call.field(name) not in (None, ""))
    try:
        automaton = call.kept(
            ("whole text", grammar), lambda: GrammarAutomaton(grammar, call.reader, call.size, call.field("pattern"))
        )
    except ValueError as error:
        raise UserError(f"{name}: {error}", setting=name) from error
    processor = WholeTextLogitsProcessor(
        automaton,
        remaining=call.remaining,
        end_tokens=call.end_tokens,
        closing_token=call.closing_token,
        complete=step.complete,
        stop_strings=step.stop_strings,
        prompt_columns=call.prompt_columns,
        partner=_partner(step),
    )
    if processor.heeds(call.prompts):
        for including in step.acting(MustIncludeLogitsProcessor):
            including.has_deadline = False  # the structured output includes the words in its plans
    processor.check(call.prompts, name)
    step.add(Phase.STRUCTURE, processor)


def _partner(step: CallProcessors) -> WordPartner | None:
    """The required and the banned words of the call, for the plans to satisfy."""
    bad_words = step.banned
    barred = compiled_bad_words(bad_words, step.call) if bad_words else None
    required = next((each.requirements for each in step.acting(MustIncludeLogitsProcessor)), None)
    return None if required is None and barred is None else WordPartner(required, barred)
