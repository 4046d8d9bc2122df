"""Bans over real tokenizers, without a model: random walks over the allowed tokens, judged by the decoder itself.

A walk is quicker than a model by far, and takes the odd ways on purpose: parts of characters, tokens after which the
text must not end, tokens that a decoder treats differently at the start of a text.
"""

import random
from functools import cache

import pytest
from text_matcher import violations
from toy_tokenizers import FAMILIES, toy_tokenizer

from fundamentallm_hf.portable.controls.bad_words import compile_bad_words
from fundamentallm_hf.portable.text.vocabulary import Vocabulary

PROMPTS = ["the cat", "once upon a ti", "the big do", "é", "42 and 1", "the", "a 日本 😀", "", "   ", "é ", "\n"]
ENTRIES = [
    *("the", "ran*", "*og", "*a*", "big dog", "é", "日本", "Dr. Smith", "t", "1*", "c++", "ünd", "/\\s/", "/\\n/"),
    *(
        "/[^\\x00-\\x7f]/",
        "/[a-m]/",
        "/[0-9]/",
        "/[^a-z ]/",
        "/t.e/",
        "/\\w$/",
        "/\\bc/",
        "/an\\b/",
        "/[\\x80-\\uffff]+x/",
    ),
    *("/\\ufffd/", "/.{2}\\./", "/^[a-z]/", "/\\Aa/", "/ t/", "/(?m)^t/", "/\\bt.*n\\b/", "/.\\Z/"),
]
DECODE = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}


@cache
def banning(family, banned):
    tokenizer = toy_tokenizer(family)
    return compile_bad_words(banned, tokenizer, len(tokenizer) + (0 if family == "byt5" else 2))


def walk(family, banned, dice):
    """Walk over allowed tokens; what is wrong with the text at some step, if anything."""
    tokenizer, tables = toy_tokenizer(family), banning(family, banned)
    prompt = tokenizer(dice.choice(PROMPTS), add_special_tokens=False).input_ids
    if dice.random() < 0.3:
        prompt = prompt[:-1]
    bordered = dice.random() < 0.1
    if bordered:
        prompt = [*prompt, tokenizer.eos_token_id]
    state = tables.start
    for token in prompt:
        state = tables.advance_prompt(state, token)
    state, row = tables.prompt_end(state), []
    # A space that ends the prompt is seen when more follows, and is the prompt's own.
    hidden = family == "word_ends" and bool(prompt) and str(tables.vocabulary.piece(prompt[-1])).endswith(" ")
    length = len(tokenizer.decode(prompt, **DECODE)) + hidden
    for _ in range(dice.choice([2, 5, 12])):
        table = tables.table(state)
        allowed = (~table.closed).nonzero()[:, 0].tolist()
        odd = dice.choice([[], table.ending.tolist(), tables.vocabulary.parts, list(tables.vocabulary.openings)])
        pool = [token for token in odd if not table.closed[token]] or allowed
        if not pool:
            break
        row.append(dice.choice(pool))
        state = tables.advance(state, row[-1])
        alone, whole = tokenizer.decode(row, **DECODE), tokenizer.decode(prompt + row, **DECODE)
        found = violations(alone, 0, banned) or (not bordered and violations(whole, length, banned))
        if found and not tables.ends(state):
            return f"{found} in {whole!r}, or in {alone!r}"
    return ""


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("family", FAMILIES)
def test_where_a_text_may_end_it_holds_no_banned_word(family, number):
    banned = tuple(random.Random(number).sample(ENTRIES, random.Random(number).choice([1, 1, 2, 3])))
    for seed in range(12):
        assert not walk(family, banned, random.Random(1000 * number + seed)), (family, banned)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_read_as_they_are_decoded(family):
    """However a text starts and ends, and whatever broken characters it holds."""
    tokenizer, dice = toy_tokenizer(family), random.Random(0)
    vocabulary = Vocabulary.of(tokenizer)
    for _ in range(400):
        tokens = [dice.randrange(len(tokenizer)) for _ in range(dice.choice([1, 1, 2, 3, 6]))]
        assert vocabulary.text(tokens) == tokenizer.decode(tokens, **DECODE), tokens


def test_the_mark_of_a_continuation_is_text_where_there_is_nothing_to_continue():
    tokenizer = toy_tokenizer("word_piece")
    tables = compile_bad_words(["/[^a-z ]/"], tokenizer, len(tokenizer))
    state = tables.start
    for token in tokenizer("the cat", add_special_tokens=False).input_ids:
        state = tables.advance_prompt(state, token)
    state = tables.prompt_end(state)
    following = tables.advance(state, tokenizer.convert_tokens_to_ids("cat"))
    mark = tokenizer.convert_tokens_to_ids("##ing")
    assert tables.table(state).closed[mark]  # decoded by itself, "##ing"
    assert not tables.table(following).closed[mark]


@pytest.mark.parametrize("family", ["byte_level", "llama", "gemma", "byt5"])
def test_what_a_decoder_shows_for_a_character_that_a_prompt_begins_is_the_prompts_own(family):
    tokenizer, tables = toy_tokenizer(family), banning(family, ("/[^\\x00-\\x7f]/",))
    state = tables.start
    for token in tokenizer("the 日", add_special_tokens=False).input_ids[:-1]:
        state = tables.advance_prompt(state, token)
    state = tables.prompt_end(state)
    assert state.pending
    assert not tables.ends(state)
    letter = tokenizer("a", add_special_tokens=False).input_ids[-1]
    assert not tables.table(state).closed[letter]
