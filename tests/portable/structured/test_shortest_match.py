"""Short texts that match regular expressions."""

import re

import pytest

from fundamentallm_hf.portable.structured.shortest_match import shortest_match

LETTERS = "aZ0 .\n"


@pytest.mark.parametrize(
    ("pattern", "length"),
    [
        ("abc", 3),
        ("", 0),
        ("[a-z]{3,9}", 3),
        ("(cat|dog|ox)+", 2),
        ("(?i:once) upon .*the end", 17),
        ("[^aZ0. ]", 1),
        (r"\d{4}-\d\d", 7),
        (r"^\w+\s\S$", 3),
        ("(a?b?)*", 0),
        ("(?P<name>x)[yz]", 2),
        ("é|日本", 1),
        ("x*?y", 1),
    ],
)
def test_it_is_matched_and_short(pattern, length):
    text = shortest_match(pattern, LETTERS)
    assert re.fullmatch(pattern, text)
    assert len(text) == length


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)a", "a{30000}", r"\bfoo"[:2] + "(?!)"])
def test_where_there_is_none_or_it_is_not_for_this_reader_there_is_none(pattern):
    assert shortest_match(pattern, LETTERS) is None


def test_what_cannot_be_written_is_gone_round():
    assert shortest_match("é|abc", LETTERS, str.isascii) == "abc"
    assert shortest_match("aé", LETTERS, str.isascii) is None
