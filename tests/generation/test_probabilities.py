"""Probabilities of tokens: as they are chosen, and by the raw model."""

import math

import pytest
import torch
from conftest import FIXTURES
from small_models import byte_level_gpt2, sentencepiece_llama

from fundamentallm_hf import Generator, load_model
from fundamentallm_hf.generation.probabilities import (
    TokenNames,
    log_probability,
    next_predictions,
    raw_log_probabilities,
)
from fundamentallm_hf.portable.decoding.context_window import window_start
from fundamentallm_hf.portable.decoding.recording import ProbabilityRecorder


@pytest.fixture(scope="module")
def generator(shakespeare):
    return Generator(shakespeare, notice=lambda text: None)


@torch.no_grad()
def expected_next(model, prompt):
    return model(model.tokenizer(prompt, return_tensors="pt").input_ids).logits[0, -1].softmax(-1)


def test_next_tokens_are_the_models_distribution_where_nothing_is_set(generator, shakespeare):
    expected = expected_next(shakespeare, "To be")
    found = generator.next_tokens("To be", top=5)
    assert [each.token for each in found] == expected.topk(5).indices.tolist()
    for each in found:
        assert each.probability == pytest.approx(float(expected[each.token]), abs=1e-5)
        assert each.model_probability == pytest.approx(each.probability, abs=1e-5)


def test_settings_shape_the_one_probability_and_leave_the_other(generator, shakespeare):
    logits = expected_next(shakespeare, "To be").log()
    likeliest = int(logits.argmax())
    cooled = (logits / 0.5).softmax(-1)
    found = {each.token: each for each in generator.next_tokens("To be", temperature=0.5)}
    assert found[likeliest].probability == pytest.approx(float(cooled[likeliest]), abs=1e-5)
    assert found[likeliest].model_probability == pytest.approx(float(logits.exp()[likeliest]), abs=1e-5)
    trimmed = generator.next_tokens("To be", top_k=2, top=5)
    assert [each.probability > 0 for each in trimmed] == [True, True, False, False, False]
    assert sum(each.probability for each in trimmed) == pytest.approx(1)
    greedy = generator.next_tokens("To be", temperature=0, top=3)
    assert [each.probability for each in greedy] == [1, 0, 0]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"beam_size": 2}])
def test_what_a_control_closes_is_shown_closed(generator, settings):
    found = generator.next_tokens("To b", bad_words="/e/", top=3, **settings)
    closed = next(each for each in found if each.text == "e")
    assert closed.probability == 0
    assert closed.model_probability > 0.1
    assert found[0].probability > 0


def test_a_word_that_must_be_included_has_the_room_of_the_whole_text(generator):
    assert generator.next_tokens("To be", must_include="dragon", max_tokens=7)
    assert generator.next_tokens("To be", must_include="dragon", max_tokens=7, num_samples=4, best=2)


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["To be", "x" * 120, "To be, or not to be. " * 10])
def test_log_probabilities_are_those_of_the_context_that_the_model_had(shakespeare, prompt):
    ids = shakespeare.tokenizer(prompt + " that is the question of the day", verbose=False).input_ids
    first = len(prompt)
    expected = 0.0
    for length in range(first, len(ids)):
        shown = torch.tensor([ids[window_start(length, 128) : length]])
        expected += float(shakespeare(shown).logits[0, -1].log_softmax(-1)[ids[length]])
    assert log_probability(shakespeare, ids, first) == pytest.approx(expected, abs=1e-3)
    rows = torch.cat(list(raw_log_probabilities(shakespeare, ids, first)))
    assert rows.shape == (len(ids) - first + 1, 71)
    assert rows.exp().sum(-1) == pytest.approx(torch.ones(len(rows)).numpy(), abs=1e-4)


def test_no_token_has_the_log_probability_of_what_is_certain(shakespeare):
    assert log_probability(shakespeare, shakespeare.tokenizer("To be").input_ids, first=5) == 0


SAMPLED = {"temperature": 0.7, "top_p": 0.9, "seed": 4}
BEAMS = {"beam_size": 3, "num_samples": 2}


@pytest.mark.parametrize(
    "settings", [SAMPLED, {"temperature": 0}, BEAMS, BEAMS | SAMPLED, SAMPLED | {"num_samples": 3, "stop": "e"}]
)
def test_every_token_of_a_text_has_its_probabilities(generator, settings):
    for completion in generator.complete(["To be", "KING"], max_tokens=12, scored=True, probabilities=4, **settings):
        found = completion.probabilities
        assert "".join(each.text for each in found) == completion.completion
        total = sum(math.log(each.model_probability) for each in found)
        assert completion.log_probability == pytest.approx(total, abs=1e-3)
        for each in found:
            assert len(each.alternatives) == 4
            assert each.probability > 0
            listed = [alternative.probability for alternative in each.alternatives]
            assert listed == sorted(listed, reverse=True)
            if "beam_size" not in settings:
                same = [other for other in each.alternatives if other.token == each.token]
                assert all(other.probability == pytest.approx(each.probability) for other in same)


def test_what_a_control_closes_is_among_the_alternatives_however_much_is_open(generator):
    completion = generator.complete("To b", bad_words="/e/", max_tokens=3, probabilities=4, temperature=1.0, seed=3)[0]
    closed = next(each for each in completion.probabilities[0].alternatives if each.text == "e")
    assert closed.probability == 0
    assert closed.model_probability > 0.1
    assert sum(each.probability > 0 for each in completion.probabilities[0].alternatives) == 3


def test_asking_for_probabilities_changes_no_text(generator):
    plain = generator.complete(["To be", "My"], num_samples=2, max_tokens=20, **SAMPLED)
    asked = generator.complete(["To be", "My"], num_samples=2, max_tokens=20, scored=True, probabilities=2, **SAMPLED)
    assert [each.text for each in plain] == [each.text for each in asked]
    assert plain[0].log_probability is None
    assert plain[0].probabilities is None


def test_a_stream_tells_them_at_its_end(generator):
    stream = generator.stream("To be", max_tokens=8, scored=True, probabilities=2, **SAMPLED)
    assert "".join(stream) == "".join(each.text for each in stream.result.probabilities)
    assert stream.result.log_probability < 0


def test_the_chance_of_a_chosen_token_is_how_often_it_is_chosen(generator):
    found = {each.text: each.probability for each in generator.next_tokens("To b", temperature=1.5, top_k=3)}
    written = generator.complete("To b", temperature=1.5, top_k=3, num_samples=2000, max_tokens=1, seed=0)
    for text, probability in found.items():
        share = sum(each.completion == text for each in written) / 2000
        assert abs(share - probability) < 4 * math.sqrt(0.25 / 2000)


@pytest.mark.parametrize("make", [byte_level_gpt2, sentencepiece_llama])
def test_any_model_tells_its_probabilities(make):
    generator = Generator(make(), seed=1, max_tokens=8)
    completion = generator.complete("once upon", scored=True, probabilities=3)[0]
    total = sum(math.log(each.model_probability) for each in completion.probabilities)
    assert completion.log_probability == pytest.approx(total, abs=1e-3)
    found = generator.next_tokens("once upon", top=3)
    assert found[0].model_probability == pytest.approx(found[0].probability, abs=1e-5)


def test_labels_name_what_cannot_be_seen(shakespeare):
    names = TokenNames(shakespeare.tokenizer)
    ids = shakespeare.tokenizer('a \n"').input_ids
    assert [names.label(token) for token in ids[:3]] == ['"a"', '" " (space)', '"\\n" (line break)']
    assert names.label(shakespeare.tokenizer.eos_token_id) == "<EOS>"
    assert names.text(shakespeare.tokenizer.eos_token_id) == ""
    assert names.label(10_000) == "<10000>"


def test_next_predictions_hold_what_is_likely_either_way():
    names = TokenNames(load_model(FIXTURES / "learned" / "final_model.pt", device="cpu").tokenizer)
    own = torch.tensor([0.0, 0.7, 0.2, 0.1, 0.0])
    final = torch.tensor([0.0, 0.0, 0.25, 0.15, 0.6])
    found = next_predictions(names, own, final, top=3)
    assert [(each.token, round(each.probability, 2), round(each.model_probability, 2)) for each in found] == [
        (4, 0.6, 0.0),
        (2, 0.25, 0.2),
        (1, 0.0, 0.7),
    ]


def test_a_recorder_changes_nothing_and_remembers_the_chosen():
    recorder = ProbabilityRecorder(top=2)
    scores = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.9, 0.0]]).log()
    assert recorder(torch.tensor([[7], [8]]), scores) is scores
    recorder(torch.tensor([[7, 0], [8, 1]]), scores)
    assert recorder.chosen(torch.tensor([7, 0])) == pytest.approx(0.5)
    assert recorder.chosen(torch.tensor([8, 1])) == pytest.approx(0.9)
    assert recorder.chosen(torch.tensor([8, 1, 0])) == pytest.approx(0.1)
    assert recorder.likeliest(torch.tensor([8])) == {1: pytest.approx(0.9), 0: pytest.approx(0.1)}
    assert recorder.first == pytest.approx(torch.tensor([0.5, 0.25, 0.25]).numpy())
