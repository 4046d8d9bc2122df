"""The search for the shortest text that completes an entry finds it in few steps, or reports that it gave up."""

import copy
import random

import pytest
from toy_tokenizers import FAMILIES, toy_tokenizer

from fundamentallm_hf.portable.controls import must_include_search
from fundamentallm_hf.portable.controls.bad_words import compile_bad_words
from fundamentallm_hf.portable.controls.must_include_plan import Requirements
from fundamentallm_hf.portable.controls.must_include_search import Search

ENTRIES = [
    "dragon",
    "/a.{10}b/",
    "/(a|b)*c.{6}d/",
    "/[0-9]{4}-[0-9]{2}/",
    "*ing",
    "a*b",
    "dog|Paris",
    "/\\bno\\b.{8}!/",
]


def made(entry, bans=()):
    tokenizer = toy_tokenizer("characters")
    barred = compile_bad_words(bans, tokenizer, len(tokenizer)) if bans else None
    return Requirements([entry], tokenizer, len(tokenizer), barred=barred)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("bans", [(), ("c*",), ("/ /",), ("the", "e", "*x*")])
def test_a_way_is_found_in_few_steps(entry, bans, monkeypatch):
    monkeypatch.setattr(must_include_search, "_MOST_TRIED", 4000)
    requirements = made(entry, bans)
    dice = random.Random(entry)
    progress = requirements.prompt_end(requirements.start)
    for _ in range(60):
        plan = requirements.plan(progress)
        assert plan is not None, (entry, bans)
        done = progress
        for token in plan:
            done = requirements.advance(done, token)
        assert not requirements.missing(done)
        token = dice.choice(range(3, requirements.size))
        after = requirements.advance(progress, token)
        if requirements.missing(after) and not requirements.barred:
            progress = after


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", ["", "the cat", "42 and 1", "Paris."])
def test_several_entries_are_written_one_after_the_other(family, prompt):
    tokenizer = toy_tokenizer(family)
    for entries in (["cat", "sun"], ["/[0-9]{2}/", "sun", "ran*"], ["dog|Paris", "happy"]):
        requirements = Requirements(entries, tokenizer, len(tokenizer))
        progress = requirements.start
        for token in tokenizer(prompt, add_special_tokens=False).input_ids:
            progress = requirements.advance_prompt(progress, token)
        progress = requirements.prompt_end(progress)
        plan = requirements.plan(progress)
        assert plan is not None, entries
        for token in plan:
            progress = requirements.advance(progress, token)
        assert not requirements.missing(progress)


def test_the_way_is_the_shortest():
    for entry, length in (("/a.{10}b/", 12), ("/(ab|abcdef)x/", 3), ("*ing", 3), ("dog|a|Paris", 1)):
        requirements = made(entry)
        patterns = requirements.tables[0].patterns
        way = requirements.ways(Search(0, patterns.start, None, None))
        assert way is not None
        assert len(way) == length


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("entry", ["glass", "office", "Łódź", "RISE", "né", "a*ss"])
def test_letters_are_written_as_the_entry_has_them(family, entry):
    """Not "ß" for "ss" nor a ligature for "ffi", though they count as the same and are fewer characters."""
    tokenizer = copy.deepcopy(toy_tokenizer(family))
    tokenizer.add_tokens(["ß", "ﬃ"])
    requirements = Requirements([entry], tokenizer, len(tokenizer))
    progress = requirements.prompt_end(requirements.start)
    assert entry.replace("*", "") in requirements.vocabulary.text(requirements.plan(progress))
    for _ in range(len(entry.encode()) + 2):
        plan = requirements.plan(progress)
        if not plan:
            break
        assert not set("ßﬃ") & set(requirements.vocabulary.text(plan))
        progress = requirements.advance(progress, plan[0])
    assert not requirements.missing(progress)


def test_a_search_that_gives_up_says_so(monkeypatch):
    monkeypatch.setattr(must_include_search, "_MOST_TRIED", 50)
    with pytest.raises(ValueError, match="was found: make it simpler"):
        made("/a.{10}b/")
