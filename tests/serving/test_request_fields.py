"""Fields of a request: every setting, the other names of settings, and two fields that set the same thing."""

import difflib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf import load_model
from fundamentallm_hf.portable.controls.control_table import CONTROLS
from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.serving.request_fields import ALIASES, CLOSED, FIELDS, ServerLimits, read_fields
from fundamentallm_hf.settings.generation_settings import SETTINGS

LIMITS = ServerLimits()
WORDS = st.text("abcdefgh", min_size=1, max_size=9)
# Settings whose values have a form of their own, or whose range depends on other settings.
VALUES = {
    "pattern": WORDS,
    "json_schema": WORDS.map(lambda word: {"enum": [word]}),
    "grammar": WORDS.map(lambda word: f'start: "{word}"'),
    "words": st.one_of(st.integers(1, 60), st.integers(1, 30).map(lambda low: f"{low}-{low + 9}")),
    "sentences": st.integers(1, 9),
    "max_tokens": st.integers(1, LIMITS.tokens),
    "min_tokens": st.integers(0, 200),
    "num_samples": st.integers(1, LIMITS.samples),
    "beam_size": st.integers(1, LIMITS.beams),
}
OFFERED = [setting for setting in SETTINGS.values() if setting.name not in (*CLOSED, "best")]
CLASHES = [
    (
        {"json_schema": {"enum": [1]}, "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        "twice",
    ),
    ({"repetition_penalty": 1.3, "frequency_penalty": 0.5}, "twice"),
    ({"beam_size": 2, "num_beams": 3}, "twice"),
    ({"no_repeat_ngram": 3, "generation_config": {"no_repeat_ngram_size": 2}}, "in its generation_config"),
    ({"frequency_penalty": 0.5, "generation_config": {"repetition_penalty": 2.0}}, "in its generation_config"),
]


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


def values_of(setting):
    """Values that the setting takes, as JSON gives them."""
    if setting.name in VALUES:
        return VALUES[setting.name]
    if setting.choices:
        return st.sampled_from(setting.choices)
    if setting.kind is bool:
        return st.booleans()
    if setting.is_weighted:
        entries = st.dictionaries(
            WORDS.filter(lambda word: "/" not in word), st.integers(-9, 9), min_size=1, max_size=4
        )
        return entries | entries.map(lambda weights: [f"{entry}:{weight}" for entry, weight in weights.items()])
    if setting.kind is tuple:
        return st.lists(WORDS, min_size=1, max_size=4)
    high = min(50, setting.high or 50)
    return st.integers(setting.low + 1, high) if setting.kind is int else st.floats(setting.low + 0.01, high)


@pytest.mark.parametrize("setting", OFFERED, ids=lambda setting: setting.name)
@given(data=st.data())
def test_every_setting_is_a_field(demo, setting, data):
    value = data.draw(values_of(setting))
    asked = read_fields(json.loads(json.dumps({"prompt": "a", setting.name: value})), LIMITS)
    expected = setting.parse(value)
    assert getattr(asked.settings, setting.name) == expected
    control = CONTROLS.get(setting.name)
    # The length penalty of one text is a processor; a control that refines others is left out without them.
    if control is not None and control.name != "length_penalty" and not control.refines and expected != control.default:
        found = getattr(asked.make_config(demo), control.config_field)
        assert found == (list(expected) if isinstance(expected, tuple) else expected)


@given(st.sampled_from(sorted(ALIASES)), st.integers(1, 16))
def test_another_name_means_the_same(alias, value):
    assert read_fields({alias: value}, LIMITS) == read_fields({ALIASES[alias]: value}, LIMITS)


@given(st.sampled_from(FIELDS), st.data())
def test_a_field_with_a_wrong_letter_is_recognised(name, data):
    at = data.draw(st.integers(0, len(name) - 1))
    wrong = name[:at] + "_q"[name[at] == "_"] + name[at + 1 :]
    if len(name) < 4 or wrong in FIELDS:
        return
    with pytest.raises(UsageError, match="there is no field") as caught:
        read_fields({wrong: 1}, LIMITS)
    hinted = str(caught.value).split("did you mean '")[1].split("'")[0]
    assert hinted in FIELDS
    assert difflib.SequenceMatcher(None, wrong, hinted).ratio() >= difflib.SequenceMatcher(None, wrong, name).ratio()


@pytest.mark.parametrize("endpoint", ["completions", "chat", "responses"])
def test_every_field_that_is_hinted_at_exists(endpoint):
    for name in FIELDS:
        lines = []
        try:
            read_fields({name: "a"}, LIMITS, endpoint)
        except UsageError as error:
            lines.append(str(error))
        assert not any("there is no field" in line for line in lines)


@given(st.integers(2, LIMITS.samples), st.integers(0, 999))
def test_each_of_several_texts_has_a_seed(demo, number, seed):
    asked = read_fields({"n": number, "seed": seed}, LIMITS)
    configs = [asked.make_config(demo, sample) for sample in range(number)]
    assert [config.seed for config in configs] == list(range(seed, seed + number))
    assert {config.num_return_sequences for config in configs} == {1}
    assert all(config.request_settings.num_samples == 1 for config in configs)
    search = read_fields({"n": number, "beam_size": number}, LIMITS).make_config(demo, number - 1)
    assert search.num_return_sequences == number


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_best_of_cannot_be_combined_with_best(texts, kept, best):
    with pytest.raises(UsageError, match="best is given next to best_of"):
        read_fields({"best_of": texts, "n": kept, "best": best}, LIMITS)


@given(st.floats(-0.9, 2))
def test_a_frequency_penalty_is_a_repetition_penalty(demo, value):
    config = read_fields({"frequency_penalty": value}, LIMITS).make_config(demo)
    assert (config.repetition_penalty or 1.0) == 1.0 + value


@pytest.mark.parametrize(
    ("fields", "line"), CLASHES, ids=lambda value: "+".join(value) if isinstance(value, dict) else ""
)
def test_two_fields_for_one_setting_are_refused_in_either_order(fields, line):
    for items in (fields.items(), reversed(fields.items())):
        with pytest.raises(UsageError, match=line):
            read_fields(dict(items), LIMITS)


def test_a_field_that_sets_nothing_may_be_next_to_another():
    neutral = {"frequency_penalty": 0, "response_format": {"type": "text"}}
    fields = {"repetition_penalty": 1.3, "json_schema": {"enum": [1]}}
    assert read_fields(fields | neutral, LIMITS) == read_fields(neutral | fields, LIMITS) == read_fields(fields, LIMITS)
