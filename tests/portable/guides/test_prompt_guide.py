"""Guides by two contexts: the same with a separate cache as when computed again at every step."""

import random
from functools import partial

import pytest
import torch
from small_models import byte_level_gpt2, sentencepiece_llama

from fundamentallm_hf import Attribute, controlled_generate, load_model
from fundamentallm_hf.portable.decoding.texts import Texts
from fundamentallm_hf.portable.guides import build_guides as guides
from fundamentallm_hf.portable.guides.prompt_guide import PromptGuide

pytestmark = pytest.mark.core

MODES = {
    "greedy": {"do_sample": False},
    "beams": {"num_beams": 4, "do_sample": False},
    "all beams": {"num_beams": 3, "num_return_sequences": 3},
    "sampled beams": {"num_beams": 3, "do_sample": True, "temperature": 1.5},
    "several": {"do_sample": True, "num_return_sequences": 3, "seed": 1},
}


@pytest.fixture(scope="module", params=["fundamentallm", "gpt2", "llama"])
def model(request):
    made = {"fundamentallm": partial(load_model, device="cpu"), "gpt2": byte_level_gpt2, "llama": sentencepiece_llama}
    model = made[request.param]()
    model.attributes = {"cats": Attribute("prompts", "", {}, "the small cat. ", "once")}
    return model


def write(model, monkeypatch, prompts, calls=None, cached=True, **how):
    class Counted(PromptGuide):
        def __init__(self, *args):
            super().__init__(*args, cached=cached)

        def _read(self, *args):
            if calls is not None:
                calls.append(args)
            return super()._read(*args)

    monkeypatch.setattr(guides, "PromptGuide", Counted)
    if model.config.model_type != "fundamentallm":
        how["custom_generate"] = controlled_generate
    torch.manual_seed(0)
    batch = model.tokenizer(prompts, return_tensors="pt", padding=True)
    return model.generate(**batch, guide_attribute="cats:3", **how)


@pytest.mark.parametrize("how", MODES.values(), ids=MODES)
def test_the_cache_follows_the_rows(model, monkeypatch, how):
    prompts, calls = ["once upon a time", "the"], []
    cached = write(model, monkeypatch, prompts, calls, max_new_tokens=24, **how)
    assert torch.equal(cached, write(model, monkeypatch, prompts, cached=False, max_new_tokens=24, **how))
    assert len(calls) == 1


def test_a_window_that_fills_up_moves_on(monkeypatch):
    model = load_model(device="cpu")
    half = model.config.max_position_embeddings // 2
    context = ("the small cat. " * half)[: half - 4]
    model.attributes = {"cats": Attribute("prompts", "", {}, context, "once")}
    prompts, calls = [("The big dog ran. " * half)[: half - 1], "Tom"], []
    cached = write(model, monkeypatch, prompts, calls, max_new_tokens=9, do_sample=False)
    assert torch.equal(cached, write(model, monkeypatch, prompts, cached=False, max_new_tokens=9, do_sample=False))
    assert len(calls) == 2


@pytest.mark.parametrize("how", [{"do_sample": False}, {"do_sample": True, "seed": 4}], ids=["greedy", "sampled"])
def test_the_texts_after_drafted_tokens_are_read_in_one_pass(monkeypatch, how):
    model, passes, read = load_model(device="cpu"), [], PromptGuide._forward
    model.attributes = {"cats": Attribute("prompts", "", {}, "the small cat. ", "once")}

    def forward(self, tokens, last):
        passes.append(tokens.shape[1])
        return read(self, tokens, last)

    monkeypatch.setattr(PromptGuide, "_forward", forward)
    how = how | {"max_new_tokens": 60}
    drafted, fewer = write(model, monkeypatch, "Once upon a time", **how), len(passes)
    alone = write(model, monkeypatch, "Once upon a time", cached=False, speculate=False, **how)
    assert torch.equal(drafted, alone)
    assert fewer < 45 < len(passes) - fewer


def path_texts(ids, lengths):
    return Texts(ids, [0] * len(lengths), lengths)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
def test_texts_of_drawn_lengths_are_read_as_if_alone(model, seed):
    """Texts grow, and some tokens of those read before turn out otherwise."""
    draw = random.Random(seed)
    window = draw.choice([24, 40, None])
    guide = PromptGuide(model, ([5, 6, 7], [8]), window=window)
    scores = torch.zeros(1, model.config.vocab_size)
    ids = torch.tensor([[draw.randrange(3, 60) for _ in range(60)]])
    length = draw.randrange(1, 12)
    while length < 50:
        ahead = length + draw.randrange(5)
        ids[0, length:] = torch.tensor([draw.randrange(3, 60) for _ in range(60 - length)])
        asked = sorted(draw.sample(range(length, ahead + 1), draw.randrange(1, ahead - length + 2)))
        found = guide.judge_texts(path_texts(ids, asked), scores)
        alone = PromptGuide(model, guide.contexts, window=window, cached=False)
        expected = torch.cat([alone(ids[:, :each], scores) for each in asked])
        assert torch.allclose(found, expected, atol=1e-3), (seed, asked)
        length += draw.randrange(1, 4)


@torch.no_grad()
def test_the_shift_is_the_log_of_the_ratio_of_two_probabilities(model):
    tokenizer = model.tokenizer
    contexts = [tokenizer(text, add_special_tokens=False).input_ids for text in ("the small cat. ", "once")]
    ids = tokenizer(" upon a", add_special_tokens=False, return_tensors="pt").input_ids
    shift = PromptGuide(model, tuple(contexts))(ids, torch.zeros(1, model.config.vocab_size))
    logs = [model(torch.tensor([[*context, *ids[0].tolist()]])).logits[0, -1].log_softmax(-1) for context in contexts]
    assert torch.allclose(shift[0], logs[0] - logs[1], atol=1e-4)


def test_a_context_may_be_empty_and_a_start_token_comes_once():
    model = sentencepiece_llama()
    guide = PromptGuide(model, ([1, 5, 6], []), start_token=1)
    read = []
    original = guide._forward
    guide._forward = lambda tokens, last: (read.append(tokens.tolist()), original(tokens, last))[1]
    guide(torch.tensor([[1, 9]]), torch.zeros(1, model.config.vocab_size))
    assert [row[-4:] for row in read[0]] == [[1, 5, 6, 9], [1, 1, 1, 9]]
    assert guide._mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]


def test_a_context_that_leaves_no_room_is_refused():
    with pytest.raises(ValueError, match="a context of a guide has 40 tokens, and the model's window of 64 has room"):
        PromptGuide(byte_level_gpt2(), ([1] * 40, [2]), window=64)


def test_a_prompt_given_as_embeddings_is_refused():
    with pytest.raises(ValueError, match="pass input_ids"):
        PromptGuide(byte_level_gpt2(), ([1], [2]), padding=[-3])
