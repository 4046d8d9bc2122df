"""The usual spelling of a required word: its case, no false starts, and the space before it."""

import random
import re

import pytest
import torch
from toy_tokenizers import FAMILIES, toy_model, toy_tokenizer
from writing import written

from fundamentallm_hf.portable.controls import must_include
from fundamentallm_hf.portable.controls.must_include import MustIncludeLogitsProcessor
from fundamentallm_hf.portable.controls.must_include_plan import Requirements
from fundamentallm_hf.portable.controls.must_include_spelling import (
    CLOSED,
    FREE,
    IN_WORD,
    SPACED,
    Spellings,
    Tail,
    edge_after,
)
from fundamentallm_hf.portable.text.pieces import as_bytes
from fundamentallm_hf.portable.text.vocabulary import Vocabulary

PIECES = (" mar", " Mar", " MAR", "mal", "MAL", "Lad", "ade", "ade.", "\ufe0f", b"\xc3", " Paris", " paris", "mar")
VOCABULARY = Vocabulary(PIECES)


BEFORE = ["the cat ", "the cat, ", "No! ", "a dog\n", "", "in a café. "]
WORDS = ["Łódź", "cat", "happy", "Paris", "very big dog", "né", "Dr. Smith", "RISE", "日本"]


@pytest.mark.parametrize(
    ("source", "tail", "usual"),
    [
        ("marmalade", "he ate", {" mar"}),
        ("marmalade", "He ate it.", {" Mar"}),
        ("marmalade", "he ate it,", {" mar"}),
        ("marmalade", 'he said "', {" mar", "mar"}),
        ("marmalade", "he ate (", {" mar", "mar"}),
        ("marmalade", "ate mar", {"mal"}),
        ("marmalade", "EAT MAR", {"MAL"}),
        ("marmalade", "ate marmal", {"ade", "ade."}),
        ("marmalade", "ate marmalade", set(PIECES)),
        ("marmalade", "ate mArmal", {" mar"}),
        ("Paris", "in", {" Paris"}),
        ("king|paris", "in", {" paris"}),
        ("very marmalade", "very \n", set()),
    ],
)
def test_only_the_customary_spelling_goes_on(source, tail, usual):
    found = Spellings([source], VOCABULARY).customary(0, Tail(tail), range(len(PIECES)))
    assert {piece for piece, as_usual in zip(PIECES, found, strict=True) if as_usual} - {"mar"} == usual - {"mar"}
    assert found[PIECES.index("mar")] == ("mar" in usual or (tail in ("he ate", "in", "ate mArmal") and found[0]))


def test_a_word_that_the_text_only_seems_to_have_started_may_start_after_it():
    vocabulary = Vocabulary((" the", "atre", "ft"))
    spellings = Spellings(["theatre"], vocabulary)
    assert spellings.is_begun(0, Tail("in the"))
    assert not spellings.is_begun(0, Tail("breathe"))
    assert spellings.customary(0, Tail("in the"), range(3)) == [False, True, False]
    assert spellings.customary(0, Tail("in the"), range(3), ended=True) == [True, True, False]


@pytest.mark.parametrize(
    ("text", "edge"),
    [
        ("", FREE),
        ("cat", IN_WORD),
        ("cat ", SPACED),
        ("cat.", CLOSED),
        ('said: "', FREE),
        ('cat."', CLOSED),
        ("l'", FREE),
        ("cat)", CLOSED),
        ("(", FREE),
        ("a cat \u2013", CLOSED),
        ("a cat\u2014", FREE),
        ("\n", FREE),
        ("\u732b\u3002", FREE),
    ],
)
def test_a_space_is_due_after_closing_marks_alone(text, edge):
    assert edge_after(FREE, text) == edge


@pytest.mark.parametrize("source", ["/[0-9]{4}/", "*ing"])
def test_of_a_pattern_no_spelling_is_known(source):
    assert all(Spellings([source], VOCABULARY).customary(0, Tail(""), range(len(PIECES))))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("word", WORDS)
def test_a_started_word_goes_on_in_the_bytes_of_its_letters(family, word):
    """Also within a character: the first byte of a small letter may be that of the capital as well."""
    vocabulary = Vocabulary.of(toy_tokenizer(family))
    spellings = Spellings([word], vocabulary)
    dice = random.Random(f"{family} {word}")
    for _ in range(12):
        before, done = dice.choice(BEFORE), dice.randrange(1, len(word.encode()))
        raw = word.encode()[:done]
        whole = raw.decode("utf-8", "ignore")
        tail = Tail(before + whole, raw[len(whole.encode()) :])
        if not whole:
            continue
        found = spellings.customary(0, tail, range(len(vocabulary.pieces)))
        wanted = word.encode()[len(whole.encode()) :]
        for token, usual in enumerate(found):
            added = tail.started + as_bytes(vocabulary.piece(token))
            assert usual == (wanted.startswith(added) or added.startswith(wanted)), (tail, vocabulary.piece(token))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_writes_a_space_where_a_mark_asks_for_one(family):
    tokenizer = toy_tokenizer(family)
    for word in ("cat", "Łódź", "very big dog", "日本"):
        requirements = Requirements([word], tokenizer, len(tokenizer))
        for prompt in ("the dog,", "no.", "ran!", "the cat said:", "the dog", "no. "):
            ids = tokenizer(prompt, add_special_tokens=False).input_ids
            progress = requirements.start
            for token in ids:
                progress = requirements.advance_prompt(progress, token)
            progress = requirements.prompt_end(progress)
            text = tokenizer.decode([*ids, *requirements.plan(progress)], skip_special_tokens=True)
            assert word in text
            if word != "日本":  # written without spaces
                assert f" {word}" in text, text
            tight = requirements.plan(progress._replace(edge=FREE))
            assert len(requirements.plan_within(progress, len(tight))) <= len(tight)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_must_come_now_comes_as_people_write_it(family, word):
    model = toy_model(family)
    dice = random.Random(f"{family} {word}")
    prompt = dice.choice(["the dog,", "the cat ran and", "no. the cat said:", "a big dog ran"])
    if (family, word) == ("word_piece", "Dr. Smith"):
        return  # cannot be written
    requirements = Requirements([word], model.tokenizer, len(model.tokenizer))
    progress = requirements.start
    for token in model.tokenizer(prompt).input_ids:
        progress = requirements.advance_prompt(progress, token)
    spare = dice.randrange(3)
    budget = len(requirements.plan(requirements.prompt_end(progress))) + spare
    how = {"max_new_tokens": budget, "do_sample": True, "temperature": 1.5, "top_k": 0, "must_include": [word]}
    for text in written(model, [prompt], num_return_sequences=6, seed=3, **how):
        usual = {word, word[0].upper() + word[1:], word.upper()}
        found = re.findall(re.escape(word), text, re.IGNORECASE)
        assert found, text
        assert set(found) <= usual, text
        if word != "日本" and family != "byt5":  # its prompts end in a special token
            assert not re.search(rf"[.,:!?]{re.escape(word)}", prompt + text, re.IGNORECASE), text


def test_a_word_that_is_forced_may_have_a_space_before_it(monkeypatch):
    # With a large vocabulary only a few tokens are tried; here it is one, which is neither.
    monkeypatch.setattr(must_include, "_ALL_TRIED", 0)
    monkeypatch.setattr(must_include, "_TRIED", 1)
    tokenizer = toy_tokenizer("byte_level")
    vocabulary = Vocabulary.of(tokenizer)
    bare, spaced = vocabulary.spell("cat"), vocabulary.spell(" cat")
    ids = tokenizer("the dog-", return_tensors="pt").input_ids
    processor = MustIncludeLogitsProcessor(["cat"], tokenizer, max_new_tokens=max(len(bare), len(spaced)))
    scores = torch.zeros(1, len(tokenizer))
    scores[0, vocabulary.token(".")] = 9.0
    open_tokens = (processor(ids, scores)[0] > -torch.inf).nonzero()[:, 0].tolist()
    assert {bare[0], spaced[0]} <= set(open_tokens)
