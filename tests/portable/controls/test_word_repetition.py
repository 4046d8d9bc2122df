"""Repetition over words: repeats equal those found by hand, and loops end without cut words."""

import math
import re

import pytest
import torch

from fundamentallm_hf import WordRepetitionLogitsProcessor, load_model
from fundamentallm_hf.portable.controls.word_repetition import WordUnits, repeats
from fundamentallm_hf.portable.text.word_counts import WordCounts

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


def shifts(tokenizer, text, penalty=1.2, **options):
    """The shift of every character behind `text`."""
    processor = WordRepetitionLogitsProcessor(penalty, tokenizer, **options)
    ids = tokenizer(text, return_tensors="pt").input_ids
    scores = processor(ids, torch.zeros(1, len(tokenizer)))[0]
    return {tokenizer.decode([i]): float(scores[i]) for i in range(len(tokenizer))}


def test_a_text_is_read_as_words_and_marks():
    units = WordUnits().read("The cat, the Ca")
    assert (units.done, units.word, units.shown) == (("the", "cat", ",", "the"), "ca", "Ca")
    assert units.read("t!").done == ("the", "cat", ",", "the", "cat", "!")
    assert WordUnits().read("a\nb c").done == ("a", "\n", "b")


@pytest.mark.parametrize(
    ("text", "unit", "length"),
    [
        ("a b c a b ", "c", 2),
        ("a b c a b ", "a", 0),
        ("x b c a b ", "c", 1),
        ("the the ", "the", 1),
        ("the the the ", "the", 2),
        ("a b ", "z", None),
    ],
)
def test_the_length_of_the_sequence_that_a_word_would_repeat(text, unit, length):
    assert repeats(WordUnits().read(text).done).get(unit) == length


def test_a_word_seen_before_loses_the_penalty_and_a_sequence_its_power(demo):
    counts = WordCounts({"cat": 50, "cow": 50, "dog": 100})
    seen = shifts(demo.tokenizer, "The cat and ", counts=counts)
    # "c" becomes "cat" with chance 50.5/100.5, and "cat" is left 1/1.2 of its chance.
    assert seen["c"] == pytest.approx(math.log(1 - 50.5 / 100.5 * (1 - 1 / 1.2)))
    assert seen["d"] == 0
    following = shifts(demo.tokenizer, "big red cat. big red ", counts=counts)
    assert following["c"] == pytest.approx(math.log(1 - 0.75 * (1 - 1.2**-4)))


def test_no_word_is_broken_off_by_the_penalty(demo):
    assert shifts(demo.tokenizer, "the cat and the cat")[" "] == 0


def test_a_sequence_of_words_is_forbidden_for_good(demo):
    scores = shifts(demo.tokenizer, "the big cat. the big cat", penalty=1.0, ngram_size=3, end_tokens=[3])
    assert all(scores[char] == -torch.inf for char in " .\n!")
    assert scores[demo.tokenizer.eos_token] == -torch.inf
    assert scores["s"] == 0
    assert shifts(demo.tokenizer, "the big cat. the big cow", penalty=1.0, ngram_size=3)[" "] == 0


@pytest.mark.parametrize("penalty", [0, -1.0, math.nan])
def test_a_penalty_has_to_be_above_0(demo, penalty):
    with pytest.raises(ValueError, match="has to be a number above 0"):
        WordRepetitionLogitsProcessor(penalty, demo.tokenizer)


def four_grams(text):
    words = re.findall(r"\w+", text.lower())
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(set(grams)) / len(grams)


def test_a_loop_that_the_stock_penalty_cannot_break_is_broken(shakespeare):
    ids = shakespeare.tokenizer("To be", return_tensors="pt").input_ids
    text = {}
    for unit in ("tokens", "words"):
        out = shakespeare.generate(
            ids, max_new_tokens=200, do_sample=False, repetition_penalty=1.2, repetition_unit=unit
        )
        text[unit] = shakespeare.tokenizer.decode(out[0])
    assert four_grams(text["tokens"]) < 0.3
    assert four_grams(text["words"]) > 0.8


def test_words_are_the_unit_of_a_character_model_unless_asked(shakespeare):
    ids = shakespeare.tokenizer("To be", return_tensors="pt").input_ids
    how = {"max_new_tokens": 60, "do_sample": False, "repetition_penalty": 1.2}
    assert torch.equal(shakespeare.generate(ids, **how), shakespeare.generate(ids, repetition_unit="words", **how))
    assert not torch.equal(shakespeare.generate(ids, **how), shakespeare.generate(ids, repetition_unit="tokens", **how))


def test_no_sequence_of_three_words_occurs_twice(demo):
    batch = demo.tokenizer(["Once upon a time", "Tom"], return_tensors="pt", padding=True)
    out = demo.generate(**batch, max_new_tokens=300, do_sample=False, no_repeat_ngram_size=3, eos_token_id=None)
    for text in demo.tokenizer.batch_decode(out, skip_special_tokens=True):
        words = re.findall(r"\w+", text.lower())[:-1]
        grams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
        assert len(grams) > 30
        assert len(set(grams)) == len(grams)
