"""The fields that this library adds to `GenerationConfig`, and how they come into the config of a call.

A control is a field beside `temperature` and `num_beams`: given as a keyword of `generate()`, stored in
`generation_config.json`, or passed through by a pipeline. This file knows which fields there are, not what they do.
"""

import copy
from typing import Any

from transformers import GenerationConfig

from .companions import own_tokenizer
from .grammars import WHOLE_TEXT_FIELDS

# What each field takes is documented in `FundamentaLLMForCausalLM.generate`.
CONTROL_FIELDS = (
    "overflow",
    "seed",
    "stop",
    "bad_words",
    "must_include",
    "must_include_ordered",
    "must_include_prompt",
    "case_sensitive",
    "repetition_unit",
    "guide_attribute",
    "guide_strength",
    *WHOLE_TEXT_FIELDS,
)
# transformers warns of these where it would not heed them itself.
_TAKEN_OVER = ("length_penalty",)
REPETITION_UNITS = ("words", "tokens")


def fold_into_config(
    generation_config: GenerationConfig | None, kwargs: dict[str, Any], model: Any
) -> tuple[GenerationConfig | None, dict[str, Any]]:
    """Move controls from the keywords of a call into its generation config, and see that they find a tokenizer.

    Args:
        generation_config: what the caller passed, left as it is.
        kwargs: the other keywords of the call.
        model: the model that is called.

    Returns:
        A config that holds the controls, and the keywords that are left. Where no control is set, both come back
        unchanged.

    Raises:
        ValueError: a control works on text and there is no tokenizer to read it with.
    """
    controls = {name: kwargs[name] for name in (*CONTROL_FIELDS, *_TAKEN_OVER) if name in kwargs}
    needs_text = _needs_text(kwargs, generation_config, model.generation_config)
    if not controls and not needs_text:
        return generation_config, kwargs
    config = copy.deepcopy(generation_config) if generation_config is not None else GenerationConfig()
    # transformers wants all generation parameters in one place, and unknown fields only a config can hold.
    rest = config.update(**{name: value for name, value in kwargs.items() if name not in controls})
    for name, value in controls.items():
        setattr(config, name, value)
    if needs_text and rest.get("tokenizer") is None:
        try:
            rest["tokenizer"] = own_tokenizer(model)
        except (OSError, ValueError):
            if needs_text == "at all costs":
                raise
    return config, rest


def _needs_text(*sources: Any) -> str:
    """Whether any of the places where fields can be set asks for a control over text.

    Returns:
        Nothing, "at all costs", or "if there is" for what transformers can do with tokens as well.
    """

    def value(name: str) -> Any:
        for source in sources:
            found = source.get(name) if isinstance(source, dict) else getattr(source, name, None)
            if found is not None:
                return found
        return None

    if (
        value("bad_words")
        or value("must_include")
        or value("stop")
        or value("stop_strings")
        or value("repetition_unit") == "words"
        or (value("guide_attribute") and value("guide_strength") != 0)
        or any(value(name) not in (None, "") for name in WHOLE_TEXT_FIELDS)
    ):
        return "at all costs"
    repeats = value("repetition_penalty") not in (None, 1.0) or bool(value("no_repeat_ngram_size"))
    return "if there is" if repeats and value("repetition_unit") != "tokens" else ""
