"""Drawn calls: our loop, with drafts and without, writes what transformers' loop writes, in a batch and alone.

A draw is a model, a way to choose tokens, controls, prompts and a length. Draw `i` is always the same, so that one that
fails can be tried again by its number. `FAST_DRAWS=2000` asks for that many, `FAST_FIRST` for those from a number on.
"""

import os
import random

import pytest
import torch
from transformers import StoppingCriteriaList

from fundamentallm_hf import load_model
from fundamentallm_hf.portable.decoding.lean_loop import PassCounter
from fundamentallm_hf.portable.decoding.sidecar_files import own_draft_table
from fundamentallm_hf.portable.model.generation_fundamentallm import Decoding
from fundamentallm_hf.training.draft_training import count_ngrams

DRAWS = int(os.environ.get("FAST_DRAWS", "200"))
FIRST = int(os.environ.get("FAST_FIRST", "0"))
PROMPTS = {
    "stories": [
        "Once upon a time",
        "a",
        "The dragon",
        "Tom had a red ball. He",
        "One day, a little girl named Lily went ",
    ],
    "plays": ["ROMEO:\nWhat", "The king", "O", "My lord, I", "To be, or not to be: " * 6],
}
WAYS = [
    {"do_sample": False},
    {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": 4},
    {"do_sample": True, "temperature": 0.5, "top_k": 0, "seed": 3},
    {"do_sample": True, "temperature": 1.3, "top_k": 20, "seed": 9},
    {"do_sample": True, "min_p": 0.1, "top_k": 0, "seed": 6},
    {"do_sample": True, "temperature": 0.6, "top_k": 5},
]
CONTROLS = [
    {"bad_words": ["the", "lord*", "was", "/[A-Z]{3}/"]},
    {"bad_words": ["a", "*e*"], "case_sensitive": True},
    {"must_include": ["king"]},
    {"must_include": ["cat", "tree|sun"], "must_include_ordered": True},
    {"stop": ["\n", ". "]},
    {"stop_strings": ["e "], "min_new_tokens": 5},
    {"pattern": "[a-z ,]{3,16}[.!]"},
    {"json_schema": {"type": "object", "properties": {"a": {"enum": ["Tom", "Sue"]}}, "required": ["a"]}},
    {"grammar": 'start: "I " ("saw" | "had") " a " /[a-z]{2,8}/ "."'},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.2, "repetition_unit": "tokens"},
    {"length_penalty": 2.0, "min_new_tokens": 4},
    {"guide_attribute": "positive_sentiment", "guide_strength": 2.0},
    {"guide_attribute": "suspense"},
    {"guide_attribute": "animals:-1"},
]
TAKES_ROOM = {"must_include", "pattern", "json_schema", "grammar"}


@pytest.fixture(scope="module")
def models(shakespeare):
    """Models that draft; the second by what it has written itself, and with a window that texts outgrow."""
    stories = load_model(device="cpu")
    own_draft_table(stories)
    ids = shakespeare.tokenizer("ROMEO:\n", return_tensors="pt").input_ids
    own = shakespeare.generate(ids, max_new_tokens=300, do_sample=True, temperature=0.5, seed=1, top_k=0)[0].tolist()
    shakespeare.draft_table = count_ngrams(own, order=6)
    yield {"stories": stories, "plays": shakespeare}
    shakespeare.draft_table = None


def drawn(number):
    """The name of a model, prompts and arguments."""
    draw = random.Random(f"call {number}")
    name = draw.choice(list(PROMPTS))
    controls = {}
    for control in draw.sample(CONTROLS, draw.choice([0, 1, 1, 2])):
        if not (controls.keys() & control.keys() or len(TAKES_ROOM & {*controls, *control}) > 1):
            controls |= control
    if name == "plays":  # it has no attributes
        controls = {field: value for field, value in controls.items() if not field.startswith("guide")}
    how = {**draw.choice(WAYS), **controls}
    how["max_new_tokens"] = (24 if TAKES_ROOM & controls.keys() else 0) + draw.randint(1, 24)
    prompts = draw.sample(PROMPTS[name], draw.choice([1, 1, 1, 2, 3]))
    if how["do_sample"] and draw.random() < 0.3:
        how["num_return_sequences"] = draw.choice([2, 3])
    return name, prompts, how


def written(model, prompts, how):
    """The tokens of every row, and the passes that they took."""
    counter = PassCounter()
    batch = model.tokenizer(prompts, return_tensors="pt", padding=True)
    torch.manual_seed(5)
    try:
        tokens = model.generate(**batch, **how, stopping_criteria=StoppingCriteriaList([counter]))
    except ValueError as error:  # controls that stand against each other are refused alike
        return str(error), 0
    return tokens[:, batch.input_ids.shape[1] :].tolist(), counter.passes


def text(model, tokens):
    return tokens if isinstance(tokens, str) else model.tokenizer.decode(tokens, skip_special_tokens=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(FIRST, FIRST + DRAWS))
def test_the_text_is_the_same_in_every_way(number, models, monkeypatch):
    name, prompts, how = drawn(number)
    model = models[name]
    drafted, passes = written(model, prompts, how)
    plain, most = written(model, prompts, how | {"speculate": False})
    assert passes <= most
    assert drafted == plain
    with monkeypatch.context() as patch:
        patch.setattr(Decoding, "_is_plain", lambda *given: False)
        assert drafted == written(model, prompts, how)[0]
    if isinstance(drafted, str) or len(drafted) == 1 or (how["do_sample"] and "seed" not in how):
        return
    samples = how.pop("num_return_sequences", 1)
    for row, tokens in enumerate(drafted):
        seed = {"seed": how["seed"] + row % samples} if "seed" in how else {}
        (alone,), _ = written(model, [prompts[row // samples]], how | seed)
        assert text(model, alone) == text(model, tokens)
