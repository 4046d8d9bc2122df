"""Word weights: a word is e^w times as likely as it was beside the words that have no weight, and no other one is."""

import json
import math
import re

import pytest
import torch
from click.testing import CliRunner
from toy_tokenizers import FAMILIES, toy_model, toy_tokenizer
from transformers import GenerationConfig
from writing import token_ids, whole_texts

from fundamentallm_hf import Generator, WordWeightsLogitsProcessor, load_model
from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.portable.controls import word_weighting
from fundamentallm_hf.portable.controls.word_weighting import compile_word_weights
from fundamentallm_hf.portable.decoding.sidecar_files import own_word_counts
from fundamentallm_hf.portable.text.characters import fold_text
from fundamentallm_hf.portable.text.word_lists import join_weights

MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 1.3, "top_p": 0.9, "num_return_sequences": 2},
    "beams": {"num_beams": 3},
    "sampled beams": {"num_beams": 3, "do_sample": True, "top_k": 20},
}


@pytest.mark.parametrize("how", MODES.values(), ids=list(MODES))
@pytest.mark.parametrize("family", ["characters", "byte_level", "llama"])
def test_a_weight_of_nothing_changes_nothing(family, how):
    model, prompts = toy_model(family), ["the cat", "a big dog ran"]
    plain = token_ids(model, prompts, **how)
    for weights in ({}, {"cat": 0, "r*": 0.0}, "cat:0", {"ran": 2.0, "RAN": -2.0}):
        assert torch.equal(token_ids(model, prompts, word_weights=weights, **how), plain)
    shift = WordWeightsLogitsProcessor({"cat": 2, "Cat": -2}, model.tokenizer)
    scores = torch.randn(1, len(model.tokenizer))
    assert torch.equal(shift(torch.tensor([[5, 6]]), scores), scores)


@pytest.mark.parametrize("how", MODES.values(), ids=list(MODES))
@pytest.mark.parametrize("family", ["characters", "byte_level", "llama"])
def test_minus_infinity_is_a_ban(family, how):
    model, prompts = toy_model(family), ["the cat", "a big dog ran"]
    banned = token_ids(model, prompts, bad_words=["c*", "/[aeiou]/"], **how)
    weights = {"c*": -math.inf, "/[aeiou]/": -math.inf}
    assert torch.equal(token_ids(model, prompts, word_weights=weights, **how), banned)
    assert torch.equal(token_ids(model, prompts, word_weights="c*:-inf,/[aeiou]/:-inf", **how), banned)
    assert torch.equal(
        token_ids(model, prompts, bad_words=["c*"], word_weights={"/[aeiou]/": -math.inf}, **how), banned
    )


@pytest.mark.parametrize("how", MODES.values(), ids=list(MODES))
@pytest.mark.parametrize("family", FAMILIES)
def test_heavy_weights_lead_the_text(family, how):
    """On near-uniform models a letter with the highest weight comes in every text, and one with a low weight hardly."""
    model = toy_model(family)
    how = {"max_new_tokens": 12} | how
    for text in whole_texts(model, ["the cat"], word_weights={"*o*": 20.0}, **how | {"top_p": 1.0, "top_k": 0}):
        assert "o" in fold_text(text.removeprefix("the cat"))
    for text in whole_texts(model, ["the cat"], word_weights={"/[a-z]/": -1000}, **how | {"top_p": 1.0, "top_k": 0}):
        assert sum(map(str.isascii, filter(str.isalpha, text.lower().replace("the cat", "", 1)))) <= 3, text


def test_a_batch_is_weighed_as_its_rows_are_alone():
    model, how = toy_model("characters"), {"do_sample": False, "word_weights": {"cat": 3.0, "r*": 2.0, "*g": -4}}
    together = whole_texts(model, ["the cat", "a big dog ran"], **how)
    assert together == [whole_texts(model, [prompt], **how)[0] for prompt in ["the cat", "a big dog ran"]]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"cat": "much"}, "the weight of 'cat' has to be a number of at most 20, or -inf, but is 'much'"),
        ({"cat": 21}, "the weight of 'cat' has to be a number of at most 20"),
        ({"cat": math.nan}, "the weight of 'cat' has to be a number"),
        ({"cat": True}, "the weight of 'cat' has to be a number"),
        (["cat"], "word_weights: every entry has to have a weight, as in 'dragon:2', but there is 'cat'"),
        (3, "word_weights: the value has to be a dict of entries and weights"),
        ({"": 1}, "word_weights: the value has to be a dict of entries and weights"),
        ({"/(/": 1}, "is not a valid regular expression"),
    ],
)
def test_what_is_no_weight_is_refused_in_one_line(value, line):
    with pytest.raises(ValueError, match=re.escape(line)) as error:
        token_ids(toy_model("characters"), ["the"], word_weights=value)
    assert "\n" not in str(error.value)


def test_the_processor_by_itself_refuses_a_ban():
    with pytest.raises(ValueError, match="BadWordsLogitsProcessor"):
        WordWeightsLogitsProcessor({"cat": -math.inf}, toy_tokenizer("characters"))
    with pytest.raises(ValueError, match="pass tokenizer="):
        WordWeightsLogitsProcessor({"cat": 1})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_may_have_fewer_scores_than_its_tokenizer_has_tokens(family):
    tokenizer = toy_tokenizer(family)
    ids, most = tokenizer("the cat", return_tensors="pt").input_ids, len(tokenizer)
    size = max(int(ids.max()) + 1, most - 2)
    wide, narrow = (
        WordWeightsLogitsProcessor({"cat": 2.0, "th*": -1.0}, tokenizer, end_tokens=[0, most - 1], prompt_columns=1)(
            ids, torch.zeros(1, width)
        )
        for width in (most, size)
    )
    assert narrow.shape == (1, size)
    assert torch.allclose(narrow, wide[:, :size], atol=1e-5)


def test_weights_are_kept_in_a_generation_config(tmp_path):
    model, weights = toy_model("characters"), {"cat": 3.0, "*g": -math.inf, "/[aeiou]{2}/": -1.5}
    GenerationConfig(word_weights=weights, max_new_tokens=10).save_pretrained(tmp_path)
    config = GenerationConfig.from_pretrained(tmp_path)
    assert config.word_weights == weights
    given = whole_texts(model, ["the"], word_weights=weights, max_new_tokens=10)
    assert whole_texts(model, ["the"], generation_config=config, max_new_tokens=10) == given
    assert whole_texts(model, ["the"], word_weights=join_weights(weights), max_new_tokens=10) == given


@pytest.fixture(scope="module")
def stories():
    return load_model(device="cpu")


def long_list(model):
    """More words than are read ahead."""
    counts = own_word_counts(model)
    return {word: (-5.0, 0.5, 3.0)[index % 3] for index, word in enumerate(counts.words[::4])}


@pytest.mark.parametrize("listed", ["short", "long"])
@pytest.mark.parametrize(
    "how", [{"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": 5}, {"do_sample": False}]
)
def test_drafts_and_batches_change_nothing(stories, listed, how):
    weights = {"dragon": 3, "girl": -4, "happ*": 2, "very *": -2} if listed == "short" else long_list(stories)
    how = how | {"max_new_tokens": 160, "word_weights": weights}
    drafted = whole_texts(stories, ["Once upon a time"], **how)
    assert drafted == whole_texts(stories, ["Once upon a time"], speculate=False, **how)
    assert drafted[0] != whole_texts(stories, ["Once upon a time"], **how | {"word_weights": None})[0]
    if "seed" not in how:
        assert drafted[0] == whole_texts(stories, ["Tom", "Once upon a time"], **how)[1]


@pytest.mark.parametrize("listed", ["short", "long"])
def test_texts_with_one_token_left_need_not_be_weighed(stories, listed, monkeypatch):
    """What follows them is weighed as if they had been, predictions included."""
    weights = {"dragon": 3, "girl": -4, "happ*": 2, "very *": -2} if listed == "short" else long_list(stories)
    how = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "max_new_tokens": 120, "word_weights": weights}
    if listed == "short":  # what the model reads ahead depends on where it is asked
        monkeypatch.setattr(word_weighting, "MANY_WORDS", 0)
    prompts = ["Once upon a time", "Tom saw a dra"]
    found = [whole_texts(stories, prompts, seed=seed, **how) for seed in range(3)]
    monkeypatch.setattr(word_weighting, "with_a_choice", lambda is_left: [*range(len(is_left))])
    assert found == [whole_texts(stories, prompts, seed=seed, **how) for seed in range(3)]


def test_beams_are_weighed_at_every_token(stories):
    """Their scores are compared, so the weights of a word count although a mask leaves one way to write it."""
    ids = stories.tokenizer("The dragon", return_tensors="pt").input_ids
    tables = compile_word_weights({"dragon": 2.0}, stories.tokenizer, stories.config.vocab_size)
    only = torch.full((1, stories.config.vocab_size), -torch.inf)
    only[0, stories.tokenizer(".").input_ids] = 0.0
    for ranks in (True, False):
        processor = WordWeightsLogitsProcessor(tables, prompt_columns=4, ranks=ranks)
        processor(ids[:, :-1], torch.zeros_like(only))
        assert torch.equal(processor(ids, only), only) != ranks


def test_a_long_list_is_not_read_ahead_and_a_short_one_is(stories):
    vocabulary = stories.tokenizer, stories.config.vocab_size
    short = WordWeightsLogitsProcessor(compile_word_weights({"dragon": 2}, *vocabulary))
    long = WordWeightsLogitsProcessor(compile_word_weights(long_list(stories), *vocabulary))
    assert short.reader.at_stake == word_weighting.AT_STAKE
    assert long.reader.at_stake == math.inf


def test_the_weights_of_a_call_arrive_from_every_side(stories, tmp_path):
    generator = Generator(stories, temperature=0, max_tokens=40)
    free, expected = generator.generate("The"), generator.generate("The", word_weights={"had": -4, "fun": 2.5})
    assert expected != free
    assert generator.generate("The", word_weights="had:-4, fun:2.5") == expected
    file = tmp_path / "weights.txt"
    file.write_text("# worn out\nhad:-4\n\nfun:2.5\n")
    assert generator.generate("The", word_weights_file=str(file)) == expected
    assert list(generator.stream("The", word_weights_file=str(file)))[-1] in expected
    done = CliRunner().invoke(
        cli,
        [
            "generate",
            "--prompt",
            "The",
            "--temperature",
            "0",
            "--max-tokens",
            "40",
            "--word-weights",
            "had:-4,fun:2.5",
            "-q",
        ],
    )
    assert done.stdout.strip() == expected
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "The", "word_weights": {"had": -4, "fun": 2.5}}\n{"prompt": "The"}\n')
    done = CliRunner().invoke(
        cli,
        [
            "generate",
            "--prompts-file",
            str(prompts),
            "--temperature",
            "0",
            "--max-tokens",
            "40",
            "--format",
            "jsonl",
            "-q",
        ],
    )
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == [expected, free]
