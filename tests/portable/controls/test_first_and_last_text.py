"""`starts_with` and `ends_with` with all families of tokenizers, drawn beside other controls.

A draw is a family, a mode, first and last words, other controls and a length; draw `i` is always the same. The texts
are judged by their characters alone. `BOUNDS_DRAWS=2000` asks for that many draws.
"""

import itertools
import os
import random
import re

import numpy as np
import pytest
import torch
from test_text_ending import MODES, PROMPTS, added_texts, checked
from toy_tokenizers import FAMILIES, toy_model
from unit_checker import begins_as_asked, ends_as_asked

from fundamentallm_hf import Generator, controlled_generate, load_model
from fundamentallm_hf.portable.controls.ending_scores import log_sum
from fundamentallm_hf.portable.controls.last_text import LastText
from fundamentallm_hf.portable.controls.text_ending import TextEndLogitsProcessor
from fundamentallm_hf.portable.errors import UserError

DRAWS = int(os.environ.get("BOUNDS_DRAWS", "160"))
FIRST = int(os.environ.get("BOUNDS_FIRST", "0"))
STARTS = [None, "the cat", "big", ["Paris", "Rome"], "\nthe dog", "42 and", "ca", "日本", ", and", "très bien", " a"]
STARTS += [["the", "the cat"], ["ca", "cat", "ca is"]]
LASTS = [None, "the dog", "ran.", ["big cat", "Rome"], "The dog ran!", "3.14", "猫", "très", "Paris\n", "! ?", "é"]
LASTS += [["the dog", "the dog ran.", "ran"]]
PARTNERS = [
    {},
    {},
    {"bad_words": ["the", "ran*", "*a*"]},
    {"bad_words": ["big dog", "t", "/\\w$/"]},
    {"bad_words": ["cat big", "/[xyz]/"]},
    {"must_include": ["cat"]},
    {"must_include": ["dog|Paris", "sun"]},
    {"must_include": ["/[nt.]$/"]},
    {"must_include": ["sun"], "bad_words": ["*o*"]},
    {"end_at": "sentence"},
    {"end_at": "word", "stop": ["."]},
    {"end_at": "line"},
    {"words": "4-9"},
    {"words": 6},
    {"sentences": 1},
    {"sentences": "1-3", "must_include": ["sun"]},
    {"stop": ["e", "\n"]},
    {"suppress_tokens": [5, 6, 7, 30]},
    {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 20},
]


def draw(number):
    """The case with this number: family, prompts and arguments of `generate()`."""
    dice = random.Random(number)
    family = dice.choice(list(FAMILIES))
    how = dict(dice.choice(MODES)) | dict(dice.choice(PARTNERS))
    first, last = random.Random(number // 2).choice([(1, 0), (0, 1), (1, 1)])
    chosen = {"starts_with": first and dice.choice(STARTS[1:]), "ends_with": last and dice.choice(LASTS[1:])}
    how |= {name: value for name, value in chosen.items() if value}
    how["max_new_tokens"] = dice.choice([16, 40, 60])
    rows = 1 if "prompt_lookup_num_tokens" in how else dice.choice([1, 1, 3])
    return family, dice.sample(PROMPTS, rows), how


def added_to(model, prompts, how):
    """The text of each prompt, and what follows it up to a stop string."""
    for prompt, whole, added in added_texts(model, prompts, how):
        # A decoder may discard bytes at the end of a prompt along with those after it.
        added = whole[len(prompt) :] if whole.startswith(prompt) else added
        cut = re.search("|".join(map(re.escape, how.get("stop", []))) or r"\Z", added)
        yield prompt, added[: cut.start()] if cut else added


@pytest.mark.parametrize("number", range(FIRST, FIRST + DRAWS))
def test_every_text_begins_and_ends_as_asked_for(number):
    family, prompts, how = draw(number)
    texts = ((prompt, prompt + added, added) for prompt, added in added_to(toy_model(family), prompts, how))
    refusing = "starts_with|ends_with|end_at|words|sentences|must_include|stop"
    for prompt, _, added in checked(texts, how, family, refusing):
        shown = (prompt, added, how, family)
        assert "starts_with" not in how or begins_as_asked(prompt, added, how["starts_with"]), shown
        assert "ends_with" not in how or ends_as_asked(prompt, added, how["ends_with"]), shown


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_family_begins_and_ends_with_words_in_every_mode(family, mode):
    how = mode | {"starts_with": "the cat", "ends_with": "big dog", "max_new_tokens": 40}
    for prompt, added in added_to(toy_model(family), ["Paris"], how):
        assert begins_as_asked(prompt, added, how["starts_with"]), added
        assert ends_as_asked(prompt, added, how["ends_with"]), added


REFUSED = [
    ({"ends_with": "The end", "must_include": ["/!$/"]}, "such a text with the required words cannot be written"),
    ({"ends_with": "The end", "max_tokens": 6}, "ends_with: such a text needs at least 8 tokens but 6 may be added"),
    ({"starts_with": "Suddenly", "max_tokens": 6}, "starts_with: 'Suddenly' needs 9 tokens but 6 may be added"),
    ({"starts_with": "He ran", "bad_words": ["ran"]}, "starts_with: 'He ran' cannot be written without a bad word"),
    ({"ends_with": "He ran", "bad_words": ["ran"]}, "ends_with: 'He ran' cannot be written without a bad word"),
    ({"starts_with": "time", "bad_words": ["a time time"]}, "cannot be written after the prompt without a bad word"),
    ({"ends_with": "The end.", "stop": ["end"]}, "ends_with: 'The end.' contains 'end', which stops the text"),
    ({"starts_with": "The end", "stop": ["end"]}, "starts_with: 'The end' contains 'end', which stops the text"),
    ({"starts_with": "end", "stop": ["time end"]}, "starts_with: 'end' completes a text that stops the text"),
    ({"ends_with": "日本"}, "ends_with: '日本' cannot be written with the model's alphabet"),
    ({"starts_with": "日本"}, "starts_with: '日本' cannot be written with the model's alphabet"),
    ({"ends_with": " \n"}, "ends_with has to be text with more than white space but is ' \\n'"),
    ({"ends_with": ["a", ""]}, "ends-with has to be text, or a list of texts, none empty"),
    ({"ends_with": "the end", "end_at": "sentence"}, "cannot be written with the model's alphabet and the other"),
    ({"ends_with": "one two three", "words": 2}, "cannot be written with the model's alphabet and the other"),
    ({"ends_with": "The end.", "pattern": "a+"}, "ends_with and pattern both decide where the text ends"),
    ({"starts_with": "The", "json_schema": {"type": "object"}}, "starts_with and json_schema both decide how"),
    ({"starts_with": "The old", "must_include": ["dragon"], "max_tokens": 12}, "starts_with: after 'The old', must"),
    ({"starts_with": "The old", "words": 2, "ends_with": "The end"}, "starts_with: after 'The old', "),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_cannot_be_is_refused_in_one_line_before_the_first_step(settings, message):
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        Generator(load_model(device="cpu")).generate("Once upon a time", **settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("how", [{"temperature": 0}, {"temperature": 0.8, "seed": 4}, {"beam_size": 3}])
def test_the_bundled_model_is_led_to_its_last_words_and_says_that_it_is_complete(how):
    done = Generator(load_model(device="cpu")).complete(
        "Once upon a time", max_tokens=160, starts_with=", in a forest,", ends_with="The end.", **how
    )[0]
    assert done.completion.startswith(", in a forest,")
    assert re.search(r'[.!?]"?\s+The end\.\Z', done.completion)
    assert done.finish_reason == "complete"
    assert done.tokens <= 160


def test_one_of_several_texts_comes_first():
    found = Generator(load_model(device="cpu")).complete(
        "Once upon a time", max_tokens=24, starts_with=["there was a frog", "there was a cat"], num_samples=4, seed=1
    )
    assert all(re.match(r" there was a (frog|cat)\b", each.completion) for each in found)


@pytest.mark.parametrize("family", ["characters", "byte_level", "llama"])
@pytest.mark.parametrize("texts", [["the", "the cat"], ["the cat", "the"], ["ca", "cat"]])
def test_a_first_text_that_another_continues_may_be_the_whole_of_it(family, texts):
    how = {"starts_with": texts, "max_new_tokens": 14, "do_sample": True, "top_k": 0, "num_return_sequences": 8}
    found = [added for _, added in added_to(toy_model(family), ["Paris"], how)]
    assert all(begins_as_asked("Paris", added, texts) for added in found), found
    assert not all(begins_as_asked("Paris", added, max(texts, key=len)) for added in found), found


def test_the_first_words_of_a_row_do_not_depend_on_the_other_rows():
    model = toy_model("characters")
    # After "dog" there is room for no other "big dog"; after "x" there is, but not where it completes a bad word.
    how = {"starts_with": ["dog sat", "x"], "must_include": ["big dog"], "bad_words": ["big x"], "do_sample": False}
    how |= {"max_new_tokens": 11}
    alone = [text for prompt in ("a big", "the") for _, text in added_to(model, [prompt], how)]
    assert [text.lstrip().split()[0] for text in alone] == ["dog", "x"]
    assert [text for _, text in added_to(model, ["a big", "the"], how)] == alone


def test_drafted_texts_with_first_and_last_words_are_like_those_that_are_not():
    generator = Generator(load_model(device="cpu"))
    how = {"max_tokens": 150, "starts_with": "Tim and Tom", "ends_with": "The end.", "temperature": 0}
    texts = [generator.generate("One day, ", speculate=each, **how) for each in (True, False)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("family", ["byte_level", "characters", "gemma"])
def test_no_space_comes_before_the_first_words_of_a_new_text(family):
    model = toy_model(family)
    ids = model.tokenizer("the cat", return_tensors="pt", add_special_tokens=False).input_ids
    ids = torch.cat([ids, torch.tensor([[model.tokenizer.eos_token_id]])], dim=1)
    how = {"custom_generate": controlled_generate, "max_new_tokens": 20, "do_sample": False}
    row = model.generate(ids, attention_mask=torch.ones_like(ids), starts_with="the dog", **how)[0]
    assert model.tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True).startswith("the dog")


@pytest.mark.parametrize("family", FAMILIES)
def test_first_words_after_a_special_token_are_read_by_themselves(family):
    model, how = toy_model(family), {"custom_generate": controlled_generate, "max_new_tokens": 30}
    for seed, (prompt, first) in enumerate(
        itertools.product(["once upon a ti", "the cat"], ["the dog", "Paris", "42"])
    ):
        ids = model.tokenizer(prompt, add_special_tokens=False).input_ids
        ids = torch.tensor([[*ids, model.tokenizer.eos_token_id]])
        row = model.generate(ids, starts_with=[first], do_sample=True, temperature=1.5, top_k=0, seed=seed, **how)[0]
        alone = model.tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True)
        assert begins_as_asked("", alone, first), (prompt, first)


def test_last_words_that_continue_a_sentence_come_where_the_model_finds_them_more_probable(monkeypatch):
    model = load_model(device="cpu")
    last = " to the park."

    def log_probability(prompt):
        ids = model.tokenizer(prompt, return_tensors="pt").input_ids
        how = {"max_new_tokens": 100, "do_sample": False, "ends_with": last.strip(), "tokenizer": model.tokenizer}
        row = model.generate(ids, **how)[0]
        row = row[: len(row) - int(row[-1] == model.generation_config.eos_token_id)]
        assert model.tokenizer.decode(row).endswith(last)
        with torch.no_grad():
            scores = model(row[None]).logits[0, :-1].log_softmax(dim=-1)
        return float(scores.gather(1, row[1:, None])[-len(last) :].sum())

    prompts = ["Once upon a time", "The dragon", "Tom and his dog", "One day, a girl"]
    asked = sum(map(log_probability, prompts))
    monkeypatch.setattr(LastText, "preferred", lambda *given: [])
    plain = sum(map(log_probability, prompts))
    assert asked > plain + 8, (asked, plain)


@pytest.mark.parametrize("end", [True, False], ids=["end token", "no end token"])
@pytest.mark.parametrize("seed", range(6))
def test_of_last_words_that_continue_each_other_the_model_chooses(seed, end):
    """At the end of one of them, an end is as probable as all that does not continue a longer one."""
    dice = np.random.default_rng(seed)
    given = np.log(dice.dirichlet(np.full(9, 0.5)))
    ending = _finisher(9, [8] if end else [])
    rests = [(3, 4), (), (5,)]
    for chances in ([], list(given[[3, 5]] + np.log(dice.random(2)))):
        scores, over = ending._finish(rests, given + 3.0, chances)
        goes_on = float(np.exp(chances or given[[3, 5]]).sum())
        if end:
            assert not over
            assert np.exp(scores - log_sum(scores))[8] == pytest.approx(1 - goes_on)
            assert np.isfinite(scores).sum() == 3
        else:
            assert over == (goes_on < 0.5)
    assert ending._finish([(3, 4), (5,)], given.copy())[1] is False
    scores, over = ending._finish([()], given.copy())
    assert over
    assert not np.isfinite(scores[[3, 4, 5]]).any()


def _finisher(size, ends):
    """A processor that knows nothing but its end tokens."""
    found = TextEndLogitsProcessor.__new__(TextEndLogitsProcessor)
    found.end_tokens, found.closing_token, found._over = ends, None if ends else 8, {8}
    return found


@pytest.mark.parametrize("how", [{"do_sample": False}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_a_longer_last_text_comes_where_the_model_goes_on_so(how):
    """The bundled model goes on after a name with a full stop, and hardly with another word."""
    model, prompt = load_model(device="cpu"), "Once upon a time, there was a little girl named"
    for texts, expected in ((["Lily", "Lily. She"], "Lily. She"), (["Lily", "Lily zebra"], "Lily")):
        asked = how | {"ends_with": texts, "max_new_tokens": 60}
        assert generated(model, prompt, asked) == f" {expected}"


def generated(model, prompt, how):
    """What is added to a prompt."""
    ids = model.tokenizer(prompt, return_tensors="pt").input_ids
    row = model.generate(ids, attention_mask=torch.ones_like(ids), **how)[0, ids.shape[1] :]
    return model.tokenizer.decode(row, skip_special_tokens=True)
