"""The command as a process: pipes, signals, locales and colours."""

import os
import signal
import time

import pytest
from click.testing import CliRunner
from command import MODEL, load_once, on_a_terminal, start

from fundamentallm_hf.cli.main import cli


def test_a_reader_that_leaves_is_no_failure():
    process = start("--max-tokens", "100000", "--prompt", "To be")
    assert process.stdout.read(5) == b"To be"
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_work_and_leaves_no_file(number, code, tmp_path):
    options = ("--max-tokens", "100000", "--output-file", "out.txt", "--prompt", "a", "--show-probs")
    process = start(*options, cwd=tmp_path)
    assert process.stdout.readline() == b"Next token probabilities:\n"
    time.sleep(0.3)  # into the middle of the text
    process.send_signal(number)
    assert process.wait(60) == code
    assert process.stderr.read() == b""
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_an_interrupted_text_ends_where_it_is():
    process = start("--max-tokens", "100000", "--prompt", "To be")
    assert process.stdout.read(20).startswith(b"To be")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(output) < 50_000
    assert errors == b""


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_text_is_utf8_whatever_the_locale(locale):
    process = start("--prompt", "café 日本 😀", "--max-tokens", "1", "--temperature", "0", env=locale)
    output, errors = process.communicate()
    assert output.decode("utf-8").startswith("café 日本 😀")
    assert "no token for 'é' '日' '本' '😀'" in errors.decode("utf-8")


def test_a_terminal_sees_progress_and_colour(tmp_path):
    options = ("--prompt", "To be", "--max-tokens", "5", "--num-samples", "3", "--output-file", str(tmp_path / "out"))
    seen = on_a_terminal(*options, "--show-probs")
    assert "\x1b[36m█" in seen
    assert "loading " in seen
    assert "writing" in seen
    quiet = on_a_terminal("--prompt", "To be", "--max-tokens", "5", "--temperature", "0", "--quiet")
    assert quiet == "To be the \r\n"


def test_a_pipe_sees_neither():
    options = ("--prompt", "To be", "--max-tokens", "5", "--num-samples", "3", "--seed", "1", "--show-probs")
    output, errors = start(*options).communicate()
    assert b"\x1b" not in output + errors
    assert errors.decode().splitlines() == [f"--- sample {i + 1} of 3, seed {1 + i} ---" for i in range(3)]


@pytest.mark.parametrize(
    ("options", "env", "colored"), [((), {}, True), (("--no-color",), {}, False), ((), {"NO_COLOR": "1"}, False)]
)
def test_colour_is_left_out_on_request(options, env, colored, monkeypatch):
    load_once(monkeypatch)
    arguments = ["generate", MODEL, "--prompt", "To be", "--max-tokens", "5", "--show-probs", *options]
    result = CliRunner(env={"NO_COLOR": None} | env).invoke(cli, arguments, color=True)
    assert ("\x1b[" in result.stdout) is colored
