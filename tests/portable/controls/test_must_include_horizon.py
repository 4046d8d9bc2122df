"""Predicts where a text would end, from the lengths of a model's texts and from its probability of an end."""

import pytest
import torch

from fundamentallm_hf.portable.controls.must_include_horizon import Horizon


def rooms(horizon, ends, entries=1):
    """The remaining tokens after each step of a row with the given probabilities of an end."""
    found = []
    for step, end in enumerate(ends):
        row = torch.zeros(1, 3 + step, dtype=torch.long)
        found.append(horizon(row, [end], [entries])[0])
    return found


def test_known_lengths_tell_how_far_a_text_will_go():
    horizon = Horizon(0.2, lengths=range(100, 200), prompt_columns=3)
    assert horizon.expected(0) == 115
    assert horizon.expected(150) == 151 + int(0.15 * 49) - 150
    assert horizon.expected(500) == 75  # a sentence


def test_without_known_lengths_it_grows_with_the_text():
    horizon = Horizon(0.75)
    assert horizon.expected(0) == 60
    assert horizon.expected(1000) == 500


def test_an_end_that_could_well_have_come_is_near_and_one_that_should_have_is_past():
    horizon = Horizon(0.75, prompt_columns=3)
    found = rooms(horizon, [0.0, 0.01, 0.15, 0.5, 0.0, 0.0], entries=2)
    assert [end.room for end in found] == [60, 60, 40, 40, 39, 38]
    assert [end.wanted for end in found] == [False, False, False, True, False, False]


def test_rows_are_known_by_their_tokens():
    horizon = Horizon(0.75, prompt_columns=1)
    horizon(torch.tensor([[1], [2]]), [0.9, 0.0], [1, 1])
    swapped = horizon(torch.tensor([[2, 5], [1, 5]]), [0.0, 0.0], [1, 1])
    assert [end.room for end in swapped] == pytest.approx([60, 19])
