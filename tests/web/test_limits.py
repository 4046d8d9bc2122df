"""The limits of visitors' requests, without a page."""

import pytest

from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.web.comparisons import by_temperature, read_temperatures, with_and_without, without_each
from fundamentallm_hf.web.limits import LIMITS, OPEN, field_of, read_prompt, read_settings


def test_what_is_allowed_passes():
    chosen = read_settings({"max_tokens": LIMITS.tokens, "bad_words": ["a"] * LIMITS.entries, "temperature": None})
    assert chosen.max_tokens == LIMITS.tokens
    assert chosen.seed is not None
    assert read_settings({"temperature": 0}).seed is None
    assert read_settings(dict.fromkeys(OPEN) | {"seed": 3}).seed == 3
    assert read_prompt("x" * LIMITS.prompt)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"max_tokens": LIMITS.tokens + 1}, "max_tokens"),
        ({"bad_words": ["x" * (LIMITS.entry + 1)]}, "bad_words"),
        ({"guide_attribute": ["a/b", "x" * 99]}, "guide_attribute"),
        ({"json_schema": "x" * (LIMITS.text + 1)}, "json_schema"),
        ({"stop": [""]}, "stop"),
        ({"top_p": 0}, "top_p"),
        ({"min_tokens": 300}, "min_tokens"),
    ],
)
def test_what_is_refused_is_told_of_its_field(values, field):
    with pytest.raises(UsageError) as told:
        read_settings(values)
    assert field_of(told.value) == field


def test_files_are_closed():
    with pytest.raises(UsageError, match="bad-words-file is not available here"):
        read_settings({"bad_words_file": "/etc/passwd"})
    with pytest.raises(UsageError, match="bad-words-file is not available here"):
        read_settings({"bad-words-file": "/etc/passwd"})


def test_an_error_of_the_prompt_belongs_to_the_prompt():
    for prompt in ("x" * (LIMITS.prompt + 1), None, "\ud800"):
        with pytest.raises(UsageError) as told:
            read_prompt(prompt)
        assert field_of(told.value) == "prompt"
    assert field_of(UsageError("temperatures has to hold numbers")) is None


def test_the_whole_of_a_request_is_limited():
    with pytest.raises(UsageError, match="max-tokens times num-samples times beam-size is 3000"):
        read_settings({"max_tokens": 500, "num_samples": 6})


def test_temperatures_stand_side_by_side():
    settings = read_settings({"seed": 1, "num_samples": 2})
    columns = by_temperature(settings, read_temperatures("0.3, 1 2.5"))
    assert [each.title for each in columns] == ["temperature 0.3", "temperature 1", "temperature 2.5"]
    assert {(each.settings.seed, each.settings.num_samples) for each in columns} == {(1, 1)}
    for wrong in (["hot"], [None], [1] * (LIMITS.columns + 1), [-1], [float("nan")]):
        with pytest.raises(UsageError, match="temperature"):
            by_temperature(settings, wrong)


def test_each_control_is_left_out_in_turn():
    settings = read_settings({"bad_words": ["a"], "must_include": ["b", "c"], "must_include_ordered": True, "seed": 1})
    assert [column.title for column in with_and_without(settings, "bad_words")] == [
        "with bad-words",
        "without bad-words",
    ]
    assert with_and_without(settings, "bad_words")[1].settings.bad_words == ()
    with pytest.raises(UsageError, match="max-tokens cannot be left out: choose one of bad-words, "):
        with_and_without(settings, "max_tokens")
    with pytest.raises(UsageError, match="nothing cannot be left out"):
        with_and_without(settings, "nothing")
    with_all, without_ban, without_words = without_each(settings)
    assert with_all.settings == settings
    assert without_ban.settings == settings.but(bad_words=())
    assert without_words.settings == settings.but(must_include=(), must_include_ordered=False)
    with pytest.raises(UsageError, match="there is no control to leave out"):
        without_each(read_settings({"top_p": 1.0}))
