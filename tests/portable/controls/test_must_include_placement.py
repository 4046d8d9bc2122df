"""Placement: the value of a position follows from the positions seen, and probabilities of words are products."""

import math
import random

import pytest
import torch
from toy_tokenizers import FAMILIES, toy_tokenizer
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


class Asked:
    """A lookahead that keeps what it is asked, and finds every continuation as improbable as a rare word's."""

    def __init__(self, size):
        self.size = size
        self.paths = []

    def logits(self, input_ids, rows, continuations):
        self.paths += continuations
        return [torch.randn(len(path), self.size, generator=torch.Generator().manual_seed(0)) for path in continuations]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_asked_about_usual_spellings_and_nothing_else_is_started(family):
    tokenizer = toy_tokenizer(family)
    dice = random.Random(family)
    asked_about = 0
    for word in ("happy", "Paris", "Łódź", "very big dog", "sun"):
        requirements = Requirements([word], tokenizer, len(tokenizer))
        asked = Asked(len(tokenizer))
        placement = Placement(requirements, asked)
        progress = requirements.prompt_end(requirements.start)
        ids = torch.zeros(1, 0, dtype=torch.long)
        for _ in range(30):
            token = dice.randrange(len(tokenizer))
            progress = requirements.advance(progress, token)
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
            waiting = requirements.waiting(progress)
            scores = 9 * torch.randn(1, len(tokenizer), generator=torch.Generator().manual_seed(dice.randrange(99)))
            asked.paths.clear()
            found = placement(ids, scores, [progress], [waiting], [dice.choice([0.0, 4.0, 40.0])])[0]
            tail = placement.spellings.tail(ids[0])
            for outlook in found:
                assert all(placement.spellings.customary(0, tail, outlook.tokens.tolist(), ended=True))
                firsts = {path[0] for path in asked.paths}
                assert firsts <= set(outlook.tokens.tolist())
                if not firsts and not outlook.begun and len(word) > 3:  # nobody asked, so nothing is preferred
                    paths = [placement._path(0, progress.places[0], token)[0] for token in outlook.tokens.tolist()]
                    unknown = [len(path) > 1 for path in paths]
                    assert not (outlook.chances * unknown).any()
                asked_about += len(firsts)
    assert asked_about


def test_a_rare_word_of_many_tokens_is_not_below_the_least_probability():
    tokenizer = toy_tokenizer("characters")
    requirements = Requirements(["happy dog"], tokenizer, len(tokenizer))
    scores = torch.full((1, len(tokenizer)), -30.0)
    scores[0, tokenizer("c").input_ids[0]] = 30.0
    placement = Placement(requirements, None)
    ids = tokenizer("a ", return_tensors="pt").input_ids
    progress = requirements.prompt_end(requirements.start)
    for token in ids[0].tolist():
        progress = requirements.advance(progress, token)
    (outlook,) = placement(ids, scores, [progress], [[0]], [5.0])[0]
    assert 0.0 < outlook.here < 1e-25
    assert later_chance(outlook.here, outlook.better, 5.0) == pytest.approx(outlook.here * 1.5**3)
