"""The tree of beams: the kept beams and their scores; recording does not change the search."""

import pytest
import torch
from small_models import byte_level_gpt2

from fundamentallm_hf import Generator
from fundamentallm_hf.generation.beam_tree import BeamRecorder
from fundamentallm_hf.portable.errors import UsageError

CASES = [
    {"temperature": 0},
    {"temperature": 0.8, "top_p": 0.9, "seed": 1},
    {"temperature": 0, "bad_words": "be"},
    {"temperature": 0, "must_include": "dragon"},
    {"temperature": 0, "stop": "e"},
]


@pytest.fixture(scope="module")
def generator(shakespeare):
    return Generator(shakespeare, notice=lambda text: None, beam_size=3, max_tokens=20)


@pytest.mark.parametrize("settings", CASES)
def test_the_first_branch_is_the_text_of_the_search(generator, settings):
    completion, branches = generator.search("To be", **settings)
    assert completion.text == generator.generate("To be", **settings)
    assert branches[0].text.startswith(completion.completion)
    assert branches[0].parent is None
    assert branches[0].alive


def test_a_score_is_the_log_probability_where_nothing_shapes_it(generator):
    completion, branches = generator.search("To be", temperature=0)
    assert branches[0].score == pytest.approx(completion.log_probability, abs=1e-3)


def test_every_branch_leaves_another_within_its_text(generator):
    _, branches = generator.search("To be", temperature=0)
    assert len(branches) > 3
    for place, branch in enumerate(branches[1:], 1):
        assert branch.parent < place
        parent = branches[branch.parent]
        begin = parent.start if branch.parent else 0
        assert begin <= branch.start <= parent.start + len(parent.text)
        assert branch.steps == len(branch.text)
    assert sum(branch.alive for branch in branches) <= 4


def test_a_tree_made_by_hand():
    recorder = BeamRecorder(end_tokens=[0])
    certain = torch.tensor([[-9.0, -1.0, -2.0], [-9.0, -1.0, -2.0]])
    recorder(torch.tensor([[5], [5]]), certain)
    recorder(torch.tensor([[5, 1], [5, 2]]), torch.tensor([[-9.0, -3.0, -float("inf")], [-0.5, -4.0, -4.0]]))
    recorder(torch.tensor([[5, 1, 1], [5, 2, 1]]), certain)
    recorder.chosen = [5, 2, 0]
    first, second, third = recorder.branches(lambda token: "_ab"[token])
    assert (first.text, first.parent, first.score) == ("b_", None, -2.5)
    assert (second.text, second.parent, second.start, second.score) == ("aa", 0, 0, -4.0)
    assert (third.text, third.parent, third.start, third.score) == ("a", 0, 1, -6.0)


def test_a_beam_that_went_on_where_the_chosen_one_ended_is_a_branch():
    recorder = BeamRecorder(end_tokens=[0])
    scores = torch.tensor([[-0.5, -1.0, -2.0]])
    recorder(torch.tensor([[5]]), scores)
    recorder(torch.tensor([[5, 1]]), scores)
    recorder.chosen = [5]
    assert [each.text for each in recorder.branches(lambda token: "_ab"[token])] == ["a"]


def test_one_beam_is_no_search(generator):
    with pytest.raises(UsageError, match="beam-size has to be at least 2 for a search but is 1"):
        generator.search("To be", beam_size=1)


def test_any_model_shows_its_beams():
    generator = Generator(byte_level_gpt2(), max_tokens=6, beam_size=3, temperature=0)
    completion, branches = generator.search("once upon")
    assert completion.text == generator.generate("once upon")
    assert branches[0].score == pytest.approx(completion.log_probability, abs=1e-3)
