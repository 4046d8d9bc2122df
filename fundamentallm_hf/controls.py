"""What the fields of `control_fields.py` do to a call of `generate()`.

However a control was given, it arrives here in the merged generation config. This file knows which pieces carry each
out, and in which order; how they do it is written in the pieces.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from transformers.generation import GenerationMode
from transformers.utils import logging

from .attributes import read_guides
from .bad_words import BadWordsLogitsProcessor, compile_bad_words
from .call import Call
from .companions import own_word_counts
from .control_fields import REPETITION_UNITS
from .endings import (
    ClosedEndCriteria,
    CompleteEndCriteria,
    EndCriteria,
    LengthPenaltyLogitsProcessor,
    OpenEndLogitsProcessor,
)
from .entries import split_entries
from .grammar_places import GrammarPlaces
from .grammars import WHOLE_TEXT_FIELDS, read_grammar
from .guides import guide_text
from .must_include import MustIncludeLogitsProcessor
from .recording import Recorder
from .repetition import WordRepetitionLogitsProcessor
from .requirements import Requirements
from .seeded_sampling import SeededSampling
from .stop_texts import StopAtText
from .token_tables import TokenTables
from .vocabulary import Vocabulary
from .whole_text import WholeTextLogitsProcessor

logger = logging.get_logger(__name__)

# They shape a distribution that is otherwise final, so controls come before them.
WARPERS = (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    MinPLogitsWarper,
    TypicalLogitsWarper,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
)
Criterion = TypeVar("Criterion", bound=EndCriteria)
_SEQUENTIAL = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE, GenerationMode.ASSISTED_GENERATION)


def apply_controls(processors: LogitsProcessorList, criteria: StoppingCriteriaList, call: Call) -> None:
    """Put what the call's controls ask for into its processors and criteria, both changed in place.

    Raises:
        ValueError: a control has a value it cannot have.
    """
    bad_words = _read_texts("bad_words", call.field("bad_words"), split=True)
    if call.field("repetition_unit") not in (None, *REPETITION_UNITS):
        raise ValueError(
            f"repetition_unit has to be one of {', '.join(REPETITION_UNITS)} but is {call.field('repetition_unit')!r}"
        )
    required = _read_texts("must_include", call.field("must_include"), split=True)
    stops = _read_texts("stop", call.field("stop"), split=False)
    every_stop = [*stops, *_read_texts("", call.field("stop_strings"))]
    strengths = read_guides(call.field("guide_attribute") or (), call.field("guide_strength"))
    grammar = read_grammar({name: call.field(name) for name in WHOLE_TEXT_FIELDS})
    complete = _criterion(CompleteEndCriteria, criteria, call) if grammar is not None else None
    # A whole text ends by itself, and a model without an end-of-text token has to have something in its place.
    ends = call.end_tokens or [token for token in (call.closing_token,) if complete is not None and token is not None]
    controls = LogitsProcessorList()
    warpers = [processor for processor in processors if isinstance(processor, WARPERS)]
    controls.extend(_repetition(processors, call))
    controls.extend(_length(call))
    if stops:
        criteria.append(StopAtText(call.reader, stops, call.prompt_columns, call.config.min_new_tokens or 0))
    if grammar is not None and complete is not None:
        controls.append(_whole_text(grammar, call, warpers, every_stop, complete))
    if required:
        controls.append(_must_include(required, bad_words, call, warpers, every_stop, ends))
    if bad_words:
        controls.append(_bad_words(bad_words, call, warpers, every_stop, ends))
    if controls:
        closed = _criterion(ClosedEndCriteria, criteria, call)
        silent = Vocabulary.of(call.tokenizer).silent if call.tokenizer is not None else ()
        controls.append(
            OpenEndLogitsProcessor(call.closing_token, closed, call.mode in _SEQUENTIAL, silent, complete=complete)
        )
    place = next((index for index, found in enumerate(processors) if isinstance(found, WARPERS)), len(processors))
    processors[place:place] = controls
    if strengths:
        guided, watching = guide_text(strengths, call)
        # A guide shifts what everything else has left open, so it comes behind them all.
        last = max((place for place, found in enumerate(processors) if isinstance(found, WARPERS)), default=None)
        processors.insert(len(processors) if last is None else last + 1, guided)
        # And what watches the model comes before everything that asks the model something itself.
        processors[:0] = watching
    # What is recorded is what the choice is made by: behind all that shapes it.
    recorders = [processor for processor in processors if isinstance(processor, Recorder)]
    looks = [look for recorder in recorders if (look := recorder.first_look()) is not None]
    processors[:] = [*looks, *(each for each in processors if not isinstance(each, Recorder)), *recorders]
    seed = call.field("seed")
    if seed is not None and call.mode == GenerationMode.SAMPLE:
        processors.append(SeededSampling(seed, call.config.num_return_sequences or 1, call.prompt_columns))


def _criterion(kind: type[Criterion], criteria: StoppingCriteriaList, call: Call) -> Criterion:
    """The criterion of this kind that the caller has passed, or else a new one among the others."""
    for found in criteria:
        if isinstance(found, kind):
            return found
    criteria.append(made := kind())
    return made


def _read_texts(name: str, value: Any, split: bool = False) -> tuple[str, ...]:
    """A field that holds a list of texts; `split` tells whether one text is a list with commas or one entry."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(split_entries(value)) if split else (value,)
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError(f"{name} has to be a list of texts but is {value!r}")
    for entry in value:
        if not isinstance(entry, str) or not entry:
            raise ValueError(f"{name} has to be a list of texts but holds {entry!r}")
    return tuple(value)


def _temperature(warpers: list[Any]) -> float:
    return math.prod(getattr(warper, "temperature", 1.0) for warper in warpers)


def _whole_text(
    grammar: str, call: Call, warpers: list[Any], stops: Sequence[str], complete: CompleteEndCriteria
) -> WholeTextLogitsProcessor:
    name = next(name for name in WHOLE_TEXT_FIELDS if call.field(name) not in (None, ""))
    try:
        places = call.kept(
            ("whole text", grammar), lambda: GrammarPlaces(grammar, call.reader, call.size, call.field("pattern"))
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    processor = WholeTextLogitsProcessor(
        places,
        remaining=call.remaining,
        end_tokens=call.end_tokens,
        closing_token=call.closing_token,
        complete=complete,
        stop_strings=stops,
        prompt_columns=call.prompt_columns,
        temperature=_temperature(warpers),
    )
    processor.check(call.prompts, name)
    return processor


def _must_include(
    entries: tuple[str, ...],
    bad_words: tuple[str, ...],
    call: Call,
    warpers: list[Any],
    stops: Sequence[str],
    ends: Sequence[int],
) -> MustIncludeLogitsProcessor:
    case_sensitive = bool(call.field("case_sensitive"))
    requirements = Requirements(
        entries,
        call.reader,
        call.size,
        case_sensitive,
        ordered=bool(call.field("must_include_ordered")),
        prompt_counts=bool(call.field("must_include_prompt")),
        counts=own_word_counts(call.model),
        barred=_compiled(bad_words, case_sensitive, call) if bad_words else None,
    )
    processor = MustIncludeLogitsProcessor(
        requirements,
        remaining=call.remaining,
        end_tokens=ends,
        stop_strings=stops,
        prompt_columns=call.prompt_columns,
        temperature=_temperature(warpers),
        lookahead=call.lookahead,
    )
    processor.check(call.prompts)
    return processor


def _bad_words(
    entries: tuple[str, ...], call: Call, warpers: list[Any], stops: Sequence[str], ends: Sequence[int]
) -> BadWordsLogitsProcessor:
    return BadWordsLogitsProcessor(
        _compiled(entries, bool(call.field("case_sensitive")), call),
        prompt_columns=call.prompt_columns,
        end_tokens=ends,
        last_step=call.last_step,
        stop_strings=stops,
        lookahead=call.lookahead,
        policy=_policy(call.mode, warpers),
        temperature=_temperature(warpers),
        trims=any(not isinstance(warper, TemperatureLogitsWarper) for warper in warpers),
    )


def _compiled(entries: tuple[str, ...], case_sensitive: bool, call: Call) -> TokenTables:
    counts = own_word_counts(call.model)
    return call.kept(
        (entries, case_sensitive),
        lambda: compile_bad_words(entries, call.reader, call.size, case_sensitive, counts),
        of=counts,
    )


def _policy(mode: GenerationMode, warpers: list[Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The probabilities by which this call chooses tokens, given the model's logits, (tokens, vocabulary)."""

    def chosen(logits: torch.Tensor) -> torch.Tensor:
        if mode == GenerationMode.GREEDY_SEARCH:
            return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
        for warper in warpers:
            logits = warper(None, logits)
        return logits.softmax(dim=-1)

    return chosen


def _repetition(processors: LogitsProcessorList, call: Call) -> LogitsProcessorList:
    """The penalties over words, in place of transformers' own, where they are wanted."""
    penalty, ngram = call.field("repetition_penalty") or 1.0, call.field("no_repeat_ngram_size") or 0
    unit = call.field("repetition_unit")
    found = LogitsProcessorList()
    if (penalty == 1.0 and not ngram) or call.tokenizer is None:
        return found
    characters = Vocabulary.of(call.tokenizer).longest <= 1
    if unit == "tokens" or (unit is None and not characters):
        return found
    stock = (RepetitionPenaltyLogitsProcessor, NoRepeatNGramLogitsProcessor)
    processors[:] = [processor for processor in processors if not isinstance(processor, stock)]
    found.append(
        WordRepetitionLogitsProcessor(
            penalty,
            call.tokenizer,
            ngram_size=ngram,
            counts=own_word_counts(call.model),
            end_tokens=call.end_tokens,
            prompt_columns=call.prompt_columns,
        )
    )
    return found


def _length(call: Call) -> LogitsProcessorList:
    """The counterpart of beam search's length penalty where there are no beams."""
    penalty = call.field("length_penalty")
    if penalty in (None, 1.0) or call.mode not in _SEQUENTIAL:
        return LogitsProcessorList()
    if not call.end_tokens:
        logger.warning(
            f"length_penalty is {penalty} but has no effect: the model has no end-of-text token, so only the limit on "
            f"new tokens and stop strings end its texts."
        )
        return LogitsProcessorList()
    return LogitsProcessorList([LengthPenaltyLogitsProcessor(penalty, call.end_tokens)])
