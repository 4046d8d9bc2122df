"""What a text is due for its words: the weight of every entry, each time that it is complete."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundamentallm_hf.portable.text.weighted_patterns import WeightedPatterns
from fundamentallm_hf.portable.text.word_counts import WordCounts

COUNTS = WordCounts({"ab": 30, "abc": 10, "ba": 20, "cab": 5, "b": 1})
# Entries, and a regular expression that matches once for each time that they are complete.
WORDS = {
    "ab": r"(?<!\w)ab(?!\w)",
    "b": r"(?<!\w)b(?!\w)",
    "AB": r"(?<!\w)ab(?!\w)",
    "ba*": r"(?<!\w)ba",
    "*c*": r"c",
    "*ab": r"ab(?!\w)",
    "ab ca": r"(?<!\w)ab\s+ca(?!\w)",
    "ab *": r"(?<!\w)ab(?=\s)",
    "c.": r"(?<!\w)c\.",
}
# Regular expressions without a condition on what follows them.
EXPRESSIONS = ("ab", "a+", "[ab]c", "b.?a", r"\bb", "aba", "c a|c b")


def total(weights, text, prompt=""):
    patterns = WeightedPatterns(weights, True, COUNTS)
    state = patterns.forget(patterns.read(patterns.start, prompt)[0])
    state = patterns.read(state, text)[0]
    return state.regex.due + patterns.due_at_end(state)


def value(patterns, text):
    """The factor that may be expected after a text, by word counts."""
    return 1 + sum(way.chance * way.gain for way in patterns.ways(patterns.read(patterns.start, text)[0]))


def matches(source, text):
    """How often an expression is complete: each match as short as it can be, the next one after it."""
    expression, found, begin = re.compile(source), 0, 0
    for end in range(1, len(text) + 1):
        if any(expression.fullmatch(text, first, end) for first in range(begin, end)):
            found, begin = found + 1, end
    return found


@settings(max_examples=200, deadline=None)
@given(
    st.text("abc .", max_size=24),
    st.dictionaries(st.sampled_from(sorted(WORDS)), st.sampled_from([-2.0, -0.5, 1.0, 3.0]), min_size=1),
    st.dictionaries(st.sampled_from(EXPRESSIONS), st.sampled_from([-1.0, 0.25, 5.0])),
)
def test_a_text_is_due_every_weight_as_often_as_its_entry_is_complete(text, words, expressions):
    weights = words | {f"/{source}/": weight for source, weight in expressions.items()}
    due = sum(weight * len(re.findall(WORDS[entry], text)) for entry, weight in words.items())
    due += sum(weight * matches(source, text) for source, weight in expressions.items())
    assert total(weights, text) == pytest.approx(due, abs=1e-9)


@pytest.mark.parametrize(
    ("source", "text", "times"),
    [
        (r"/\d+/", "1234", 4),  # each digit is a match already
        (r"/\b\d+\b/", "1234 56.", 2),
        (r"/\bcats?\b/", "cat, cats", 2),
        (r"/aba/", "abaaba", 2),
        (r"/end$/", "the end", 1),
        (r"/not only .{1,9} but/", "not only a but not only b but", 2),
    ],
)
def test_a_match_counts_when_it_is_complete_and_the_next_one_begins_behind_it(source, text, times):
    assert total({source: 1.0}, text) == times


def test_what_lies_wholly_in_the_prompt_is_due_nothing():
    assert total({"ab": 1.0}, " ba", prompt="ab") == 0
    assert total({"ab": 1.0}, "b ba", prompt="ab a") == 1
    assert total({r"/ab\b/": 1.0}, " ba", prompt="ab") == 0


def test_entries_that_match_the_same_are_added_up():
    assert total({"ab": 1.0, "AB": 0.5}, "ab") == 1.5
    assert WeightedPatterns({"ab": 2.0, "Ab": -2.0}, True, COUNTS).is_empty
    assert not WeightedPatterns({"ab": 2.0, "Ab": -2.0}, False, COUNTS).is_empty


def test_a_beginning_is_worth_what_may_come_of_it():
    counts = WordCounts({"dragon": 10, "dragons": 30, "dog": 60})
    unseen = 0.5 / 100.5

    def expected(weights, text):
        return value(WeightedPatterns(weights, True, counts), text)

    chance = 10 / 100.5 + unseen
    assert expected({"dragon": 2.0}, " d") == pytest.approx(1 + chance * math.expm1(2))
    assert expected({"dragon": 2.0}, " do") == expected({"dragon": 2.0}, " d ") == 1
    # Entries that match one word make one factor of it, not two that are added up.
    both = expected({"dragon": -20.0, "dragon*": -20.0, "/ragon/": -20.0}, " d")
    assert both == pytest.approx(1 - (10 + 30 + 1) / 100.5, abs=0.01)
    # A stem is paid where it is complete, whatever comes of it.
    assert expected({"dragon*": 2.0}, " dragon") == 1
    assert expected({"dragon*": 2.0}, " drago") == pytest.approx(math.exp(2), rel=0.03)


def test_a_phrase_is_worth_something_before_it_is_begun():
    counts = WordCounts({"very": 50, "happy": 50})
    patterns = WeightedPatterns({"very happy": 2.0, "happy": 1.0}, True, counts)
    before = value(patterns, " very ")
    # Half of all words are "happy", which then has its own weight, too.
    assert before == pytest.approx(1 + 0.5 * (math.exp(3) - math.exp(1)), rel=0.02)
