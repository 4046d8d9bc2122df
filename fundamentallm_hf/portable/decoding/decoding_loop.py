"""The decoding loops of transformers, and what `generate()` keeps from a callable that takes their place.

`generate(custom_generate=callable)` is transformers' documented way in: it prepares a call and hands it to the
callable. What it does not offer is the way back, on to the loop that it would have run; that is in this file alone. It
knows nothing of controls.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin
from transformers.generation import GenerationMode
from transformers.generation.utils import GENERATION_MODES_MAPPING
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

# What `generate()` takes and does not hand on to a callable.
WITHHELD = ("streamer", "tokenizer", "assistant_model", "assistant_tokenizer", "synced_gpus")
_BEAMS = (GenerationMode.BEAM_SEARCH, GenerationMode.BEAM_SAMPLE)


class WithoutStopStrings(GenerationConfig):
    """A config that takes no stop strings over from the model's own.

    transformers reads them with the tokenizer of the call, which it withholds where a callable decodes, and then
    refuses them for want of one. So they are kept back until the call is prepared.
    """

    def update(self, *args: Any, stop_strings: Any = None, **kwargs: Any) -> Any:
        return super().update(*args, **kwargs)

    @classmethod
    def of(cls, config: GenerationConfig) -> "WithoutStopStrings":
        """The same config, changed in place."""
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
        withheld: what the call has of `WITHHELD`.
        inputs_tensor: the prompts as they were given.
        prepared: everything else that was prepared.

    Returns:
        What transformers' loop returns: token ids `(rows, length)`, or an output object.

    Raises:
        ValueError: transformers has no loop for the mode, or the mode cannot do what is asked for.
    """
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
        _check_assistant(model, given)
    runs = BestFirst(model) if mode == GenerationMode.BEAM_SAMPLE else model
    return getattr(type(model), loop)(runs, input_ids, **prepared)


class BestFirst:
    """A model whose sampled beams go on with their continuations in the order of their scores, as from 5.24 on.

    Before, they came in the order in which they were drawn, and a search took those that had been drawn first for the
    best: its text depended on the version, and was not its likeliest.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._model(*args, **kwargs)

    def _get_top_k_continuations(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        scores, *others = self._model._get_top_k_continuations(
            *args, **kwargs
        )  # (prompts, candidates) and what they are
        scores, order = scores.sort(dim=-1, descending=True, stable=True)
        places = torch.arange(len(scores), device=scores.device)[:, None]
        return scores, *(other[places, order] for other in others)


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
