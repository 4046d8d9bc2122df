"""The fields that this library adds to `GenerationConfig`, and what they do to a call of `generate()`.

A control is a field beside `temperature` and `num_beams`: given as a keyword of `generate()`, stored in
`generation_config.json`, or passed through by a pipeline, it arrives here in the merged generation config. This file
knows which fields there are and which piece carries each out; it knows nothing of any model.
"""

import copy
from typing import Any

from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation import GenerationMode

from .seeded_sampling import SeededSampling

CONTROL_FIELDS = ("overflow", "seed")


def fold_into_config(
    generation_config: GenerationConfig | None, kwargs: dict[str, Any]
) -> tuple[GenerationConfig | None, dict[str, Any]]:
    """Move controls from the keywords of a call into its generation config.

    Args:
        generation_config: what the caller passed, left as it is.
        kwargs: the other keywords of the call.

    Returns:
        A config that holds the controls, and the keywords that are left. Without controls among the keywords, both
        come back unchanged.
    """
    controls = {name: kwargs[name] for name in CONTROL_FIELDS if name in kwargs}
    if not controls:
        return generation_config, kwargs
    config = copy.deepcopy(generation_config) if generation_config is not None else GenerationConfig()
    # transformers wants all generation parameters in one place, and unknown fields only a config can hold.
    rest = config.update(**{name: value for name, value in kwargs.items() if name not in CONTROL_FIELDS})
    for name, value in controls.items():
        setattr(config, name, value)
    return config, rest


def final_processors(config: GenerationConfig, mode: GenerationMode, prompt_columns: int) -> LogitsProcessorList:
    """The processors that act last, after temperature, top-k and top-p.

    Args:
        config: the merged generation config of the call.
        mode: how the next token is chosen.
        prompt_columns: width of the padded prompts in tokens.
    """
    processors = LogitsProcessorList()
    seed = getattr(config, "seed", None)
    if seed is not None and mode == GenerationMode.SAMPLE:
        processors.append(SeededSampling(seed, config.num_return_sequences or 1, prompt_columns))
    return processors
