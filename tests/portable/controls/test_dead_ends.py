"""Controls that together allow nothing but a banned word: detected in time, or refused."""

import pytest
import torch
from text_matcher import violations
from toy_tokenizers import toy_model
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopHLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.generation import logits_process
from writing import written

from fundamentallm_hf import load_model
from fundamentallm_hf.portable.decoding.warpers import is_warper

PROMPT = "the cat"
MODES = [{"do_sample": False}, {"do_sample": True, "temperature": 1.5, "top_k": 0}, {"num_beams": 2}]


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("family", ["byte_level", "llama", "characters"])
def test_a_grammar_goes_round_a_banned_word(family, how):
    control = {"json_schema": {"enum": ["Paris", "Rome"]}, "bad_words": ["Paris"]}
    assert written(toy_model(family), [PROMPT], max_new_tokens=20, **control, **how) == ['"Rome"']


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("control", [{"pattern": " Paris"}, {"json_schema": {"enum": ["Paris"]}}])
def test_what_can_only_be_a_banned_word_is_refused(demo, control, how):
    with pytest.raises(ValueError, match="nothing that the other controls allow can be written without a bad word"):
        written(demo, [PROMPT], max_new_tokens=20, bad_words=["Paris"], **control, **how)


@pytest.mark.parametrize("how", MODES)
def test_a_function_that_allows_tokens_is_looked_ahead_through_too(how):
    model = toy_model("byte_level")
    words = [model.tokenizer(text).input_ids for text in (" Paris", " Rome")]

    def allowed(batch, row):
        new = row[len(model.tokenizer(PROMPT).input_ids) :].tolist()
        left = [word[len(new) :] for word in words if word[: len(new)] == new]
        return [word[0] for word in left if word] or [model.tokenizer.eos_token_id]

    how = how | {"max_new_tokens": 20, "prefix_allowed_tokens_fn": allowed}
    assert written(model, [PROMPT], bad_words=["Paris"], **how) == [" Rome"]
    with pytest.raises(ValueError, match="without a bad word"):
        written(model, [PROMPT], bad_words=["Paris", "Rome"], **how)


WARPERS = [
    {"top_h": 0.3},
    {"top_k": 1},
    {"top_p": 0.01},
    {"min_p": 0.99},
    {"typical_p": 0.01},
    {"epsilon_cutoff": 0.9},
    {"eta_cutoff": 0.9},
]


@pytest.mark.parametrize("how", WARPERS)
@pytest.mark.parametrize("family", ["byte_level", "word_piece", "byt5"])
def test_no_warper_leaves_only_a_banned_word(family, how):
    model = toy_model(family)
    banned = ["/[a-m]/", "/[^\\x00-\\x7f]/", "ran"]
    given = {
        "do_sample": True,
        "temperature": 1.3,
        "num_return_sequences": 3,
        "max_new_tokens": 15,
        "bad_words": banned,
    }
    for text in written(model, [PROMPT], **given | how):
        assert not violations(PROMPT + text, len(PROMPT), banned), text


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (TemperatureLogitsWarper(0.7), True),
        (TopHLogitsWarper(0.4), True),
        (logits_process.TopKLogitsWarper(3), True),
        (logits_process.TopPLogitsWarper(0.5), True),
        (logits_process.TypicalLogitsWarper(0.5), True),
        (logits_process.LogitNormalization(), True),
        (logits_process.RepetitionPenaltyLogitsProcessor(1.2), False),
        (logits_process.SuppressTokensLogitsProcessor([4, 5]), False),
        (logits_process.InfNanRemoveLogitsProcessor(), False),
        (logits_process.NoRepeatNGramLogitsProcessor(2), False),
        (logits_process.PrefixConstrainedLogitsProcessor(lambda batch, row: [1], 1), False),
        (logits_process.MinLengthLogitsProcessor(3, 1), False),
        (lambda ids, scores: scores, False),
    ],
)
def test_a_warper_is_known_by_what_it_does(processor, expected):
    assert is_warper(processor, 50) is expected


class Sharper(TemperatureLogitsWarper):
    """One that transformers might have some day."""

    def __call__(self, input_ids, scores):
        return scores.masked_fill(scores < scores.amax(-1, keepdim=True) - 0.1, -torch.inf)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TemperatureLogitsWarper, (0.05, 0.8, 3.0)),
        (TopKLogitsWarper, (1, 7, 400)),
        (TopPLogitsWarper, (0.0, 0.01, 0.9, 1.0)),
        (MinPLogitsWarper, (0.0, 0.05, 1.0)),
    ],
)
def test_the_warpers_that_are_not_tried_would_pass(kind, values):
    tried = type("Tried", (kind,), {})  # another class, which is tried
    for value in values:
        assert is_warper(kind(value), 60)
        assert is_warper(tried(value), 60)


def test_a_warper_of_some_day_is_known_too():
    assert is_warper(Sharper(1.0), 60)
