"""`generate()` of a FundamentaLLM model: transformers' own, with the controls, going on past the window of positions.

This module is called by transformers while it generates. What a control does is in `logits_processors.py`, what a
model sees of a long text in `context_window.py`, and the network in `modeling_fundamentallm.py`.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.generation import (
    GenerationConfig,
    GenerationMixin,
    GenerationMode,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)

from ..controls.control_fields import carried, fold_into_config
from ..controls.logits_processors import apply_controls
from ..decoding.context_window import WindowFullCriteria, check_overflow, view, window_start
from ..decoding.generate_call import Call


class ControlledGenerationMixin(GenerationMixin):
    """What `generate()` of a model with absolute positions does beside what transformers does."""

    config: Any

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """Write text: transformers' `generate()`, going on past the window of absolute positions.

        Takes all that `GenerationMixin.generate` takes, and as a keyword or as a field of the generation config:

        Args:
            overflow (`str`, *optional*, defaults to `"slide"`): what to do when the text outgrows the model's
                `max_position_embeddings`. `"slide"` goes on from the most recent part, `"stop"` ends there, and
                `"error"` refuses before anything is computed if prompt and new tokens would not fit.
            seed (`int`, *optional*): makes sampling repeatable, row by row: sample i of every prompt has `seed + i`
                and comes out the same alone, among several and in any batch. Without effect where nothing is sampled.
            stop (`list[str]`, *optional*): texts that end what is written, as transformers' `stop_strings` do; in any
                alphabet, and not before `min_new_tokens`.
            bad_words (`list[str]`, *optional*): words, phrases, stems (`curs*`) and regular expressions (`/…/`) that
                never appear in what is written; see `BadWordsLogitsProcessor`.
            must_include (`list[str]`, *optional*): words, phrases, alternatives (`king|queen`) and regular expressions
                that appear in what is written, where they read well; see `Requirements`.
            must_include_ordered (`bool`, *optional*, defaults to `False`): in the order of the list.
            must_include_prompt (`bool`, *optional*, defaults to `False`): what the prompt holds counts.
            case_sensitive (`bool`, *optional*, defaults to `False`): whether lists of words match case.
            repetition_unit (`str`, *optional*): whether `repetition_penalty` and `no_repeat_ngram_size` judge
                `"words"`, the default here, or `"tokens"`, as transformers does.
            guide_attribute (`str` or `list[str]`, *optional*): names of attributes that what is written leans towards,
                each with a strength of its own if need be (`"positive_sentiment:2,formal:-1"`); see
                `find_attribute` for where they are found and `GuidedAttributesLogitsProcessor` for what they do.
            guide_strength (`float`, *optional*, defaults to 1.0): multiplies the strengths, from -10 to 10. Below 0
                steers away, 0 is no guidance at all.
            pattern (`str`, *optional*): a regular expression that what is written matches as a whole. It is complete
                when the tokens are used up, or the call is refused beforehand; see `WholeTextLogitsProcessor`. Needs
                the package llguidance.
            json_schema (`dict` or `str`, *optional*): in the same way, a JSON schema, also as text. The JSON comes
                without white space between its parts.
            grammar (`str`, *optional*): in the same way, a grammar in llguidance's form of Lark.
            tokenizer (`PreTrainedTokenizerBase`, *optional*): reads tokens as text for the controls that work on it; by
                default the model's own, from where the model came from.

        `length_penalty` acts without beams too: above 1 makes an end less likely, below 1 more likely.

        Raises:
            ValueError: a control has a value it cannot have, or the text cannot fit where it has to.
        """
        generation_config, kwargs = fold_into_config(generation_config, kwargs, self)
        return super().generate(inputs, generation_config, **kwargs)

    # transformers calls the next three in this order before the first step, each with the merged generation config.

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict,
        generation_mode: GenerationMode,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        generation_config._mode = generation_mode
        # No step ever looks further back than the window, so a static cache never needs to be longer.
        max_cache_length = min(max_cache_length, self.config.max_position_embeddings)
        super()._prepare_cache_for_generation(
            generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
        )

    def _get_logits_processor(
        self,
        generation_config: GenerationConfig,
        input_ids_seq_length: int,
        *args: Any,
        device: Any = None,
        model_kwargs: dict[str, Any],
        **kwargs: Any,
    ) -> LogitsProcessorList:
        why_not = ""
        if model_kwargs.get("inputs_embeds") is not None:
            why_not = "a prompt given as inputs_embeds cannot be read again"
        elif generation_config._mode == GenerationMode.ASSISTED_GENERATION:
            why_not = "assisted decoding cannot take tokens back across a slide"
        # Positions count the real tokens of every row, so the last position tells how many there are.
        generation_config._prompt_lengths = (model_kwargs["position_ids"][:, -1] + 1).tolist()
        check_overflow(
            getattr(generation_config, "overflow", None) or "slide",
            generation_config._prompt_lengths,
            generation_config.max_length - input_ids_seq_length,
            self.config.max_position_embeddings,
            why_not,
        )
        processors = super()._get_logits_processor(
            generation_config, input_ids_seq_length, *args, device=device, model_kwargs=model_kwargs, **kwargs
        )
        generation_config._criteria = criteria = StoppingCriteriaList()
        window_full = None
        if getattr(generation_config, "overflow", None) == "stop":
            room = [self.config.max_position_embeddings - length for length in generation_config._prompt_lengths]
            window_full = WindowFullCriteria(room, input_ids_seq_length)
            criteria.append(window_full)
        prompts = kwargs["encoder_input_ids"]
        call = Call(
            model=self,
            config=generation_config,
            mode=generation_config._mode,
            prompts=prompts if prompts.dim() == 2 else prompts.new_zeros(len(prompts), 0, dtype=torch.long),
            padding=[input_ids_seq_length - length for length in generation_config._prompt_lengths],
            cache=model_kwargs.get("past_key_values"),
            tokenizer=carried(generation_config, "_text_tokenizer"),
            window=self.config.max_position_embeddings,
            in_sight=self._in_sight,
            window_full=window_full,
        )
        apply_controls(processors, criteria, call)
        return processors

    def _in_sight(self, length: int) -> int:
        return length - window_start(length, self.config.max_position_embeddings)

    def _get_stopping_criteria(
        self, generation_config: GenerationConfig, *args: Any, **kwargs: Any
    ) -> StoppingCriteriaList:
        criteria = super()._get_stopping_criteria(generation_config, *args, **kwargs)
        for criterion in criteria:
            if isinstance(criterion, MaxLengthCriteria):
                criterion.max_position_embeddings = None  # it would warn of a limit that this model goes past
        criteria.extend(generation_config._criteria)
        return criteria

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """One step's inputs: transformers' own while the text fits the window, the part in sight afterwards."""
        window = self.config.max_position_embeddings
        # The count of columns comes first: reading the lengths of the rows would stall an accelerator at every step.
        if position_ids is not None and position_ids.shape[-1] > window:
            lengths = (position_ids[:, -1] + 1).tolist()
            cached = int(past_key_values.get_seq_length()) if past_key_values is not None else 0
            if past_key_values is None:
                new = position_ids.shape[-1]
            else:
                new = next_sequence_length if next_sequence_length is not None else input_ids.shape[1]
            now = view(lengths, cached, new, window, position_ids.device)
            if now.restart and past_key_values is not None:
                past_key_values.reset()
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
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
