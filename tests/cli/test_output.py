"""Output of texts: stdout or a file, as text or JSON, and its later use."""

import json
import os

import pytest
from command import MODEL, load_once, run

from fundamentallm_hf.files import OutputFile
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import SETTINGS


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch, tmp_path):
    load_once(monkeypatch)
    monkeypatch.chdir(tmp_path)


def generate(*arguments, **keywords):
    return run("generate", MODEL, "--max-tokens", 12, *arguments, **keywords)


def records(*arguments):
    result = generate("--format", "jsonl", *arguments)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_likeliest_next_tokens_are_shown_in_the_guides_form():
    result = generate("--prompt", "To b", "--probs-only", "--temperature", 0.5, "--top-k", 2)
    lines = result.stdout.splitlines()
    assert lines[0] == "Next token probabilities:"
    assert lines[1].startswith('  "e": 0.')
    assert lines[-1] == "  ..."
    assert len(lines) == 12
    assert [line.split("█")[0].split("  model")[0].strip()[-4:] for line in lines[3:-1]] == ["0.00"] * 8
    assert result.stderr == ""


def test_a_whole_transcript_of_probabilities_and_text():
    result = generate("--prompt", "To be", "--show-probs", "--temperature", 0, "--bad-words", "/ /")
    assert result.stdout.splitlines() == TRANSCRIPT.splitlines()
    assert result.stderr == ""


TRANSCRIPT = """\
Next token probabilities:
  "a": 1.00          ████████████████████  model 0.17
  " " (space): 0.00                        model 0.32
  "n": 0.00                                model 0.08
  "r": 0.00                                model 0.06
  "s": 0.00                                model 0.06
  "t": 0.00                                model 0.05
  "e": 0.00                                model 0.05
  "l": 0.00                                model 0.03
  "i": 0.00                                model 0.02
  "c": 0.00                                model 0.02
  ...

To bearester.
Ham
"""


def test_several_prompts_are_named_where_their_probabilities_are_shown():
    result = generate("--prompt", "To", "--prompt", "My", "--probs-only")
    assert result.stdout.count("Next token probabilities:") == 2
    assert result.stdout.startswith("Prompt: To\nNext token")
    assert "  ...\n\nPrompt: My\nNext token" in result.stdout


def test_in_json_every_token_has_its_probabilities():
    (record,) = records("--prompt", "To be", "--show-probs", "--seed", 1, "--top-k", 3)
    assert "".join(each["text"] for each in record["probabilities"]) == record["completion"]
    assert record["next_tokens"][0]["label"] == '" " (space)'
    first = record["probabilities"][0]
    assert set(first) == {"token", "text", "label", "probability", "model_probability", "alternatives"}
    for alternative, expected in zip(first["alternatives"], record["next_tokens"], strict=True):
        assert alternative["token"] == expected["token"]
        assert alternative["model_probability"] == pytest.approx(expected["model_probability"], abs=1e-5)


def test_json_is_one_list_and_jsonl_a_line_for_each_text():
    arguments = ("--prompt", "To be", "--prompt", "KING:", "--num-samples", 2, "--seed", 3)
    whole = generate("--format", "json", *arguments)
    assert json.loads(whole.stdout) == records(*arguments)
    assert whole.stderr == ""
    assert [(each["prompt"], each["seed"]) for each in records(*arguments)] == [
        ("To be", 3),
        ("To be", 4),
        ("KING:", 3),
        ("KING:", 4),
    ]


def test_a_record_tells_everything_of_a_text():
    (record,) = records("--prompt", "To be", "--seed", 7, "--stop", "zz")
    assert record["text"] == record["prompt"] + record["completion"]
    assert record["text"] + "\n" == generate("--prompt", "To be", "--seed", 7).stdout
    assert (record["model"], record["finish_reason"], record["tokens"], record["seed"]) == (MODEL, "length", 12, 7)
    assert record["mean_log_probability"] == pytest.approx(record["log_probability"] / 12)
    assert set(record["settings"]) == set(SETTINGS)
    assert record["settings"]["stop"] == ["zz"]


@pytest.mark.parametrize(
    "settings",
    [
        ("--num-samples", 3),
        ("--num-samples", 4, "--best", 2, "--temperature", 1.5),
        ("--temperature", 0, "--stop", r"e\n", "--repetition-penalty", 1.3),
        ("--beam-size", 3, "--num-samples", 2),
        ("--beam-size", 3, "--num-samples", 5, "--temperature", 1, "--best", 2),
        ("--bad-words", r"the, /a{1,2}/, x\,y", "--must-include", "king|queen", "--max-tokens", 30),
        ("--bad-words-file", "words.txt", "--top-p", 0.9),
    ],
)
def test_a_line_of_the_output_writes_its_text_again(settings, tmp_path):
    (tmp_path / "words.txt").write_text("the\nto*\n")
    written = records("--prompt", "To be\\n", "--prompt", "a\\\\nb", *settings)
    (tmp_path / "words.txt").unlink()
    for record in written:
        (tmp_path / "line.jsonl").write_text(json.dumps(record) + "\n")
        again = run("generate", "--config", "line.jsonl")
        assert (again.stdout, again.exit_code) == (record["text"] + "\n", 0), again.stderr
        (repeated,) = json.loads(run("generate", "--config", "line.jsonl", "--format", "json").stdout)
        assert repeated["settings"] == record["settings"]
        assert repeated["log_probability"] == pytest.approx(record["log_probability"], abs=1e-4)


def test_a_record_names_the_commit_of_a_model_on_the_hub_and_never_trusts_its_code(monkeypatch, shakespeare):
    monkeypatch.setattr(shakespeare.config, "_commit_hash", "abc", raising=False)
    monkeypatch.setattr("fundamentallm_hf.model_io.loading.load_model", lambda *args, **kwargs: shakespeare)
    arguments = ("--format", "json", "--max-tokens", 1, "--trust-remote-code", "--dtype", "bfloat16")
    (record,) = json.loads(run("generate", "user/name@main", *arguments).stdout)
    assert (record["model"], record["revision"], record["dtype"]) == ("user/name", "abc", "bfloat16")
    assert "trust_remote_code" not in record


def test_the_best_are_those_that_the_model_finds_likeliest():
    arguments = ("--prompt", "To be", "--num-samples", 6, "--temperature", 1.5, "--seed", 5)
    everything = sorted(records(*arguments), key=lambda record: -record["mean_log_probability"])
    assert [each["text"] for each in records(*arguments, "--best", 2)] == [each["text"] for each in everything[:2]]
    assert [each["text"] for each in records(*arguments, "--best", 2, "--batch-size", 4)] == [
        each["text"] for each in everything[:2]
    ]
    assert generate(*arguments, "--best", 1).stdout == everything[0]["text"] + "\n"


def test_the_batch_size_changes_no_text():
    arguments = ("--prompt", "To be", "--prompt", "", "--prompt", "KING:", "--num-samples", 3, "--seed", 1)
    texts = [[each["text"] for each in records(*arguments, "--batch-size", size)] for size in (1, 2, 4, 100)]
    assert texts[0] == texts[1] == texts[2] == texts[3]


def test_the_guides_ten_samples_lie_in_a_file():
    result = generate(
        "--prompt", "The ancient scroll", "--num-samples", 10, "--output-file", "generations.txt", "--seed", 1
    )
    text = open("generations.txt", encoding="utf-8").read()  # noqa: PTH123, SIM115
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"note: 10 texts written to {os.path.realpath('generations.txt')}\n"
    assert text.count("The ancient scroll") == 10
    assert text.startswith("--- sample 1 of 10, seed 1 ---\nThe ancient scroll")
    assert os.listdir() == ["generations.txt"]  # noqa: PTH208


def test_one_text_stands_alone_in_its_file(tmp_path):
    generate("--prompt", "To be", "--seed", 1, "--output-file", "out.txt", "--quiet")
    assert (tmp_path / "out.txt").read_text() == generate("--prompt", "To be", "--seed", 1).stdout


def test_an_existing_file_is_only_replaced_or_written_behind_on_request(tmp_path):
    file = tmp_path / "out.jsonl"
    file.write_text("old\n")
    file.chmod(0o640)
    arguments = ("--prompt", "To be", "--seed", 1, "--format", "jsonl", "--output-file", file)
    refused = generate(*arguments)
    assert (refused.exit_code, file.read_text()) == (1, "old\n")
    assert "exists: use --force to replace it or --append" in refused.stderr
    assert generate(*arguments, "--append").exit_code == 0
    first, second = file.read_text().splitlines()
    assert (first, json.loads(second)["seed"]) == ("old", 1)
    assert generate(*arguments, "--force").exit_code == 0
    assert json.loads(file.read_text())["seed"] == 1
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("place", ["missing/out.txt", ".", "file.txt/out.txt", "x" * 300])
def test_a_place_that_cannot_be_written_is_one_line_before_the_model_is_loaded(place, tmp_path):
    (tmp_path / "file.txt").write_text("")
    result = run("generate", "there-is-no-such-model.pt", "--output-file", place)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "output-file" in result.stderr
    assert "no-such-model" not in result.stderr


def test_a_failure_or_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "out.txt"
    file.write_text("old")

    def interrupt(*args, **kwargs):
        yield from ()
        raise KeyboardInterrupt

    assert run("generate", "missing.pt", "--output-file", "out.txt", "--force").exit_code == 1
    monkeypatch.setattr("fundamentallm_hf.generation.generator.Generator.iterate", interrupt)
    result = generate("--output-file", "out.txt", "--force")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert file.read_text() == "old"


def test_devices_and_links_are_written_through(tmp_path):
    assert generate("--output-file", os.devnull).exit_code == 0
    (tmp_path / "there").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "there" / "real.txt")
    generate("--prompt", "To be", "--output-file", "link.txt")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "there" / "real.txt").read_text().startswith("To be")


def test_a_file_that_cannot_be_finished_is_a_failure_in_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot write output-file"), OutputFile(str(tmp_path / "x")) as file:
        file.path.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_prompts_come_from_a_file_in_order_with_all_samples(tmp_path):
    (tmp_path / "prompts.txt").write_bytes("\ufeffTo be\r\n\n  \nUser: a\\nB:\n é\u2028f \n".encode())
    found = records("--prompts-file", "prompts.txt", "--num-samples", 2, "--batch-size", 3)
    assert [each["prompt"] for each in found[::2]] == ["To be", "User: a\nB:", " é\u2028f "]
    raw = records("--prompts-file", "prompts.txt", "--no-escape")
    assert raw[1]["prompt"] == "User: a\\nB:"
    piped = generate("--prompts-file", "-", "--seed", 1, stdin="To be\nMy\n")
    assert piped.stdout.startswith("To be")
    assert piped.stderr.splitlines() == ["--- prompt 1 of 2, seed 1 ---", "--- prompt 2 of 2, seed 1 ---"]


def test_a_prompts_file_without_prompts_or_text_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    empty, latin = (generate("--prompts-file", name) for name in ("empty.txt", "latin.txt"))
    assert (empty.exit_code, latin.exit_code) == (1, 1)
    assert "contains no prompt: write one per line" in empty.stderr
    assert "is not UTF-8 text (byte 3)" in latin.stderr


def test_quiet_leaves_nothing_on_stderr_but_errors(tmp_path):
    arguments = ("--prompt", "a~b", "--num-samples", 3, "--bad-words", "/(?s:.)/")
    assert generate(*arguments).stderr.count("\n") == 5
    assert generate(*arguments, "--quiet").stderr == ""
    assert "Error" in generate("--quiet", "--top-p", 3).stderr
