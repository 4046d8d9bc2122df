"""What files of prompts hold, and that each is read as a stream."""

import io
import json
import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundamentallm_hf.generation import prompt_files
from fundamentallm_hf.generation.prompt_batches import PromptReader, Skip, windows
from fundamentallm_hf.generation.prompt_files import LineStream, PromptsFile
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.generation_settings import GenerationSettings

SETTINGS = GenerationSettings(max_tokens=9, temperature=0.5)


def read(file, **options):
    """The prompts of a file."""
    file = PromptsFile(str(file), **options)
    with file.open() as prompts:
        return [prompt for window in windows(PromptReader(file, SETTINGS), prompts, 3) for prompt in window]


def read_bytes(data, monkeypatch, **options):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return read("-", **options)


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"\n", b"a", b"bcd", b"\r\n", b"\xe9"]), max_size=40), st.integers(1, 5))
def test_lines_are_the_same_in_whatever_pieces_they_come(pieces, chunk):
    data = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_files, "_CHUNK", chunk)
        assert list(LineStream(io.BytesIO(data))) == io.BytesIO(data).readlines()


def test_a_line_without_end_takes_no_memory_and_the_next_is_read(monkeypatch):
    monkeypatch.setattr(prompt_files, "_CHUNK", 4)
    monkeypatch.setattr(prompt_files, "LONGEST_LINE", 10)
    first, second, third = read_bytes(b"a\n" + b"x" * 50 + b"\nlast\n", monkeypatch)
    assert (first.text, third.text, third.line) == ("a", "last", 3)
    assert second.error == "the line has more than 10 bytes: is it one prompt?"


def test_lines_of_text(monkeypatch):
    found = read_bytes("\ufeffTo be\r\n\n  \na\\nb\n é\u2028f ".encode() + b"\ncaf\xe9\nend", monkeypatch, escape=True)
    assert [(each.line, each.id, each.text) for each in found] == [
        (1, 1, "To be"),
        (4, 4, "a\nb"),
        (5, 5, " é\u2028f "),
        (6, 6, None),
        (7, 7, "end"),
    ]
    assert found[3].error == "prompt is not UTF-8 text: convert it to UTF-8 first"
    assert read_bytes(b"a\\nb", monkeypatch)[0].text == "a\\nb"


def test_json_lines_with_settings_of_their_own(tmp_path):
    rows = [
        {"prompt": "a", "id": "x", "must_include": ["king", "a, b"], "seed": 7},
        {"prompt": "b", "bad-words": "ran, curs*", "temperature": 0},
        {"prompt": "c"},
        {"prompt": "d", "json_schema": {"type": "object"}, "id": 12},
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    first, second, third, fourth = read(file)
    assert (first.id, first.settings) == ("x", SETTINGS.replace(must_include=["king", "a, b"], seed=7))
    assert (second.id, second.settings) == (2, SETTINGS.replace(bad_words=["ran", "curs*"], temperature=0))
    assert (third.id, third.settings) == (3, SETTINGS)
    assert (fourth.id, fourth.settings.json_schema) == (12, '{"type": "object"}')
    assert [each.number for each in (first, second, third, fourth)] == [0, 1, 2, 3]


BROKEN = {
    b"nonsense": "the line is not JSON (Expecting value at character 1)",
    b'{"prompt": "a"': "the line is not JSON (Expecting ',' delimiter at character 15)",
    b"[" * 100_000: "the line cannot be read as JSON (RecursionError)",
    b'{"seed": ' + b"9" * 5000 + b', "prompt": "a"}': "the line cannot be read as JSON (ValueError)",
    b'"To be"': "the line has to be a JSON object with a prompt but is of type str",
    b'{"id": 3}': "there is no 'prompt': give the prompt in a field of this name",
    b'{"prompt": null}': "prompt has to be text but is None",
    b'{"prompt": "a", "prompt": "b"}': "the field 'prompt' occurs twice: give it once",
    b'{"prompt": "a", "must_inclde": ["b"]}': "there is no setting 'must_inclde': did you mean 'must_include'?",
    b'{"prompt": "a", "seed": -1}': "seed has to be a whole number from 0 to 4611686018427387904 but is -1",
    b'{"prompt": "a", "temperature": 0, "num_samples": 2}': "num-samples is 2, but at temperature 0 all samples are "
    "the same: raise the temperature or ask for one",
    b'{"prompt": "a", "id": [1]}': "id has to be text or a whole number but is [1]",
    b'{"prompt": "caf\xe9"}': "prompt is not UTF-8 text: convert it to UTF-8 first",
    b'{"prompt": "\\ud800"}': "prompt is not UTF-8 text: convert it to UTF-8 first",
    b'{"prompt": "a", "id": "\\ud800"}': "id has to be text or a whole number but is '\\ud800'",
    b'{"prompt": "a", "bad_words": ["/(/"]}': None,
    b'{"prompt": "a", "bad_words_file": "/missing/file"}': None,
}


@pytest.mark.parametrize("line", BROKEN, ids=lambda line: line[:30])
def test_a_broken_line_becomes_an_error_and_the_next_is_read(line, monkeypatch):
    before, broken, after = read_bytes(b'{"prompt": "a"}\n' + line + b'\n{"prompt": "b"}\n', monkeypatch, form="jsonl")
    assert (before.text, before.error, after.text, after.line, after.error) == ("a", "", "b", 3, "")
    assert broken.settings is None
    assert "\n" not in broken.error
    assert broken.error == BROKEN[line] or (BROKEN[line] is None and broken.error)


def test_csv_by_column_name(tmp_path):
    file = tmp_path / "in.csv"
    file.write_bytes(
        b'\xef\xbb\xbfname,text,must_include,label,max_tokens\r\nx,"To be,\nor not",king,1,\r\n\r\ny,NA,,0,12\r\n'
        b'z,a,b\r\nz,caf\xe9,,,\r\nlast,"a"b,,,\r\n,,,,7\r\n'
    )
    options = {"prompt_column": "text", "id_column": "name"}
    found = read(file, **options)
    assert [(each.line, each.id, each.text) for each in found[:2]] == [(2, "x", "To be,\nor not"), (5, "y", "NA")]
    assert found[0].settings == SETTINGS.replace(must_include=["king"])
    assert found[1].settings == SETTINGS.replace(max_tokens=12)
    assert [each.error for each in found[2:5]] == [
        "the row has 3 cells, but the header names 5 columns",
        "text is not UTF-8 text: convert it to UTF-8 first",
        "the row cannot be read as CSV (',' expected after '\"')",
    ]
    assert (found[5].line, found[5].id, found[5].text) == (9, 9, "")
    with PromptsFile(str(file), **options).open() as prompts:
        assert prompt_files.unused_columns(prompts.columns, PromptsFile(str(file), **options)) == ["label"]
    with pytest.raises(UsageError, match="has no column 'prompt': it has name, text, must_include, label, max_tokens"):
        read(file)


def test_tabs_and_what_is_no_table(tmp_path):
    (tmp_path / "in.tsv").write_text("prompt\tseed\na, b\t3\n")
    (found,) = read(tmp_path / "in.tsv")
    assert (found.text, found.settings.seed) == ("a, b", 3)
    (tmp_path / "twice.csv").write_text("prompt,prompt\na,b\n")
    with pytest.raises(UsageError, match="two columns 'prompt': rename one"):
        read(tmp_path / "twice.csv")
    (tmp_path / "empty.csv").write_text("\n")
    with pytest.raises(UserError, match="contains no prompt"):
        PromptsFile(str(tmp_path / "empty.csv")).measure()


def test_parquet_by_column_name(tmp_path):
    datasets = pytest.importorskip("datasets")
    file = tmp_path / "in.parquet"
    rows = {"text": ["a", None, "c"], "stop": [["x"], None, []], "id": [7, 8, 9], "n": [1, 2, 3]}
    datasets.Dataset.from_dict(rows).to_parquet(file)
    first, second, third = read(file, prompt_column="text")
    assert (first.id, first.line, first.settings) == (7, 1, SETTINGS.replace(stop=["x"]))
    assert second.error == "there is no 'text': give the prompt in a field of this name"
    assert (third.text, third.settings) == ("c", SETTINGS)
    _, total = PromptsFile(str(file), prompt_column="text").measure()
    assert total == 3
    with pytest.raises(UsageError, match="has no column 'prompt': it has text, stop, id, n"):
        read(file)
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read(tmp_path / "no.parquet")


def test_parquet_without_its_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the package datasets: pip install 'fundamentallm-hf\[files\]'"):
        read(tmp_path / "in.parquet")


def test_the_format_is_by_the_name_unless_it_is_given():
    forms = {"a.jsonl": "jsonl", "b.NDJSON": "jsonl", "c.csv": "csv", "d.tsv": "csv", "e.parquet": "parquet"}
    forms |= {"f.txt": "text", "g": "text", "-": "text"}
    assert {name: PromptsFile(name).form for name in forms} == forms
    for name in ("in.json", "in.jsonl.gz"):
        with pytest.raises(UsageError, match="does not follow from its name: set prompts-format"):
            PromptsFile(name)
        assert PromptsFile(name, "jsonl").form == "jsonl"
    with pytest.raises(UsageError, match="prompts-format has to be one of"):
        PromptsFile("a", "yaml")
    with pytest.raises(UsageError, match="Parquet cannot be read as a stream"):
        PromptsFile("-", "parquet")


def test_a_file_is_measured_and_a_missing_one_is_one_line(tmp_path):
    file = tmp_path / "in.txt"
    file.write_text("a\n\nb\n")
    digest, total = PromptsFile(str(file)).measure()
    file.write_text("a\n\nc\n")
    assert (total, PromptsFile(str(file)).measure()[0] == digest) == (2, False)
    for name in ("missing.txt", "missing.csv", "", "\0"):
        with pytest.raises(UserError, match="cannot read the prompts file"):
            PromptsFile(name).measure()
    with pytest.raises(UserError, match="cannot read the prompts file"):
        PromptsFile(str(tmp_path)).measure()


def test_a_window_waits_for_nobody_who_writes_slowly(monkeypatch):
    ours, theirs = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(ours))
    file = PromptsFile("-")
    with file.open() as prompts:
        found = windows(PromptReader(file, SETTINGS), prompts, 3)
        os.write(theirs, b"a\nb\n")
        assert [prompt.text for prompt in next(found)] == ["a", "b"]
        os.write(theirs, b"c\nd\ne\nf\n")
        assert [prompt.text for prompt in next(found)] == ["c", "d", "e"]
        os.close(theirs)
        assert [[prompt.text for prompt in window] for window in found] == [["f"]]


def test_a_pipe_with_a_name_is_read_once(tmp_path):
    ours, theirs = os.pipe()
    os.write(theirs, b'{"prompt": "a"}\n{"prompt": "b"}\n')
    os.close(theirs)
    file = PromptsFile(f"/dev/fd/{ours}", "jsonl")
    assert file.is_stream
    assert [each.text for each in read(file.path, form="jsonl")] == ["a", "b"]
    os.close(ours)


def test_another_stream_than_the_one_that_was_begun_is_noticed(monkeypatch):
    done = read_bytes(b"a\nb\nc\nd\n", monkeypatch)[1]

    def rest(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        file = PromptsFile("-")
        with file.open() as prompts:
            skip = Skip(2, [3], done.digest)
            return [each.text for window in windows(PromptReader(file, SETTINGS), prompts, 3, skip) for each in window]

    assert rest(b"a\nb\nc\nd\n") == ["c"]
    for other in (b"a\nB\nc\nd\n", b"a\n\nb\nc\nd\n", b"a\n", b""):
        with pytest.raises(
            UserError, match="prompts from the pipe are not those that the output-file was started with"
        ):
            rest(other)
