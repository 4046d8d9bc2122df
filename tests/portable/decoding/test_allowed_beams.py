"""Beams follow what processors allow, however little that is, and what is returned of them is finished."""

import random

import pytest
import torch
from small_models import byte_level_gpt2
from transformers import LogitsProcessor, LogitsProcessorList

from fundamentallm_hf import controlled_generate
from fundamentallm_hf.portable.decoding.allowed_beams import _drawn


class Only(LogitsProcessor):
    """Allows the texts of a list alone: the tokens of each, and then the end."""

    def __init__(self, texts, width, end, shifts):
        self.texts, self.width, self.end, self.shifts = texts, width, end, shifts

    def __call__(self, input_ids, scores):
        kept = torch.full_like(scores, -torch.inf)
        for index, row in enumerate(input_ids[:, self.width :].tolist()):
            assert self.end not in row or row.index(self.end) == len(row) - 1, "it went on after its end"
            for text in self.texts:
                if text[: len(row)] == row and len(text) > len(row):
                    token = text[len(row)]
                    kept[index, token] = scores[index, token] + self.shifts[len(row) % len(self.shifts)]
            if not (kept[index] > -torch.inf).any():
                assert row[-1:] == [self.end], "a text that is not allowed"
                kept[index, self.end] = scores[index, self.end]
        return kept


@pytest.mark.parametrize("number", range(40))
def test_only_allowed_texts_are_returned_and_finished(number):
    """However few texts are allowed, whatever their scores."""
    dice = random.Random(f"allowed {number}")
    model = byte_level_gpt2()
    end = model.config.eos_token_id
    ids = model.tokenizer("once upon", return_tensors="pt").input_ids
    some = [token for token in range(40, 60) if token != end]
    texts = [
        [*dice.choices(some[: dice.choice([2, 20])], k=dice.randint(1, 6)), end] for _ in range(dice.randint(1, 6))
    ]
    beams = dice.choice([2, 3, 5])
    how = {"num_beams": beams, "num_return_sequences": dice.randint(1, beams), "do_sample": dice.random() < 0.5}
    how |= {"early_stopping": dice.choice([True, False, "never"]), "length_penalty": dice.choice([1.0, 0.0, -1.0, 2.0])}
    how |= {"eos_token_id": end, "pad_token_id": end, "max_new_tokens": dice.choice([7, 12])}
    only = Only(texts, ids.shape[1], end, dice.choice([(0.0,), (446.0, -446.0), (300.0,), (-1e4,)]))
    torch.manual_seed(number)
    found = model.generate(
        ids, logits_processor=LogitsProcessorList([only]), custom_generate=controlled_generate, **how
    )
    rows = [row[: row.index(end) + 1] for row in found[:, ids.shape[1] :].tolist()]
    assert all(row in texts for row in rows), (texts, rows)


def test_what_is_drawn_is_what_torch_draws_where_enough_is_probable():
    for seed in range(200):
        scores = torch.randn(2, 40, generator=torch.Generator().manual_seed(seed)) * 4
        torch.manual_seed(seed)
        wanted = torch.multinomial(scores.softmax(dim=-1), 6)
        torch.manual_seed(seed)
        found = _drawn(scores, 6)
        for row, kept, drawn in zip(scores, found, wanted, strict=True):
            assert kept.isfinite().nonzero().flatten().tolist() == sorted(drawn.tolist())
            assert torch.equal(kept[drawn], row[drawn])


def test_the_most_probable_follow_where_fewer_are_probable_in_float32():
    scores = torch.full((1, 50), -torch.inf)
    scores[0, [3, 20, 30]] = torch.tensor([442.0, -500.0, -156.0])
    for seed in range(20):
        torch.manual_seed(seed)
        assert _drawn(scores, 2).isfinite().nonzero()[:, 1].tolist() == [3, 30]
        assert _drawn(scores, 6).isfinite().nonzero()[:, 1].tolist() == [3, 20, 30]


def test_with_enough_allowed_tokens_the_texts_are_those_of_transformers():
    model = byte_level_gpt2()
    ids = model.tokenizer("once upon a time", return_tensors="pt").input_ids
    how = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 12, "do_sample": False}
    found = []
    for more in ({}, {"custom_generate": controlled_generate}):
        found.append(model.generate(ids, return_dict_in_generate=True, output_scores=True, **how, **more))
    assert torch.equal(found[0].sequences, found[1].sequences)
    assert torch.equal(found[0].sequences_scores, found[1].sequences_scores)
