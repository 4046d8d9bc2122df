"""`end_at`, `words` and `sentences` with all families of tokenizers, drawn beside other controls.

A draw is a family, a mode, what the end has to be, other controls and a length; draw `i` is always the same. An
independent checker judges the texts. `ENDING_DRAWS=2000` asks for that many draws.
"""

import os
import random
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from text_matcher import first_missing, violations
from toy_tokenizers import FAMILIES, toy_model
from unit_checker import wrong_end

from fundamentallm_hf import Generator, controlled_generate, load_model
from fundamentallm_hf.portable.controls.end_settings import check_ending
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import SETTINGS

DRAWS = int(os.environ.get("ENDING_DRAWS", "160"))
FIRST = int(os.environ.get("ENDING_FIRST", "0"))
PROMPTS = ["the cat", "once upon a ti", "Paris", "é", "42 and 1", "the", "a 日本 😀", "Dr"]
MODES = [
    {"do_sample": False},
    {"do_sample": True, "temperature": 1.5, "top_k": 0},
    {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "seed": 3},
    {"num_beams": 3},
    {"num_beams": 2, "do_sample": True},
    {"do_sample": True, "num_return_sequences": 2, "temperature": 1.5},
    {"do_sample": False, "use_cache": False},
    {"do_sample": False, "prompt_lookup_num_tokens": 3},
]
ENDS = [
    {"end_at": "word"},
    {"end_at": "sentence"},
    {"end_at": "line"},
    {"end_at": "paragraph"},
    {"words": 1},
    {"words": 3},
    {"words": "2-5"},
    {"sentences": 1},
    {"sentences": 2},
    {"sentences": "1-3"},
    {"words": "4-8", "end_at": "sentence"},
    {"words": 5, "sentences": 2},
    {"sentences": "1-2", "end_at": "paragraph"},
    {"words": 6, "end_at": "line"},
]
PARTNERS = [
    {},
    {},
    {"bad_words": ["the", "ran*", "*a*"]},
    {"bad_words": ["/[^a-z .!?\\n]/"]},
    {"bad_words": ["Dr. Smith", "big dog", "t", "/\\w$/"]},
    {"must_include": ["cat"]},
    {"must_include": ["dog|Paris", "3.14"]},
    {"must_include": ["/[.!]$/"]},
    {"must_include": ["sun"], "bad_words": ["the", "*o*"]},
    {"stop": ["."]},
    {"stop": ["e", "\n"]},
    {"suppress_tokens": [5, 6, 7, 30]},
    {"repetition_penalty": 1.3},
]


def draw(number):
    """The case with this number: family, prompts and arguments of `generate()`."""
    dice = random.Random(number)
    family = dice.choice(list(FAMILIES))
    how = dict(dice.choice(MODES)) | dict(dice.choice(ENDS)) | dict(dice.choice(PARTNERS))
    how["max_new_tokens"] = dice.choice([12, 40, 60])
    rows = 1 if "prompt_lookup_num_tokens" in how else dice.choice([1, 1, 3])
    return family, dice.sample(PROMPTS, rows), how


def added_texts(model, prompts, how):
    """What is added to each prompt, up to a stop string, and the whole text."""
    tokenizer = model.tokenizer
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    torch.manual_seed(0)
    out = model.generate(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, custom_generate=controlled_generate, **how
    )
    decode = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    for index, row in enumerate(out):
        given = batch.input_ids[index * len(prompts) // len(out)]
        added = tokenizer.decode(row[len(given) :], **decode)
        cut = re.search("|".join(map(re.escape, how.get("stop", []))) or r"\Z", added)
        yield tokenizer.decode(given, **decode), tokenizer.decode(row, **decode), added[: cut.start()] if cut else added


def promised(how):
    return {name: how.get(name) for name in ("end_at", "words", "sentences")}


def checked(texts, how, family, refusing):
    """Texts that end as asked for, with every required word and no bad one; none where a setting refuses in one line.

    Args:
        texts: an iterator over prompts, whole texts and what was added, which may raise.
        how: the arguments of `generate()`.
        family: of the tokenizer.
        refusing: the names of the settings that may refuse, as an expression.
    """
    refusal, found = "", []
    try:
        found = list(texts)
    except ValueError as error:
        refusal = str(error)
    # A budget, an alphabet or another control leaves no such text.
    assert "\n" not in refusal
    assert found or re.match(refusing, refusal), refusal
    for prompt, whole, added in found:
        case = (prompt, whole, added, how, family)
        if {"end_at", "words", "sentences"} & how.keys():
            assert not wrong_end(added, **promised(how)), case
        assert not first_missing(whole, len(prompt), how.get("must_include", ())), case
        assert not violations(whole, len(prompt), how.get("bad_words", ())), case
    return found


@pytest.mark.parametrize("number", range(FIRST, FIRST + DRAWS))
def test_every_text_ends_as_asked_for(number):
    family, prompts, how = draw(number)
    assert {"end_at", "words", "sentences"} & how.keys()
    checked(added_texts(toy_model(family), prompts, how), how, family, "end_at|words|sentences|must_include|stop")


def draw_next_to_numbers(number):
    """The case with this number, with as few words as leave room for the required ones or fewer."""
    dice = random.Random(f"numbers {number}")
    most = dice.choice([2, 3, 4, 5, 7])
    how = {"words": f"{dice.randint(1, most)}-{most}", "sentences": dice.choice([1, 2, 2])}
    how["must_include"] = dice.sample(["é", "dog", "2", "Paris", "/[0-9]/", "*t"], dice.choice([1, 2]))
    how |= dice.choice([*MODES[:4], {"do_sample": True, "temperature": 1.0, "seed": number}])
    return dice.choice([*FAMILIES]), [dice.choice(PROMPTS)], how | {"max_new_tokens": dice.choice([10, 16, 24, 40])}


@pytest.mark.parametrize("number", range(FIRST, FIRST + DRAWS // 2))
def test_required_words_and_the_end_choose_one_way_where_few_words_are_left(number):
    # Behind a mark, "t.é" is one word and "t. é" are two.
    family, prompts, how = draw_next_to_numbers(number)
    checked(added_texts(toy_model(family), prompts, how), how, family, "words|sentences|must_include")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stop", [["."], ["!", "."], [","], [". "], ["o"]], ids=str)
@pytest.mark.parametrize("asked", [{"sentences": 2}, {"words": "3-6"}, {"end_at": "sentence"}], ids=str)
def test_a_mark_that_is_a_stop_text_is_on_no_way_to_the_end(asked, stop, family):
    for seed in range(2):
        how = {"do_sample": True, "temperature": 1.0, "seed": seed, "max_new_tokens": 40, "stop": stop} | asked
        checked(added_texts(toy_model(family), ["the dog", "é"], how), how, family, "end_at|words|sentences|stop")


REFUSED = [
    ({"end_at": "paragraph", "must_include": ["/!$/"]}, "such a text with the required words cannot be written"),
    ({"end_at": "sentence", "must_include": ["/\\w$/"]}, "such a text with the required words cannot be written"),
    ({"words": 50, "max_tokens": 20}, "words: such a text needs at least"),
    ({"sentences": 9, "max_tokens": 12}, "sentences: such a text needs at least"),
    ({"end_at": "verse"}, "end-at has to be one of word, sentence, line, paragraph but is 'verse'"),
    ({"words": "60-40"}, "words has to be a whole number from 1 to "),
    ({"words": 2.5}, "words has to be a whole number from 1 to "),
    ({"sentences": 0}, "sentences has to be a whole number from 1 to "),
    ({"words": 3, "sentences": 5}, "5 sentences need a word each"),
    ({"words": 5, "min_tokens": 3}, "words and min_tokens (3) both decide"),
    ({"end_at": "word", "pattern": "a+"}, "end_at and pattern both decide where the text ends"),
    ({"end_at": "line", "stop": ["\n"]}, "ends the text before it can end at a line"),
    ({"must_include": ["dragon", "castle"], "end_at": "sentence", "max_tokens": 14}, "with the required words"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_cannot_be_is_refused_in_one_line_before_the_first_step(settings, message):
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        Generator(load_model(device="cpu")).generate("Once upon a time", **settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("how", [{"temperature": 0}, {"temperature": 0.8, "seed": 4}, {"beam_size": 3}])
@pytest.mark.parametrize("asked", [{"end_at": "sentence"}, {"words": "8-12"}, {"sentences": 2}, {"end_at": "line"}])
def test_the_bundled_model_ends_as_asked_for_with_whole_words(asked, how):
    done = Generator(load_model(device="cpu")).complete("Once upon a time", max_tokens=160, **asked, **how)[0]
    assert not wrong_end(done.completion, **asked), done.completion
    assert done.tokens <= 160


def test_a_drafted_text_ends_like_one_that_is_not():
    generator = Generator(load_model(device="cpu"))
    texts = [
        generator.generate("One day, Tim", max_tokens=120, end_at="sentence", temperature=0, speculate=each)
        for each in (True, False)
    ]
    assert texts[0] == texts[1]


def test_with_room_for_it_the_text_is_the_free_one_up_to_its_end():
    generator = Generator(load_model(device="cpu"), temperature=0)
    free = generator.generate("Once upon a time", max_tokens=300)
    ended = generator.generate("Once upon a time", max_tokens=300, end_at="sentence")
    assert free.startswith(ended.rstrip())
    assert len(ended) > 150


def test_a_model_without_an_end_token_ends_where_it_is_asked_to():
    model = toy_model("characters")
    ends = model.generation_config.eos_token_id
    try:
        model.generation_config.eos_token_id = None
        how = {"do_sample": True, "max_new_tokens": 40, "words": 3}
        for _, _, added in added_texts(model, ["the cat"], how):
            assert not wrong_end(added, words=3), added
    finally:
        model.generation_config.eos_token_id = ends


@pytest.mark.parametrize("name", ["end_at", "words", "sentences"])
@pytest.mark.parametrize("value", [0, False, -1, "0", "5-"])
def test_generate_refuses_a_value_that_asks_for_nothing(name, value):
    model = load_model(device="cpu")
    ids = model.tokenizer("Once", return_tensors="pt").input_ids
    with pytest.raises(UserError, match=f"{name} has to be "):
        model.generate(ids, max_new_tokens=20, tokenizer=model.tokenizer, **{name: value})


_NUMBERS = st.integers(-2, 30_000)
_RANGES = st.builds("{}{}{}".format, _NUMBERS, st.sampled_from(["-", "\u2013", " - ", "--", " "]), _NUMBERS)


@given(st.sampled_from(["words", "sentences"]), _NUMBERS | _NUMBERS.map(str) | _RANGES | st.booleans() | st.text())
def test_a_number_or_range_is_read_alike_by_the_settings_and_by_generate(name, value):
    read = []
    for parse in (SETTINGS[name].parse, lambda value: value):
        try:
            found = check_ending({name: parse(value)}, 0)
            read.append(found and (found.words, found.sentences))
        except UserError:
            read.append("refused")
    assert read[0] == read[1] or value == ""


def test_a_plan_for_required_words_keeps_its_own_first_token_open():
    # Where a mark asks for a space, the rest of the plan looks longer than it is.
    how = {"do_sample": True, "top_p": 0.9, "seed": 3, "words": 6, "end_at": "line", "max_new_tokens": 40}
    how |= {"must_include": ["dog|Paris", "3.14"]}
    for _, whole, added in added_texts(toy_model("byte_level"), ["é", "once upon a ti", "42 and 1"], how):
        assert not wrong_end(added, **promised(how)), whole
