"""Required words and expressions appear in every beam, drawn or not, in every family of tokenizers."""

import random

import pytest
from test_promises_at_borders import rows_of, texts_of_row
from text_matcher import first_missing
from toy_tokenizers import FAMILIES, toy_model

# Entries of several tokens in most families.
ENTRIES = ["3.14", "big dog", "Paris", "42", "😀", "a 日本", "/[0-9]\\.[0-9]/", "/(?i)rome|paris/", "the cat ran"]
PROMPTS = ["the cat", "once upon a ti", "It ran."]


@pytest.mark.parametrize("number", range(24))
def test_required_entries_appear_in_every_beam(number):
    """With a budget that leaves the beams few ways to write them, in every family of tokenizers."""
    dice = random.Random(f"required {number}")
    family = [*FAMILIES][number % len(FAMILIES)]
    model, entries = toy_model(family), dice.sample(ENTRIES, dice.choice([1, 1, 2]))
    prompts = [model.tokenizer(text, add_special_tokens=False).input_ids for text in dice.sample(PROMPTS, 2)]
    beams = dice.choice([2, 3, 4])
    how = {"num_beams": beams, "num_return_sequences": dice.randint(2, beams), "do_sample": dice.random() < 0.7}
    how |= {"must_include": entries, "max_new_tokens": dice.choice([24, 32]), "early_stopping": dice.random() < 0.3}
    how |= {"stop": ["e"]} if dice.random() < 0.3 and not any("e" in entry for entry in entries) else {}
    try:
        rows = list(rows_of(model, prompts, how, number))
    except ValueError as error:
        pytest.skip(str(error))
    for prompt, added in rows:
        given, whole, _ = texts_of_row(model, prompt, added)
        assert not first_missing(whole, len(given), entries), (family, how, whole)
