"""The fields that this library adds to `GenerationConfig`, and how they get into the config of a call.

A control is a field like `temperature` and `num_beams`: given as a keyword of `generate()`, stored in
    `generation_config.json`, or passed through by a pipeline.
"""

import copy
from typing import Any

from transformers import GenerationConfig

from ..decoding.sidecar_files import own_tokenizer
from .control_table import CONTROLS


class Unchanging(dict):
    """A dict that is not changed, so that it need not be copied whenever transformers copies the config of a call."""

    def __deepcopy__(self, memo: Any) -> "Unchanging":
        return self


CONTROL_FIELDS = tuple(control.config_field for control in CONTROLS.values() if not control.stock)
TAKEN_OVER = tuple(control.config_field for control in CONTROLS.values() if control.taken_over)


def fold_into_config(
    generation_config: GenerationConfig | None, kwargs: dict[str, Any], model: Any
) -> tuple[GenerationConfig | None, dict[str, Any]]:
    """Move controls from the keywords of a call into its generation config, and check that they have a tokenizer.

    Args:
        generation_config: the config that the caller passed; it is not changed.
        kwargs: the other keywords of the call.
        model: the model that is called.

    Returns:
        A config that holds the controls, and the remaining keywords. Where no control is set, both are returned
        unchanged.

    Raises:
        ValueError: a control works on text and there is no tokenizer to read it with.
    """
    controls = {name: kwargs[name] for name in (*CONTROL_FIELDS, *TAKEN_OVER) if name in kwargs}
    needs_text = _needs_text(kwargs, generation_config, model.generation_config)
    if not controls and not needs_text:
        return generation_config, kwargs
    config = copy.deepcopy(generation_config) if generation_config is not None else GenerationConfig()
    # transformers requires all generation parameters in one object, and only a config can hold unknown fields.
    rest = config.update(**{name: value for name, value in kwargs.items() if name not in controls})
    for name, value in controls.items():
        setattr(config, name, Unchanging(value) if isinstance(value, dict) else value)
    if needs_text and rest.get("tokenizer") is None:
        try:
            rest["tokenizer"] = own_tokenizer(model)
        except (OSError, ValueError):
            if needs_text == "at all costs":
                raise
    return config, rest


def _needs_text(*sources: Any) -> str:
    """Whether any source of fields asks for a control over text.

    Returns:
        Nothing, "at all costs", or "if there is" for controls that transformers can apply to tokens as well.
    """

    def value(name: str) -> Any:
        for source in sources:
            found = source.get(name) if isinstance(source, dict) else getattr(source, name, None)
            if found is not None:
                return found
        return None

    names = {name for control in CONTROLS.values() for name in (control.config_field, *dict(control.off_when))}
    values = {name: value(name) for name in names}
    reads_text = any(control.is_set(values) for control in CONTROLS.values() if control.reads_text)
    if reads_text or value("stop_strings") or value("repetition_unit") == "words":
        return "at all costs"
    repeats = value("repetition_penalty") not in (None, 1.0) or bool(value("no_repeat_ngram_size"))
    return "if there is" if repeats and value("repetition_unit") != "tokens" else ""
