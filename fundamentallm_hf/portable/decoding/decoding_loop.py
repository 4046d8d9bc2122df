"""Runs the decoding loops of transformers from a callable passed as `custom_generate`.

`generate(custom_generate=callable)` is transformers' documented extension point: it prepares a call and passes it to
the callable. transformers offers no way to run its usual loop from there; only this file does so.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList
from transformers.generation import GenerationMode
from transformers.generation.utils import GENERATION_MODES_MAPPING
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

from .allowed_beams import AllowedBeams
from .forced_tokens import Forced, forced_candidates

# Arguments that `generate()` takes and does not pass to a callable.
WITHHELD = ("streamer", "tokenizer", "assistant_model", "assistant_tokenizer", "synced_gpus")
_BEAMS = (GenerationMode.BEAM_SEARCH, GenerationMode.BEAM_SAMPLE)


class WithoutStopStrings(GenerationConfig):
    """A config that ignores the stop strings of the model's config.

    transformers tokenizes stop strings with the tokenizer of the call. Where a callable decodes, it withholds the
    tokenizer and then refuses the stop strings. So they are kept back until the call is prepared.
    """

    def update(self, *args: Any, stop_strings: Any = None, **kwargs: Any) -> Any:
        return super().update(*args, **kwargs)

    @classmethod
    def of(cls, config: GenerationConfig) -> "WithoutStopStrings":
        """Changes the class of `config` **in place** and returns it."""
        config.stop_strings = None
        config.__class__ = cls
        return config


def decode(
    model: Any,
    mode: GenerationMode,
    input_ids: torch.Tensor,
    withheld: Mapping[str, Any],
    *,
    inputs_tensor: torch.Tensor | None = None,
    **prepared: Any,
) -> Any:
    """Run the loop that `generate()` would have run in this mode.

    Args:
        model: the model that generates.
        mode: how the next token is chosen.
        input_ids: (rows, length) the prompts, as prepared.
        withheld: the arguments in `WITHHELD` that the call has.
        inputs_tensor: the prompts as they were given.
        prepared: all other arguments that were prepared.

    Returns:
        What transformers' loop returns: token ids `(rows, length)`, or an output object.

    Raises:
        ValueError: transformers has no loop for the mode, or the mode cannot do what is asked for.
    """
    runs: Any = AllowedBeams(model) if mode in _BEAMS else model
    shared = withheld.get("synced_gpus") or synced_gpus(model)
    forced = None if shared else forced_candidates(model, mode, input_ids, prepared)
    if forced is not None:
        mode, runs = GenerationMode.ASSISTED_GENERATION, Forced(model, forced)
    loop = GENERATION_MODES_MAPPING[mode]
    if "/" in loop:
        raise ValueError(
            f"transformers has no {mode.value} of its own any more: pass custom_generate={loop!r} and "
            f"trust_remote_code=True"
        )
    given = {name: value for name, value in withheld.items() if value is not None}
    prepared["synced_gpus"] = given.get("synced_gpus", synced_gpus(model))
    if "streamer" in given:
        if mode in _BEAMS:
            raise ValueError("a streamer cannot be used with beams, whose texts are known at the end only")
        prepared["streamer"] = given["streamer"]
    if mode == GenerationMode.ASSISTED_GENERATION:
        prepared |= {
            name: given[name] for name in ("tokenizer", "assistant_model", "assistant_tokenizer") if name in given
        }
        prepared["inputs_tensor"] = input_ids if inputs_tensor is None else inputs_tensor
        if forced is None:
            prepared["logits_processor"] = ScoresOfTheModel(prepared["logits_processor"])
        _check_assistant(model, given)
    return getattr(type(model), loop)(runs, input_ids, **prepared)


class ScoresOfTheModel(LogitsProcessorList):
    """Processors that process the scores of the model alone.

    To see whether a token that prompt lookup would guess is masked, transformers passes ones through the processors in
    place of scores. Those that remember what they have seen would take them for the model's. A masked guess needs no
    such test: it is rejected with the model's scores.
    """

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if bool((scores == 1).all()):
            return scores
        processed: torch.Tensor = super().__call__(input_ids, scores, **kwargs)
        return processed


def synced_gpus(model: GenerationMixin) -> bool:
    """Whether the processes that share a model have to run its loop equally often."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    shared = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model)
    return shared and torch.distributed.get_world_size() > 1


def _check_assistant(model: Any, given: Mapping[str, Any]) -> None:
    assistant = given.get("assistant_model")
    if assistant is None:
        return
    sizes = [each.config.get_text_config().vocab_size for each in (model, assistant)]
    if sizes[0] != sizes[1] and not {"tokenizer", "assistant_tokenizer"} <= given.keys():
        raise ValueError(
            f"the model has {sizes[0]} tokens and its assistant {sizes[1]}, so they need both their tokenizers: pass "
            f"tokenizer= and assistant_tokenizer="
        )
