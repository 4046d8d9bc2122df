"""Phrases with weights on the bundled model: as often as was asked, wherever their words are nearly certain."""

import functools
import math

import pytest
import torch

from fundamentallm_hf import load_model

# Contexts that nearly settle the next word, where the probability of the phrase cannot be that of its words.
CONTEXTS = [
    ("One day, Tim went", "to"),
    ("Once upon a time, there was a girl who wanted", "to"),
    ("Once upon a time, there lived a boy. He had", "a"),
]


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


def share(model, prompt, word, rows=200, **control):
    """The share of sampled texts that continue a prompt with a word."""
    ids = model.tokenizer([prompt] * rows, return_tensors="pt")
    torch.manual_seed(1)
    output = model.generate(**ids, do_sample=True, temperature=0.8, max_new_tokens=len(word) + 2, **control)
    added = [text[len(prompt) :] for text in model.tokenizer.batch_decode(output)]
    return sum(text[:-1] == f" {word}" and not text[-1].isalpha() for text in added) / rows


@functools.cache
def free_share(model, prompt, word):
    """The same without weights, measured once."""
    return share(model, prompt, word)


@pytest.mark.parametrize(("prompt", "word"), CONTEXTS)
@pytest.mark.parametrize("weight", [-3.0, 1.0])
def test_a_phrase_comes_as_often_as_was_asked_though_its_words_have_no_weight(model, prompt, word, weight):
    free = free_share(model, prompt, word)
    asked = free * math.exp(weight) / (1 + free * math.expm1(weight))
    found = share(model, prompt, word, word_weights={f"{prompt.split()[-1]} {word}": weight})
    # Three standard deviations of a sample are 0.11 at most; the rest is what the prediction of words may be off.
    assert found == pytest.approx(asked, abs=0.14)
