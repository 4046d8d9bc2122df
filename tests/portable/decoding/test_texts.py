"""Texts of different lengths: their keys, what each begins with, and how much room they have."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.portable.decoding.row_states import RowStates
from fundamentallm_hf.portable.decoding.texts import KEPT_LENGTHS, Texts, undecided

IDS = torch.arange(24).reshape(2, 12)


@given(runs=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 8), st.integers(1, 4)), min_size=1, max_size=4))
def test_a_text_is_a_row_up_to_a_length(runs):
    rows = [row for row, _, count in runs for _ in range(count)]
    lengths = [start + index for _, start, count in runs for index in range(count)]
    texts = Texts(IDS, rows, lengths)
    assert len(texts) == len(rows)
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        own = IDS[row, :length]
        assert texts.keys[index] == own.numpy().tobytes()
        assert texts.parents[index] == own[:-1].numpy().tobytes()
        assert texts.tokens(index).tolist() == own.tolist()
        assert texts.last(index) == int(own[-1])
        assert texts.padding(index, [3, 5]) == [3, 5][row]
    assert texts.room(lambda ids: [20 - ids.shape[1], 10 - ids.shape[1]]) == [
        (20, 10)[row] - length for row, length in zip(rows, lengths, strict=True)
    ]
    assert [index for group in texts.groups() for index in group] == list(range(len(texts)))
    assert all(len({lengths[index] for index in group}) == 1 for group in texts.groups())
    for indices in (range(1, len(texts)), range(0, len(texts), 2), []):
        part = texts.part(indices)
        assert (part.keys, part.parents) == ([texts.keys[at] for at in indices], [texts.parents[at] for at in indices])
        assert [part.tokens(at).tolist() for at in range(len(part))] == [texts.tokens(at).tolist() for at in indices]


@given(st.lists(st.lists(st.sampled_from([0.0, -2.5, -math.inf]), min_size=4, max_size=4), min_size=1, max_size=5))
def test_a_row_is_undecided_where_several_tokens_are_left(rows):
    left = [sum(score > -math.inf for score in row) for row in rows]
    assert undecided(torch.tensor(rows)) == [index for index, count in enumerate(left) if count > 1]


def test_rows_of_one_length_are_texts_of_whole_rows():
    for dtype in (torch.long, torch.int32):
        texts = Texts.of(IDS.to(dtype))
        assert Texts.of(texts) is texts
        assert texts.keys == [row.numpy().tobytes() for row in IDS]
        assert texts.groups() == [[0, 1]]


def test_what_is_far_from_all_texts_can_be_forgotten():
    texts = Texts(torch.zeros(1, 200), [0, 0], [100, 120])
    kept = range(100 - KEPT_LENGTHS, 120 + KEPT_LENGTHS + 1)
    assert texts.far(range(300)) == [length for length in range(300) if length not in kept]


def test_states_of_a_run_are_those_of_its_texts_one_by_one():
    def states():
        return RowStates("", lambda state, token: state + "abcdefghijkl"[token % 12], lambda state: state + "|", 2)

    at_once, one_by_one = states(), states()
    run = Texts(IDS, [0] * 5, range(3, 8))
    assert at_once(run) == [one_by_one(IDS[:1, :length])[0] for length in range(3, 8)]
