"""Controls at the borders of a text: special tokens, padding, bytes, and models with unusual numbers of scores."""

from itertools import pairwise

import pytest
import torch
from text_matcher import violations
from toy_tokenizers import FAMILIES, toy_model, toy_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel
from writing import written

from fundamentallm_hf import controlled_generate
from fundamentallm_hf.portable.controls.bad_words import compile_bad_words
from fundamentallm_hf.portable.controls.must_include_plan import Requirements
from fundamentallm_hf.portable.controls.word_repetition import WordRepetitionLogitsProcessor, WordUnits
from fundamentallm_hf.portable.text.vocabulary import Vocabulary

RAW = {"do_sample": True, "temperature": 1.5, "top_k": 0}


def reply(model, prompt, **how):
    """What is added behind a prompt that ends in a special token, decoded by itself."""
    ids = model.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    torch.manual_seed(0)
    out = model.generate(ids, attention_mask=torch.ones_like(ids), custom_generate=controlled_generate, **how)
    return model.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)


def test_a_special_token_is_a_border_of_words():
    model = toy_model("byte_level")
    for text in reply(
        model, "the dog ran<|im_end|>", max_new_tokens=6, num_return_sequences=12, bad_words=["/\\b[a-z]/"], **RAW
    ):
        assert not violations(text, 0, ["/\\b[a-z]/"]), text
    for text in reply(model, "a do<|im_end|>", max_new_tokens=20, num_return_sequences=6, must_include=["dog"], **RAW):
        assert violations(text, 0, ["dog"]), text


@pytest.mark.parametrize("more", [-1, 7])
def test_scores_may_be_fewer_or_more_than_tokens(more):
    tokenizer = toy_tokenizer("byte_level")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer) + more, n_embd=8, n_layer=1, n_head=1, eos_token_id=0, pad_token_id=1)
    model = GPT2LMHeadModel(config).eval()
    model.config.vocab_size = len(tokenizer)  # what it says need not be what it has
    model.tokenizer = tokenizer
    how = {"bad_words": ["the", "/[0-9]/"], "must_include": ["cat", "é"], "max_new_tokens": 30, "stop": ["!"]}
    for text in written(model, ["a dog"], repetition_penalty=1.2, repetition_unit="words", **how, **RAW):
        assert violations(text, 0, ["é"])
        assert not violations(text, 0, how["bad_words"])


@pytest.mark.parametrize("control", [{"must_include": ["cat"]}, {"bad_words": ["cat"]}])
def test_a_prompt_may_be_embeddings(control):
    model = toy_model("byte_level")
    embedded = model.get_input_embeddings()(model.tokenizer("the dog", return_tensors="pt").input_ids)
    out = model.generate(
        inputs_embeds=embedded,
        attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long),
        custom_generate=controlled_generate,
        max_new_tokens=20,
        do_sample=False,
        **control,
    )
    text = model.tokenizer.decode(out[0], skip_special_tokens=True)
    assert bool(violations(text, 0, ["cat"])) == ("must_include" in control)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("entry", ["😀", "日本", "猫", "안녕", "Łódź", "very big dog"])
def test_what_a_tokenizer_can_encode_can_be_required(family, entry):
    tokenizer = toy_tokenizer(family)
    requirements = Requirements([entry], tokenizer, len(tokenizer))
    plan = requirements.plan(requirements.prompt_end(requirements.start))
    decoded = tokenizer.decode(tokenizer("a", add_special_tokens=False).input_ids + plan, skip_special_tokens=True)
    assert entry in decoded


@pytest.mark.parametrize(
    ("entry", "stop"), [("Dr. Smith", "."), ("3.14", "."), ("/[0-9]\\.[0-9]/", "."), ("Smith", "it")]
)
def test_an_entry_that_a_stop_text_cuts_is_refused(entry, stop):
    with pytest.raises(ValueError, match="cannot be written without a text that stops the text"):
        written(toy_model("characters"), ["the cat"], max_new_tokens=40, must_include=[entry], stop=[stop])


def test_bytes_that_are_given_up_complete_no_entry():
    model = toy_model("llama")
    for text in written(
        model, ["the cat"], max_new_tokens=25, must_include=["/[0-9]{2}/"], num_return_sequences=12, **RAW
    ):
        assert violations(text, 0, ["/[0-9]{2}/"]), text


def test_an_ordinary_token_used_as_padding_is_no_prompt():
    tokenizer = toy_tokenizer("characters")
    model = toy_model("characters")
    pad = tokenizer("z").input_ids[0]
    ids = torch.tensor([[pad, pad, *tokenizer("a").input_ids]])
    mask = torch.tensor([[0, 0, 1]])
    how = {"must_include": ["zz"], "must_include_prompt": True, "max_new_tokens": 12, "do_sample": False}
    out = model.generate(ids, attention_mask=mask, custom_generate=controlled_generate, **how)
    assert violations(tokenizer.decode(out[0, 3:]), 0, ["zz"])


@pytest.mark.parametrize("seed", ["x", 2**64, -1, 1.5])
def test_a_seed_that_cannot_be_is_refused(seed):
    with pytest.raises(ValueError, match="seed has to be a whole number from 0 to"):
        written(toy_model("characters"), ["a"], max_new_tokens=2, do_sample=True, seed=seed)


def test_a_word_that_would_repeat_a_sequence_is_not_ended_by_bytes():
    tokenizer = toy_tokenizer("byte_level")
    processor = WordRepetitionLogitsProcessor(1.0, tokenizer, ngram_size=3)
    state = WordUnits().read("I said no. I said no. I said no")
    closed = set(processor._repeating(state))
    vocabulary = Vocabulary.of(tokenizer)
    ending = {
        token for token, piece in enumerate(vocabulary.pieces) if isinstance(piece, str) and piece[:1] in {" ", "."}
    }
    assert ending - {token for token in ending if not vocabulary.piece(token)} <= closed
    assert {token for token, piece in enumerate(vocabulary.pieces) if piece == b"\xe2"} <= closed
    assert vocabulary.token("w") not in closed


def test_bytes_that_a_decoder_drops_are_read():
    tokenizer = toy_tokenizer("byt5")
    vocabulary = Vocabulary.of(tokenizer)
    assert vocabulary.errors == "ignore"
    for text in ("né 日本 😀", "a"):
        assert vocabulary.text(tokenizer(text, add_special_tokens=False).input_ids) == text
    tables = compile_bad_words(["é"], tokenizer, len(tokenizer))
    first = tables.advance(tables.start, tokenizer("é", add_special_tokens=False).input_ids[0])
    whole = tables.advance(first, tokenizer("é", add_special_tokens=False).input_ids[1])
    assert bool(tables.table(whole).closed[tokenizer(" ", add_special_tokens=False).input_ids[0]])


@pytest.mark.parametrize("field", ["stop", "stop_strings"])
@pytest.mark.parametrize("how", [{"do_sample": False}, {"do_sample": True, "seed": 6, "top_k": 0, "temperature": 0.8}])
def test_a_row_that_has_ended_is_padded_also_by_a_model_without_an_end_token(shakespeare, field, how):
    assert shakespeare.generation_config.eos_token_id is None
    tokenizer = shakespeare.tokenizer
    prompts = ["My lord, I", "ROMEO:\nWhat", "To be, or not to be: " * 6, "e"]
    how = how | {field: ["e ", "th"], "max_new_tokens": 30}

    def added(texts):
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        return shakespeare.generate(**batch, **how)[:, batch.input_ids.shape[1] :]

    together = added(prompts)
    for prompt, row in zip(prompts, together, strict=True):
        (alone,) = added([prompt])
        assert row[: len(alone)].tolist() == alone.tolist()
        assert set(row[len(alone) :].tolist()) <= {shakespeare.generation_config.pad_token_id}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("word", ["cat", "happy", "Paris", "very big dog", "é"])
@pytest.mark.parametrize("field", ["suppress_tokens", "bad_words_ids"])
def test_a_required_word_is_written_without_tokens_that_are_masked_or_the_call_is_refused(family, word, field):
    model = toy_model(family)
    usual = [*model.tokenizer(word, add_special_tokens=False).input_ids]
    usual += model.tokenizer(f" {word}", add_special_tokens=False).input_ids
    masked = {"suppress_tokens": usual} if field == "suppress_tokens" else {"bad_words_ids": [[each] for each in usual]}
    how = {"must_include": [word], "max_new_tokens": 40, "do_sample": True, **masked}
    torch.manual_seed(0)
    refusal, text = "", ""
    try:
        (text,) = written(model, ["the"], custom_generate=controlled_generate, **how)
    except ValueError as error:
        refusal = str(error)
    assert refusal.startswith("must_include: ") or violations(text, 0, [word]), (refusal, text)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "control", [{"must_include": ["cat"]}, {"bad_words": ["/[^a-z ]/"]}, {"bad_words": ["/\\w$/"]}]
)
@pytest.mark.parametrize("tokens", [6, 14])
def test_an_end_that_is_forced_comes_where_the_text_may_end(family, control, tokens):
    model, prompt = toy_model(family), "the."
    how = RAW | {"forced_eos_token_id": model.tokenizer.eos_token_id, "num_return_sequences": 4} | control
    for text in written(model, [prompt], max_new_tokens=tokens, **how):
        banned = control.get("bad_words", ())
        assert not violations(prompt + text, len(prompt), banned), text
        assert "must_include" not in control or violations(prompt + text, len(prompt), ["cat"]), text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("field", ["sequence_bias", "bad_words_ids"])
def test_a_required_word_is_written_without_sequences_that_are_masked_or_the_call_is_refused(family, field):
    model, words = toy_model(family), ["happy", "sun"]
    tokens = [model.tokenizer(word, add_special_tokens=False).input_ids for word in [*words, *(f" {w}" for w in words)]]
    pairs = [list(pair) for each in tokens for pair in pairwise(each)]
    singles = [each for each in tokens if len(each) == 1]
    masked = [*pairs, *singles] or [[5]]
    how = {field: masked if field == "bad_words_ids" else [[each, float("-inf")] for each in masked]}
    refusal, texts = "", []
    try:
        texts = written(model, ["the"], must_include=words, max_new_tokens=40, num_return_sequences=4, **how, **RAW)
    except ValueError as error:
        refusal = str(error)
    assert refusal.startswith("must_include: ") or texts, refusal
    for text in texts:
        assert all(violations(text, 0, [word]) for word in words), text


@pytest.mark.parametrize("family", FAMILIES)
def test_stop_texts_and_required_words_go_with_tokens_that_are_masked(family):
    model = toy_model(family)
    masked = model.tokenizer("the cat", add_special_tokens=False).input_ids
    how = {"must_include": ["sun"], "stop": ["."], "suppress_tokens": masked, "max_new_tokens": 40}
    (text,) = written(model, ["a"], **how, **RAW)
    assert violations(text, 0, ["sun"]), text
