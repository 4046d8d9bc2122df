"""Required words and expressions appear in every beam, drawn or not, in every family of tokenizers."""

import random

import pytest
import torch
from test_promises_at_borders import rows_of, texts_of_row
from text_matcher import first_missing
from toy_tokenizers import FAMILIES, toy_model

from fundamentallm_hf.portable.controls.must_include import MustIncludeLogitsProcessor

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


@pytest.mark.parametrize("number", range(8))
def test_no_beam_wins_only_because_it_has_the_entry_first(number, monkeypatch):
    """Near the deadline as well, a beam that has not got its word yet may still be better than one that has."""
    dice = random.Random(f"weights {number}")
    model, raised = toy_model([*FAMILIES][number % len(FAMILIES)]), []
    weigh = MustIncludeLogitsProcessor.judge_texts

    def watched(self, texts, scores):
        weighed = weigh(self, texts, scores)
        raised.append(float((weighed - scores)[weighed > -torch.inf].max()))
        return weighed

    monkeypatch.setattr(MustIncludeLogitsProcessor, "judge_texts", watched)
    prompt = model.tokenizer(dice.choice(PROMPTS), add_special_tokens=False).input_ids
    how = {"num_beams": 3, "num_return_sequences": 3, "must_include": ["dog"], "max_new_tokens": dice.choice([16, 24])}
    for given, added in rows_of(model, [prompt], how | {"do_sample": number % 2 == 1}, number):
        given, whole, _ = texts_of_row(model, given, added)
        assert not first_missing(whole, len(given), how["must_include"]), whole
    # The odds are 100 at most, and the rest makes up for the probability of the word itself.
    assert 0.0 < max(raised) < 60.0, raised
