"""How `pattern`, `json_schema` and `grammar` come into a call."""

from ..decoding.call_processors import CallProcessors
from ..decoding.phases import Phase
from ..errors import UserError
from ..structured.grammar_states import GrammarPlaces
from ..structured.grammars import WHOLE_TEXT_FIELDS, read_grammar
from ..structured.structured_output import WholeTextLogitsProcessor


def add_structured_output(step: CallProcessors) -> None:
    """Let the texts of a call match as a whole what the call asks for.

    Raises:
        ValueError: more than one of the fields is set, the grammar is not valid, or no text that matches it fits.
    """
    call = step.call
    grammar = read_grammar({name: call.field(name) for name in WHOLE_TEXT_FIELDS})
    if grammar is None:
        return
    name = next(name for name in WHOLE_TEXT_FIELDS if call.field(name) not in (None, ""))
    try:
        places = call.kept(
            ("whole text", grammar), lambda: GrammarPlaces(grammar, call.reader, call.size, call.field("pattern"))
        )
    except ValueError as error:
        raise UserError(f"{name}: {error}", setting=name) from error
    processor = WholeTextLogitsProcessor(
        places,
        remaining=call.remaining,
        end_tokens=call.end_tokens,
        closing_token=call.closing_token,
        complete=step.complete,
        stop_strings=step.stop_strings,
        prompt_columns=call.prompt_columns,
        temperature=step.temperature,
    )
    processor.check(call.prompts, name)
    step.add(Phase.STRUCTURE, processor)
