"""Bad words: never in the text, in any mode, and made unlikely before they start."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from text_matcher import violations

from fundamentallm_hf import BadWordsLogitsProcessor, load_model
from fundamentallm_hf.portable.controls.bad_words import compile_bad_words
from fundamentallm_hf.portable.text.word_counts import WordCounts

pytestmark = pytest.mark.core

CLOSED = -torch.inf


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def tokenizer(demo):
    return demo.tokenizer


def judged(tokenizer, banned, text, prompt="", **options):
    """The shift of every character behind `text`, of which `prompt` was given."""
    ids = tokenizer(prompt + text, return_tensors="pt").input_ids
    columns = len(tokenizer(prompt).input_ids)
    if isinstance(banned, list):
        banned = compile_bad_words(banned, tokenizer, len(tokenizer), counts=options.pop("counts", None))
    processor = BadWordsLogitsProcessor(banned, prompt_columns=columns, **options)
    scores = processor(ids, torch.zeros(1, len(tokenizer)))[0]
    return {tokenizer.decode([i]): float(scores[i]) for i in range(len(tokenizer))}


@pytest.mark.parametrize(
    ("banned", "prompt", "text", "closed", "opened"),
    [
        (["ran"], "", "He ran", " .\n!", "gtk"),
        (["ran"], "He ran", "", "", " .g"),
        (["ran"], "He ra", "n", " .", "g"),
        (["ran"], "", "He gran", "", " .d"),
        (["ran*"], "", "He ra", "n", "bt "),
        (["ran*"], "He ran", "", "gt", " ."),
        (["*ran"], "", "He gran", " .", "d"),
        (["ran away"], "", "He ran", "", " .g"),
        (["ran away"], "He ran", " awa", "", "yb"),
        (["ran away"], "He ran", "\n away", " .", "s"),
        (["/[aeiou]{2}/"], "", "He ra", "aeiou", "bn "),
        (["RAN"], "", "he RaN", " ", "G"),
    ],
)
def test_what_would_complete_a_bad_word_is_closed(tokenizer, banned, prompt, text, closed, opened):
    scores = judged(tokenizer, banned, text, prompt)
    assert {char for char in closed if scores[char] != CLOSED} == set()
    assert {char for char in opened if scores[char] == CLOSED} == set()


def test_the_end_of_the_text_is_closed_where_it_would_complete_a_word(tokenizer):
    end = tokenizer.eos_token
    assert judged(tokenizer, ["ran"], "He ran", end_tokens=[tokenizer.eos_token_id])[end] == CLOSED
    assert judged(tokenizer, ["ran"], "He gran", end_tokens=[tokenizer.eos_token_id])[end] == 0


def test_the_last_token_completes_no_word_either(tokenizer):
    last = judged(tokenizer, ["ran"], "He ra", remaining=lambda ids: [1] * len(ids))
    assert last["n"] == CLOSED
    assert judged(tokenizer, ["ran"], "He ra")["n"] != CLOSED


def test_a_stop_string_does_not_leave_a_word_behind(tokenizer):
    stopped = judged(tokenizer, ["ran"], "He ran", stop_strings=["ge"])
    assert stopped["g"] != CLOSED
    assert judged(tokenizer, ["ran"], "He rang", stop_strings=["ge"])["e"] == CLOSED
    assert judged(tokenizer, ["ran"], "He ra", stop_strings=["n"])["n"] == CLOSED


def test_a_beginning_is_weighed_by_the_chance_that_it_becomes_the_word(tokenizer):
    counts = WordCounts({"ran": 60, "rat": 40, "big": 100})
    scores = judged(tokenizer, ["ran"], "He ", counts=counts)
    assert scores["r"] == pytest.approx(math.log1p(-60.5 / 100.5))
    assert scores["b"] == 0
    inside = judged(tokenizer, ["ran"], "He ra", counts=counts)
    # What was paid to begin the word is paid back: over the whole word, an innocent one costs nothing.
    assert inside["t"] == pytest.approx(-math.log1p(-60.5 / 100.5))


@torch.no_grad()
def test_the_model_is_asked_for_the_chance_and_the_choice_is_that_of_its_conditional_distribution(demo, tokenizer):
    """P(token | the word will not be "was") by the model itself, worked out by hand for every first letter."""
    prompt = "Once upon a time, there "
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    first = demo(ids).logits[0, -1].softmax(-1)
    chance = 1.0
    text = prompt
    for char in "was":
        distribution = demo(tokenizer(text, return_tensors="pt").input_ids).logits[0, -1].softmax(-1)
        chance *= float(distribution[tokenizer(char).input_ids[0]])
        text += char
    after = demo(tokenizer(text, return_tensors="pt").input_ids).logits[0, -1].softmax(-1)
    chance *= sum(
        float(after[i]) for i in range(len(tokenizer)) if not tokenizer.decode([i]).isalnum() and i not in (0, 1, 2)
    )
    w = tokenizer("w").input_ids[0]
    expected = first.clone()
    expected[w] -= chance
    expected /= expected.sum()

    seen = []

    class Look:
        def __call__(self, input_ids, scores):
            seen.append(scores.softmax(-1))
            return scores

    from transformers import LogitsProcessorList

    # Runs behind the stock processors and before the controls; so look at the controls' output through the scores.
    out = demo.generate(
        ids,
        max_new_tokens=1,
        do_sample=True,
        bad_words=["was"],
        output_scores=True,
        return_dict_in_generate=True,
        top_k=0,
        logits_processor=LogitsProcessorList([Look()]),
    )
    got = out.scores[0][0].softmax(-1)
    assert float(seen[0][0, w]) > 0.5
    assert float(got[w]) == pytest.approx(float(expected[w]), rel=0.02)
    assert torch.allclose(got, expected, atol=2e-3)


def test_no_list_is_no_processor(demo, tokenizer):
    ids = tokenizer("Once upon", return_tensors="pt").input_ids
    plain = demo.generate(ids, max_new_tokens=30, do_sample=True, seed=1)
    assert torch.equal(plain, demo.generate(ids, max_new_tokens=30, do_sample=True, seed=1, bad_words=[]))


def test_a_word_that_the_model_does_not_use_changes_nothing(demo, tokenizer):
    ids = tokenizer("Once upon", return_tensors="pt").input_ids
    plain = demo.generate(ids, max_new_tokens=80, do_sample=True, seed=1)
    assert torch.equal(plain, demo.generate(ids, max_new_tokens=80, do_sample=True, seed=1, bad_words=["zxqv"]))


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": True, "seed": 5, "temperature": 0.8, "top_p": 0.9},
        {"do_sample": False},
    ],
)
def test_every_row_of_a_padded_batch_comes_out_as_alone_also_past_the_window(demo, tokenizer, how):
    prompts = ["Once upon a time", "Tom", "The big dog ra" * 30]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    banned = ["the", "was", "ran", "lil*"]
    together = demo.generate(**batch, max_new_tokens=150, bad_words=banned, **how)
    for row, prompt in zip(tokenizer.batch_decode(together, skip_special_tokens=True), prompts, strict=True):
        alone = demo.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=150, bad_words=banned, **how)
        assert row == tokenizer.decode(alone[0], skip_special_tokens=True)
        assert not violations(row, len(prompt), banned)


@pytest.mark.parametrize("prompt", ["The big dog ra", "Once upon a time", "Tom", "One day, a big cat", "The sun "])
@pytest.mark.parametrize(
    "controls",
    [
        {"bad_words": ["the", "was", "ran"]},
        {"must_include": ["dragon", "castle"]},
        {"bad_words": ["*ing", "she", "he"], "must_include": ["moon"]},
    ],
    ids=["banned", "required", "both"],
)
def test_with_or_without_a_cache_and_with_guessed_tokens_the_greedy_text_is_the_same(demo, tokenizer, prompt, controls):
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    how = {"max_new_tokens": 60, "do_sample": False, **controls}
    cached = demo.generate(ids, **how)
    assert torch.equal(cached, demo.generate(ids, use_cache=False, **how))
    assert torch.equal(cached, demo.generate(ids, prompt_lookup_num_tokens=4, **how))


def test_where_nothing_is_left_the_text_ends_and_says_so(demo, tokenizer, caplog):
    ids = tokenizer("Once", return_tensors="pt").input_ids
    with caplog.at_level("WARNING", logger="transformers"):
        out = demo.generate(ids, max_new_tokens=20, do_sample=False, bad_words=["/(?s:.)/"])
    assert tokenizer.decode(out[0], skip_special_tokens=True) == "Once"
    assert out.shape[1] == ids.shape[1] + 1
    assert "leave no continuation" in caplog.text


ENTRIES = [
    "the",
    "and",
    "was",
    "Lily",
    "a",
    "she",
    "to*",
    "*ed",
    "*ll*",
    "s*d",
    "there was",
    "once upon",
    "/[.!?]/",
    r"/\b[st]\w/",
    "wa",
    "naïve",
    "her",
    "/o{2}/",
    "h*",
    "day,",
]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    banned=st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=6, unique=True),
    prompts=st.lists(
        st.sampled_from(["Once upon a time", "The", "She wa", "Lil", "He said th", "there", "A"]),
        min_size=1,
        max_size=3,
    ),
    how=st.sampled_from(
        [
            {"do_sample": False},
            {"do_sample": True, "temperature": 1.0},
            {"do_sample": True, "temperature": 2.0, "top_k": 0},
            {"num_beams": 3},
            {"num_beams": 2, "do_sample": True},
            {"do_sample": True, "num_return_sequences": 2, "seed": 1},
        ]
    ),
    tokens=st.integers(1, 40),
    stop=st.sampled_from([None, ["."], ["e"], ["ing", "\n"]]),
)
def test_no_bad_word_ever_appears(demo, tokenizer, banned, prompts, how, tokens, stop):
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    torch.manual_seed(0)
    out = demo.generate(**batch, max_new_tokens=tokens, bad_words=banned, stop_strings=stop, tokenizer=tokenizer, **how)
    for index, text in enumerate(tokenizer.batch_decode(out, skip_special_tokens=True)):
        prompt = prompts[index * len(prompts) // len(out)]
        assert not violations(text, len(prompt), banned)
