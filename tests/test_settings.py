"""Settings: one table, validated once, with errors that teach."""

import pytest

from fundamentallm_hf.errors import UserError
from fundamentallm_hf.settings import SETTINGS, GenerationSettings, find_setting


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("max_tokens", "12", 12),
        ("max_tokens", 12.0, 12),
        ("temperature", 0, 0.0),
        ("temperature", "0.8", 0.8),
        ("top_p", 1, 1.0),
        ("top_k", None, None),
        ("overflow", "stop", "stop"),
        ("seed", 0, 0),
    ],
)
def test_a_value_is_accepted_and_becomes_its_type(name, value, parsed):
    got = getattr(GenerationSettings(**{name: value}), name)
    assert got == parsed
    assert type(got) is type(parsed)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_tokens", 0, "a whole number of at least 1 but is 0"),
        ("max_tokens", 2.5, "a whole number of at least 1 but is 2.5"),
        ("max_tokens", None, "a whole number of at least 1 but is None"),
        ("temperature", -0.1, "a number from 0 to 100 but is -0.1"),
        ("temperature", "nan", "a number from 0 to 100 but is 'nan'"),
        ("temperature", float("inf"), "a number from 0 to 100 but is inf"),
        ("temperature", "warm", "a number from 0 to 100 but is 'warm'"),
        ("top_p", 0, "a number above 0 and at most 1 but is 0"),
        ("top_p", 1.5, "a number above 0 and at most 1 but is 1.5"),
        ("top_k", True, "a whole number of at least 1 but is True"),
        ("overflow", "wrap", "one of slide, stop, error but is 'wrap'"),
    ],
)
def test_a_bad_value_is_refused_with_what_was_expected_and_given(name, value, expected):
    with pytest.raises(UserError) as caught:
        GenerationSettings(**{name: value})
    assert str(caught.value) == f"{name.replace('_', '-')} has to be {expected}"


def test_but_changes_a_copy_and_takes_dashes():
    first = GenerationSettings(temperature=0.5)
    second = first.but(**{"top-k": 3})
    assert (first.top_k, second.top_k, second.temperature) == (None, 3, 0.5)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'max_tokens'"):
        find_setting("max-token")
    with pytest.raises(UserError, match="there are max_tokens"):
        find_setting("zzz")


def test_the_table_has_every_field_with_help_and_group():
    assert list(SETTINGS) == list(GenerationSettings().to_dict())
    assert all(setting.help and setting.group for setting in SETTINGS.values())
