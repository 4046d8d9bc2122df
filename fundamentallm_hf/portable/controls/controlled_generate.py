"""The controls for every causal language model: a callable for the `custom_generate` argument of `generate()`.

FundamentaLLM models read the control fields themselves. For any other model transformers prepares a call of
`generate()` as usual and passes it to `controlled_generate`, which adds the controls and runs the decoding loop that
transformers would have used.
"""

import inspect
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase, StoppingCriteriaList
from transformers.generation import GenerationMode, StopStringCriteria

from ..decoding.cache_names import CACHE
from ..decoding.context_window import WindowFullCriteria
from ..decoding.decoding_loop import WITHHELD, decode
from ..decoding.generate_call import Call
from ..decoding.sidecar_files import own_tokenizer
from ..decoding.tested_versions import check_version
from .control_fields import TAKEN_OVER
from .control_table import CONTROLS, describe_controls
from .logits_processors import apply_controls

# The controls that a call takes as keywords; transformers reads its fields itself.
KEYWORDS = (
    *(control.config_field for control in CONTROLS.values() if control.any_model and not control.stock),
    *TAKEN_OVER,
)


def controlled_generate(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    synced_gpus: bool | None = None,
    streamer: Any = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    stop_strings: Any = None,
    **model_kwargs: Any,
) -> Any:
    """Decode with controls: `model.generate(**inputs, custom_generate=controlled_generate, bad_words=["ran"])`.

    transformers withholds `tokenizer` and `streamer` from a callable, so bind them to it where they are needed:
    `functools.partial(controlled_generate, tokenizer=tokenizer, streamer=streamer)`.

    Args:
        tokenizer: reads tokens as text; by default loaded from where the model was loaded from.
        streamer: receives the prompt and every token.
        stop_strings: as in transformers, which would need the tokenizer that it withholds.
        {controls}

    The generation config may have the controls as fields instead.

    Returns token ids `(rows, length)`, or an output object, as transformers' decoding loop does.

    Raises:
        ValueError: a control has an invalid value, no tokenizer is found for it, or the model has an encoder.
    """
    if model.config.is_encoder_decoder:
        raise ValueError(f"the controls are for causal language models, but {type(model).__name__} has an encoder")
    for name in KEYWORDS:
        if (value := model_kwargs.pop(name, None)) is not None:
            setattr(generation_config, name, value)
    if stop_strings is not None:
        generation_config.stop_strings = stop_strings
    withheld = {name: model_kwargs.pop(name, None) for name in WITHHELD}
    withheld |= {"streamer": streamer, "synced_gpus": synced_gpus}
    mode = generation_config.get_generation_mode(withheld["assistant_model"])
    call = _read_call(model, input_ids, generation_config, mode, stopping_criteria, tokenizer, model_kwargs)
    if stop_strings is not None:
        stopping_criteria.append(StopStringCriteria(call.reader, stop_strings))
    apply_controls(logits_processor, stopping_criteria, call)
    if streamer is not None:
        streamer.put(input_ids.cpu())
    check_version(model, input_ids)
    with call.steering.acting(model):
        return decode(
            model,
            mode,
            input_ids,
            withheld,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            **model_kwargs,
        )


def _read_call(
    model: Any,
    input_ids: torch.Tensor,
    config: GenerationConfig,
    mode: GenerationMode,
    criteria: StoppingCriteriaList,
    tokenizer: PreTrainedTokenizerBase | None,
    prepared: dict[str, Any],
) -> Call:
    """The call as controls see it."""
    mask = prepared.get("attention_mask")
    return Call(
        model=model,
        config=config,
        mode=mode,
        prompts=input_ids,
        padding=[0] if mask is None else (mask.cumsum(dim=-1) == 0).sum(dim=-1).tolist(),
        cache=prepared.get(CACHE),
        tokenizer=tokenizer if tokenizer is not None else own_tokenizer(model),
        window=getattr(model.config.get_text_config(), "max_position_embeddings", None),
        window_full=next((found for found in criteria if isinstance(found, WindowFullCriteria)), None),
    )


def _with_controls(function: Any) -> inspect.Signature:
    """The signature of a function with the controls as keywords: transformers only passes arguments that it names."""
    found = inspect.signature(function)
    *named, others = found.parameters.values()
    controls = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in KEYWORDS]
    return found.replace(parameters=[*named, *controls, others])


controlled_generate.__signature__ = _with_controls(controlled_generate)  # type: ignore[attr-defined]
controlled_generate.__doc__ = describe_controls(controlled_generate.__doc__, any_model=True)
