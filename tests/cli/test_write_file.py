"""Files of prompts from the command line: streamed, continued after a kill, with an error for each that fails."""

import io
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ENVIRONMENT, MODEL, load_once, on_a_terminal, run, start

from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.generation import resumable_output

# How many times a process is killed; more take minutes.
KILLS = int(os.environ.get("FUNDAMENTALLM_KILLS", "2"))
WORDS = ["to", "be", "or", "not", "that", "is", "the", "question", "whether", "it", "nobler", "in", "mind", "suffer"]


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch, tmp_path):
    load_once(monkeypatch)
    monkeypatch.chdir(tmp_path)


def generate(*arguments, **keywords):
    return run("generate", MODEL, "--max-tokens", 3, *arguments, **keywords)


def written(name="out.jsonl"):
    with open(name, encoding="utf-8") as file:  # noqa: PTH123
        return [json.loads(line) for line in file]


def prompts(number, path="in.jsonl", **fields):
    rows = [{"prompt": " ".join(WORDS[index % 7 : index % 11]), "id": f"p{index}"} | fields for index in range(number)]
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


def test_of_a_thousand_lines_fifty_are_broken(tmp_path):
    kinds = [
        b"{bad JSON",
        b'{"prompt": "a", "unknown": 1}',
        b'{"prompt": "a", "must_include": ["impossiblyimpossible"]}',
        b'{"prompt": "' + b"too long" * 17 + b'", "overflow": "error"}',
        b'{"prompt": "caf\xe9"}',
    ]
    lines = [json.dumps({"prompt": f"{WORDS[index % 13]} ", "id": index}).encode() for index in range(1000)]
    broken = random.Random(0).sample(range(1000), 50)
    for index, place in enumerate(broken):
        lines[place] = kinds[index % 5]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    result = generate("--prompts-file", "in.jsonl", "--output-file", "out.jsonl", "--max-tokens", 2, "--seed", 1)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: 50 prompts have failed, each with its error on a line of out.jsonl; 950 texts written\n"
    )
    found = written()
    assert [each["line"] for each in found] == list(range(1, 1001))
    assert sorted(each["line"] - 1 for each in found if "error" in each) == sorted(broken)
    for each in found:
        if "error" not in each:
            assert each["id"] == each["line"] - 1
            assert each["tokens"] == 2
    reasons = [found[place]["error"] for place in broken[:5]]
    for reason, expected in zip(
        reasons,
        ["not JSON", "no setting 'unknown'", "need at least", "do not fit into the model's window", "not UTF-8"],
        strict=True,
    ):
        assert expected in reason


def test_standard_streams_give_the_same_as_files():
    prompts(40)
    options = ("--seed", 4, "--batch-size", 8)
    assert generate("--prompts-file", "in.jsonl", "--output-file", "out.jsonl", *options).exit_code == 0
    with open("in.jsonl") as file:  # noqa: PTH123
        text = file.read()
    piped = generate("--prompts-file", "-", "--prompts-format", "jsonl", "--format", "jsonl", *options, stdin=text)
    with open("out.jsonl") as file:  # noqa: PTH123
        assert piped.stdout == file.read()
    assert piped.stderr == ""
    unordered = generate("--prompts-file", "in.jsonl", "--unordered", *options)
    assert sorted(unordered.stdout.splitlines()) == sorted(piped.stdout.splitlines())
    assert generate("--prompts-file", "in.jsonl", "--output-file", os.devnull, *options).exit_code == 0


def test_text_lines_become_records_where_the_output_is_called_so(tmp_path):
    (tmp_path / "in.txt").write_text("To be\\nor\n\nO\n")
    assert generate("--prompts-file", "in.txt", "--output-file", "out.jsonl", "--num-samples", 2).exit_code == 0
    assert [(each["id"], each["prompt"]) for each in written()] == [(1, "To be\nor")] * 2 + [(3, "O")] * 2
    assert generate("--prompts-file", "in.txt", "--output-file", "out.txt").exit_code == 0
    assert (tmp_path / "out.txt").read_text().startswith("--- prompt 1 of 2")


def test_a_table_by_its_columns_names_what_it_does_not_use(tmp_path):
    (tmp_path / "in.csv").write_text("story,must_inclde,max_tokens,key\nTo be,king,2,a\nO,,,b\n")
    result = generate("--prompts-file", "in.csv", "--prompt-column", "story", "--id-column", "key")
    assert result.stderr == "note: unused columns of in.csv: must_inclde (not settings)\n"
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["id"], first["tokens"], second["id"], second["tokens"]) == ("a", 2, "b", 3)


def test_an_answer_comes_before_the_next_prompt_is_asked():
    options = ("--prompts-file", "-", "--format", "jsonl", "--max-tokens", "3")
    process = start(*options, stdin=subprocess.PIPE, stderr=None)
    for number, prompt in enumerate(["To be\n", "O\n"], 1):
        process.stdin.write(prompt.encode())
        process.stdin.flush()
        assert select.select([process.stdout], [], [], 300)[0]
        assert json.loads(process.stdout.readline())["line"] == number
    process.stdin.close()
    assert process.wait(60) == 0
    assert process.stdout.read() == b""


def test_the_same_command_again_changes_nothing_and_another_is_refused(tmp_path):
    prompts(5)
    options = ("--prompts-file", "in.jsonl", "--output-file", "out.jsonl")
    assert generate(*options).stderr == "note: 5 texts written to out.jsonl\n"
    before = (tmp_path / "out.jsonl").read_bytes()
    assert generate(*options).stderr == "note: out.jsonl is already complete: 5 texts\n"
    other = generate(*options, "--temperature", 0.5)
    assert other.exit_code == 1
    assert "contains the texts of another run (changed: temperature None to 0.5)" in other.stderr
    prompts(6)
    assert "another run (changed: input)" in generate(*options).stderr
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert generate(*options, "--force").exit_code == 0
    assert len(written()) == 6


def test_a_stream_that_continues_has_to_be_the_same(monkeypatch, tmp_path):
    prompts(8)
    text = (tmp_path / "in.jsonl").read_text()
    options = ("--prompts-file", "-", "--prompts-format", "jsonl", "--output-file", "out.jsonl", "--batch-size", 1)
    assert generate(*options, stdin=text).exit_code == 0
    whole = (tmp_path / "out.jsonl").read_bytes()
    record = json.loads((tmp_path / "out.jsonl.run.json").read_text())
    # As it is after three prompts.
    lines = whole.splitlines(keepends=True)
    digest = __import__("hashlib").sha256("".join(text.splitlines(keepends=True)[:3]).encode()).hexdigest()
    record["state"] |= {"complete": False, "done": 3, "texts": 3, "digest": digest}
    record["offset"] = len(b"".join(lines[:3]))
    (tmp_path / "out.jsonl.run.json").write_text(json.dumps(record))
    (tmp_path / "out.jsonl").write_bytes(b"".join(lines[:3]) + b'{"half')
    changed = generate(*options, stdin=text.replace("p1", "q1"))
    assert (changed.exit_code, changed.stderr.count("\n")) == (1, 2)
    assert "the prompts from the pipe are not those that the output-file was started with" in changed.stderr
    result = generate(*options, stdin=text)
    assert "note: 3 prompts were finished before: continuing with the others" in result.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def in_a_child(*arguments, errors=os.devnull, **environment):
    """The process id of a child of this process, which has loaded everything, that runs the command."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.environ |= environment
        sys.stdout, sys.stderr = io.StringIO(), open(errors, "w")  # noqa: PTH123, SIM115
        cli([*map(str, arguments)], prog_name="fundamentallm")
    except SystemExit as exit:
        code = exit.code
    finally:
        os._exit(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("unordered", [False, True], ids=["in order", "as they finish"])
def test_killed_at_random_moments_it_is_as_if_it_had_not_been(unordered, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_output, "BETWEEN_COMMITS", 0)
    prompts(60)
    options = ["generate", MODEL, "--max-tokens", 4, "--prompts-file", "in.jsonl", "--batch-size", 4, "--seed", 5]
    options += ["--unordered"] * unordered
    assert run(*options, "--output-file", "whole.jsonl").exit_code == 0
    draw, kills, wait = random.Random(unordered), 0, 0.05
    while True:
        child = in_a_child(*options, "--output-file", "out.jsonl")
        time.sleep(draw.random() * wait)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        kills += 1
        wait *= 1.1  # on a busy machine it still gets on
    assert kills > 2
    ours, theirs = (tmp_path / "out.jsonl").read_text(), (tmp_path / "whole.jsonl").read_text()
    assert sorted(ours.splitlines()) == sorted(theirs.splitlines())
    assert unordered or ours == theirs
    assert {path.name for path in tmp_path.iterdir()} == {
        *("in.jsonl", "out.jsonl", "out.jsonl.run.json", "whole.jsonl", "whole.jsonl.run.json")
    }


def test_a_process_that_is_killed_goes_on_by_the_same_command(tmp_path):
    number = 2000 if KILLS >= 20 else 60
    prompts(number)
    options = ["generate", MODEL, "--max-tokens", "20", "--prompts-file", "in.jsonl", "--batch-size", "4"]
    options += ["--seed", "5"]
    assert run(*options, "--output-file", "whole.jsonl").exit_code == 0
    draw = random.Random(0)
    for _ in range(KILLS):
        process = start(*options[2:], "--output-file", "out.jsonl")
        out = tmp_path / "out.jsonl"
        size = before = out.stat().st_size if out.exists() else 0
        end = time.monotonic() + 300
        while size == before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
            size = out.stat().st_size if out.exists() else 0
        time.sleep(draw.random())
        process.kill()
        process.wait(60)
    result = run(*options, "--output-file", "out.jsonl")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def team(*arguments):
    """The process ids of two processes that share the work, as a launcher starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        in_a_child(*arguments, errors=f"errors{rank}", RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank in range(2)
    ]


def ended(process):
    """The exit code of a child, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_write_the_same_bytes_and_go_on_after_one_has_died(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_output, "BETWEEN_COMMITS", 0)
    prompts(40)
    with open("in.jsonl", "a") as file:  # noqa: PTH123
        file.write("broken\n" + '{"prompt": "a", "must_include": ["impossiblyimpossible"]}\n')
    options = ["generate", MODEL, "--max-tokens", 6, "--prompts-file", "in.jsonl", "--batch-size", 2, "--seed", 5]
    assert run(*options, "--output-file", "whole.jsonl").exit_code == 1
    assert [ended(process) for process in team(*options, "--output-file", "out.jsonl")] == [1, 0]
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert (tmp_path / "errors0").read_text().startswith("Error: 2 prompts have failed, each with its error on a line")
    assert (tmp_path / "errors1").read_text() == ""

    first, second = team(*options, "--output-file", "again.jsonl")
    while not (tmp_path / "again.jsonl").exists() or not (tmp_path / "again.jsonl").stat().st_size:
        time.sleep(0.01)
    os.kill(second, signal.SIGKILL)
    assert (ended(second), ended(first)) == (-signal.SIGKILL, 1)
    assert "process 0 of 2 cannot reach the others: one has ended" in (tmp_path / "errors0").read_text()
    assert [ended(process) for process in team(*options, "--output-file", "again.jsonl")] == [1, 0]
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    # Refused by the first process, and the other one does not wait for ever.
    assert [ended(process) for process in team(*options, "--output-file", "again.jsonl", "--top-k", 3)] == [1, 0]


@pytest.mark.parametrize(
    "options",
    [
        ("--prompt", "To be"),
        ("--prompt", "-"),
        ("--prompts-file", "-"),
        ("--prompt", "To be", "--probs-only"),
        ("--interactive", "--quiet"),
    ],
)
def test_without_a_file_of_prompts_only_the_first_process_works(options):
    launcher = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    options += ("--seed", 1, "--temperature", 0.5)
    alone = generate(*options, stdin="To be\n")
    first, second = (
        generate(*options, stdin="To be\n", env=launcher | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    )
    assert alone.stdout
    assert (first.exit_code, first.stdout) == (alone.exit_code, alone.stdout)
    note = "note: several processes share only files of prompts: the first process does all the work\n"
    assert first.stderr == ("" if "--quiet" in options else note) + alone.stderr
    assert (second.exit_code, second.output) == (0, "")


@pytest.mark.slow
def test_a_launcher_spreads_the_command_over_processes(tmp_path):
    prompts(12)
    options = [MODEL, "--max-tokens", "5", "--prompts-file", "in.jsonl", "--batch-size", "2", "--seed", "5"]
    assert run("generate", *options, "--output-file", "whole.jsonl").exit_code == 0
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```bash\naccelerate launch (.*)\n```", page, re.MULTILINE)
    assert "--prompts-file in.jsonl --output-file out.jsonl" in shown
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [*launcher, *shown.split(), *options]
    environment = ENVIRONMENT | {"HF_HOME": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("12 texts written to out.jsonl") == 1
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("--unordered",), "unordered is set but there is no prompts-file", 2),
        (("--prompt-column", "text"), "prompt-column is set but there is no prompts-file", 2),
        (("--prompts-file", "in.txt", "--id-column", "x"), "id-column is set, but prompts-file holds lines of text", 2),
        (("--prompts-file", "in.txt", "--unordered"), "unordered is set, but in format text nothing says whose", 2),
        (("--prompts-file", "in.csv", "--format", "text"), "prompts-file holds csv, which format text cannot", 2),
        (("--prompts-file", "in.csv", "--probs-only"), "prompts-file holds csv, which probs-only cannot be", 2),
        (("--prompts-file", "in.json"), "does not follow from its name: set prompts-format", 2),
        (("--prompts-file", "-", "--prompts-format", "parquet"), "Parquet cannot be read as a stream", 2),
        (("--prompts-file", "missing.csv"), "cannot read the prompts file 'missing.csv': No such file", 1),
        (("--prompts-file", "in.csv"), "has no column 'prompt': it has text", 2),
        (("--prompts-file", "in.jsonl"), "contains no prompt: write one per line", 1),
        (("--prompts-file", "in.csv", "--output-file", "there.jsonl"), "exists: use --force to replace it or", 1),
    ],
)
def test_what_cannot_be_is_one_line_before_the_model_is_loaded(arguments, message, code, tmp_path, monkeypatch):
    (tmp_path / "in.csv").write_text("text\na\n")
    (tmp_path / "in.jsonl").write_text("\n")
    (tmp_path / "there.jsonl").write_text("mine\n")
    monkeypatch.setattr("fundamentallm_hf.model_io.loading.load_model", None)
    result = generate(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1)
    assert message in result.stderr


def test_a_terminal_sees_how_far_it_is():
    prompts(30)
    options = ("--prompts-file", "in.jsonl", "--output-file", "out.jsonl", "--max-tokens", "5", "--batch-size", "2")
    seen = on_a_terminal(*options, env={"COLUMNS": "100"})
    assert "generating" in seen
    assert "/30" in seen
    assert "tokens/s" in seen
