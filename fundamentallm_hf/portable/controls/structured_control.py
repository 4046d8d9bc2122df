"""Adds `pattern`, `json_schema` and `grammar` to a call."""

import torch

from ..decoding.call_processors import CallProcessors
from ..decoding.phases import WHOLE_TEXT_FIELDS, Phase
from ..errors import UserError
from ..structured.grammar_states import GrammarAutomaton
from ..structured.grammars import read_grammar
from ..structured.structured_output import WholeTextLogitsProcessor
from .bad_words import compiled_bad_words
from .must_include import MustIncludeLogitsProcessor
from .whole_text_words import WordPartner, contradiction


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
    )
    partner = _partner(step)
    if partner is not None and _heed(processor, partner, call.prompts) is partner:
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


def _heed(processor: WholeTextLogitsProcessor, partner: WordPartner, prompts: torch.Tensor) -> WordPartner | None:
    """Let the plans satisfy the words, or the banned ones alone if no plan with all of them is known.

    Words that no plan satisfies hold all the same, by their own controls; a text may have to end before it matches.

    Returns:
        The words that the plans satisfy.

    Raises:
        ValueError: it is proven that no text matches and satisfies the words.
    """
    alone = WordPartner(None, partner.barred) if partner.requirements and partner.barred else None
    for words in filter(None, (partner, alone)):
        processor.heed(words)
        if processor.heeds(prompts):
            return words
        if processor.contradicts(prompts):
            raise ValueError(contradiction(words.requirements, words.barred is not None))
    processor.heed(None)
    return None
