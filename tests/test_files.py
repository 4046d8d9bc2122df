"""Text files are UTF-8 everywhere, and one rule decides whether a name is a path."""

import pytest
from command import run
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf.files import NotTextError, decode_text, is_local, is_written_as_path, local_path, read_text
from fundamentallm_hf.portable.errors import UserError

MARK = b"\xef\xbb\xbf"


@given(st.text(), st.booleans())
def test_text_comes_back_as_it_was_without_a_byte_order_mark(text, marked):
    raw = (MARK if marked else b"") + text.encode()
    assert decode_text(raw, "it") == (text if marked else text.removeprefix("\ufeff"))


@given(st.text(max_size=5), st.sampled_from([b"\xff", b"\xc3(", b"\xed\xa0\x80"]), st.text(max_size=3), st.booleans())
def test_the_first_byte_that_is_no_text_is_named(before, wrong, after, marked):
    raw = (MARK if marked else b"") + before.encode() + wrong + after.encode()
    first = len(raw) - len(wrong) - len(after.encode())
    with pytest.raises(NotTextError) as caught:
        decode_text(raw, "it")
    assert str(caught.value) == f"it is not UTF-8 text (byte {first}): convert it to UTF-8 first"


def test_line_ends_are_translated_unless_they_count(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_bytes(MARK + b"a\r\nb\rc\n\n")
    assert read_text(tmp_path / "text.txt") == "a\nb\nc\n\n"
    assert read_text(tmp_path / "text.txt", exact=True) == "a\r\nb\rc\n\n"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_text("~/text.txt") == "a\nb\nc\n\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.txt", "cannot read the poem: No such file or directory"),
        (".", "cannot read the poem: Is a directory"),
        ("a\0b", "cannot read the poem: embedded null byte"),
        ("x" * 5000, "cannot read the poem: File name too long"),
        ("~nobody-at-all/x", "'~nobody-at-all/x' begins with a home folder that is not there: write the whole path"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        read_text(name, "the poem")
    assert str(caught.value) == message


def test_what_is_there_or_written_as_a_path_is_no_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user" / "there").mkdir(parents=True)
    local = ["./a", "../a", "/a", "~/a", "~nobody-at-all/a", "a.pt", "user/a.pt", "user/there", "user"]
    assert [name for name in local if not is_local(name)] == []
    assert [name for name in local if is_written_as_path(name)] == local[:-2]
    assert [name for name in ("user/name", "user/name@main", "a", "x" * 5000, "a\0b") if is_local(name)] == []
    assert local_path("a/b") == local_path(local_path("a/b"))


LATIN = "caf\xe9\n".encode("latin-1")
NOT_TEXT = "is not UTF-8 text (byte 3): convert it to UTF-8 first"


@pytest.mark.parametrize(
    ("arguments", "named", "code"),
    [
        (("generate", "--prompts-file", "FILE"), "the prompts file", 1),
        (("generate", "--prompt", "a", "--config", "FILE"), "the config", 2),
        (("generate", "--prompt", "a", "--json-schema", "FILE"), "'--json-schema':", 2),
        (("generate", "--prompt", "a", "--bad-words-file", "FILE"), "bad-words-file: the list", 1),
        (("train-attribute", "x", "--with", "FILE", "--without", "FILE"), "", 1),
        (("evaluate", "FILE"), "", 1),
    ],
)
def test_every_file_that_the_command_reads_has_to_be_utf8(tmp_path, arguments, named, code):
    file = tmp_path / "latin.txt"
    file.write_bytes(LATIN)
    done = run(*(str(file) if each == "FILE" else each for each in arguments))
    assert (done.exit_code, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert last.replace("'", "").endswith(f"{file} {NOT_TEXT}")
    assert named in last
    assert done.stderr.count("Error: ") == 1
