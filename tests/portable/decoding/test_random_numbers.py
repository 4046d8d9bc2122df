"""Random numbers are drawn for tokens alone: a text sampled from torch's generator is the same in a first call.

What a control needs is loaded or compiled by the first call that uses it, and again by one after it was displaced. Each
draw therefore takes a model that has not generated yet.
"""

import random

import pytest
import torch
from small_classifier import saved_classifier
from test_drawn_calls import CONTROLS, PROMPTS, TAKES_ROOM, written

from fundamentallm_hf import Attribute, Generator, load_model
from fundamentallm_hf.portable.guides import text_classifier
from fundamentallm_hf.portable.guides.steering_vectors import SteeringVectors

pytestmark = pytest.mark.core

# At least one of every kind.
GUIDES = ["positive_sentiment:2", "negative_sentiment:-1", "suspense", "contrasted", "steered:0.5", "classified"]
# The model has no letters for JSON.
OTHERS = [each for each in CONTROLS if each.keys().isdisjoint({"guide_attribute", "json_schema"})]
SHORT = [each for each in OTHERS if TAKES_ROOM.isdisjoint(each)]
WAYS = [{"temperature": 0.6, "top_k": 5}, {"temperature": 1.0, "top_k": 0}, {"num_beams": 2}]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return saved_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def fresh(classifier, monkeypatch):
    """A model that has not generated yet, with an attribute of every kind that the package has none of."""
    monkeypatch.setattr(text_classifier, "_LOADED", {})
    model = load_model(device="cpu")
    vectors = SteeringVectors.of_model(model, {0: torch.ones(model.config.hidden_size)})
    model.attributes = {
        "contrasted": Attribute("prompts", with_text="A happy day. ", without_text="A sad day. "),
        "steered": Attribute("steering", vectors=vectors.to_bytes()),
        "classified": Attribute("classifier", classifier=classifier, label="POSITIVE"),
    }
    return model


def drawn(number):
    """Prompts and arguments: one of the guides in turn, at times with another control, sampled without a seed."""
    draw = random.Random(f"first call {number}")
    controls = draw.choice([{}, draw.choice(SHORT)]) | {"guide_attribute": GUIDES[number % len(GUIDES)]}
    how = {"do_sample": True, **draw.choice(WAYS), **controls, "max_new_tokens": draw.randint(4, 8)}
    return draw.sample(PROMPTS["stories"], draw.choice([1, 2])), how


def outcome(model, prompts, how):
    """The tokens of every row, and the next numbers of torch's generator."""
    tokens, _ = written(model, prompts, how)
    return tokens, torch.rand(2).tolist()


@pytest.mark.parametrize("number", range(12))
def test_a_first_call_draws_the_numbers_of_later_ones(number, fresh):
    prompts, how = drawn(number)
    first = outcome(fresh, prompts, how)
    assert first == outcome(fresh, prompts, how)
    assert first == outcome(fresh, prompts, how | {"speculate": False})


@pytest.mark.parametrize("control", [*OTHERS, *({"guide_attribute": name} for name in GUIDES)], ids=str)
def test_a_greedy_call_draws_no_numbers(control, fresh):
    room = 40 if TAKES_ROOM & control.keys() else 6
    tokens, _ = written(fresh, ["Once upon a time", "a"], control | {"do_sample": False, "max_new_tokens": room})
    after = torch.get_rng_state()
    assert not isinstance(tokens, str), tokens
    torch.manual_seed(5)  # as before the call
    assert torch.equal(after, torch.get_rng_state())


def test_sampled_beams_have_the_text_of_their_seed_from_the_first_call_on(fresh):
    how = {"seed": 3, "beam_size": 2, "temperature": 1.0, "max_tokens": 24}
    generator = Generator(fresh, **how, guide_attribute="positive_sentiment:2")
    first, again = (generator.complete("The dragon")[0].text for _ in range(2))
    assert first == again
