"""Turns settings into arguments of `generate()`."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import LogitsProcessorList, PreTrainedModel

from fundamentallm_hf.portable.controls.control_table import CONTROLS
from fundamentallm_hf.portable.decoding.context_window import check_overflow
from fundamentallm_hf.portable.decoding.endings import LengthPenaltyLogitsProcessor
from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings

# Their arguments depend on the model and on the batch.
_ELSEWHERE = ("length_penalty", "overflow", "seed", "speculate")
# Logits divided by a smaller temperature overflow, and no smaller one changes which token is chosen.
LEAST_TEMPERATURE = 1e-9


def is_fundamentallm(model: PreTrainedModel) -> bool:
    """Whether the model is of FundamentaLLM's architecture, whose `generate()` knows the controls."""
    return model.config.model_type == "fundamentallm"


def generate_arguments(
    model: PreTrainedModel, settings: GenerationSettings, notice: Callable[[str], None]
) -> dict[str, Any]:
    """The arguments that settings become, for any causal language model.

    Args:
        model: whose defaults are overridden where they differ.
        settings: with the words of a file read already.
        notice: called with a line about a setting that has no effect on this model.

    Returns:
        The fields of the generation config that differ from what `generate()` does by itself, and a
        `logits_processor` where a setting needs one.
    """
    return _search_arguments(model, settings) | _length_penalty(model, settings, notice) | _controls(settings)


def token_budgets(model: PreTrainedModel, lengths: Sequence[int], settings: GenerationSettings) -> list[int]:
    """How many new tokens fit into the context window after each prompt.

    Args:
        model: FundamentaLLM models can slide their window; others end when it is full.
        lengths: of the prompts, in tokens.
        settings: `overflow` and `max_tokens` of them.

    Returns:
        The number for each prompt; `max_tokens` where the window ends nothing.

    Raises:
        UsageError: a prompt does not fit, or `overflow` asks for what the model cannot do.
    """
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    slides = is_fundamentallm(model)
    if window is None or (slides and settings.overflow != "stop"):
        return [settings.max_tokens] * len(lengths)
    if not slides:
        cannot = f"a model of type {model.config.model_type} cannot slide"
        try:
            check_overflow(settings.overflow or "stop", lengths, settings.max_tokens, window, cannot)
        except ValueError as error:
            raise UsageError.of(error) from error
    return [window - length for length in lengths]


def end_tokens(model: PreTrainedModel) -> list[int]:
    """The ids that end a text; none for a model that never ends one."""
    ends = model.generation_config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or ())


def _search_arguments(model: PreTrainedModel, settings: GenerationSettings) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "max_new_tokens": settings.max_tokens,
        "num_return_sequences": settings.num_samples,
        "num_beams": settings.beam_size,
        "do_sample": settings.sampled,
    }
    if settings.sampled:
        temperature = max(1.0 if settings.temperature is None else settings.temperature, LEAST_TEMPERATURE)
        arguments |= {"temperature": temperature, "top_k": settings.top_k or 0, "top_p": settings.top_p or 1.0}
        if settings.min_p is not None or model.generation_config.min_p:
            arguments["min_p"] = settings.min_p or 0.0
    return arguments


def _length_penalty(
    model: PreTrainedModel, settings: GenerationSettings, notice: Callable[[str], None]
) -> dict[str, Any]:
    penalty = settings.length_penalty
    if penalty == 1:
        return {}
    if settings.beam_size > 1:
        return {"length_penalty": penalty}
    ends = end_tokens(model)
    if not ends:
        notice(f"length-penalty is {penalty:g} but has no effect: the model has no token that ends a text")
        return {}
    # As a field of the config, the pipeline would warn that it is ignored where there are no beams.
    return {"logits_processor": LogitsProcessorList([LengthPenaltyLogitsProcessor(penalty, ends)])}


def _controls(settings: GenerationSettings) -> dict[str, Any]:
    """The fields of the controls that are set. Those that need more than their value are added elsewhere."""
    values: dict[str, Any] = {"min_new_tokens": settings.min_tokens or None}
    for control in CONTROLS.values():
        value = getattr(settings, control.name)
        refined = not control.refines or any(
            getattr(settings, name) != SETTINGS[name].default for name in control.refines
        )
        if control.name not in _ELSEWHERE and value not in (control.default, "") and refined:
            values[control.config_field] = list(value) if isinstance(value, tuple) else value
    return {name: value for name, value in values.items() if value is not None}
