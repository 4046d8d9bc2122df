"""What each phase of the controls did at every position of a text."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import byte_level_gpt2

from fundamentallm_hf import Generator, load_model
from fundamentallm_hf.portable.decoding.control_effects import LEAST_SHIFT

CONTROLS = {
    "ban": {"bad_words": ["the", "a*", "/e.?r/"]},
    "require": {"must_include": ["king", "sword*"]},
    "guide": {"guide_attribute": ["positive_sentiment"], "guide_strength": 2.0},
}


@pytest.fixture(scope="module")
def generators():
    return [Generator(each, notice=str, max_tokens=30) for each in (load_model(device="cpu"), byte_level_gpt2())]


def chances(generator, prompt, **options):
    return {each.token: each.probability for each in generator.next_tokens(prompt, top=200, **options)}


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["ban", "require", "guide"]),
    st.sampled_from(["Once upon a time", "The king", "She was very"]),
    st.sampled_from([{"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.3}, {"top_k": 5}]),
)
def test_a_factor_is_the_probability_with_the_control_over_that_without(generators, name, prompt, sampling):
    generator, options = generators[0], {"max_tokens": 30} | sampling
    found = generator.complete(prompt, probabilities=60, seed=1, **options, **CONTROLS[name])[0].probabilities[0]
    without, with_it = chances(generator, prompt, **options), chances(generator, prompt, **options, **CONTROLS[name])
    for each in found.alternatives:
        assert set(each.effects) <= {name}
        if without.get(each.token, 0) > 1e-6 and name in each.effects:
            expected = with_it[each.token] / without[each.token]
            assert each.effects[name] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    moved = sum(max(0.0, chance - without.get(token, 0.0)) for token, chance in with_it.items())
    shifts = {shift.phase: shift for shift in found.shifts}
    if abs(moved - LEAST_SHIFT) > 1e-3:
        assert (moved > LEAST_SHIFT) == (name in shifts)
    if name in shifts:
        assert shifts[name].moved == pytest.approx(moved, abs=1e-3)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(CONTROLS)), min_size=1, unique=True),
    st.integers(0, 1),
    st.sampled_from(
        [{"temperature": 0.8, "seed": 3}, {"temperature": 0}, {"beam_size": 2}, {"num_samples": 2, "seed": 1}]
    ),
)
def test_effects_are_those_of_the_controls_and_change_no_text(generators, names, which, how):
    if which and "guide" in names:
        names = [name for name in names if name != "guide"] or ["ban"]
    options = {key: value for name in names for key, value in CONTROLS[name].items()} | how
    plain = generators[which].complete("Once upon", **options)
    asked = generators[which].complete("Once upon", probabilities=4, **options)
    slow = generators[which].complete("Once upon", probabilities=4, speculate=False, **options)
    assert [each.text for each in plain] == [each.text for each in asked]
    for completion, other in zip(asked, slow, strict=True):
        for token, same in zip(completion.probabilities, other.probabilities, strict=True):
            assert set(token.effects) <= set(names)
            assert token.effects == pytest.approx(same.effects, rel=1e-2, abs=1e-3)
            for shift in token.shifts:
                assert shift.phase in names
                assert LEAST_SHIFT <= shift.moved <= 1 + 1e-5
                if how.get("temperature") == 0:
                    assert shift.moved == 1
                    assert shift.away != shift.towards
            for each in (token, *token.alternatives):
                assert all(factor >= 0 and math.isfinite(factor) for factor in each.effects.values())


def test_a_masked_token_has_the_factor_0(generators):
    (found,) = generators[0].complete(
        "Once upon a tim", bad_words="/e/", max_tokens=1, probabilities=3, temperature=1.0, seed=1
    )
    masked = next(each for each in found.probabilities[0].alternatives if each.text == "e")
    assert masked.effects == {"ban": 0.0}
    (shift,) = found.probabilities[0].shifts
    assert (shift.phase, shift.away) == ("ban", masked.token)
    assert shift.moved > 0.9
    assert found.to_dict()["probabilities"][0]["shifts"][0]["phase"] == "ban"


def test_without_controls_there_is_nothing_to_tell(generators):
    (found,) = generators[0].complete("Once", probabilities=3, seed=1, max_tokens=5)
    assert not any(each.effects or each.shifts for each in found.probabilities)
    assert "shifts" not in found.probabilities[0].to_dict()
