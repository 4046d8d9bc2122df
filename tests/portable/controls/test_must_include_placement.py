"""Placement: the value of a position follows from the positions seen, and probabilities of words are products."""

import math
import random

import pytest
import torch
from transformers import DynamicCache

from fundamentallm_hf import load_model
from fundamentallm_hf.portable.controls.must_include_placement import (
    LEAST,
    MARGIN,
    PATIENCE,
    SHARPNESS,
    Placement,
    Seen,
    later_chance,
)
from fundamentallm_hf.portable.controls.must_include_plan import Requirements
from fundamentallm_hf.portable.decoding.cache_names import CACHE
from fundamentallm_hf.portable.decoding.lookahead import ModelLookahead


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


@pytest.mark.parametrize(
    ("chances", "better"),
    [([0.1], 0.5), ([0.1, 0.2], 0.25), ([0.2, 0.1], 0.75), ([0.1, 0.1, 0.1], 0.5), ([0.3, 0.1, 0.4, 0.2], 0.625)],
)
def test_a_place_is_ranked_among_those_seen(chances, better):
    seen = Seen()
    for chance in chances:
        seen = seen.add(chance)
    assert seen.last() == (chances[-1], pytest.approx(better))


def test_a_place_the_model_was_not_asked_about_is_scaled_by_those_it_was():
    seen = Seen().add(0.4, 0.04).add(0.5).add(0.2, 0.02)
    # 0.5 is worth 0.05 here, the first place 0.04, and this one 0.02.
    assert seen.last() == (0.02, pytest.approx(2.5 / 3))
    assert seen.add(0.6).last() == (0.6, pytest.approx(0.5 / 4))


def test_only_so_many_places_are_remembered():
    seen = Seen()
    for _ in range(400):
        seen = seen.add(0.1, 0.1)
    assert len(seen.counted) == len(seen.asked) < 300


@pytest.mark.parametrize("left", [5.0, 20.0, 70.0])
def test_a_place_is_taken_by_how_many_better_ones_are_to_be_expected(left):
    here, better = 1e-4, 0.02
    later = later_chance(here, better, left)
    expected = better * (left - MARGIN)
    assert here / (here + later) == pytest.approx(1 / (1 + (PATIENCE * expected) ** SHARPNESS))


def test_the_last_places_are_not_counted_on():
    assert later_chance(1e-4, 0.5, MARGIN) == later_chance(1e-4, 0.5, 0) == LEAST


@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
def test_words_fall_evenly_whatever_the_scale_of_their_chances(spread):
    draw = random.Random(0)
    taken = []
    for _ in range(600):
        seen = Seen()
        for place in range(75):
            seen = seen.add(1e-9 * math.exp(draw.gauss(0, spread)))
            here, better = seen.last()
            if draw.random() < here / (here + later_chance(here, better, 75 - place)):
                break
        taken.append(place / 75)
    assert 0.4 < sum(taken) / len(taken) < 0.6
    fifths = [sum(fifth / 5 <= place < (fifth + 1) / 5 for place in taken) / len(taken) for fifth in range(5)]
    # At first nothing is known of the scale, so fewer are taken there.
    assert all(0.02 < share < 0.35 for share in fifths), fifths


def test_the_model_tells_the_chance_of_a_beginning(demo):
    requirements = Requirements(["dragon"], demo.tokenizer, len(demo.tokenizer))
    ids = demo.tokenizer("Once upon a time, there was a big ", return_tensors="pt").input_ids
    cache = DynamicCache()
    with torch.no_grad():
        scores = demo(ids, **{CACHE: cache}, use_cache=True).logits[:, -1]
    placement = Placement(requirements, ModelLookahead(demo, cache, [0]), temperature=0.8)
    states = [requirements.prompt_end(requirements.start)]
    for token in ids[0].tolist():
        states = [requirements.advance(states[0], token)]
    outlook = placement(ids, scores, states, [[0]], [5.0])[0][0]
    letter = demo.tokenizer("d").input_ids[0]
    told = dict(zip(outlook.tokens.tolist(), outlook.chances.tolist(), strict=True))[letter]
    path, rest = placement._path(0, states[0].places[0], letter)
    with torch.no_grad():
        read = demo(torch.cat([ids, torch.tensor([path])], dim=1)).logits[0, ids.shape[1] :]
    follows = (read / 0.8).softmax(-1)
    expected = rest * math.prod(float(follows[index, token]) for index, token in enumerate(path[1:]))
    assert told == pytest.approx(expected, rel=1e-3)
    assert outlook.here == pytest.approx(float((scores[0] / 0.8).softmax(-1).numpy()[outlook.tokens] @ outlook.chances))
