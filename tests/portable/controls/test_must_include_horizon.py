"""Predicts where a text would end, from the lengths of a model's texts and from its probability of an end."""

import math

import pytest
import torch

from fundamentallm_hf.portable.controls.must_include_horizon import Horizon, repaid
from fundamentallm_hf.portable.decoding.texts import Texts


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


def owed(ends, entries):
    """What a row is owed after steps with these probabilities of an end, and with so many missing entries."""
    horizon = Horizon(0.75, prompt_columns=3)
    for step, (end, missing) in enumerate(zip(ends, entries, strict=True)):
        row = torch.zeros(1, 3 + step, dtype=torch.long)
        horizon(row, [end], [missing])
    return horizon.owed(Texts.of(torch.zeros(1, 3 + len(ends), dtype=torch.long)))[0]


def test_an_end_that_was_refused_is_owed_and_one_that_did_not_come_is_not():
    assert owed([0.5, 0.0, 0.5], [1, 1, 1]) == pytest.approx(0.75)
    assert owed([0.5, 0.5, 0.5], [1, 0, 0]) == pytest.approx(0.5)
    assert owed([0.01, 0.01], [1, 1]) == 0.0


def test_an_end_is_repaid_behind_a_sentence_that_the_model_might_end_at():
    for end, debt in ((0.05, 0.75), (0.3, 0.9), (0.02, 0.2)):
        odds = end / (1 - end) * math.exp(repaid("It was a dragon.", end, debt))
        assert odds / (1 + odds) == pytest.approx(debt)
    assert repaid('She said "a dragon!" ', 0.1, 0.5) > 0
    assert repaid("It was a dragon", 0.1, 0.5) == 0
    assert repaid("Dragons:\n1.", 0.1, 0.5) == 0
    assert repaid("It was a dragon.", 0.001, 0.5) == 0
    assert repaid("It was a dragon.", 0.6, 0.5) == 0
