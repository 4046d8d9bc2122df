"""Adds the controls of a call of `generate()` to its processors and stopping criteria.

However a control was given, it arrives here in the merged generation config. The controls and their implementations are
listed in `control_table.py`; the order in which processors act is in `phases.py`.
"""

from collections.abc import Iterable

from transformers import LogitsProcessorList, PrefixConstrainedLogitsProcessor, StoppingCriteriaList

from ..decoding.call_processors import CallProcessors
from ..decoding.endings import ClosedEndCriteria, OpenEndLogitsProcessor
from ..decoding.generate_call import Call
from ..decoding.phases import CONSTRAINTS, Phase
from ..structured.structured_output import WholeTextLogitsProcessor
from ..text.vocabulary import Vocabulary
from .bad_words import BadWordsLogitsProcessor
from .control_table import CONTROLS
from .dead_ends import Closes, DeadEndLogitsProcessor, Wrapped
from .must_include import MustIncludeLogitsProcessor


def apply_controls(processors: LogitsProcessorList, criteria: StoppingCriteriaList, call: Call) -> None:
    """Add the call's controls to its processors and criteria, both changed **in place**.

    Raises:
        ValueError: a control has an invalid value.
    """
    step = CallProcessors(processors, criteria, call)
    # A control may read what others have added before (a structure, required words), so it comes last. Several fields
    # may have one implementation.
    in_turn = sorted(CONTROLS.values(), key=lambda control: (control.phase == Phase.STRUCTURE, control.phase or 0))
    for apply in dict.fromkeys(control.apply for control in in_turn):
        if apply is not None:
            apply(step)
    if step.any_in(CONSTRAINTS):
        closed = step.criterion(ClosedEndCriteria)
        complete = step.complete if step.any_in((Phase.STRUCTURE, Phase.ENDING)) else None
        silent = Vocabulary.of(call.tokenizer).silent if call.tokenizer is not None else ()
        _add_dead_ends(step, silent)
        bans = next(iter(step.acting(BadWordsLogitsProcessor)), None)
        unfinished = None if bans is None else bans.unfinished
        ending = OpenEndLogitsProcessor(call.closing_token, closed, call.is_sequential, silent, complete, unfinished)
        step.add(Phase.END, ending)
    processors[:] = step.observed()


def _add_dead_ends(step: CallProcessors, silent: Iterable[int]) -> None:
    """Look ahead through all controls together, where a structure or a function allows few tokens next to words.

    A structure respects words in its plans, but uses those only when the budget gets short.
    """
    call = step.call
    stock, whole = step.acting(PrefixConstrainedLogitsProcessor), step.acting(WholeTextLogitsProcessor)
    bans = next(iter(step.acting(BadWordsLogitsProcessor)), None)
    including = next((each for each in step.acting(MustIncludeLogitsProcessor) if each.has_deadline), None)
    if (bans is None and including is None) or not (stock or whole):
        return
    words: list[Closes] = [*step.acting(MustIncludeLogitsProcessor), *([] if bans is None else [bans])]
    closing = call.closing_token
    ends = [*step.end_tokens, *([] if closing is None else [closing])]
    looking = DeadEndLogitsProcessor(
        stock,
        [*map(Wrapped, whole), *words],
        bans,
        including,
        call.remaining if bans is None or bans.remaining is None else bans.remaining,
        ends,
        tuple(silent),
        next(iter(whole), None),
    )
    # A function that allows tokens needs to see every beam.
    looking.check(call.prompts.repeat_interleave(call.config.num_beams or 1, dim=0), call.size)
    step.add(Phase.END, looking)
