"""Must include: every word is in the text, in every mode and down to the last token, or the call is refused."""

import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import byte_level_gpt2, sentencepiece_llama
from text_matcher import violations
from transformers import LogitsProcessorList
from writing import written

from fundamentallm_hf import MustIncludeLogitsProcessor, load_model
from fundamentallm_hf.portable.controls.must_include_plan import Requirements
from fundamentallm_hf.portable.text.word_counts import WordCounts

pytestmark = pytest.mark.core

PROMPT = "Once upon a time"
WORDS = ["dragon", "castle", "knight"]
MODES = [
    {"do_sample": False},
    {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": 1},
    {"do_sample": True, "temperature": 2.0, "top_k": 0},
    {"num_beams": 4},
    {"num_beams": 2, "do_sample": True},
    {"do_sample": True, "num_return_sequences": 2, "seed": 5},
    {"do_sample": False, "use_cache": False},
]


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


def holds(text, prompt, entry):
    """Whether an independent matcher finds the entry, or one of its alternatives, in what was added."""
    parts = [entry] if entry.startswith("/") else entry.split("|")
    return any(violations(prompt + text, len(prompt), [part]) for part in parts)


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("tokens", [200, 40, 21])
def test_all_words_are_there_in_every_mode_down_to_the_last_token(demo, how, tokens):
    torch.manual_seed(0)
    for text in written(demo, [PROMPT], max_new_tokens=tokens, must_include=WORDS, **how):
        assert all(holds(text, PROMPT, word) for word in WORDS), text


def test_a_budget_that_cannot_hold_the_words_is_refused_before_anything_is_computed(demo, monkeypatch):
    monkeypatch.setattr(demo.model, "forward", lambda *args, **kwargs: pytest.fail("the model was run"))
    with pytest.raises(ValueError, match="'dragon', 'castle', 'knight' need at least 21 tokens but 20 may be added"):
        written(demo, [PROMPT], max_new_tokens=20, must_include=WORDS)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ({"must_include": ["日本"]}, "'日本' cannot be written with the model's alphabet"),
        ({"must_include": ["castle"], "bad_words": ["cast*"]}, "'castle' cannot be written without a bad word"),
        ({"must_include": ["/(/"]}, "is not a valid regular expression"),
        ({"must_include": [3]}, "must_include has to be a list of texts but holds 3"),
        ({"must_include": [" | "]}, "an entry has to hold words between"),
    ],
)
def test_what_cannot_be_is_refused_and_named(demo, control, message):
    with pytest.raises(ValueError, match=message):
        written(demo, [PROMPT], max_new_tokens=60, **control)


def test_what_the_prompt_holds_does_not_count(demo):
    text = written(demo, ["The dragon and"], max_new_tokens=60, do_sample=False, must_include=["dragon"])[0]
    assert "dragon" in text.lower()


def test_what_the_prompt_begins_may_be_completed(demo):
    assert written(demo, ["The drago"], max_new_tokens=1, do_sample=False, must_include=["dragon"]) == ["n"]


def test_entries_come_in_order_on_request(demo):
    how = {"max_new_tokens": 90, "do_sample": True, "seed": 3, "must_include": WORDS, "must_include_ordered": True}
    text = written(demo, [PROMPT], **how)[0].lower()
    found = [re.search(rf"\b{word}\b", text) for word in WORDS]
    assert all(found)
    places = [match.start() for match in found]
    assert places == sorted(places)


@pytest.mark.parametrize("entry", ["king|queen", "/[0-9]{4}/", "/(red|blue) hat/", "dragon*", "very big dog"])
def test_alternatives_patterns_stems_and_phrases(demo, entry):
    for tokens in (120, 15):
        text = written(demo, [PROMPT], max_new_tokens=tokens, do_sample=True, seed=0, must_include=[entry])[0]
        assert holds(text, PROMPT, entry), text


def test_the_text_does_not_end_before_all_is_there(demo):
    how = {"max_new_tokens": 400, "do_sample": True, "seed": 2, "must_include": ["zoo"]}
    text = written(demo, [PROMPT], length_penalty=-1.0, stop=["."], tokenizer=demo.tokenizer, **how)[0]
    assert holds(text, PROMPT, "zoo")


@pytest.mark.parametrize("name", ["stop", "stop_strings"])
def test_no_stop_text_ends_it_before_all_is_there(demo, name):
    how = {"max_new_tokens": 40, "do_sample": False, "must_include": ["zoo"], "tokenizer": demo.tokenizer}
    for stop in (".", "a", "the"):
        text = written(demo, [PROMPT], **how, **{name: [stop]})[0]
        assert holds(text, PROMPT, "zoo"), (stop, text)


def test_each_row_of_a_batch_comes_out_as_alone(demo):
    how = {"max_new_tokens": 70, "do_sample": True, "temperature": 0.8, "seed": 4, "must_include": WORDS}
    prompts = [PROMPT, "The big"]
    assert written(demo, prompts, **how) == [written(demo, [prompt], **how)[0] for prompt in prompts]


def test_past_the_window_and_up_to_a_full_one(shakespeare):
    prompt = "To be, or not to be. " * 8
    text = written(shakespeare, [prompt], max_new_tokens=60, do_sample=False, must_include=["king"])[0]
    assert holds(text, prompt, "king")
    text = written(shakespeare, ["KING"], max_new_tokens=500, do_sample=False, overflow="stop", must_include=["queen"])[
        0
    ]
    assert len(text) == 124
    assert holds(text, "KING", "queen")


def test_what_the_prompt_holds_counts_on_request(demo):
    how = {"max_new_tokens": 60, "do_sample": False, "must_include": ["dragon", "big"], "must_include_prompt": True}
    plain = written(demo, ["The dragon was big."], max_new_tokens=60, do_sample=False)
    assert written(demo, ["The dragon was big."], **how) == plain
    assert holds(written(demo, ["The dragon"], **how)[0], "The dragon", "big")


def test_a_beginning_is_weighed_by_the_chance_that_it_becomes_the_word(demo):
    counts = WordCounts({"ran": 60, "rat": 40, "big": 100})
    requirements = Requirements(["ran"], demo.tokenizer, len(demo.tokenizer), counts=counts)
    table = requirements.tables[0].table(requirements.tables[0].start)
    letter = demo.tokenizer("r").input_ids[0]
    assert dict(zip(table.risky.tolist(), table.chances.tolist(), strict=True))[letter] == pytest.approx(60.5 / 100.5)


def test_each_letter_of_a_pattern_without_known_words_brings_it_nearer(demo):
    requirements = Requirements(["/[0-9]{4}/"], demo.tokenizer, len(demo.tokenizer))
    table, place = requirements.tables[0], requirements.tables[0].start
    digit = demo.tokenizer("7").input_ids[0]
    chances = []
    for _ in range(3):
        found = table.table(place)
        chances.append(dict(zip(found.risky.tolist(), found.chances.tolist(), strict=True))[digit])
        place = table.advance(place, digit)
    assert chances == [pytest.approx(0.5 * 0.3**missing) for missing in (3, 2, 1)]


ENTRIES = ["dragon", "cat|dog", "sun", "very big", "jump*", "/[0-9]{2}/", "Tom", "zoo"]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    required=st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=4, unique=True),
    banned=st.lists(st.sampled_from(["the", "and", "was", "a", "big dog", "*ly"]), max_size=2, unique=True),
    prompt=st.sampled_from([PROMPT, "The", "The drag", "A ca", "I am 1"]),
    how=st.sampled_from(MODES),
    spare=st.integers(0, 60),
)
def test_everything_is_there_and_nothing_that_must_not_be(demo, required, banned, prompt, how, spare):
    torch.manual_seed(0)
    tokens = sum(len(entry) + 1 for entry in required) + spare
    for text in written(demo, [prompt], max_new_tokens=tokens, must_include=required, bad_words=banned, **how):
        assert all(holds(text, prompt, entry) for entry in required), text
        assert not violations(prompt + text, len(prompt), banned), text


@pytest.mark.parametrize("make", [byte_level_gpt2, sentencepiece_llama])
@pytest.mark.parametrize("how", MODES[:5])
def test_any_causal_model_can_be_made_to_include_words(make, how):
    model = make()
    torch.manual_seed(0)
    for text in written(model, ["once upon"], max_new_tokens=30, must_include=["cat", "story|end", "small*"], **how):
        assert all(holds(text, "once upon", entry) for entry in ("cat", "story|end", "small*")), text


@pytest.mark.parametrize("words", [["cat"], ["castle", "king|queen"]])
@pytest.mark.parametrize("model", [byte_level_gpt2, sentencepiece_llama])
def test_the_processor_works_alone_in_a_list_of_processors(model, words):
    model = model()
    tokenizer = model.tokenizer
    ids = tokenizer("once upon", return_tensors="pt").input_ids.expand(3, -1)
    processor = MustIncludeLogitsProcessor(words, tokenizer, max_new_tokens=50)
    torch.manual_seed(0)
    output = model.generate(ids, logits_processor=LogitsProcessorList([processor]), do_sample=True, max_new_tokens=50)
    for row in output:
        text = tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True).lower()
        assert all(any(part in text for part in word.split("|")) for word in words), text


def test_entries_of_which_each_undoes_the_other_are_refused_whatever_the_budget():
    tokenizer = byte_level_gpt2().tokenizer
    processor = MustIncludeLogitsProcessor(["/a$/", "/b$/"], tokenizer, max_new_tokens=50)
    with pytest.raises(ValueError, match=re.escape("no way to write '/a$/', '/b$/' in one text was found")):
        processor.check(torch.tensor([tokenizer("the").input_ids]))


def test_alone_it_has_to_know_its_budget_and_refuses_what_does_not_fit():
    tokenizer = byte_level_gpt2().tokenizer
    with pytest.raises(ValueError, match="pass max_new_tokens="):
        MustIncludeLogitsProcessor(["dragon"], tokenizer)
    short = MustIncludeLogitsProcessor(["dragon"], tokenizer, max_new_tokens=1)
    ids = tokenizer("He", return_tensors="pt").input_ids
    with pytest.raises(ValueError, match=r"need at least \d tokens but 1 may be added"):
        short(ids, torch.zeros(1, len(tokenizer)))


def test_a_processor_of_the_caller_is_refused_where_its_words_do_not_fit(demo):
    ids = demo.tokenizer(PROMPT, return_tensors="pt").input_ids
    processor = MustIncludeLogitsProcessor(WORDS, demo.tokenizer, max_new_tokens=20)
    with pytest.raises(ValueError, match="need at least 21 tokens but 20 may be added"):
        demo.generate(ids, max_new_tokens=20, do_sample=False, logits_processor=LogitsProcessorList([processor]))
