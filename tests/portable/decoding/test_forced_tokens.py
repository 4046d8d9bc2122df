"""Tokens that controls force skip passes of any model, and its text stays the same."""

from functools import partial

import pytest
import torch
from small_models import byte_level_gpt2, sentencepiece_llama
from toy_tokenizers import toy_model
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList

from fundamentallm_hf import controlled_generate
from fundamentallm_hf.portable.decoding.cache_names import CACHE
from fundamentallm_hf.portable.decoding.forced_tokens import ForcedCandidates
from fundamentallm_hf.portable.decoding.lean_loop import PassCounter
from fundamentallm_hf.portable.decoding.recording import ProbabilityRecorder

SCHEMA = {
    "type": "object",
    "properties": {"cat": {"enum": ["small", "big"]}, "dog": {"type": "boolean"}, "sun": {"type": "string"}},
    "required": ["cat", "dog", "sun"],
}
CONTROLS = {
    "pattern": {"pattern": "the (small|big) cat ran to the (dog|sun) and slept"},
    "schema": {"json_schema": SCHEMA},
    "schema and bans": {"json_schema": SCHEMA, "bad_words": ["big", "true"]},
    "pattern and a required word": {"pattern": "the (cat|dog) ran to the (dog|sun) and slept", "must_include": ["sun"]},
    "required words": {"must_include": ["happy dog", "sun"]},
    "required words and bans": {"must_include": ["paris"], "bad_words": ["rome", "a*"]},
}
WAYS = [{"do_sample": False}, {"do_sample": True, "top_k": 0, "seed": 1}]


def write(model, how, prompts=("once upon a",), **more):
    """The tokens that are added, and the passes that they took."""
    counter = PassCounter()
    batch = model.tokenizer(list(prompts), return_tensors="pt", padding=True)
    recipe = partial(controlled_generate, tokenizer=model.tokenizer, streamer=more.pop("streamer", None))
    more.setdefault("stopping_criteria", StoppingCriteriaList([counter]))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    torch.manual_seed(3)
    tokens = model.generate(**inputs, custom_generate=recipe, **how, **more)
    return tokens[:, batch.input_ids.shape[1] :].tolist(), counter.passes


# Other tokenizers lack brackets, or add spaces that a grammar does not know.
WHOLE = {"byte_level": 6, "llama": 3, "gemma": 2, "byt5": 1, "unigram": 1, "characters": 1}
CASES = [
    *((family, name) for family, count in WHOLE.items() for name in list(CONTROLS)[:count]),
    *((family, "required words and bans") for family in ("llama", "word_piece", "word_ends", "characters")),
]


@pytest.mark.parametrize(("family", "controls"), CASES)
def test_the_text_is_the_same_with_fewer_passes(family, controls):
    model = toy_model(family)
    fewer = most = 0
    for way in WAYS:
        how = {**way, **CONTROLS[controls], "max_new_tokens": 60}
        (plain, all_passes), (skipped, passes) = write(model, how, speculate=False), write(model, how)
        assert skipped == plain
        assert passes <= all_passes
        assert all_passes == len(plain[0])
        fewer, most = fewer + passes, most + all_passes
    if controls in ("pattern", "schema"):
        assert fewer < 0.85 * most


class Streamer:
    def __init__(self):
        self.tokens = []

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.tokens.append("end")


def test_a_streamer_gets_every_token():
    model, streamer = toy_model("byte_level"), Streamer()
    how = {"do_sample": False, "max_new_tokens": 60, **CONTROLS["pattern"]}
    tokens, passes = write(model, how, streamer=streamer)
    prompt = model.tokenizer("once upon a").input_ids
    assert streamer.tokens == [*prompt, *tokens[0], "end"]
    assert passes < len(tokens[0])


def refuse(*given):
    raise AssertionError("no candidates may be asked for")


@pytest.mark.parametrize(
    "more",
    [
        {"do_sample": True, "top_k": 0},
        {"num_return_sequences": 2, "do_sample": True, "seed": 1},
        {"num_beams": 2},
        {"return_dict_in_generate": True, "output_scores": True},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"stop": ["sun"]},
        {"speculate": False},
        {"logits_processor": LogitsProcessorList([ProbabilityRecorder(3)])},
    ],
    ids=lambda more: next(iter(more)),
)
def test_calls_that_need_every_step_take_them_all(more, monkeypatch):
    monkeypatch.setattr(ForcedCandidates, "get_candidates", refuse)
    model = byte_level_gpt2()
    ids = model.tokenizer("once", return_tensors="pt").input_ids
    recipe = partial(controlled_generate, tokenizer=model.tokenizer)
    how = {"do_sample": False, "max_new_tokens": 30, "pattern": "the (cat|cafe)"} | more
    assert model.generate(ids, custom_generate=recipe, **how) is not None


def test_half_precision_and_caches_in_use_take_every_step(monkeypatch):
    monkeypatch.setattr(ForcedCandidates, "get_candidates", refuse)
    how = {"do_sample": False, "max_new_tokens": 30, "pattern": "the (cat|cafe)"}
    model = sentencepiece_llama().to(torch.bfloat16)
    assert write(model, how)[1] > 2
    model = sentencepiece_llama()
    ids = model.tokenizer("once upon", return_tensors="pt").input_ids
    cache = DynamicCache(config=model.config)
    model(ids[:, :2], **{CACHE: cache})
    recipe = partial(controlled_generate, tokenizer=model.tokenizer)
    assert model.generate(ids, custom_generate=recipe, **{CACHE: cache}, **how).shape[1] > ids.shape[1]


def test_the_last_token_of_the_budget_is_no_candidate():
    candidates = ForcedCandidates([type("Always", (), {"suggested": lambda self, ids: [[7] * 9]})()], max_length=5)
    for length, expected in ((1, 3), (3, 1), (4, 0), (5, 0)):
        ids = torch.zeros(1, length, dtype=torch.long)
        assert candidates.get_candidates(ids)[0].tolist() == [[0] * length + [7] * expected]
