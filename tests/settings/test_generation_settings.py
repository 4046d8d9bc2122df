"""Settings: one table, validated once, with helpful errors."""

import pytest

from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.text.word_lists import split_entries
from fundamentallm_hf.settings.generation_settings import (
    SETTINGS,
    GenerationSettings,
    Setting,
    find_setting,
)


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
        ("stop", "one, two", ("one, two",)),
        ("stop", ["a", "b,c"], ("a", "b,c")),
        ("stop", (), ()),
        ("word_weights", {"dragon": 2.0, "said": -1.5}, ("dragon:2", "said:-1.5")),
        ("word_weights", "dragon:2, /a{1,2}/:-inf", ("dragon:2", "/a{1,2}/:-inf")),
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
        ("beam_size", 0, "a whole number of at least 1 but is 0"),
        ("stop", ["a", 3], "text, or a list of texts, none empty, but is ['a', 3]"),
        ("stop", "", "text, or a list of texts, none empty, but is ''"),
        ("stop", None, "text, or a list of texts, none empty, but is None"),
        ("stop", 5, "text, or a list of texts, none empty, but is 5"),
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


def test_a_list_that_is_comma_separated_splits_one_text_but_never_an_entry():
    words = Setting("words", tuple, (), "Words.", "Words", comma_separated=True)
    assert words.parse(r"dragon, /a{1,2}/, x\,y,") == ("dragon", "/a{1,2}/", "x,y")
    assert words.parse(words.parse(r"dragon, x\,y")) == ("dragon", "x,y")
    assert words.parse(["a,b"]) == ("a,b",)
    with pytest.raises(UserError, match=r"words has to be text, or a list of texts, none empty, but is \[None\]"):
        words.parse([None])


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        (" , ,\n", []),
        ("dragon,castle , old knight", ["dragon", "castle", "old knight"]),
        (r"and\, or, b", ["and, or", "b"]),
        ("/a,b/, c", ["/a,b/", "c"]),
        (" /a,b/ ,/c,d/", ["/a,b/", "/c,d/"]),
        (r"/a\/,b/,c", [r"/a\/,b/", "c"]),
        (r"/a\\/,b", [r"/a\\/", "b"]),
        (r"/a\,b/", [r"/a\,b/"]),
        ("/a/b,c/\n", ["/a/b,c/"]),
        ("x/a,b/", ["x/a", "b/"]),
        ("/etc, and/or", ["/etc", "and/or"]),
    ],
)
def test_split_entries(text, entries):
    assert split_entries(text) == entries


@pytest.mark.parametrize(
    ("settings", "sampled"),
    [
        ({}, True),
        ({"temperature": 0}, False),
        ({"temperature": 0, "top_k": 5}, False),
        ({"beam_size": 3}, False),
        ({"beam_size": 3, "seed": 1}, False),
        ({"beam_size": 3, "temperature": 0}, False),
        ({"beam_size": 3, "temperature": 1}, True),
        ({"beam_size": 3, "top_k": 5}, True),
        ({"beam_size": 3, "top_p": 0.9}, True),
    ],
)
def test_beams_are_sampled_only_if_a_sampling_setting_is_set(settings, sampled):
    assert GenerationSettings(**settings).sampled is sampled


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_tokens": 9, "max_tokens": 8}, "min-tokens is 9, but max-tokens ends the text at 8"),
        ({"num_samples": 4, "beam_size": 3}, "num-samples is 4, but a beam-size of 3"),
        ({"num_samples": 2, "temperature": 0}, "at temperature 0 all samples are the same"),
        ({"guide_attribute": "a b"}, "the name of an attribute has to be of letters, digits, _, - and . but is 'a b'"),
        ({"guide_attribute": "a:x"}, "the strength of a has to be a number from -10 to 10 but is 'x'"),
        ({"num_samples": 2, "best": 3}, "best is 3, but num-samples writes only 2"),
        ({"num_samples": 2, "seed": 2**62}, "the last of 2 samples would have one above 4611686018427387904"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        GenerationSettings(**settings).check()


def test_settings_that_only_look_contradictory_are_accepted():
    GenerationSettings(min_tokens=8, max_tokens=8).check()
    GenerationSettings(num_samples=3, beam_size=3, temperature=0).check()
    GenerationSettings(num_samples=5, beam_size=3, temperature=1).check()
    GenerationSettings(num_samples=2, best=2, seed=2**62 - 1).check()


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"temperature": 0, "seed": 1}, ["seed has no effect: at temperature 0 nothing is sampled"]),
        ({"beam_size": 2, "seed": 1}, ["seed has no effect: these beams are not sampled"]),
        ({"repetition_unit": "words"}, ["repetition-unit has no effect: neither repetition-penalty nor"]),
        ({"guide_strength": 2}, ["guide-strength has no effect: guide-attribute is not set"]),
        ({"guide_attribute": "a", "guide_strength": 0}, ["guide-attribute has no effect: guide-strength is 0"]),
        ({"guide_attribute": "a:2", "guide_strength": -1}, []),
        ({"case_sensitive": True, "bad_words": "a"}, []),
        ({"must_include": "a,b", "must_include_ordered": True}, []),
        ({"temperature": 0.5, "min_p": 0.1, "seed": 0}, []),
    ],
)
def test_settings_that_change_nothing_are_named(settings, idle):
    found = GenerationSettings(**settings).without_effect()
    assert len(found) == len(idle)
    assert all(text.startswith(expected) for text, expected in zip(found, idle, strict=True))


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'max_tokens'"):
        find_setting("max-token")
    with pytest.raises(UserError, match="there are max_tokens"):
        find_setting("zzz")


def test_the_table_has_every_field_with_help_and_group():
    assert list(SETTINGS) == list(GenerationSettings().to_dict())
    assert all(setting.help and setting.group for setting in SETTINGS.values())


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("dragon", "word-weights: every entry has to have a weight, as in 'dragon:2', but there is 'dragon'"),
        ("dragon:x", "word-weights: the weight of 'dragon' has to be a number of at most 20, or -inf, but is 'x'"),
        ("dragon:21", "word-weights: the weight of 'dragon' has to be a number of at most 20, or -inf, but is '21'"),
        ("/(/:1", "word-weights: '(' is not a valid regular expression"),
    ],
)
def test_a_list_of_weights_is_checked_before_anything_is_computed(value, line):
    with pytest.raises(UserError) as error:
        GenerationSettings(word_weights=value).check()
    assert str(error.value).startswith(line)
    assert error.value.setting == "word_weights"


def test_a_dict_of_weights_holds_numbers():
    with pytest.raises(UserError, match="word-weights has to be a dict of entries and weights"):
        GenerationSettings(word_weights={"dragon": "much"})
