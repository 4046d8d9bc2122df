"""Texts end more or less easily, and cleanly if no token is allowed."""

import logging
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import StoppingCriteriaList

from fundamentallm_hf.portable.decoding.endings import (
    ClosedEndCriteria,
    LengthPenaltyLogitsProcessor,
    OpenEndLogitsProcessor,
    row_key,
)

pytestmark = pytest.mark.core

INF = math.inf
IDS = torch.tensor([[5, 6], [7, 8]])


@pytest.fixture
def warnings(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("fundamentallm_hf.portable.decoding.endings"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.mark.parametrize(
    ("penalty", "odds"), [(1.0, 1.0), (1.5, 0.1), (2.0, 0.01), (0.5, 10.0), (0.0, 100.0), (-1.0, 10_000.0)]
)
def test_the_odds_of_an_end_are_divided_by_a_power_of_the_penalty(penalty, odds):
    scores = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, -1.0]])
    before = scores.softmax(-1)[:, 1]
    after = LengthPenaltyLogitsProcessor(penalty, [1])(IDS, scores).softmax(-1)[:, 1]
    assert (after / (1 - after)).tolist() == pytest.approx((odds * before / (1 - before)).tolist(), rel=1e-4)


def test_every_end_token_is_shifted_and_the_scores_that_were_given_stay():
    scores = torch.zeros(2, 4)
    shifted = LengthPenaltyLogitsProcessor(1.5, [0, 3])(IDS, scores)
    expected = [pytest.approx(-math.log(10)), 0.0, 0.0, pytest.approx(-math.log(10))]
    assert shifted.tolist() == [expected, expected]
    assert torch.count_nonzero(scores) == 0


@given(st.floats(-5, 5), st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_all_other_tokens_keep_their_shares(penalty, row):
    scores = torch.tensor([row])
    shifted = LengthPenaltyLogitsProcessor(penalty, [2])(IDS[:1], scores)
    others = [0, 1, 3]
    assert torch.equal(shifted[:, others], scores[:, others])
    back = LengthPenaltyLogitsProcessor(2 - penalty, [2])(IDS[:1], shifted)
    assert torch.allclose(back, scores, atol=1e-4)


def test_a_closed_end_stays_closed():
    shifted = LengthPenaltyLogitsProcessor(0.0, [1])(IDS, torch.tensor([[0.0, -INF], [0.0, 0.0]]))
    assert shifted[0, 1] == -INF


def closed_row(closing=3, tell=True):
    criteria = ClosedEndCriteria()
    return OpenEndLogitsProcessor(closing, criteria, tell), criteria


def test_open_rows_are_left_alone(warnings):
    processor, criteria = closed_row()
    scores = torch.tensor([[-INF, 0.0, -INF, -INF], [1.0, 2.0, 3.0, -INF]])
    assert processor(IDS, scores) is scores
    assert criteria(IDS, None).tolist() == [False, False]
    assert warnings.messages == []


def test_a_closed_row_ends_with_the_closing_token(warnings):
    processor, criteria = closed_row()
    scores = torch.full((2, 4), -INF)
    scores[1, 1] = 0.0
    ended = processor(IDS, scores)
    assert ended.tolist() == [[-INF, -INF, -INF, -1e4], [-INF, 0.0, -INF, -INF]]
    assert scores[0].max() == -INF
    longer = torch.tensor([[5, 6, 3], [7, 8, 1]])
    assert criteria(longer, None).tolist() == [True, False]
    assert StoppingCriteriaList([criteria])(longer, None).tolist() == [True, False]
    assert len(warnings.messages) == 1
    assert "leave no continuation of the text, so it ends here" in warnings.messages[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_closing_token_can_be_chosen_in_half_precision(dtype):
    ended = closed_row()[0](IDS, torch.full((2, 4), -INF, dtype=dtype))
    assert ended.dtype == dtype
    assert ended.softmax(-1).tolist() == [[0.0, 0.0, 0.0, 1.0]] * 2


def test_a_row_that_has_ended_is_not_told_again(warnings):
    processor, criteria = closed_row()
    closed = torch.full((2, 4), -INF)
    closed[1, 1] = 0.0
    ids = IDS
    for token in (3, 0, 0, 0):
        processor(ids, closed)
        ids = torch.cat([ids, torch.tensor([[token], [1]])], dim=1)
        assert criteria(ids, None).tolist() == [True, False]
    assert len(warnings.messages) == 1


def test_a_row_that_ends_while_another_has_ended_is_told(warnings):
    processor, _ = closed_row()
    processor(IDS, torch.tensor([[-INF] * 4, [0.0] * 4]))
    processor(torch.tensor([[5, 6, 3], [7, 8, 1]]), torch.full((2, 4), -INF))
    assert len(warnings.messages) == 2


def test_beams_are_not_told(warnings):
    processor, criteria = closed_row(tell=False)
    processor(IDS, torch.full((2, 4), -INF))
    assert warnings.messages == []
    assert criteria(torch.tensor([[7, 8, 3], [5, 6, 3]]), None).tolist() == [True, True]


def test_without_a_token_that_can_stand_for_an_end_it_is_an_error():
    processor, _ = closed_row(closing=None)
    assert processor(IDS, torch.zeros(2, 4)).tolist() == [[0.0] * 4] * 2
    with pytest.raises(ValueError, match="neither an end-of-text nor a padding token"):
        processor(IDS, torch.full((2, 4), -INF))


def test_rows_are_told_apart_by_all_of_their_tokens():
    assert row_key(torch.tensor([1, 2])) == row_key(torch.tensor([[1, 2], [3, 4]])[0])
    assert len({row_key(torch.tensor(row)) for row in ([1, 2], [2, 1], [1], [1, 2, 0], [])}) == 5
