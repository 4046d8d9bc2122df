"""A structure next to words that it may not allow: refused where that is proven, and never a banned word.

The language of each expression is finite and listed, so an independent matcher tells which texts are possible. Like
`test_promises.py`, with other draws: `PROMISE_DRAWS=1000` asks for that many.
"""

import itertools
import os
import random
import re
import warnings

import pytest
import torch
from test_promises import judge
from text_matcher import violations
from toy_tokenizers import FAMILIES, toy_model
from transformers import StoppingCriteriaList

from fundamentallm_hf import controlled_generate
from fundamentallm_hf.portable.decoding.endings import ClosedEndCriteria

# A tokenizer whose decoder takes spaces from the end of a text is not supported next to a structure.
SUPPORTED = [family for family in FAMILIES if family != "word_ends"]
DRAWS = int(os.environ.get("PROMISE_DRAWS", "80"))
FIRST = int(os.environ.get("PROMISE_FIRST", "0"))
PROMPTS = ["the", "it ran.", "a do"]
PARTS = [
    ["the ", "a ", "my "],
    [" the ", " big "],
    ["cat", "dog", "ran"],
    ["cat", "dog", "sun", "og"],
    ["", "s", "ly"],
    [" and ", ", "],
    ["a", "b", "c"],
    ["x", "y"],
    ["1", "4", "9"],
    ["", "."],
    ["g", "g ", "ggg"],
]
BANNED = ["cat", "dog", "the", "*og", "ran*", "/[ab]$/", "/[0-9]{2}/", "/c[xy]/", "dog cat", "/\\w$/", "/[a-c]{3}/"]
REQUIRED = ["cat", "dog", "sun", "ran", "/[0-9]{3}/", "cats", "/[bc][bc]/", "big", "dog|cat"]
MODES = [
    {"do_sample": False},
    {"do_sample": True, "temperature": 1.5, "top_k": 0, "num_return_sequences": 2},
    {"num_beams": 3},
]


def draw(number):
    """A family, a prompt, an expression with all its texts, the words, and a mode."""
    dice = random.Random(number)
    parts = [dice.choice(PARTS) for _ in range(dice.choice([1, 2, 3, 4, 5]))]
    pattern = "".join(f"({'|'.join(map(re.escape, part))})" for part in parts)
    texts = {"".join(each) for each in itertools.product(*parts)}
    words = {}
    what = dice.choice(["bad", "must", "both"])
    if what != "must":
        words["bad_words"] = dice.sample(BANNED, dice.choice([1, 2, 3]))
    if what != "bad":
        words["must_include"] = dice.sample(REQUIRED, dice.choice([1, 1, 2]))
    return dice.choice(SUPPORTED), dice.choice(PROMPTS), pattern, texts, words, dict(dice.choice(MODES))


def spelled(tokenizer, prompt, text):
    """Whether the tokenizer writes this text after the prompt in tokens of its own."""
    given, whole = (tokenizer(each, add_special_tokens=False).input_ids for each in (prompt, prompt + text))
    return whole[: len(given)] == given and tokenizer.decode(whole) == prompt + text


@pytest.mark.parametrize("number", range(FIRST, FIRST + DRAWS))
def test_words_that_no_match_holds_are_refused_and_others_hold(number):
    family, prompt, pattern, texts, words, mode = draw(number)
    model = toy_model(family)
    case = (family, prompt, pattern, words, mode)
    ids = model.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    before = model.tokenizer.decode(ids[0])
    # A decoder may take the space from the start of what is added, read by itself.
    strict = [text for text in texts if not judge(before, before + text, text, words)]
    possible = {text for text in texts if not judge(before, before + text, text.removeprefix(" "), words)} | {*strict}
    blocked, refusal, written = ClosedEndCriteria(tell=False), "", []
    torch.manual_seed(number)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=60,
                pattern=pattern,
                stopping_criteria=StoppingCriteriaList([blocked]),
                custom_generate=controlled_generate,
                **words,
                **mode,
            )
        written = [model.tokenizer.decode(row, skip_special_tokens=True)[len(before) :] for row in out]
    except ValueError as error:
        refusal = str(error)
    assert "\n" not in refusal, case
    assert refusal or possible, (case, written)
    if any(spelled(model.tokenizer, before, text) for text in strict):
        assert not refusal, (case, refusal, possible)
        assert not blocked.rows or "num_beams" in mode, (case, written)
    for text in written:
        assert text in possible or blocked.rows, (case, text)
        assert not violations(before + text, len(before), words.get("bad_words", ())), (case, text)


@pytest.mark.parametrize("family", SUPPORTED)
@pytest.mark.parametrize(
    ("structure", "words"),
    [
        ({"pattern": "[a-z]{3}"}, {"bad_words": ["/[a-z]{3}/"]}),
        ({"pattern": "[a-c]{3,9}"}, {"must_include": ["dog"]}),
        ({"pattern": "[0-9]+-dogs"}, {"bad_words": ["/[0-9]/"], "must_include": ["dogs"]}),
        ({"pattern": "[a-z ]*dog[a-z ]*"}, {"bad_words": ["*dog*"]}),
        ({"pattern": "[a-z]+, [a-z]+"}, {"must_include": ["/[0-9]/", "cat"]}),
        ({"json_schema": {"enum": ["Paris", "Rome"]}}, {"must_include": ["dragon"]}),
        ({"json_schema": {"enum": ["Paris", "Rome"]}}, {"bad_words": ["Paris", "Rome"]}),
        ({"grammar": 'start: "yes" | "no"'}, {"must_include": ["cat"]}),
        ({"grammar": 'start: "yes" | "no"'}, {"bad_words": ["yes", "no"]}),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_written(family, structure, words):
    model = toy_model(family)
    ids = model.tokenizer("the. ", return_tensors="pt", add_special_tokens=False).input_ids
    with pytest.raises(ValueError, match=r"(?s)^(bad_words|must_include|pattern|json_schema): ") as error:
        model.generate(ids, max_new_tokens=40, custom_generate=controlled_generate, **structure, **words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["byte_level", "llama", "characters"])
@pytest.mark.parametrize("banned", ["/[a-z]{3}/", "/\\b[a-z]{3}\\b/", "/[a-z]$/", "/\\w.$/"])
@pytest.mark.parametrize(
    "structure",
    [
        {"json_schema": {"type": "string", "pattern": "^[a-z]{3}$"}},
        {"json_schema": {"enum": ["abc", "abd", "a b", "it is"]}},
        {"grammar": "start: /[a-z]{3}/"},
        {"grammar": 'start: WORD (" " WORD)*\nWORD: /[a-z]{2,3}/'},
    ],
)
def test_a_ban_never_gives_way_to_a_structure(family, banned, structure):
    model, prompt = toy_model(family), "the. "
    ids = model.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    before = model.tokenizer.decode(ids[0])
    for seed in range(4):
        torch.manual_seed(seed)
        how = {"do_sample": True, "temperature": 1.5, "top_k": 0, "max_new_tokens": 20, "bad_words": [banned]}
        row, refusal = ids[0], ""
        try:
            (row,) = model.generate(ids, custom_generate=controlled_generate, **how, **structure)
        except ValueError as error:
            refusal = str(error)
        assert not refusal or refusal.startswith("bad_words: ")
        assert "\n" not in refusal
        whole = model.tokenizer.decode(row, skip_special_tokens=True)
        assert not violations(whole, len(before), [banned]), whole
