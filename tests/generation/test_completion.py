"""Many texts: batches do not change them, and the best of several are kept."""

import pytest

from fundamentallm_hf import Completion, Generator, UserError
from fundamentallm_hf.generation.completion import likeliest

SETTINGS = {"max_tokens": 12, "temperature": 1.2, "seed": 5}


@pytest.fixture(scope="module")
def generator(shakespeare):
    return Generator(shakespeare, notice=lambda text: None, **SETTINGS)


def flat(batches):
    return [completion for batch in batches for completion in batch]


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
@pytest.mark.parametrize("settings", [{"num_samples": 3}, {"num_samples": 4, "best": 2}, {"beam_size": 2}])
def test_batches_write_what_one_call_writes(generator, rows, settings):
    prompts = ["To be", "KING:", "", "My lord"]
    settings = {"temperature": None} | settings if "beam_size" in settings else settings
    whole = generator.complete(prompts, scored=True, **settings)
    assert [each.text for each in flat(generator.iterate(prompts, rows=rows, **settings))] == [
        each.text for each in whole
    ]


def test_samples_keep_their_places_over_batches(generator):
    found = flat(generator.iterate(["To be"], rows=2, num_samples=5))
    assert [(each.sample, each.seed) for each in found] == [(i, 5 + i) for i in range(5)]


def test_without_a_seed_every_text_names_the_one_that_repeats_it(shakespeare):
    generator = Generator(shakespeare, max_tokens=12, temperature=1.2)
    for completion in flat(generator.iterate(["To be"], rows=2, num_samples=5)):
        assert generator.complete("To be", seed=completion.seed)[0] == completion


@pytest.mark.parametrize("samples", [2, 5])
def test_sampled_beams_of_a_prompt_repeat_alone(generator, samples):
    settings = {"beam_size": 3, "num_samples": samples, "temperature": 1.0}
    for completion in flat(generator.iterate(["To be", "My"], **settings)):
        again = generator.complete(completion.prompt, **settings | {"seed": completion.seed})
        assert again[completion.sample] == completion


def test_more_samples_than_beams_are_those_of_several_searches(generator):
    found = generator.complete(["To be", "My"], beam_size=2, num_samples=5, temperature=1.0, scored=True)
    assert [each.prompt for each in found] == ["To be"] * 5 + ["My"] * 5
    assert [(each.seed, each.sample) for each in found[:5]] == [(5, 0), (5, 1), (6, 0), (6, 1), (7, 0)]
    best = generator.complete("To be", beam_size=2, num_samples=5, temperature=1.0, best=1)
    assert best[0].text == max(found[:5], key=lambda each: each.mean_log_probability).text


def test_what_cannot_be_is_refused_before_the_first_prompt_is_read(generator):
    def prompts():
        raise AssertionError("a prompt was read")
        yield

    with pytest.raises(UserError, match="best is 3"):
        next(generator.iterate(prompts(), num_samples=2, best=3))


def test_the_best_are_chosen_by_their_mean_log_probability(generator):
    everything = generator.complete("To be", num_samples=6, scored=True)
    means = sorted((each.log_probability / each.tokens for each in everything), reverse=True)
    best = generator.complete("To be", num_samples=6, best=3)
    assert [each.mean_log_probability for each in best] == pytest.approx(means[:3], abs=1e-4)
    assert generator.generate("To be", num_samples=6, best=3) == best[0].text
    stream = generator.stream("To be", num_samples=6, best=3)
    assert "".join(stream) == best[0].completion


def test_the_best_of_one_is_that_one(generator):
    assert generator.generate("To be", best=1) == generator.generate("To be")


def test_a_text_without_tokens_comes_last():
    def make(tokens, total):
        return Completion("a", "b" * tokens, "length", tokens, None, total)

    assert [each.tokens for each in likeliest([make(0, 0.0), make(2, -9.0), make(3, -3.0)], 3)] == [3, 2, 0]


def test_a_completion_tells_only_what_was_asked_for(generator):
    plain = generator.complete("To be")[0].to_dict()
    assert set(plain) == {"text", "prompt", "completion", "finish_reason", "tokens", "seed", "passes"}
    asked = generator.complete("To be", scored=True, probabilities=2)[0].to_dict()
    assert set(asked) - set(plain) == {"log_probability", "mean_log_probability", "probabilities"}
    assert "alternatives" not in asked["probabilities"][0]["alternatives"][0]
