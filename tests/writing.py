"""What a model adds to its prompts under controls, whatever kind of model it is."""

from fundamentallm_hf import controlled_generate


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
