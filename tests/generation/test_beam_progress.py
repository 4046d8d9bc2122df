"""The best text of a beam search while it runs."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import byte_level_gpt2

from fundamentallm_hf import Generator, load_model
from fundamentallm_hf.generation import beam_progress


@pytest.fixture(scope="module")
def generators():
    return [Generator(each, notice=str, max_tokens=24) for each in (load_model(device="cpu"), byte_level_gpt2())]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1),
    st.fixed_dictionaries(
        {"beam_size": st.integers(2, 4)},
        optional={
            "temperature": st.sampled_from([0.7, 1.5]),
            "length_penalty": st.sampled_from([-1.0, 2.0]),
            "stop": st.sampled_from([["."], ["e", "an"]]),
            "bad_words": st.just(["the", "a*"]),
            "must_include": st.just(["king"]),
            "pattern": st.just("[a-z ]{3,9}(\\.|!)"),
            "num_samples": st.just(2),
        },
    ),
    st.sampled_from(["Once upon a time", "She smiled. The end"]),
)
def test_what_is_called_certain_is_in_the_text(generators, which, options, prompt):
    if "temperature" in options:
        options = options | {"seed": 5}
    if "pattern" in options:
        options = {name: value for name, value in options.items() if name not in ("bad_words", "must_include")}
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam_progress, "PACE", 0.0)
        found = generators[which].complete(prompt, progress=lambda *pair: seen.append(pair), **options)
    plain = generators[which].complete(prompt, **options)
    assert [each.text for each in found] == [each.text for each in plain]
    assert seen
    certain = [text[:sure] for text, sure in seen]
    for before, after in pairwise(certain):
        assert after.startswith(before)
    for each in found[:1] if options.get("num_samples") is None else found:
        whole = each.completion
        assert certain[-1].startswith(whole) or whole.startswith(certain[-1])


def test_it_is_certain_long_before_the_end(generators):
    seen = []
    (found,) = generators[0].complete(
        "Once upon a time", beam_size=3, temperature=0, max_tokens=120, progress=lambda *pair: seen.append(pair)
    )
    assert any(0 < sure < len(text) for text, sure in seen)
    text, sure = seen[-1]
    assert sure > 60
    assert found.completion.startswith(text[:sure])


def test_a_search_reports_its_progress_too(generators):
    seen = []
    chosen, _ = generators[0].search("Once", beam_size=2, max_tokens=10, progress=lambda *pair: seen.append(pair))
    assert chosen.completion.startswith(seen[-1][0][: seen[-1][1]])
