"""`generate()` of a FundamentaLLM model: that of transformers, with controls and a sliding context window.

transformers prepares a call, `Decoding` adds the controls to it, and `decoding_loop.py` runs the loop that transformers
would have run. The controls are in `logits_processors.py`, the context of long texts in `context_window.py`, and the
network in `modeling_fundamentallm.py`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

import torch
from transformers import StaticCache
from transformers.cache_utils import DynamicCache
from transformers.generation import (
    GenerationConfig,
    GenerationMixin,
    GenerationMode,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

from ..controls.control_fields import CONTROL_FIELDS, fold_into_config
from ..controls.control_table import describe_controls
from ..controls.logits_processors import apply_controls
from ..decoding.cache_names import CACHE, NAMES, under_one_name
from ..decoding.context_window import WindowFullCriteria, check_overflow, view, window_start
from ..decoding.decoding_loop import WITHHELD, WithoutStopStrings, decode, synced_gpus
from ..decoding.deferred import CannotDefer, Deferred
from ..decoding.generate_call import Call
from ..decoding.lean_loop import LeanLoop
from ..decoding.sidecar_files import own_draft_table
from ..decoding.tested_versions import check_version
from .lean_step import LeanStep, plain_network

# What `prepared` may hold where the loop over `LeanStep` decodes; anything else is for `forward()`.
_KNOWN = {
    CACHE,
    "attention_mask",
    "position_ids",
    "use_cache",
    "logits_to_keep",
    "logits_processor",
    "stopping_criteria",
    "generation_config",
}


class ControlledGenerationMixin(GenerationMixin):
    """Extends `generate()` of a model with absolute positions."""

    config: Any

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        custom_generate: str | Callable | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate text: transformers' `generate()`, continuing past the window of absolute positions.

        Takes all arguments of `GenerationMixin.generate`, and as a keyword or as a field of the generation config:

        Args:
            {controls}
            tokenizer (`PreTrainedTokenizerBase`, *optional*): reads tokens as text for the controls that work on it; by
            default loaded from where the model was loaded from.

        Raises:
            ValueError: a control has an invalid value, or the text does not fit into the window.
        """
        if isinstance(custom_generate, str):  # a recipe that calls this method itself
            return super().generate(inputs, generation_config, custom_generate=custom_generate, **kwargs)
        if getattr(getattr(custom_generate, "func", custom_generate), "__name__", "") == "controlled_generate":
            # This method already does what the recipe does for other models.
            kwargs = getattr(custom_generate, "keywords", {}) | kwargs
            custom_generate = None
        generation_config, kwargs = fold_into_config(generation_config, under_one_name(kwargs), self)
        stop_strings = getattr(generation_config, "stop_strings", None) or self.generation_config.stop_strings
        if stop_strings:
            generation_config = WithoutStopStrings.of(generation_config)
        withheld = {name: kwargs.get(name) for name in WITHHELD}
        decoding = Decoding(self, custom_generate, withheld, stop_strings, own_cache=kwargs.get(CACHE) is None)
        return super().generate(inputs, generation_config, custom_generate=decoding, **kwargs)

    def init_continuous_batching(
        self, generation_config: GenerationConfig | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """transformers' method, without controls: there they would see only the last token of each row.

        Raises:
            ValueError: the config asks for a control.
        """
        config = self.generation_config if generation_config is None else generation_config
        asked = [name for name in CONTROL_FIELDS if getattr(config, name, None) not in (None, [], "", False)]
        if asked:
            raise ValueError(
                f"{', '.join(asked)} cannot act in continuous batching, which shows a control no text: use generate()"
            )
        return super().init_continuous_batching(generation_config, *args, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """One step's inputs: transformers' while the text fits the window, the visible part afterwards."""
        window = self.config.max_position_embeddings
        # The count of columns is checked first: reading the lengths of the rows would stall an accelerator at every
        # step.
        if position_ids is not None and position_ids.shape[-1] > window:
            cache = next((kwargs[name] for name in NAMES if kwargs.get(name) is not None), None)
            lengths = (position_ids[:, -1] + 1).tolist()
            cached = int(cache.get_seq_length()) if cache is not None else 0
            if cache is None:
                new = position_ids.shape[-1]
            else:
                new = next_sequence_length if next_sequence_length is not None else input_ids.shape[1]
            now = view(lengths, cached, new, window, position_ids.device)
            if now.restart and cache is not None:
                cache.reset()
            if now.columns > input_ids.shape[1]:
                raise ValueError(
                    f"the text outgrows the model's window of {window} tokens, and sliding needs the whole text as "
                    f"input_ids but got its last {input_ids.shape[1]} tokens: pass the whole text, and leave "
                    f"prefill_chunk_size unset"
                )
            next_sequence_length = now.columns
            attention_mask, position_ids = now.attention_mask, now.position_ids
        return super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )


ControlledGenerationMixin.generate.__doc__ = describe_controls(ControlledGenerationMixin.generate.__doc__)


class Decoding:
    """Decodes a call that transformers has prepared: adds the controls, and runs the loop.

    Args:
        model: the model that generates.
        loop: the caller's loop, None for transformers'.
        withheld: the arguments in `WITHHELD` that the call has.
        stop_strings: texts that end the text, if any; kept back from transformers.
        own_cache: the cache was made by transformers, not by the caller.
    """

    def __init__(
        self, model: Any, loop: Callable | None, withheld: Mapping[str, Any], stop_strings: Any, own_cache: bool
    ) -> None:
        self.model = model
        self.loop = loop
        self.withheld = withheld
        self.stop_strings = stop_strings
        self.own_cache = own_cache
        self.window = model.config.max_position_embeddings
        if loop is not None and not isinstance(loop, Deferred):  # transformers passes the arguments that it names
            self.__signature__ = signature(loop)

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        inputs_tensor: torch.Tensor | None = None,
        **prepared: Any,
    ) -> Any:
        """Decode; called by `generate()`.

        Args:
            model: the model that generates.
            input_ids: (rows, length) the prompts, one row for each text.
            logits_processor: those that transformers has prepared.
            stopping_criteria: those that transformers has prepared.
            generation_config: the merged config; it belongs to this call.
            inputs_tensor: the prompts as they were given: token ids or embeddings.
            prepared: arguments passed to the model at every step.

        Returns:
            The return value of the loop: token ids `(rows, length)`, or an output object.
        """
        check_version(model, input_ids)
        mode = generation_config.get_generation_mode(self.withheld["assistant_model"])
        generation_config.stop_strings = self.stop_strings
        if self.own_cache:
            self._fit_static_cache(prepared)
        call = self._call(input_ids, generation_config, mode, prepared)
        for criterion in stopping_criteria:
            if isinstance(criterion, MaxLengthCriteria):
                criterion.max_position_embeddings = None  # it would warn of a limit that this model exceeds
        if call.window_full is not None:
            stopping_criteria.append(call.window_full)
        if self.stop_strings:
            stopping_criteria.append(StopStringCriteria(call.reader, self.stop_strings))
        apply_controls(logits_processor, stopping_criteria, call)
        prepared |= {
            "logits_processor": logits_processor,
            "stopping_criteria": stopping_criteria,
            "generation_config": generation_config,
        }
        if isinstance(self.loop, Deferred) and call.steering:
            raise CannotDefer  # its passes are not those of other calls
        if self.loop is None or isinstance(self.loop, Deferred):
            if self._is_plain(call, prepared, inputs_tensor):
                loop = self._lean_loop(call, logits_processor, stopping_criteria, prepared.get("attention_mask"))
                with call.steering.acting(model, has_hooks=False):  # processors may call the model themselves
                    return loop.run() if self.loop is None else self.loop.take(loop)
            if self.loop is not None:
                raise CannotDefer
            with call.steering.acting(model):
                return decode(model, mode, input_ids, self.withheld, inputs_tensor=inputs_tensor, **prepared)
        if inputs_tensor is not None:
            prepared["inputs_tensor"] = inputs_tensor
        with call.steering.acting(model):
            return self.loop(model, input_ids, **prepared)

    def _call(
        self, input_ids: torch.Tensor, config: GenerationConfig, mode: GenerationMode, prepared: dict[str, Any]
    ) -> Call:
        """The call as controls see it, after checking that its text may become as long as allowed."""
        columns, why_not = input_ids.shape[1], ""
        if prepared.get("inputs_embeds") is not None:
            why_not = "a prompt given as inputs_embeds cannot be read again"
        elif mode == GenerationMode.ASSISTED_GENERATION:
            why_not = "assisted decoding cannot take tokens back across a slide"
        # Positions count the real tokens of every row, so the last position gives their number.
        lengths = (prepared["position_ids"][:, -1] + 1).tolist()
        overflow = getattr(config, "overflow", None) or "slide"
        check_overflow(overflow, lengths, config.max_length - columns, self.window, why_not)
        room = [self.window - length for length in lengths]
        return Call(
            model=self.model,
            config=config,
            mode=mode,
            prompts=input_ids,
            padding=[columns - length for length in lengths],
            cache=prepared.get(CACHE),
            tokenizer=self.withheld["tokenizer"],
            window=self.window,
            in_sight=lambda length: length - window_start(length, self.window),
            window_full=WindowFullCriteria(room, columns) if overflow == "stop" else None,
        )

    def _is_plain(self, call: Call, prepared: Mapping[str, Any], inputs_tensor: torch.Tensor | None) -> bool:
        """Whether nothing is asked for that only transformers' loop over `forward()` gives."""
        config, cache = call.config, prepared.get(CACHE)
        if call.mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE) or config.return_dict_in_generate:
            return False
        if not self.own_cache or not isinstance(cache, DynamicCache) or type(cache) is not DynamicCache:
            return False
        if cache.offloading or cache.get_seq_length():
            return False
        if not prepared.get("use_cache") or config.prefill_chunk_size is not None or not call.prompts.numel():
            return False
        if self.withheld["synced_gpus"] or synced_gpus(self.model) or not _KNOWN.issuperset(prepared):
            return False
        if inputs_tensor is not None and inputs_tensor.is_floating_point():
            return False
        rows, columns = call.prompts.shape
        mask, positions = prepared.get("attention_mask"), prepared["position_ids"]
        if mask is not None and mask.shape != call.prompts.shape:
            return False
        counted = torch.ones_like(call.prompts) if mask is None else mask.long()
        if not bool(counted.any(dim=-1).all()) or call.prompts.device.type != "cpu":
            return False
        if not torch.equal(positions.expand(rows, columns), (counted.cumsum(dim=-1) - 1).clamp(min=0)):
            return False
        if rows > 1 and call.closing_token is None and config.pad_token_id is None:
            return False
        return (isinstance(self.loop, Deferred) and self.loop.plain) or plain_network(self.model)

    def _lean_loop(
        self,
        call: Call,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        mask: torch.Tensor | None,
    ) -> LeanLoop:
        drafted = call.field("speculate") is not False
        table = own_draft_table(self.model) if drafted else None
        make_step = self.loop.make_step if isinstance(self.loop, Deferred) else None
        make_step = make_step or partial(LeanStep, self.model, vectors=call.steering.vectors)
        return LeanLoop(make_step, call, processors, criteria, mask, self.withheld["streamer"], drafted, table)

    def _fit_static_cache(self, prepared: dict[str, Any]) -> None:
        """Make a static cache no longer than the window: no step ever looks back further."""
        cache = prepared.get(CACHE)
        if isinstance(cache, StaticCache) and max(layer.max_cache_len for layer in cache.layers) > self.window:
            prepared[CACHE] = StaticCache(
                config=self.model.config, max_cache_len=self.window, offloading=cache.offloading
            )
