"""Guides by words: a text gets exactly the weights of its words, whatever its tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import byte_level_gpt2, sentencepiece_llama

from fundamentallm_hf import load_model
from fundamentallm_hf.portable.guides.attribute_words import AttributeWords
from fundamentallm_hf.portable.guides.word_guide import WordGuide, WordTables
from fundamentallm_hf.portable.text.characters import fold_text
from fundamentallm_hf.portable.text.vocabulary import Vocabulary
from fundamentallm_hf.portable.text.word_counts import WordCounts

WEIGHTS = {"happy": 2.0, "sad": -3.0, "lov*": 1.0, "lovely": 4.0, "café": 0.5, "cat": -1.0}
TEXT_WORDS = ["happy", "sad", "loving", "lovely", "café", "cat", "the", "sand", "xyz", "naïve", "Happy", "SAD"]
COUNTS = WordCounts({"happy": 60, "hat": 40, "sad": 30, "sand": 70, "love": 20, "lovely": 5, "the": 500, "cat": 10})


@pytest.fixture(scope="module")
def weights():
    return AttributeWords(WEIGHTS, COUNTS)


@pytest.fixture(scope="module", params=["characters", "byte level", "sentencepiece"])
def tokenizer(request):
    if request.param == "characters":
        return load_model(device="cpu").tokenizer
    return (byte_level_gpt2 if request.param == "byte level" else sentencepiece_llama)().tokenizer


@pytest.fixture(scope="module")
def guide(tokenizer, weights):
    return WordGuide(WordTables(weights, Vocabulary.of(tokenizer), len(tokenizer) + 3), [tokenizer.eos_token_id])


def paid(guide, tokens, given=1):
    """The shifts of the tokens behind the first `given`."""
    guide.states.prompt_columns = given
    ids = torch.tensor([tokens])
    scores = torch.zeros(1, guide.tables.size)
    return [float(guide(ids[:, :end], scores)[0, tokens[end]]) for end in range(given, len(tokens))]


@pytest.mark.parametrize(
    ("word", "weight"),
    [("happy", 2), ("Happy", 2), ("HAPPY", 2), ("hap", 0), ("lov", 1), ("loving", 1), ("lovely", 4), ("unlov", 0)],
)
def test_a_word_has_the_weight_of_its_entry(weights, word, weight):
    assert weights.of(word.casefold()) == weight


@pytest.mark.parametrize("entry", ["two words", "*", "", "don't", "a*b", "/a/"])
def test_an_entry_that_is_no_word_is_refused(entry):
    with pytest.raises(ValueError, match=r"an entry has to be a word, or its beginning with a \* behind it, but is"):
        AttributeWords({entry: 1.0}, COUNTS)


def test_a_beginning_is_worth_what_its_words_weigh_on_average(weights):
    assert weights.expected("h") == pytest.approx(60 * 2 / (60 + 40 + 1))
    assert weights.expected("hap") == pytest.approx(60 * 2 / 61)
    assert weights.expected("lovi") == 1
    assert weights.expected("zz") == 0


@given(
    words=st.lists(st.sampled_from(TEXT_WORDS), max_size=6),
    marks=st.lists(st.sampled_from([" ", ", ", ". ", "! ", " 日 ", " 😀 "]), min_size=6, max_size=6),
)
def test_over_a_text_the_weights_of_its_words_are_paid(tokenizer, guide, weights, words, marks):
    text = "a " + "".join(word + mark for word, mark in zip(words, marks, strict=False)) + "."
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    if tokenizer.unk_token_id in tokens:
        return
    before = guide.tables.advance(guide.tables.start, tokens[0])
    total = sum(paid(guide, tokens)) + before.paid
    assert total == pytest.approx(sum(weights.of(fold_text(word)) for word in words), abs=1e-6)


def test_the_end_of_the_text_completes_a_word(tokenizer, guide):
    tokens = tokenizer("the happy", add_special_tokens=False).input_ids
    shifts = paid(guide, [*tokens, tokenizer.eos_token_id], 1)
    place = guide.tables.start
    for token in tokens:
        place = guide.tables.advance(place, token)
    assert shifts[-1] == pytest.approx(2.0 - place.paid)


def test_a_part_of_a_character_and_a_special_token_tell_nothing():
    tokenizer = byte_level_gpt2().tokenizer
    guide = WordGuide(WordTables(AttributeWords({"x": 3.0}, COUNTS), Vocabulary.of(tokenizer), len(tokenizer)))
    tokens = tokenizer("a 日").input_ids
    shift = guide(torch.tensor([tokens[:1]]), torch.zeros(1, len(tokenizer)))[0]
    assert shift[tokens[-1]] == 0
    assert shift[tokenizer.eos_token_id] == 0


def test_a_sub_word_model_begins_words_with_their_customary_tokens():
    tokenizer = byte_level_gpt2().tokenizer
    vocabulary = Vocabulary.of(tokenizer)
    whole = next(piece for piece in vocabulary.pieces if isinstance(piece, str) and piece[:1] == " " and len(piece) > 3)
    word = whole.strip()
    tables = WordTables(AttributeWords({word: 3.0}, WordCounts({word: 10})), vocabulary, len(tokenizer))
    shift = WordGuide(tables)(torch.tensor([tokenizer("a").input_ids]), torch.zeros(1, len(tokenizer)))[0]
    assert shift[vocabulary.token(whole)] > 2
    other = vocabulary.token(whole[:2])
    if other is not None:
        assert shift[other] == 0
