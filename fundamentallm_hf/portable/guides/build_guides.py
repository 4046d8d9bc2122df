"""Creates the guides of the attributes of a call of `generate()`."""

import math
from collections.abc import Callable
from functools import cache

from transformers import LogitsProcessor
from transformers.generation import GenerationMode

from ..decoding.call_processors import CallProcessors
from ..decoding.generate_call import Call
from ..decoding.phases import Phase
from ..decoding.sidecar_files import own_word_counts
from ..errors import UserError
from ..text.vocabulary import Vocabulary
from ..text.word_counts import WordCounts
from .attribute_lookup import find_attribute
from .attribute_words import AttributeWords
from .attributes import Attribute, read_guides
from .classifier_guide import ClassifierGuide
from .expert_guide import ExpertGuide
from .guided_attributes import Guide, GuidedAttributesLogitsProcessor
from .output_experts import ExpertPair
from .output_states import OutputStates
from .prompt_guide import PromptGuide
from .steering_vectors import SteeringVectors
from .text_classifier import load_classifier
from .word_guide import WordGuide, WordTables

# Experts concentrate most distributions, which makes texts alike: for each nat of their strength, up or down, the
# distribution over the allowed tokens is flattened by this much. That restores variety for a little perplexity
# (`docs/controls.md` has figures).
FLATTENING = 0.035


def guide_text(strengths: dict[str, float], call: Call) -> tuple[LogitsProcessor | None, list[LogitsProcessor]]:
    """The processors that guide the texts of a call. Vectors are added to its `steering` instead.

    Args:
        strengths: by attribute name.
        call: the call.

    Returns:
        The processor that guides, if any, and those that have to observe the model for it.

    Raises:
        UserError: there is no such attribute.
        ValueError: one cannot guide this model.
    """
    # In assisted decoding one pass checks several tokens. All experts of a call read the same states.
    watch = call.mode != GenerationMode.ASSISTED_GENERATION
    states = cache(lambda: OutputStates(call.model, call.padding, call.in_sight, watch))
    guides, watching, flattening = [], list[LogitsProcessor](), []
    for name, strength in strengths.items():
        attribute = find_attribute(call.model, name)
        try:
            guide = _guide(attribute, strength, call, states)
        except ValueError as error:
            raise UserError(f"guide_attribute {name}: {error}", setting="guide_attribute", value=name) from error
        if guide is None:
            continue
        guides.append((guide, strength))
        if isinstance(guide, ExpertGuide):
            watching = [guide.states]
            flattening.append(FLATTENING * abs(strength))
    if not guides:
        return None, watching
    # The sum is the same in every order of the guides, to the last bit.
    temperature = 1.0 + math.fsum(flattening)
    return GuidedAttributesLogitsProcessor(guides, temperature=temperature), watching


def _guide(attribute: Attribute, strength: float, call: Call, states: Callable[[], OutputStates]) -> Guide | None:
    """The guide of an attribute; None where its vectors steer the model instead."""
    if attribute.kind == "prompts":
        return _prompt_guide(attribute, call)
    if attribute.kind == "experts":
        return _expert_guide(attribute, call, states)
    if attribute.kind == "steering":
        return _steer(attribute, strength, call)
    if attribute.kind == "classifier":
        return _classifier_guide(attribute, call)
    return _word_guide(attribute, call)


def _word_guide(attribute: Attribute, call: Call) -> WordGuide:
    vocabulary, counts = Vocabulary.of(call.reader), own_word_counts(call.model)

    def make() -> WordTables:
        known = WordCounts.of_vocabulary(vocabulary) if counts is None else counts
        return WordTables(AttributeWords(attribute.words, known), vocabulary, call.size)

    tables = call.kept(("weights", frozenset(attribute.words.items())), make, of=counts)
    return WordGuide(tables, call.end_tokens, call.prompt_columns)


def _words_instead(attribute: Attribute, call: Call, misfit: str) -> WordGuide:
    """The words of an attribute whose file does not fit the model.

    Raises:
        ValueError: it has none.
    """
    if attribute.words:
        return _word_guide(attribute, call)
    raise ValueError(
        f"{misfit}: make one for it with `fundamentallm train-attribute --kind {attribute.kind} --model MODEL`"
    )


def _steer(attribute: Attribute, strength: float, call: Call) -> WordGuide | None:
    """Let an attribute's vectors act on the call's model, or its words where they do not fit it."""
    vectors = SteeringVectors.from_bytes(attribute.vectors)
    misfit = vectors.misfit(call.model)
    if misfit is not None:
        return _words_instead(attribute, call, misfit)
    call.steering.add(vectors.vectors, strength)
    # Compiled code would ignore hooks that were added after it was compiled.
    call.config.disable_compile = True
    return None


def _expert_guide(attribute: Attribute, call: Call, states: Callable[[], OutputStates]) -> Guide:
    experts = call.kept(("experts", attribute.experts), lambda: ExpertPair.from_bytes(attribute.experts))
    misfit = experts.misfit(call.model)
    if misfit is not None:
        return _words_instead(attribute, call, misfit)
    return ExpertGuide(experts, states(), call.reader.all_special_ids)


def _prompt_guide(attribute: Attribute, call: Call) -> PromptGuide:
    ends = {*call.end_tokens}

    def read(text: str) -> list[int]:
        ids = list(call.reader(text, verbose=False).input_ids)
        return ids[:-1] if ids and ids[-1] in ends else ids

    return PromptGuide(
        call.model,
        (read(attribute.with_text), read(attribute.without_text)),
        call.padding,
        call.window,
        call.reader.bos_token_id,
    )


def _classifier_guide(attribute: Attribute, call: Call) -> ClassifierGuide:
    vocabulary, counts = Vocabulary.of(call.reader), own_word_counts(call.model)
    if counts is None:
        counts = call.kept(("word counts",), lambda: WordCounts.of_vocabulary(vocabulary))
    judge = load_classifier(attribute.classifier, attribute.label, call.prompts.device)
    return ClassifierGuide(judge, vocabulary, counts, call.end_tokens, call.padding)


def add_guides(step: CallProcessors) -> None:
    """Apply the `guide_attribute` of a call to its texts.

    Raises:
        ValueError: a name or strength cannot be read, there is no such attribute, or it cannot guide this model.
    """
    call = step.call
    strengths = read_guides(call.field("guide_attribute") or (), call.field("guide_strength"))
    if strengths:
        guided, watching = guide_text(strengths, call)
        if guided is not None:
            step.add(Phase.GUIDE, guided)
        for each in watching:
            step.add(Phase.WATCH, each)
