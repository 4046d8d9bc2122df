"""The state of a row follows from its tokens, and is computed one token at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.portable.decoding.row_states import RowStates, row_key, row_keys, split_key
from fundamentallm_hf.portable.decoding.texts import longer_key


class Reader:
    """A place is the text read so far, with a bar where the prompt ends; counts the tokens it reads."""

    def __init__(self, prompt_columns=None, dtype=torch.long):
        self.read = 0
        self.dtype = dtype
        self.states = RowStates("", self.advance, lambda state: state + "|", prompt_columns)

    def advance(self, state, token):
        self.read += 1
        return state + "abcdefgh"[token]

    def __call__(self, *rows):
        return self.states(torch.tensor(rows, dtype=self.dtype))


@pytest.mark.parametrize("dtype", [torch.long, torch.int32])
def test_a_row_is_read_once_and_then_one_token_at_a_time(dtype):
    reader = Reader(dtype=dtype)
    assert reader([0, 1], [2, 3]) == ["ab|", "cd|"]
    assert reader.read == 4
    assert reader([0, 1, 4], [2, 3, 5]) == ["ab|e", "cd|f"]
    assert reader.read == 6
    assert reader([0, 1, 4, 6], [2, 3, 5, 7]) == ["ab|eg", "cd|fh"]
    assert reader.read == 8


def test_rows_that_change_places_are_recognised():
    reader = Reader()
    reader([0, 1], [2, 3], [4, 5])
    reader.read = 0
    assert reader([4, 5, 0], [0, 1, 0], [0, 1, 1]) == ["ef|a", "ab|a", "ab|b"]
    assert reader.read == 3
    assert reader([0, 1, 1, 2], [0, 1, 1, 3], [4, 5, 0, 2]) == ["ab|bc", "ab|bd", "ef|ac"]
    assert reader.read == 6


def test_equal_rows_are_read_once():
    reader = Reader()
    assert reader([0, 1], [0, 1], [0, 1]) == ["ab|"] * 3
    assert reader.read == 2
    assert reader([0, 1, 2], [0, 1, 2], [0, 1, 3]) == ["ab|c", "ab|c", "ab|d"]
    assert reader.read == 4


def test_rows_that_are_taken_back_are_still_known():
    reader = Reader()
    for length in range(2, 7):
        reader([0, 1, 2, 3, 4, 5][:length])
    reader.read = 0
    assert reader([0, 1, 2]) == ["ab|c"]
    assert reader.read == 0
    assert reader([0, 1, 2, 7]) == ["ab|ch"]
    assert reader.read == 1
    assert reader([0, 1, 2, 7, 7]) == ["ab|chh"]
    assert reader.read == 2


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_after_a_jump_a_row_is_read_on_from_its_longest_known_beginning(jumps):
    reader, row = Reader(), [0, 1]
    reader(row)
    for jump in jumps:
        reader.read = 0
        row += [2, 3, 4, 5, 6][:jump]
        assert reader(row) == ["ab|" + "".join("abcdefgh"[token] for token in row[2:])]
        assert reader.read == jump


def test_another_text_of_the_same_length_is_not_mistaken_for_it():
    reader = Reader()
    reader([0, 1])
    reader([0, 1, 2])
    assert reader([3, 3, 3, 3]) == ["dd|dd"]


def test_the_prompt_ends_once_and_where_it_was_said_to_end():
    reader = Reader(prompt_columns=2)
    assert reader([0, 1, 2, 3]) == ["ab|cd"]
    assert reader([0, 1, 2, 3, 4]) == ["ab|cde"]
    assert Reader(prompt_columns=0)([0, 1]) == ["|ab"]
    assert Reader()([0, 1]) == ["ab|"]
    assert RowStates("", lambda state, token: state + str(token))(torch.tensor([[1, 2]])) == ["12"]


def test_an_empty_prompt_is_a_prompt():
    reader = Reader()
    assert reader.states(torch.empty((2, 0), dtype=torch.long)) == ["|", "|"]
    assert reader([0], [1]) == ["|a", "|b"]
    assert reader.read == 2


def test_what_lies_far_back_is_forgotten():
    reader = Reader()
    for length in range(1, 200):
        reader([0] * length)
    assert reader.read == 199
    assert len(reader.states._known) <= 65


@given(st.lists(st.lists(st.integers(0, 7), min_size=2, max_size=8), min_size=1, max_size=8))
def test_a_place_follows_from_the_row_alone(rows):
    reader = Reader(prompt_columns=2)
    for row in rows:
        text = "".join("abcdefgh"[token] for token in row)
        assert reader(row) == [f"{text[:2]}|{text[2:]}"]


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=12), st.data())
def test_the_keys_of_the_starts_of_a_row_are_those_of_shorter_rows(tokens, data):
    row, first = torch.tensor(tokens), data.draw(st.integers(0, len(tokens)))
    keys = [row_key(row[:end]) for end in range(first, len(tokens) + 1)]
    assert row_keys(row, first) == keys
    assert row_key(keys[-1]) == keys[-1]
    before = row_key(row[:-1])
    assert longer_key(before, tokens[-1:]) == keys[-1]
    assert split_key(keys[-1]) == (before, tokens[-1])
