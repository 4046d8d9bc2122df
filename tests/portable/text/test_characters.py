# ruff: noqa: RUF001 - that some letters look alike is the point here.
"""Folding hides no spelling of a word, and keeps different words apart."""

import sys
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.portable.text.characters import fold, fold_text, is_invisible, is_word, needs_boundary

SHY, ZWSP, ZWJ, CGJ, FILLER, VS16 = "\u00ad", "\u200b", "\u200d", "\u034f", "\u3164", "\ufe0f"
ASSIGNED = [char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char) not in ("Cn", "Cs")]


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Ran", "ran"),
        ("STRASSE", "strasse"),
        ("straße", "strasse"),
        ("ẞ", "ss"),
        ("ﬁne", "fine"),
        ("Ｆｕｌｌ", "full"),
        ("caf\u00e9", "cafe\u0301"),
        ("CAFE\u0301", "cafe\u0301"),
        ("\N{KELVIN SIGN}", "k"),
        ("Σς", "σσ"),
        ("İ", "i\u0307"),
        ("ｶﾞ", "カ\u3099"),
        ("각", "\u1100\u1161\u11a8"),
        (f"r{SHY}a{ZWSP}n{ZWJ}", "ran"),
        (f"r{CGJ}a{FILLER}n{VS16}", "ran"),
        ("a\u00a0b\u3000c", "a b c"),
        ("a\nb", "a\nb"),
        ("", ""),
    ],
)
def test_spellings_that_read_alike_are_compared_as_one(text, folded):
    assert fold_text(text) == folded


@pytest.mark.parametrize(
    ("text", "folded"), [("Ran", "Ran"), ("ß", "ß"), ("ﬁ", "fi"), ("É", "E\u0301"), (f"R{SHY}an", "Ran")]
)
def test_case_stays_where_it_matters(text, folded):
    assert fold_text(text, ignore_case=False) == folded


@given(st.text())
def test_what_is_folded_stays_as_it_is(text):
    assert fold_text(fold_text(text)) == fold_text(text)


@given(st.text())
def test_composition_and_case_change_nothing(text):
    def ordered(folded):
        return unicodedata.normalize("NFD", folded)

    assert ordered(fold_text(unicodedata.normalize("NFC", text))) == ordered(fold_text(text))
    assert all(fold_text(char.casefold()) == fold(char) for char in text)


def test_a_character_is_invisible_if_unicode_lets_it_be_ignored_or_calls_it_a_format_character():
    known = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}]")
    assert [char for char in ASSIGNED if is_invisible(char) != bool(known.match(char))] == []


@pytest.mark.parametrize(
    ("char", "word", "boundary"),
    [
        ("a", True, True),
        ("é", True, True),
        ("ж", True, True),
        ("7", True, True),
        ("_", True, True),
        ("\u0301", True, True),
        ("한", True, True),
        ("ا", True, True),
        ("中", True, False),
        ("ひ", True, False),
        ("カ", True, False),
        ("ก", True, False),
        ("\N{CJK UNIFIED IDEOGRAPH-20000}", True, False),
        (" ", False, False),
        ("+", False, False),
        ("'", False, False),
        ("😀", False, False),
        (SHY, False, False),
    ],
)
def test_letters_make_words_and_those_of_spaced_scripts_need_a_boundary(char, word, boundary):
    assert (is_word(char), needs_boundary(char)) == (word, boundary)
