"""The promises of the controls on text, tested with random draws, and checked by an independent matcher.

A draw is a family of tokenizers, a control, other controls next to it, a mode, prompts and a length. Draw `i` is always
the same, so a failing one can be repeated by its number. `PROMISE_DRAWS=5000` asks for that many draws.
"""

import os
import random
import warnings

import pytest
import torch
from text_matcher import first_missing, violations
from toy_tokenizers import FAMILIES, toy_model

from fundamentallm_hf import controlled_generate

DRAWS = int(os.environ.get("PROMISE_DRAWS", "240"))
FIRST = int(os.environ.get("PROMISE_FIRST", "0"))
PROMPTS = ["the cat", "once upon a ti", "Paris", "the big do", "é", "42 and 1", "the", "a 日本 😀"]
BANNED = [
    *("the", "a", "Paris", "ran*", "*og", "*a*", "big dog", "é", "日本", "😀", "Dr. Smith", "t", "1*", "café"),
    *(
        "/[^\\x00-\\x7f]/",
        "/[a-m]/",
        "/[0-9]/",
        "/[\\U0001f600-\\U0001f64f]/",
        "/[^a-z ]/",
        "/t.e/",
        "/[A-Z]/",
        "/\\w$/",
    ),
    *("/(?i)p/", "/[\\u4e00-\\u9fff]/", "/\\bc/", "/an\\b/", "/\\ufffd/", "/[é-ü]/", "/.{2}\\./"),
]
REQUIRED = [
    *("cat", "dog|Paris", "very big dog", "ran*", "Dr. Smith", "/[0-9]{2}/", "é", "日本", "😀", "café", "e.g.", "3.14"),
    *("Łódź", "안녕", "/[0-9]\\.[0-9]/", "happy", "猫", "sun"),
]
MODES = [
    {"do_sample": False},
    {"do_sample": True, "temperature": 1.5, "top_k": 0},
    {"do_sample": True, "temperature": 1.5, "top_k": 0, "seed": 3},
    {"do_sample": True, "temperature": 1.0, "top_p": 0.9},
    {"num_beams": 3},
    {"num_beams": 2, "do_sample": True},
    {"do_sample": True, "num_return_sequences": 2, "temperature": 1.5},
    {"do_sample": False, "use_cache": False},
    {"do_sample": False, "prompt_lookup_num_tokens": 3},
]
PARTNERS = [
    {},
    {},
    {"stop": ["."]},
    {"stop": ["e", "\n"]},
    {"stop_strings": ["an"]},
    {"no_repeat_ngram_size": 2, "repetition_unit": "words"},
    {"repetition_penalty": 1.3},
    {"min_new_tokens": 5},
    {"length_penalty": 0.5},
    {"top_h": 0.3, "do_sample": True},
    {"min_p": 0.2, "do_sample": True},
    {"typical_p": 0.4, "do_sample": True},
    {"suppress_tokens": [5, 6, 7, 30]},
]


def draw(number):
    """The case with this number: family, prompts and arguments of `generate()`."""
    dice = random.Random(number)
    family = dice.choice(list(FAMILIES))
    how = dict(dice.choice(MODES)) | dict(dice.choice(PARTNERS)) | {"max_new_tokens": dice.choice([1, 3, 12, 40, 60])}
    what = dice.choice(["bad", "bad", "must", "both"])
    if what != "must":
        how["bad_words"] = dice.sample(BANNED, dice.choice([1, 1, 2, 4]))
    if what != "bad":
        how["must_include"] = dice.sample(REQUIRED, dice.choice([1, 1, 2, 3]))
        how["max_new_tokens"] = dice.choice([40, 60, 90])
    rows = 1 if "prompt_lookup_num_tokens" in how else dice.choice([1, 1, 3])
    return family, dice.sample(PROMPTS, rows), how


def texts_of(model, prompts, how, seed=0):
    """For every row its prompt and the whole as text, and what was added as text of its own."""
    tokenizer = model.tokenizer
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    torch.manual_seed(seed)
    out = model.generate(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, custom_generate=controlled_generate, **how
    )
    decode = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    for index, row in enumerate(out):
        given = batch.input_ids[index * len(prompts) // len(out)]
        yield (
            tokenizer.decode(given, **decode),
            tokenizer.decode(row, **decode),
            tokenizer.decode(row[len(given) :], **decode),
        )


def judge(prompt, whole, added, how):
    """What is wrong with a text, if anything."""
    if banned := how.get("bad_words"):
        if found := violations(whole, len(prompt), banned):
            return f"{found} in {whole!r} behind {prompt!r}"
        if found := violations(added, 0, banned):
            return f"{found} in {added!r} by itself, behind {prompt!r}"
    missing = first_missing(whole, len(prompt), how.get("must_include", ()))
    return f"{missing!r} is not in {whole!r} behind {prompt!r}" if missing else ""


# A text that holds each required entry: the first alternative, or what an expression matches.
WRITTEN = {"dog|Paris": "dog", "ran*": "ran", "/[0-9]{2}/": "42", "/[0-9]\\.[0-9]/": "3.1"}


def could_be_written(model, prompt, how):
    """Whether the entries one after the other, in the tokenizer's own spelling, would keep what a refused call asks."""
    text = "".join(f" {WRITTEN.get(entry, entry)}" for entry in how["must_include"])
    given, tokens = (model.tokenizer(each, add_special_tokens=False).input_ids for each in (prompt, text))
    decode = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    whole, added = (model.tokenizer.decode(each, **decode) for each in (given + tokens, tokens))
    stops = (*how.get("stop", ()), *how.get("stop_strings", ()))
    return (
        len(tokens) < how["max_new_tokens"]
        and not set(tokens) & {*how.get("suppress_tokens", ()), *model.tokenizer.all_special_ids}
        and not any(stop in whole[len(prompt) - len(stop) :] for stop in stops)
        and whole.startswith(prompt)
        and not judge(prompt, whole, added, how)
    )


@pytest.mark.parametrize("number", range(FIRST, FIRST + DRAWS))
def test_what_is_promised_holds(number):
    family, prompts, how = draw(number)
    model = toy_model(family)
    found, refusal = [], ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = list(texts_of(model, prompts, how, seed=number))
    except ValueError as error:
        refusal = str(error)
        if "must_include" not in how or "\n" in refusal:
            raise
    if refusal:
        assert not all(could_be_written(model, prompt, how) for prompt in prompts), (family, prompts, how, refusal)
    for prompt, whole, added in found:
        assert not judge(prompt, whole, added, how), (family, how)
