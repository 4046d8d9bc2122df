"""The stock tokenizer of a character vocabulary equals FundamentaLLM's on every string."""

import json

import pytest
from conftest import FIXTURES
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fundamentallm_hf.model_io.tokenizer import (
    SPECIAL_TOKENS,
    build_tokenizer,
    character_vocabulary,
    unknown_characters,
)

VOCABULARY = json.loads((FIXTURES / "learned" / "tokenizer.json").read_text())["char_to_id"]
TOKENIZER = build_tokenizer(VOCABULARY, 128)
CHARACTERS = "".join(char for char in VOCABULARY if len(char) == 1)


@given(st.text())
def test_every_string_is_encoded_character_by_character(text):
    assert TOKENIZER(text).input_ids == [VOCABULARY.get(char, 1) for char in text]


@given(st.text(alphabet=CHARACTERS))
def test_known_text_comes_back_as_it_was(text):
    assert TOKENIZER.decode(TOKENIZER(text).input_ids) == text


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_the_name_of_a_special_token_in_a_text_is_only_text(special):
    assert len(TOKENIZER(special).input_ids) == len(special)


def test_it_loads_with_the_auto_class_and_pads_on_the_left(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    batch = loaded(["ab", "abcd"], padding=True)
    assert batch.input_ids[0][:2] == [loaded.pad_token_id] * 2
    assert batch.attention_mask[0] == [0, 0, 1, 1]
    assert [loaded.pad_token_id, loaded.unk_token_id, loaded.bos_token_id, loaded.eos_token_id] == [0, 1, 2, 3]
    assert loaded("a <EOS>").input_ids == TOKENIZER("a <EOS>").input_ids


@given(st.text())
def test_unknown_characters_are_those_outside_the_vocabulary_once_and_in_order(text):
    assert unknown_characters(TOKENIZER, text) == list(dict.fromkeys(char for char in text if char not in VOCABULARY))


def test_a_vocabulary_is_the_specials_and_the_sorted_characters():
    assert list(character_vocabulary(["ba", "\n"])) == [*SPECIAL_TOKENS, "\n", "a", "b"]


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ({"<PAD>": 0}, "lacks <UNK>, <BOS>, <EOS>"),
        ({**character_vocabulary(["a"]), "ab": 5}, "'ab' is not"),
        ({**character_vocabulary(["a"]), "b": 9}, "0 to 5"),
    ],
)
def test_a_broken_vocabulary_is_refused(vocabulary, message):
    with pytest.raises(ValueError, match=message):
        build_tokenizer(vocabulary, 8)
