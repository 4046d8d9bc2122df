"""The controls for every causal language model: a callable for the `custom_generate` argument of `generate()`.

FundamentaLLM models read the control fields themselves. For any other model transformers prepares a call of
`generate()` as usual and hands it to `controlled_generate`, which adds the controls and goes on with the decoding loop
that transformers would have used. This file knows nothing of how a control works.
"""

from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase, StoppingCriteriaList
from transformers.generation import StopStringCriteria

from .cache_names import CACHE
from .call import Call
from .companions import own_tokenizer
from .context_window import WindowFullCriteria
from .controls import apply_controls
from .decoding_loop import WITHHELD, decode
from .tested_versions import check_version


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
    seed: int | None = None,
    stop: Any = None,
    stop_strings: Any = None,
    bad_words: Any = None,
    must_include: Any = None,
    must_include_ordered: bool | None = None,
    must_include_prompt: bool | None = None,
    case_sensitive: bool | None = None,
    repetition_unit: str | None = None,
    guide_attribute: Any = None,
    guide_strength: float | None = None,
    length_penalty: float | None = None,
    pattern: str | None = None,
    json_schema: dict[str, Any] | str | None = None,
    grammar: str | None = None,
    **model_kwargs: Any,
) -> Any:
    """Decode with controls. Called by `generate()`; users pass it along:

    ```python
    model.generate(**inputs, custom_generate=controlled_generate, bad_words=["ran", "curs*"])
    ```

    transformers takes `tokenizer` and `streamer` away from a callable, so where the model's own tokenizer cannot be
    found, or where text is streamed, they are bound to it: `functools.partial(controlled_generate, tokenizer=tokenizer,
    streamer=streamer)`.

    Args:
        tokenizer: reads tokens as text; by default the model's own, from where the model came from.
        streamer: gets the prompt and every token.
        stop_strings: what they are in transformers, which would ask for the tokenizer that it has taken away.
        seed, stop, bad_words, must_include, must_include_ordered, must_include_prompt, case_sensitive, repetition_unit,
            guide_attribute, guide_strength, length_penalty, pattern, json_schema, grammar: what they are for
            `FundamentaLLMForCausalLM.generate`; the generation config may have them as fields instead.

    Returns:
        What transformers' decoding loop returns: token ids `(rows, length)`, or an output object.

    Raises:
        ValueError: a control has a value it cannot have, no tokenizer is found for it, or the model has an encoder.

    Example:

    ```python
    >>> import torch
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> from fundamentallm_hf import controlled_generate, load_model
    >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=78, n_embd=8, n_layer=1, n_head=1, eos_token_id=3))
    >>> model.tokenizer = load_model(device="cpu").tokenizer
    >>> ids = model.tokenizer("He ran", return_tensors="pt").input_ids
    >>> tokens = model.generate(ids, custom_generate=controlled_generate, bad_words=["/[a-z]/"], max_new_tokens=5)
    >>> any(char.islower() for char in model.tokenizer.decode(tokens[0, 6:], skip_special_tokens=True))
    False

    ```
    """
    if model.config.is_encoder_decoder:
        raise ValueError(f"the controls are for causal language models, but {type(model).__name__} has an encoder")
    given = {
        "seed": seed,
        "stop": stop,
        "stop_strings": stop_strings,
        "bad_words": bad_words,
        "must_include": must_include,
        "must_include_ordered": must_include_ordered,
        "must_include_prompt": must_include_prompt,
        "case_sensitive": case_sensitive,
        "repetition_unit": repetition_unit,
        "guide_attribute": guide_attribute,
        "guide_strength": guide_strength,
        "length_penalty": length_penalty,
        "pattern": pattern,
        "json_schema": json_schema,
        "grammar": grammar,
    }
    for name, value in given.items():
        if value is not None:
            setattr(generation_config, name, value)
    withheld = {name: model_kwargs.pop(name, None) for name in WITHHELD} | {
        "streamer": streamer,
        "synced_gpus": synced_gpus,
    }
    mode = generation_config.get_generation_mode(withheld["assistant_model"])
    mask = model_kwargs.get("attention_mask")
    call = Call(
        model=model,
        config=generation_config,
        mode=mode,
        prompts=input_ids,
        padding=[0] if mask is None else (mask.cumsum(dim=-1) == 0).sum(dim=-1).tolist(),
        cache=model_kwargs.get(CACHE),
        tokenizer=tokenizer if tokenizer is not None else own_tokenizer(model),
        window=getattr(model.config.get_text_config(), "max_position_embeddings", None),
        window_full=next((found for found in stopping_criteria if isinstance(found, WindowFullCriteria)), None),
    )
    if stop_strings is not None:
        stopping_criteria.append(StopStringCriteria(call.reader, stop_strings))
    apply_controls(logits_processor, stopping_criteria, call)
    if streamer is not None:
        streamer.put(input_ids.cpu())
    check_version(model, input_ids)
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
