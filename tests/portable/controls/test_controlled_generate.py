"""The controls on models of other architectures and tokenizers, through `custom_generate`."""

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import byte_level_gpt2, sentencepiece_llama
from text_matcher import violations
from transformers import T5Config, T5ForConditionalGeneration

from fundamentallm_hf import controlled_generate
from fundamentallm_hf.generation.streaming import TokenTextStreamer

pytestmark = pytest.mark.core

MODELS = {"byte-level GPT-2": byte_level_gpt2, "SentencePiece Llama": sentencepiece_llama}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


def run(model, prompts, **how):
    batch = model.tokenizer(prompts, return_tensors="pt", padding=True)
    out = model.generate(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, custom_generate=controlled_generate, **how
    )
    return model.tokenizer.batch_decode(out, skip_special_tokens=True)


def test_without_controls_the_text_is_transformers_own(model):
    batch = model.tokenizer(["once upon", "a"], return_tensors="pt", padding=True)
    arguments = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "max_new_tokens": 12}
    for how in ({"do_sample": False}, {"num_beams": 3}):
        plain = model.generate(**arguments, **how)
        assert torch.equal(plain, model.generate(**arguments, custom_generate=controlled_generate, **how))


@pytest.mark.parametrize("banned", [["e"], ["/[a-m]/"], ["*o*"], ["é"], ["once", "upon", "a", "cat"]])
def test_a_ban_covers_every_tokenisation(model, banned):
    torch.manual_seed(0)
    texts = run(model, ["once upon", "a"], max_new_tokens=24, do_sample=True, temperature=2.0, bad_words=banned)
    assert texts != ["once upon", "a"]
    for text, prompt in zip(texts, ["once upon", "a"], strict=True):
        assert not violations(text, len(prompt), banned)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    banned=st.lists(
        st.sampled_from(["once", "a", "the", "s*", "*t", "*o*", "small cat", "/[aeiou]{2}/", "é", "up*", "n", "/ /"]),
        min_size=1,
        max_size=5,
        unique=True,
    ),
    prompts=st.lists(st.sampled_from(["once upon", "a", "there wa", "sma", "caf"]), min_size=1, max_size=3),
    how=st.sampled_from(
        [
            {"do_sample": False},
            {"do_sample": True, "temperature": 3.0, "top_k": 0},
            {"num_beams": 3},
            {"num_beams": 2, "do_sample": True},
            {"do_sample": True, "num_return_sequences": 2, "seed": 1, "temperature": 2.0},
        ]
    ),
    tokens=st.integers(1, 20),
)
def test_no_bad_word_ever_appears(model, banned, prompts, how, tokens):
    torch.manual_seed(0)
    texts = run(model, prompts, max_new_tokens=tokens, bad_words=banned, **how)
    starts = [model.tokenizer.decode(model.tokenizer(prompt).input_ids, skip_special_tokens=True) for prompt in prompts]
    for index, text in enumerate(texts):
        assert not violations(text, len(starts[index * len(starts) // len(texts)]), banned)


def test_a_seed_gives_the_same_text_alone_and_in_a_batch(model):
    how = {"max_new_tokens": 12, "do_sample": True, "temperature": 1.5, "seed": 3, "bad_words": ["*t*"]}
    together = run(model, ["once upon", "a"], **how)
    assert together == [run(model, [prompt], **how)[0] for prompt in ("once upon", "a")]


def test_guessed_tokens_change_nothing(model):
    how = {"max_new_tokens": 16, "do_sample": False, "bad_words": ["*s*"]}
    assert run(model, ["once upon a a a"], **how) == run(model, ["once upon a a a"], prompt_lookup_num_tokens=3, **how)


def test_a_tokenizer_and_a_streamer_are_bound_to_the_callable(model):
    tokenizer, model.tokenizer = model.tokenizer, None
    pieces = []
    try:
        ids = tokenizer("once upon", return_tensors="pt").input_ids
        with pytest.raises(ValueError, match="pass tokenizer="):
            model.generate(ids, max_new_tokens=4, custom_generate=controlled_generate, bad_words=["a"])
        bound = partial(controlled_generate, tokenizer=tokenizer, streamer=TokenTextStreamer(tokenizer, pieces.append))
        out = model.generate(ids, max_new_tokens=8, custom_generate=bound, bad_words=["*a*"], do_sample=False)
    finally:
        model.tokenizer = tokenizer
    whole = tokenizer.decode(out[0], skip_special_tokens=True)
    assert whole == tokenizer.decode(ids[0], skip_special_tokens=True) + "".join(pieces)
    assert "a" not in "".join(pieces)


def test_stop_strings_need_no_tokenizer_of_their_own(model):
    how = {"max_new_tokens": 20, "do_sample": True, "seed": 2, "temperature": 2.0, "bad_words": ["once"]}
    stopped = run(model, ["a cat a cat"], **how, stop_strings=["e", "t"])
    assert stopped == run(model, ["a cat a cat"], **how, stop=["e", "t"])
    assert run(model, ["a cat a cat"], **how)[0].startswith(stopped[0])
    assert stopped != run(model, ["a cat a cat"], **how)


def test_a_model_with_an_encoder_is_refused():
    shape = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 1}
    model = T5ForConditionalGeneration(T5Config(**shape, decoder_start_token_id=0))
    with pytest.raises(ValueError, match="T5ForConditionalGeneration has an encoder"):
        model.generate(torch.tensor([[1, 2]]), custom_generate=controlled_generate, max_new_tokens=2)


def test_repetition_over_words_is_there_for_the_asking(model):
    how = {"max_new_tokens": 20, "do_sample": False, "repetition_penalty": 1.5}
    assert run(model, ["a cat a cat"], **how) != run(model, ["a cat a cat"], repetition_unit="words", **how)
