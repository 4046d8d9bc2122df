"""Required expressions that depend on the end of the text, next to settings of that end, with all families.

Where the text has no word yet, or too few, the entry comes last; where the end would undo it, something else comes. A
draw is a family, a mode, entries, an end and a length; `PROMISE_DRAWS=2000` asks for that many draws.
"""

import itertools
import os
import random

import pytest
from test_promises import MODES
from test_promises_at_borders import rows_of, texts_of_row
from text_matcher import first_missing, violations
from toy_tokenizers import FAMILIES, toy_model
from unit_checker import ends_as_asked, wrong_end

DRAWS = int(os.environ.get("PROMISE_DRAWS", "12"))
FIRST = int(os.environ.get("PROMISE_FIRST", "0"))
ENDS = [
    {"end_at": "word"},
    {"end_at": "sentence"},
    {"end_at": "line"},
    {"end_at": "paragraph"},
    {"words": 1},
    {"words": 3},
]
ENDS += [{"words": "2-6"}, {"sentences": 1}, {"sentences": "1-3"}, {"words": "4-8", "end_at": "sentence"}]
ENDS += [{"words": "3-9", "sentences": "1-2"}, {"words": 6, "end_at": "line"}, {"ends_with": "ran."}]
# Expressions, and a text that matches each where the text ends.
ENTRIES = {"/\\.$/": ".", "/!$/": "!", "/dog$/": "dog", "/dog.$/": "dog.", "/[0-9]$/": "4", "/[^a-z]$/": "!"}
ENTRIES |= {"/ran[.!]?$/": "ran.", "/(?m)^cat$/": "\ncat", "/\\n$/": ".\n", "/[a-z]\\.$/": "n.", "/sun\\W$/": "sun."}
ENTRIES |= {"/[a-d]+$/": "bad", "/^a cat/": "a cat"}
PROMPTS = ["", "the cat", "It ran.", "once upon a ti", "日本"]
BEGUN = ["", " ", ". ", " It ran. ", "\n", " . "]
REFUSING = "must_include|words|sentences|end_at|ends_with"


def draw(number):
    """The case with this number: family, prompt as tokens and arguments of `generate()`."""
    dice = random.Random(f"at ends {number}")
    family = dice.choice([*FAMILIES])
    how = dict(dice.choice([*MODES, {"do_sample": True, "temperature": 1.5, "top_k": 0, "stream": True}]))
    how |= dice.choice(ENDS)
    how["must_include"] = dice.sample([*ENTRIES], dice.choice([1, 1, 1, 2])) + dice.choice([[], [], ["cat"], ["é"]])
    how |= dice.choice(
        [{}, {}, {"bad_words": ["the", "big"]}, {"bad_words": ["/[A-Z]/"]}, {"suppress_tokens": [5, 6, 30]}]
    )
    how["max_new_tokens"] = dice.choice([8, 12, 20, 40, 60])
    tokenizer = toy_model(family).tokenizer
    prompt = tokenizer(dice.choice(PROMPTS), add_special_tokens=False).input_ids
    return family, [tokenizer.eos_token_id] * dice.choice([0, 1]) + prompt or [tokenizer.eos_token_id], how


def whats_wrong(given, whole, added, how):
    """What is wrong with a text, if anything."""
    if found := violations(whole, len(given), how.get("bad_words", ())):
        return found
    rest = whole[len(given) :] if whole.startswith(given) else added
    if missing := first_missing(given + rest, len(given), how["must_include"]):
        return f"{missing!r} is missing"
    asked = {name: how.get(name) for name in ("end_at", "words", "sentences")}
    if any(asked.values()) and (wrong := wrong_end(rest, **asked)):
        return wrong
    return "" if "ends_with" not in how or ends_as_asked(given, rest, how["ends_with"]) else "other last words"


def witness(model, prompt, how):
    """A text that keeps what is asked within half of the tokens, if one of many does."""
    middle = [ENTRIES.get(entry, entry) for entry in how["must_include"]]
    endings = ("", ".", "\n", ".\n", ".\n\n", " ran.", ". It ran.")
    closed = {*model.tokenizer.all_special_ids, *how.get("suppress_tokens", ())}
    for begun, more, words, glue, ending in itertools.product(
        BEGUN, range(7), (middle, middle[::-1]), (" ", ""), endings
    ):
        text = begun + " ".join([*["sun"] * more, *words[:-1]]) + glue + words[-1] + ending
        tokens = model.tokenizer(text, add_special_tokens=False).input_ids
        if closed & {*tokens} or len(tokens) > how["max_new_tokens"] // 2:
            continue
        read = texts_of_row(model, prompt, tokens)
        if read[1].startswith(read[0]) and not whats_wrong(*read, how):
            return text
    return None


@pytest.mark.parametrize("number", range(FIRST, FIRST + DRAWS))
def test_an_entry_at_the_end_is_kept_and_not_refused_where_it_can_be_written(number):
    family, prompt, how = draw(number)
    model, refusal, found = toy_model(family), "", []
    try:
        found = list(rows_of(model, [prompt], how, number))
    except ValueError as error:
        refusal = str(error)
    for given, added in found:
        read = texts_of_row(model, given, added)
        assert not whats_wrong(*read, how), (read, how, family)
    if refusal:
        assert "\n" not in refusal, refusal
        assert witness(model, prompt, how) is None, (refusal, witness(model, prompt, how), how, family)


WRITTEN = [
    ("llama", {"words": "2-6", "must_include": ["/\\.$/"]}),
    ("llama", {"words": 3, "must_include": ["/\\.$/", "é"]}),
    ("byte_level", {"words": 1, "must_include": ["/\\n$/"]}),
    ("byte_level", {"words": 3, "must_include": ["/ran[.!]?$/", "/[^a-z]$/"]}),
    ("characters", {"sentences": "1-3", "must_include": ["/sun\\W$/", "/\\.$/"]}),
    ("gemma", {"end_at": "sentence", "must_include": ["/dog.$/", "cat"]}),
    ("unigram", {"words": 4, "must_include": ["/dog$/", "sun"]}),
    ("byt5", {"words": 1, "must_include": ["/\\.$/", "é"], "max_new_tokens": 8}),
]


@pytest.mark.parametrize(("family", "asked"), WRITTEN, ids=str)
def test_words_that_come_last_are_led_to(family, asked):
    model = toy_model(family)
    for how in ({"do_sample": True, "temperature": 1.5, "top_k": 0}, {"num_beams": 3}):
        how = {"max_new_tokens": 16} | asked | how
        found = list(rows_of(model, [[model.tokenizer.eos_token_id]], how, 0))
        assert found
        assert not any(whats_wrong(*texts_of_row(model, *row), how) for row in found), found
