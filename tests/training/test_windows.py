"""Training windows: each token once per epoch, in an order that depends only on the seed, cut by stages."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.training.training_options import parse_stages
from fundamentallm_hf.training.windows import HeldOutWindows, TextWindows, stage_length


@given(tokens=st.integers(9, 200), window=st.integers(2, 8), seed=st.integers(0, 99), epoch=st.integers(0, 3))
def test_an_epoch_has_adjacent_windows_and_no_token_twice(tokens, window, seed, epoch):
    windows = TextWindows(torch.arange(tokens), window, [], 1000, 10, seed)
    numbers = range(epoch * windows.per_epoch, (epoch + 1) * windows.per_epoch)
    seen = torch.cat([windows[number][1] for number in numbers]).sort().values
    assert (seen.diff() == 1).all()
    assert len(seen) == windows.per_epoch * window > tokens - 2 * window


@given(numbers=st.lists(st.integers(0, 400), min_size=1, max_size=20), seed=st.integers(0, 9))
def test_an_item_is_the_same_whoever_asked_for_others_before(numbers, seed):
    first, second = (TextWindows(torch.arange(100), 7, [], 100, 10, seed) for _ in range(2))
    in_turn = {number: first[number][1].tolist() for number in numbers}
    assert {number: second[number][1].tolist() for number in sorted(set(numbers))} == in_turn


@given(count=st.integers(1, 4), length=st.integers(2, 20), step=st.integers(0, 9))
def test_collating_cuts_by_the_step_keeps_the_text_and_stays_within_the_positions(count, length, step):
    window = 16
    windows = TextWindows(torch.arange(300), window, [(length, 0.5)], 10, 4, 3)
    batch = windows.collate([windows[4 * step + number] for number in range(count)])
    expected = min(length, window) if step < 5 else window
    assert batch["input_ids"].shape == batch["position_ids"].shape == (count * (window // expected), expected)
    assert (batch["input_ids"].diff(dim=1) == 1).all()
    assert (batch["position_ids"].diff(dim=1) == 1).all()
    assert batch["position_ids"].min() >= 0
    assert batch["position_ids"].max() < window


@given(st.lists(st.tuples(st.integers(2, 512), st.floats(0.01, 0.3)), max_size=3))
def test_stages_are_read_as_they_are_written(pairs):
    text = ",".join(f"{length}:{share!r}" for length, share in pairs)
    assert parse_stages(text) == tuple(pairs)
    assert stage_length(pairs, 1.0, 999) == 999


@given(tokens=st.integers(2, 120), window=st.integers(2, 30))
def test_each_held_out_token_is_scored_once_at_most_and_with_context(tokens, window):
    held = HeldOutWindows(torch.arange(tokens), window)
    scored = torch.cat([each["labels"][each["labels"] >= 0] for each in (held[number] for number in range(len(held)))])
    assert len(scored.unique()) == len(scored) > tokens - window
