"""The promises of the controls where a call is unusual: its prompt, its ends, its scores, its partners.

Like `test_promises.py`, with other draws. `PROMISE_DRAWS=5000` asks for that many.
"""

import os
import random
import warnings
from functools import cache, partial

import pytest
import torch
from test_promises import BANNED, REQUIRED, judge
from toy_tokenizers import FAMILIES, toy_model, toy_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from fundamentallm_hf import controlled_generate
from fundamentallm_hf.generation.streaming import TokenTextStreamer

DRAWS = int(os.environ.get("PROMISE_DRAWS", "120"))
FIRST = int(os.environ.get("PROMISE_FIRST", "0"))
PROMPTS = ["the cat", "once upon a ti", "the big do", "a 日本 😀", "the é", ""]
MODES = [
    {"do_sample": False},
    {"do_sample": True, "temperature": 1.5, "top_k": 0},
    {"do_sample": True, "temperature": 1.5, "top_k": 0, "stream": True},
    {"do_sample": True, "temperature": 1.5, "top_k": 0, "seed": 3},
    {"num_beams": 3, "num_return_sequences": 2},
    {"num_beams": 2, "do_sample": True, "num_return_sequences": 2},
    {"do_sample": True, "assisted": True},
    {"do_sample": False, "assisted": True},
]
PARTNERS = [
    {"min_new_tokens": 5},
    {"forced_eos_token_id": "eos"},
    {"suppress_tokens": [5, 6, 7, 30, 41]},
    {"begin_suppress_tokens": [5, 6, 7, 30, 41]},
    {"sequence_bias": [[[20], 4.0], [[31], -8.0], [[30, 41], float("-inf")]]},
    {"sequence_bias": [[[token], float("-inf")] for token in range(20, 60)]},
    {"bad_words_ids": [[5], [6], [30, 41]]},
    {"renormalize_logits": True, "top_p": 0.8, "do_sample": True},
    {"stop": ["."]},
    {"stop_strings": ["an"]},
    {"repetition_penalty": 1.4, "stop": ["e", "\n"]},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 5},
    {"top_h": 0.3, "do_sample": True},
    {"eta_cutoff": 0.002, "do_sample": True},
    {"exponential_decay_length_penalty": (5, 1.2)},
    {"pad_token_id": "letter"},
    {"eos_token_id": "letter"},
]
SIZES = [0, 0, 0, 7, -3]
DECODE = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}


@cache
def model_of_size(family, more):
    """A random model with that many scores more than its tokenizer has tokens."""
    if not more or family == "byt5":
        return toy_model(family)
    tokenizer = toy_tokenizer(family)
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=len(tokenizer) + more, n_embd=16, n_layer=1, n_head=2, n_positions=256)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model = GPT2LMHeadModel(config).eval()
    model.tokenizer = tokenizer
    return model


def draw(number):
    """The case with this number: family, scores beyond the tokens, prompts as tokens, and arguments of `generate()`."""
    dice = random.Random(f"borders {number}")
    family = dice.choice(list(FAMILIES))
    tokenizer, more = toy_tokenizer(family), dice.choice(SIZES)
    how = dict(dice.choice(MODES))
    for partner in dice.sample(PARTNERS, dice.choice([1, 1, 2])):
        how |= partner
    how["max_new_tokens"] = dice.choice([1, 3, 12, 40])
    what = dice.choice(["bad", "bad", "must", "both"])
    if what != "must":
        how["bad_words"] = dice.sample(BANNED, dice.choice([1, 2, 4]))
    if what != "bad":
        how["must_include"] = dice.sample(REQUIRED, dice.choice([1, 1, 2]))
        how["max_new_tokens"] = dice.choice([40, 60])
    letter = tokenizer("t", add_special_tokens=False).input_ids[-1]
    for name, value in how.items():
        if value in ("eos", "letter"):
            how[name] = {"eos": tokenizer.eos_token_id, "letter": letter}[value]
    prompts = []
    for text in dice.sample(PROMPTS, 1 if {"assisted", "stream"} & how.keys() else dice.choice([1, 1, 3])):
        tokens = tokenizer(text, add_special_tokens=False).input_ids
        ending = dice.choice(["", "", "special", "cut"])
        tokens = (
            tokens[:-1] if ending == "cut" else [*tokens, tokenizer.eos_token_id] if ending == "special" else tokens
        )
        prompts.append(tokens or [tokenizer.eos_token_id])
    return family, more, prompts, how


def rows_of(model, prompts, how, seed):
    """For every row its prompt, and the tokens that were added, up to the end."""
    how, tokenizer = dict(how), model.tokenizer
    batch = tokenizer.pad({"input_ids": prompts}, return_tensors="pt", padding_side="left")
    ends = how.get("eos_token_id", tokenizer.eos_token_id)
    run, streamed = controlled_generate, []
    if how.pop("stream", False):
        stops = (*how.get("stop", ()), *how.get("stop_strings", ()))
        run = partial(run, streamer=TokenTextStreamer(tokenizer, streamed.append)) if not stops else run
    if how.pop("assisted", False):
        how["assistant_model"] = model
    torch.manual_seed(seed)
    out = model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, custom_generate=run, **how)
    width = batch.input_ids.shape[1]
    for index, row in enumerate(out.tolist()):
        prompt, added = prompts[index * len(prompts) // len(out)], row[width:]
        added = added[: added.index(ends) + 1] if ends in added else added
        if streamed:
            read = tokenizer.decode(prompt, **DECODE), tokenizer.decode(prompt + added, **DECODE)
            assert "".join(streamed) == read[1][len(read[0]) :] or not read[1].startswith(read[0]), (streamed, read)
        yield prompt, added[:-1] if added[-1:] == [ends] and "must_include" not in how else added


def texts_of_row(model, prompt, added):
    """The prompt's text after its last special token, the same with what was added, and that by itself."""
    tokenizer, special = model.tokenizer, set(model.tokenizer.all_special_ids)
    border = max((place + 1 for place, token in enumerate(prompt) if token in special), default=0)
    given = prompt[border:]
    texts = [tokenizer.decode(tokens, **DECODE) for tokens in (given, given + added, added)]
    last = tokenizer.decode([*given, *tokenizer("a", add_special_tokens=False).input_ids], **DECODE)
    # A space that a decoder takes from the end of the prompt is seen when more follows, and is the prompt's own.
    texts[0] += " " * last.startswith(texts[0] + " ") * (model.tokenizer is toy_tokenizer("word_ends"))
    return texts


@pytest.mark.parametrize("number", range(FIRST, FIRST + DRAWS))
def test_what_is_promised_holds_at_borders(number):
    family, more, prompts, how = draw(number)
    model = model_of_size(family, more)
    if max(map(max, prompts)) >= model.config.vocab_size:
        pytest.skip("the model has no such token")
    found, refusal = [], ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = list(rows_of(model, prompts, how, number))
    except ValueError as error:
        refusal = str(error)
        if "must_include" not in how or "\n" in refusal:
            raise
    if refusal:
        assert "must_include" in refusal or "controls leave no" in refusal, (family, more, how, refusal)
    for prompt, added in found:
        # An end token that is a letter is no part of the text.
        assert not judge(*texts_of_row(model, prompt, added), how), (family, more, prompt, how)
