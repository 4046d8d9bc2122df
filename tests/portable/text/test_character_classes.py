"""Characters of one class lead to the same state, and the first bytes of a character show which it can become."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundamentallm_hf.portable.text.character_classes import (
    ASSIGNED,
    CODE_POINTS,
    CharacterClasses,
    _folds,
    _kinds,
    all_characters,
    characters_behind,
    coarse_key,
    coarse_keys,
    continues,
)
from fundamentallm_hf.portable.text.characters import fold
from fundamentallm_hf.portable.text.text_patterns import TextPatterns
from fundamentallm_hf.portable.text.word_counts import WordCounts

CHARACTERS = st.characters(exclude_categories=["Cs"])
LISTS = [
    TextPatterns(entries, ignore_case, WordCounts({}))
    for ignore_case in (True, False)
    for entries in (
        ["/[^\\x00-\\x7f]/", "Straße"],
        ["naïve", "日本*", "*ﬁ"],
        ["/(?a)\\w\\b./", "/[K-\u017f]$/", "a b"],
        ["/[\\U0001f600-\\U0001f64f]\\s/", "/./"],
    )
]


@pytest.mark.parametrize("patterns", LISTS)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_characters_of_one_class_lead_to_the_same_state(patterns, data):
    place = patterns.read(
        patterns.start, data.draw(st.text(CHARACTERS, max_size=4) | st.sampled_from(["日本", "Stra", "f", "a "]))
    )[0]
    char = data.draw(CHARACTERS | st.sampled_from("ßK\u017fﬁ日本éÉ ﷺ\u00ad\u2028\n"))
    alike = [
        each for each in patterns.classes.representatives() if patterns.classes.of(each) == patterns.classes.of(char)
    ]
    assert len(alike) == 1
    assert patterns.step(place, alike[0]) == patterns.step(place, char)


@given(CHARACTERS, st.data())
def test_a_character_is_among_those_that_begin_with_its_bytes(char, data):
    raw = char.encode()
    cut = data.draw(st.integers(1, max(1, len(raw) - 1)))
    if len(raw) == 1:
        return
    first, last, missing = characters_behind(raw[:cut])
    assert first <= ord(char) <= last
    assert missing == len(raw) - cut
    assert continues(raw[:cut], raw[cut:])
    assert not continues(raw[:cut], b"a")
    if first > 0x80 and not 0xD800 <= first - 1 < 0xE000:
        assert chr(first - 1).encode()[:cut] != raw[:cut]


def test_every_code_point_is_one_character_at_its_place():
    assert len(all_characters()) == CODE_POINTS
    for code in (0, 0x41, 0xD7FF, 0xE000, 0x1F600, CODE_POINTS - 1):
        assert all_characters()[code] == chr(code)
    assert set(all_characters()[0xD800:0xE000]) == {"\0"}


@pytest.mark.parametrize("ignore_case", [True, False])
@given(CHARACTERS | st.sampled_from("ßK\u017fﬁ日éÉ ﷺ\u00ad\u2028\u0301각\U000e0001"))
def test_all_folds_and_marks_are_known_at_once(ignore_case, char):
    folded = fold(char, ignore_case)
    assert "".join(_folds(ignore_case).get(ord(char), char)) == folded
    assert bool(_kinds(ignore_case)[ord(char)] & 8) == unicodedata.category(char).startswith("M")


@pytest.mark.parametrize("ignore_case", [True, False])
@given(start=st.integers(0, CODE_POINTS - 2000))
@settings(max_examples=30, deadline=None)
def test_many_characters_have_the_keys_of_each(ignore_case, start):
    chars = [char for char in all_characters()[start : start + 1000] if char != "\0"]
    assert coarse_keys(chars, ignore_case) == {char: coarse_key(char, ignore_case) for char in chars}


CROSSED = CharacterClasses.crossed([each.classes for each in LISTS[:2]], [re.compile("[a-cé]")], str.isalpha)


@given(one=CHARACTERS | st.characters(max_codepoint=127), other=CHARACTERS | st.characters(max_codepoint=300))
@settings(max_examples=200, deadline=None)
def test_crossed_classes_tell_apart_what_any_of_them_does(one, other):
    def seen(char):
        parts = [each.classes.of(char) for each in LISTS[:2]]
        return *parts, char in "abcé", char.isascii() and char.isalpha(), char.isascii()

    assert (CROSSED.of(one) == CROSSED.of(other)) == (seen(one) == seen(other))


def test_code_points_outside_the_assigned_ranges_are_alike():
    """Nothing that a pattern sees tells them apart, whatever version of Unicode this Python has."""
    assigned = {code for first, last in ASSIGNED for code in range(first, last)}
    others = "".join(chr(code) for code in range(CODE_POINTS) if code not in assigned)
    assert {unicodedata.category(char) for char in others} <= {"Cn", "Co"}
    assert unicodedata.is_normalized("NFKD", others)
    assert others.casefold() == others
    assert not re.search(r"[\w\s]", others)


@pytest.mark.parametrize(
    "pattern", [r"[^a]", r"\w", r"[\U00050000-\U00050005]", r"[\U00001000-\U000e0005]", r"\U000f0000", r"[^\U000f0000]"]
)
@pytest.mark.parametrize("flags", [0, re.IGNORECASE])
def test_a_test_tells_characters_apart_wherever_they_are(pattern, flags):
    test = re.compile(pattern, flags)
    classes = CharacterClasses([test], [], True)
    for code in (0x41, 0x61, 0x1000, 0x4FFFF, 0x50000, 0x50005, 0x50006, 0xDFFFF, 0xE0005, 0xE2000, 0xF0000, 0x10FFFF):
        same = [chr(other) for other in (0x41, 0x50000, 0x50006, 0xE2000, 0xF0000, 0x10FFFE)]
        for other in same:
            if classes.of(chr(code)) == classes.of(other):
                assert bool(test.fullmatch(chr(code))) == bool(test.fullmatch(other))
    assert classes.of_all(["a", "é"]) == [classes.of("a"), classes.of("é")]
