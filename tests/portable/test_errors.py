"""Errors have attributes, so nobody has to parse their text."""

import pickle
import re
from contextlib import suppress

import pytest
from command import run
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**12),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.one_of(st.text(max_size=3), st.integers()), max_size=3),
)


@given(st.sampled_from(sorted(SETTINGS)), ANYTHING)
def test_a_refused_value_is_told_with_its_setting_and_what_is_expected(name, value):
    setting = SETTINGS[name]
    with suppress(UsageError):
        setting.parse(value)
        return
    with pytest.raises(UsageError) as caught:
        setting.parse(value)
    error = caught.value
    assert (error.setting, error.value is value) == (name, True)
    assert str(error) == f"{setting.label} has to be {error.expected} but is {value!r}"


# One setting, or the first of those that cannot go together.
CONTRADICTIONS = [
    ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
    ({"num_samples": 3, "beam_size": 2}, "num_samples"),
    ({"num_samples": 2, "temperature": 0}, "num_samples"),
    ({"best": 2}, "best"),
    ({"seed": SETTINGS["seed"].high, "num_samples": 2}, "seed"),
    ({"bad_words": ["/(/"]}, "bad_words"),
    ({"bad_words_file": "no/such/file"}, "bad_words_file"),
    ({"must_include": ["a||b"]}, "must_include"),
    ({"guide_attribute": ["formal:x"]}, "guide_attribute"),
    ({"guide_attribute": ["a b"]}, "guide_attribute"),
    ({"guide_attribute": ["a:1000"]}, "guide_attribute"),
    ({"pattern": "("}, "pattern"),
    ({"json_schema": "{"}, "json_schema"),
    ({"grammar": "start: ("}, "grammar"),
]


@pytest.mark.parametrize(("values", "setting"), CONTRADICTIONS)
def test_settings_that_cannot_be_followed_name_the_one_at_fault(values, setting):
    with pytest.raises(UserError) as caught:
        GenerationSettings(**values).check()
    assert caught.value.setting == setting
    assert not re.search(r"[a-z]_[a-z]", str(caught.value).partition(":")[0])  # as users write settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-tokens", "0"), "'--max-tokens': has to be a whole number of at least 1"),
        (("--top-p", "2"), "'--top-p': has to be a number above 0 and at most 1 but is '2'"),
        (("--guide-strength", "x"), "'--guide-strength': has to be a number from"),
        (("--overflow", "x"), "'--overflow': has to be one of"),
    ],
)
def test_the_command_names_an_option_once(arguments, message):
    done = run("generate", "--prompt", "a", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count(arguments[0]) == 1


def test_an_error_can_be_raised_as_one_of_another_class():
    told = UsageError.of(UserError("a is wrong", setting="a", value=3, expected="b"), setting="c")
    assert (type(told), str(told), told.setting, told.value, told.expected) == (UsageError, "a is wrong", "a", 3, "b")
    told = UserError.of(ValueError("a is wrong"), setting="c")
    assert (type(told), str(told), told.setting, told.value) == (UserError, "a is wrong", "c", None)
    again = pickle.loads(pickle.dumps(UsageError("a", setting="b", value=[1], expected="c")))
    assert (str(again), again.setting, again.value, again.expected) == ("a", "b", [1], "c")
