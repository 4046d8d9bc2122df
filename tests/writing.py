"""Generates completions under controls with any kind of model."""

import torch

from fundamentallm_hf import controlled_generate


def token_ids(model, prompts, **how):
    """(rows, length) the prompts, padded on the left, and what is added to them: 30 tokens unless told otherwise."""
    batch = model.tokenizer(prompts, return_tensors="pt", padding=True)
    if model.config.model_type != "fundamentallm":
        how["custom_generate"] = controlled_generate
    torch.manual_seed(0)
    return model.generate(**batch, **{"max_new_tokens": 30} | how)


def whole_texts(model, prompts, **how):
    """The same as texts."""
    return model.tokenizer.batch_decode(token_ids(model, prompts, **how), skip_special_tokens=True)


def written(model, prompts, **how):
    """What is added to each prompt."""
    batch = model.tokenizer(prompts, return_tensors="pt", padding=True)
    if model.config.model_type != "fundamentallm":
        how["custom_generate"] = controlled_generate
    out = model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **how)
    decode = model.tokenizer.batch_decode
    starts = decode(batch.input_ids, skip_special_tokens=True)
    texts = decode(out, skip_special_tokens=True)
    return [text[len(starts[index * len(starts) // len(texts)]) :] for index, text in enumerate(texts)]
