# ruff: noqa: RUF001 - letters of other scripts are the point here.
"""Lists of entries, in one text and in a file."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.portable.text.word_lists import is_regex, join_weights, read_weights, split_entries
from fundamentallm_hf.settings.generation_settings import read_entries


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        (" , ,", []),
        ("dragon", ["dragon"]),
        (" dragon ,two words,\nran", ["dragon", "two words", "ran"]),
        (r"and\, or,b", ["and, or", "b"]),
        ("/a{1,2}/", ["/a{1,2}/"]),
        ("x, /a,b/ , y", ["x", "/a,b/", "y"]),
        (r"/a\/,b/,y", [r"/a\/,b/", "y"]),
        (r"/a\\/,y", [r"/a\\/", "y"]),
        ("/a/b, c/,d", ["/a/b, c/", "d"]),
        ("/a/ b, c", ["/a/ b", "c"]),
        ("/home, c", ["/home", "c"]),
        ("km/h, c", ["km/h", "c"]),
        (r"\/a\/, c", [r"\/a\/", "c"]),
        (r"f\*k, c++, *ing", [r"f\*k", "c++", "*ing"]),
        ("/a,b/:2, c:-1.5, /d,e/ : -inf", ["/a,b/:2", "c:-1.5", "/d,e/ : -inf"]),
    ],
)
def test_commas_separate_entries_but_for_those_in_expressions(text, entries):
    assert split_entries(text) == entries


PLAIN = st.text("ab*+' é{}", min_size=1).map(str.strip).filter(bool)
REGEX = st.text(r"ab,{}| ", min_size=1).map(lambda text: f"/{text}/")


@given(st.lists(st.one_of(PLAIN, REGEX)))
def test_what_was_joined_is_split_again(entries):
    assert split_entries(", ".join(entries)) == entries


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("/a/", True),
        ("/a b/", True),
        ("/usr/local/", True),
        (r"/a\//", True),
        (r"/a\\/", True),
        ("/\n/", True),
        ("//", False),
        ("/", False),
        ("", False),
        ("/a", False),
        ("a/", False),
        (r"/a\/", False),
        (r"/a\\\/", False),
        (r"\/a/", False),
    ],
)
def test_an_expression_stands_between_slashes_of_which_none_is_escaped(entry, expected):
    assert is_regex(entry) is expected


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        (b"", []),
        (b"ran\ncurs*\n", ["ran", "curs*"]),
        (b"  ran \r\n\r\n\ttwo words\r\n", ["ran", "two words"]),
        (b"# a comment\nran\n  # and one more\n", ["ran"]),
        (b"\\#tag\nran # not a comment\n", ["#tag", "ran # not a comment"]),
        (b"\xef\xbb\xbfran\n", ["ran"]),
        (b"\xef\xbb\xbf# a comment\n", []),
        (b"a, b\n/x,y/\n", ["a, b", "/x,y/"]),
        ("café\nстрока\n中文".encode(), ["café", "строка", "中文"]),
        (b"\\*\n\\\\\n", ["\\*", "\\\\"]),
    ],
)
def test_a_list_file_has_one_entry_a_line(tmp_path, content, entries):
    file = tmp_path / "words.txt"
    file.write_bytes(content)
    assert read_entries(file) == entries
    assert read_entries(str(file)) == entries


def test_a_list_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "words.txt").write_text("ran\n")
    assert read_entries("~/words.txt") == ["ran"]


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the list '.*none\.txt': No such file"):
        read_entries(tmp_path / "none.txt")
    with pytest.raises(ValueError, match=r"cannot read the list .*: Is a directory"):
        read_entries(tmp_path)


def test_a_list_that_is_no_text_is_named(tmp_path):
    file = tmp_path / "words.txt"
    file.write_bytes("ran\ncafé\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"the list '.*words\.txt' is not UTF-8 text \(byte 7\): convert it"):
        read_entries(file)
    file.write_bytes("ran\n".encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-8"):
        read_entries(file)


@given(st.dictionaries(st.one_of(PLAIN, REGEX).map(str.strip), st.floats(max_value=20, allow_nan=False)))
def test_weights_are_read_as_they_were_written(weights):
    entries = join_weights(weights)
    assert read_weights(entries) == read_weights(weights) == weights
    text = ", ".join(entry.replace(",", r"\,") if not entry.startswith("/") else entry for entry in entries)
    if split_entries(text) == entries:
        assert read_weights(text) == weights


def test_an_entry_may_hold_a_colon_and_comes_once():
    assert read_weights("3:15:2, said:1, said:-0.5") == {"3:15": 2.0, "said": 0.5}


def test_the_weights_of_one_entry_are_added_up_before_their_sum_is_checked():
    assert read_weights("cat:15, cat:15, cat :-20") == {"cat": 10.0}
    assert read_weights("cat:15, cat:-inf") == {"cat": -math.inf}
    with pytest.raises(ValueError, match="the weight of 'cat' has to be a number of at most 20, or -inf, but is 30"):
        read_weights("cat:15, cat:15")
