"""Plans over real tokenizers, without a model: whatever was written, what a plan adds is what was asked for."""

import random
from functools import cache
from itertools import permutations

import pytest
from text_matcher import first_missing, violations
from toy_tokenizers import FAMILIES, toy_tokenizer

from fundamentallm_hf.portable.controls.bad_words import compile_bad_words
from fundamentallm_hf.portable.controls.must_include_plan import Requirements

PROMPTS = ["the cat", "once upon a ti", "the big do", "é", "42 and 1", "the", "a 日本 😀", "", "é "]
REQUIRED = [
    *("cat", "dog|Paris", "very big dog", "ran*", "Dr. Smith", "/[0-9]{2}/", "é", "日本", "😀", "café", "e.g."),
    *("3.14", "Łódź", "안녕", "happy", "猫", "/[a-z][0-9]/"),
]
# Each may share characters with another.
OVERLAPPING = [
    "/[0-9]\\.[0-9]/",
    "/[0-9]{2}/",
    "日本",
    "本",
    "/a[a-z]/",
    "/[a-z]n/",
    "e.g.",
    ".",
    "an",
    "/n./",
    "ca*",
    "/.t/",
]
BANNED = [
    *("the", "*og", "big dog", "é", "t", "1*", "/[^\\x00-\\x7f]/", "/[0-9]/", "/[^a-z ]/", "/\\ufffd/", "/.{2}\\./"),
    *("/\\w$/", "/\\bc/", "/an\\b/", "/[A-Z]/"),
]
DECODE = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}


@cache
def required(family, entries, banned=(), ordered=False):
    """The requirements, or None where they are refused."""
    tokenizer = toy_tokenizer(family)
    size = len(tokenizer) + (0 if family == "byt5" else 2)
    try:
        barred = compile_bad_words(banned, tokenizer, size) if banned else None
        return Requirements(entries, tokenizer, size, barred=barred, ordered=ordered)
    except ValueError:
        return None


def planned(requirements, tokenizer, dice):
    """Write some allowed tokens, then the plan; the prompt, the whole and what was added, or None without a plan."""
    prompt = tokenizer(dice.choice(PROMPTS), add_special_tokens=False).input_ids
    progress = requirements.start
    for token in prompt:
        progress = requirements.advance_prompt(progress, token)
    progress, row = requirements.prompt_end(progress), []
    barred, parts = requirements.barred, requirements.vocabulary.parts
    for _ in range(dice.choice([0, 1, 2, 4, 8])):
        closed = barred.table(progress.barred).closed if barred is not None else None
        pool = dice.choice([range(requirements.size), parts or range(requirements.size)])
        tokens = [token for token in dice.sample(pool, min(len(pool), 20)) if closed is None or not closed[token]]
        if not tokens:
            break
        row.append(tokens[0])
        progress = requirements.advance(progress, row[-1])
    plan = requirements.plan(progress)
    if plan is None:
        return None
    row += plan
    return tokenizer.decode(prompt, **DECODE), tokenizer.decode(prompt + row, **DECODE), tokenizer.decode(row, **DECODE)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_writes_what_is_missing_and_nothing_that_is_banned(family, number):
    dice = random.Random(f"{family} {number}")
    entries = tuple(dice.sample(REQUIRED, dice.choice([1, 1, 2, 3])))
    banned = tuple(dice.sample(BANNED, dice.choice([0, 1, 1, 2])))
    requirements = required(family, entries, banned)
    texts = [planned(requirements, toy_tokenizer(family), dice) for _ in range(12)] if requirements else []
    for prompt, whole, added in filter(None, texts):
        assert not first_missing(whole, len(prompt), entries), (entries, banned, whole)
        assert not violations(whole, len(prompt), banned), (entries, banned, whole)
        assert not violations(added, 0, banned), (entries, banned, added)
    assert not texts or sum(text is not None for text in texts) >= len(texts) // 2, (entries, banned)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("family", FAMILIES)
def test_an_ordered_plan_writes_each_entry_after_the_one_before(family, number):
    dice = random.Random(f"in order {family} {number}")
    entries = tuple(dice.sample(OVERLAPPING, 2) if number % 2 else dice.sample(REQUIRED, 2))
    requirements = required(family, entries, ordered=True)
    texts = [planned(requirements, toy_tokenizer(family), dice) for _ in range(12)] if requirements else []
    for prompt, whole, _ in filter(None, texts):
        assert not first_missing(whole, len(prompt), entries, ordered=True), (entries, whole)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    "entries", [("cat", "/[0-9]{2}/"), ("/[0-9]{2}/", "cat"), ("dog", "/[a-c]{2}/"), ("42", "cat")]
)
def test_an_entry_is_planned_after_any_other(family, entries, ordered):
    requirements = required(family, entries, ordered=ordered)
    tokenizer, progress = toy_tokenizer(family), requirements.start
    for token in tokenizer("the", add_special_tokens=False).input_ids:
        progress = requirements.advance_prompt(progress, token)
    plan = requirements.plan(requirements.prompt_end(progress))
    assert plan is not None
    assert not first_missing(f"the {tokenizer.decode(plan, **DECODE)}", 3, entries, ordered=ordered)


@pytest.mark.parametrize("family", FAMILIES)
def test_words_of_any_two_scripts_are_planned_together(family):
    # Some of them can only be written apart from each other with a mark between them.
    dice = random.Random(family)
    for entries in permutations(["cat", "é", "안녕", "日本", "猫"], 2):
        requirements = required(family, entries)
        if requirements:
            found = planned(requirements, toy_tokenizer(family), dice)
            assert found is not None, entries
            assert not first_missing(found[1], len(found[0]), entries), (entries, found[1])
