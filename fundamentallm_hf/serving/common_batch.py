"""transformers' continuous batching, for the requests that it answers with the same text as `generate()`.

There, processors see only the last token of each row, and only a limit and an end-of-text token end a row. So
temperature, top-k and top-p can be set row by row, but controls over text cannot be applied, and a text cannot exceed
the model's window. A request that needs either is answered as without continuous batching.
"""

import asyncio
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.cli.serving import utils

from .manager import SAMPLE, Together

# Settings that each row of the common batch may have, and their defaults.
SAMPLING: Mapping[str, Any] = {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0}
# Settings that do not change a text when combined with these, or that are applied row by row as well.
_INERT = {
    *("max_new_tokens", "max_length", "eos_token_id", "pad_token_id", "bos_token_id", "overflow", "use_cache"),
    *("transformers_version", "_from_model_config", "return_dict_in_generate", "disable_compile"),
    "text_lengths",  # where required words go, which are a control
}
# Without an accelerator transformers would fill the memory with the cache; this many pages hold 16,384 tokens.
_CPU_PAGES, _CPU_BATCH = 64, 1024


def in_batch(config: GenerationConfig, own: GenerationConfig, prompt: int, window: int | None) -> bool:
    """Whether the common batch gives a request the text that `generate()` would give it.

    Args:
        config: of the request.
        own: the model's config, from which `generate()` takes what the request does not set.
        prompt: tokens of the prompt.
        window: number of positions of the model, if it is fixed.
    """
    for each in (config, own):
        if {name for name, value in each.to_diff_dict().items() if value is not None} - _INERT - SAMPLING.keys():
            return False
    most = config.max_new_tokens
    return most is not None and (window is None or prompt + most <= window)


def row_sampling(config: GenerationConfig, own: GenerationConfig, size: int) -> dict[str, Any]:
    """The arguments with which a row of the common batch samples as requested.

    Args:
        config, own: as in `in_batch`.
        size: number of scores the model gives.
    """
    values = {
        name: next((value for each in (config, own) if (value := getattr(each, name)) is not None), default)
        for name, default in SAMPLING.items()
    }
    if not values["do_sample"]:  # the batch samples as a whole, and with one token it always takes that
        return {"temperature": 1.0, "top_k": 1, "top_p": 1.0}
    return {
        "temperature": float(values["temperature"]),
        "top_k": min(int(values["top_k"]) or size, size),
        "top_p": float(values["top_p"]),
    }


# The managers whose common batch was started.
_STARTED: "weakref.WeakSet[Batched]" = weakref.WeakSet()


def texts_in_batches() -> tuple[int, int]:
    """How many texts are computed in common batches, and how many wait for a place there."""
    counts = [each.counts for each in _STARTED]
    return sum(running for running, _ in counts), sum(waiting for _, waiting in counts)


class Rows:
    """A manager of the common batch with sampling settings for each row."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self.sampling: dict[str, dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def add_request(self, input_ids: list[int], request_id: str, **kwargs: Any) -> Any:
        """Like the manager's method."""
        return self._manager.add_request(
            input_ids, request_id=request_id, **kwargs, **self.sampling.pop(request_id, {})
        )


class Batched(utils.CBGenerateManager):
    """Answers a request in the common batch where that gives the same text, and as usual where it does not."""

    _cb: Any
    _cb_config: Any

    def __init__(self, cb_config: ContinuousBatchingConfig | None = None) -> None:
        super().__init__(cb_config)
        self._together = Together()

    def init_cb(self, model: Any, gen_config: GenerationConfig) -> None:
        """Start the common batch, independently of the settings of the first request."""
        if self._cb is not None:
            return
        own = model.generation_config
        # A processor exists for all rows or for none, so none of these values may turn one off.
        shared = GenerationConfig(
            do_sample=True,
            temperature=0.5,
            top_k=1,
            top_p=0.5,
            eos_token_id=-1 if own.eos_token_id is None else own.eos_token_id,
            pad_token_id=own.pad_token_id,
            use_cache=False,
        )
        self._cb_config = _sized(self._cb_config, model)
        super().init_cb(model, shared)
        self._cb = Rows(self._cb)
        _STARTED.add(self)

    @property
    def counts(self) -> tuple[int, int]:
        """How many texts of the common batch are computed, and how many wait."""
        if self._cb is None or self._cb.batch_processor is None:
            return 0, 0
        return len(self.scheduler.active_requests), len(self.scheduler.waiting_requests)

    def generate_streaming(
        self, model: Any, processor: Any, inputs: Mapping[str, Any], gen_config: Any, request_id: str, **kwargs: Any
    ) -> Any:
        """Like the method of the replaced manager."""
        if self._joins(model, inputs, gen_config, request_id):
            return super().generate_streaming(model, processor, inputs, gen_config, request_id, **kwargs)
        arguments = _for_generate(model, inputs, gen_config)
        return self._together.generate_streaming(model, processor, *arguments, request_id, **kwargs)

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Mapping[str, Any], gen_config: Any, request_id: str
    ) -> Any:
        """Like the method of the replaced manager."""
        if self._joins(model, inputs, gen_config, request_id):
            try:
                return await super().generate_non_streaming(model, processor, inputs, gen_config, request_id)
            except asyncio.CancelledError:
                SAMPLE.get().stop()
                raise
        arguments = _for_generate(model, inputs, gen_config)
        return await self._together.generate_non_streaming(model, processor, *arguments, request_id)

    def _joins(self, model: Any, inputs: Mapping[str, Any], config: GenerationConfig, request_id: str) -> bool:
        sample = SAMPLE.get()
        asked = sample.asked
        if asked.alternatives is not None or asked.settings.best is not None:
            return False
        shape = model.config.get_text_config()
        window = getattr(shape, "max_position_embeddings", None)
        if not in_batch(config, model.generation_config, len(inputs["input_ids"]), window):
            return False
        sample.cancel = partial(self._cb.cancel_request, request_id)
        self._cb.sampling[request_id] = row_sampling(config, model.generation_config, shape.vocab_size)
        return True

    def stop(self) -> None:
        """End the common batch."""
        super().stop()
        self._together.stop()


def _for_generate(
    model: Any, inputs: Mapping[str, Any], config: GenerationConfig
) -> tuple[dict[str, Any], GenerationConfig]:
    """The arguments of `generate()` for a request that was read for the common batch."""
    ids = torch.tensor([list(inputs["input_ids"])], dtype=torch.long, device=model.device)
    config.use_cache = True
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, config


def _sized(given: ContinuousBatchingConfig | None, model: Any) -> ContinuousBatchingConfig:
    config = ContinuousBatchingConfig() if given is None else given
    config.per_request_processors = True
    if model.device.type == "cpu" and config.num_blocks is None:
        config.num_blocks = _CPU_PAGES
        config.max_batch_tokens = config.max_batch_tokens or _CPU_BATCH
    return config
