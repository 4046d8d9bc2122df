"""The pieces of a stream that know their probabilities."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import byte_level_gpt2

from fundamentallm_hf import Generator

SETTINGS = [
    {"seed": 3, "temperature": 0.8},
    {"seed": 3, "temperature": 0.8, "speculate": False},
    {"temperature": 0},
    {"seed": 5, "top_k": 4, "bad_words": ["the"]},
    {"seed": 5, "max_tokens": 200},  # past the window of 128
    {"beam_size": 3},
    {"num_samples": 3, "best": 1, "seed": 2},
]


@pytest.fixture(scope="module")
def generators(shakespeare):
    model = byte_level_gpt2()
    model.generation_config.eos_token_id = None
    return [Generator(each, notice=str, max_tokens=24) for each in (shakespeare, model)]


@pytest.mark.parametrize("which", [0, 1], ids=["characters", "bytes"])
@pytest.mark.parametrize("chosen", SETTINGS, ids=str)
def test_each_piece_has_the_probability_of_its_token(generators, chosen, which):
    with generators[which].stream("To be", probabilities=2, **chosen) as stream:
        pieces = list(stream)
    assert "".join(pieces) == stream.result.completion
    assert stream.result == generators[which].complete("To be", probabilities=2, **chosen)[0]
    known = [(each.text, pytest.approx(each.probability)) for each in stream.result.probabilities]
    if "\N{REPLACEMENT CHARACTER}" not in stream.result.completion:  # no character of several tokens
        assert [(piece, piece.probability) for piece in pieces] == [pair for pair in known if pair[0]]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text("the o", min_size=1, max_size=4), min_size=1, max_size=3), st.integers(0, 9))
def test_text_that_was_held_back_has_the_lowest_probability_of_its_tokens(generators, stop, seed):
    with generators[0].stream("To be", probabilities=1, stop=stop, seed=seed, temperature=1.5) as stream:
        pieces = list(stream)
    position, tokens = 0, stream.result.probabilities
    assert "".join(pieces) == stream.result.completion
    for piece in pieces:
        own = [each.probability for each in tokens[position : position + len(piece)]]
        assert piece.probability == pytest.approx(min(own))
        position += len(piece)


def test_pieces_without_probabilities_are_plain_text(generators):
    assert {type(piece) for piece in generators[0].stream("To be", seed=3)} == {str}
