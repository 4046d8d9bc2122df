"""The prompt loop as a whole: with stdin that is no terminal, and on a terminal."""

import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import FIXTURES
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from pseudo_terminal import Terminal

from fundamentallm_hf import Generator
from fundamentallm_hf.cli.interactive.line_editor import History, _Completer, history_file
from fundamentallm_hf.cli.interactive.loop import read_entries
from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.portable.errors import UserError

MODEL = str(FIXTURES / "learned" / "final_model.pt")
SPEED = re.compile(r"\d+ tokens/s")
BANNER = """\
╭──────────────────────────────────────────────────╮
│ FundamentaLLM Interactive Mode                   │
│ Type /help for commands, /quit to exit           │
╰──────────────────────────────────────────────────╯
"""


def piped(stdin, *options):
    """(stdout, stderr without how fast it was, exit code)"""
    arguments = ["generate", MODEL, "--interactive", "--max-tokens", "12", "--device", "cpu", *options]
    result = CliRunner().invoke(cli, arguments, input=stdin, prog_name="fundamentallm")
    return result.stdout, SPEED.sub("N tokens/s", result.stderr), result.exit_code


def test_a_piped_session_of_the_guide(shakespeare):
    def expected(**settings):
        return Generator(shakespeare, max_tokens=12, **settings).generate("To be")

    session = "To be\n\n/set temperature=0\nTo be\n/set temperature=1.5\n/set seed=2\nTo be\n/quit\nnot read\n"
    assert piped(session, "--seed", "1") == (
        f"{expected(seed=1)}\n{expected(temperature=0)}\n{expected(seed=2, temperature=1.5)}\n",
        "12 tokens, N tokens/s, seed 1, /more goes on\n"
        "Updated: temperature=0\n"
        "12 tokens, N tokens/s, /more goes on\n"
        "Updated: temperature=1.5\n"
        "Updated: seed=2\n"
        "12 tokens, N tokens/s, seed 2, /more goes on\n"
        "Goodbye!\n",
        0,
    )


def test_what_goes_wrong_in_a_piped_session_goes_to_stderr_and_the_rest_is_done():
    session = (
        "/set temperature=500\n/statsu\n/more\n/model missing.pt\n/set overflow=error\n/set max-tokens=500\nTo be\n"
    )
    assert piped(session) == (
        "",
        "Error: temperature has to be a number from 0 to 100 but is '500'\n"
        "Error: there is no command /statsu: did you mean /status?\n"
        "Error: there is no text yet: type a prompt\n"
        "Error: 'missing.pt' does not exist: give a FundamentaLLM .pt file or the folder that holds it\n"
        "Updated: overflow=error\n"
        "Updated: max-tokens=500\n"
        "Error: 5 prompt tokens and 500 new ones do not fit into the model's window of 128: shorten the prompt, ask "
        "for at most 123 tokens, or set overflow='slide'\n",
        0,
    )


def test_samples_several_lines_and_the_first_prompt():
    session = "/set num-samples=2\nTo be\\\nor not\n/more 2"
    stdout, stderr, code = piped(session, "--prompt", r"/To\nbe", "--temperature", "0")
    assert (stdout, code) == ("/To\nbe the the the\nTo be\nor not the the the\n", 0)
    assert "Error: num-samples is 2, but at temperature 0 all samples are the same" in stderr
    stdout, stderr, code = piped(session, "--seed", "5", "--no-escape", "--top-k", "1")
    assert (stdout, code) == (2 * "To be\nor not the the the\n" + " the the the\n" * 2, 0)
    assert "--- sample 2 of 2, seed 6 ---\n" in stderr


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (("--prompt", "-"), "interactive reads its input from stdin, so - cannot be combined with it", 2),
        (("--config", "-"), "interactive reads its input from stdin, so - cannot be combined with it", 2),
        (("--prompts-file", "x"), "prompts-file cannot be combined with interactive: give its lines on stdin", 2),
        (("--output-file", "x"), "output-file cannot be combined with interactive: send stdout there", 2),
        (("--format", "json"), "format cannot be combined with interactive", 2),
        (("--show-probs",), "show-probs cannot be combined with interactive: /probs shows them", 2),
        (("--probs-only",), "probs-only cannot be combined with interactive: /probs shows them", 2),
        (("--append",), "append is set but there is no output-file", 2),
        (("--min-tokens", "13"), "min-tokens is 13, but max-tokens ends the text at 12", 2),
        (("--device", "tpu"), "has to be one of auto, cpu, cuda, mps but is 'tpu'", 2),
        (("--config", "missing.json"), "cannot read the config 'missing.json'", 1),
    ],
)
def test_a_wrong_beginning_is_one_error(options, message, code):
    stdout, stderr, exit_code = piped("To be\n", *options)
    assert (stdout, exit_code) == ("", code)
    assert message in stderr
    assert stderr.startswith("Error: ")
    assert stderr.count("\n") == 1


def test_several_first_prompts_and_those_of_a_config(tmp_path):
    prompts = ("--prompt", "To be", "--prompt", "", "--temperature", "0")
    stdout, _, code = piped("My\n", *prompts)
    alone = [
        CliRunner().invoke(cli, ["generate", MODEL, "--max-tokens", "12", "--temperature", "0", "--prompt", each])
        for each in ("To be", "", "My")
    ]
    assert (stdout, code) == ("".join(each.stdout for each in alone), 0)
    (tmp_path / "config.yaml").write_text("prompt: To\\nbe\ntemperature: 0\n")
    assert piped("", "--config", str(tmp_path / "config.yaml"))[0].startswith(r"To\nbe")


def test_quiet_leaves_the_texts_errors_and_what_is_asked_for(tmp_path):
    session = f"To be\n/set top-k=5\n/set top-k\n/save {tmp_path / 'x'}\n/nope\n/retry\n/probs\n/quit\n"
    stdout, stderr, code = piped(session, "--quiet", "--temperature", "0", "--top-p", "0.9")
    assert (stdout, code) == (2 * "To be the the the\n", 0)
    described, error, heading, *predictions = re.split(r"\n(?=top-k=|Error|Next|  )", stderr.rstrip("\n"))
    assert described.startswith("top-k=5\nSample only from")
    assert error.startswith("Error: there is no command /nope")
    assert (heading, len(predictions)) == ("Next token probabilities:", 11)


def test_only_the_model_of_the_start_has_a_revision_and_trust(monkeypatch, shakespeare):
    loaded = []

    def load_model(source=None, *, notice, progress, **options):
        loaded.append((source, options))
        return shakespeare

    monkeypatch.setattr("fundamentallm_hf.model_io.loading.load_model", load_model)
    options = ["--revision", "v1", "--trust-remote-code", "--dtype", "float16", "--interactive"]
    result = CliRunner().invoke(cli, ["generate", "user/name", *options], input="/model other/name\n/model user/name\n")
    assert result.exit_code == 0
    first = {"device": "auto", "device_map": None, "dtype": "float16", "revision": "v1", "trust_remote_code": True}
    other = first | {"revision": None, "trust_remote_code": False}
    assert loaded == [("user/name", first), ("other/name", other), ("user/name", first)]


def test_stdin_that_is_no_text():
    stdout, stderr, code = piped(b"To be\n\xff\n", "--temperature", "0")
    assert (stdout, code) == ("To be the the the\n", 1)
    assert stderr.endswith("Error: line 2 on stdin has to be UTF-8 text but is not\n")


@pytest.mark.parametrize(
    ("lines", "entries"),
    [
        (b"", []),
        (b"a\nb", ["a", "b"]),
        (b"\xef\xbb\xbfa\r\n\nb\n", ["a", "", "b"]),
        (b"a\\\nb\\\nc\nd\n", ["a\nb\nc", "d"]),
        (b"a\\\\\nb\\\\\\\nc\n", ["a\\\\", "b\\\\\nc"]),
        (b"a\\", ["a"]),
    ],
)
def test_entries_of_a_stream(lines, entries):
    assert list(read_entries(lines.splitlines(keepends=True))) == entries


def test_entries_have_to_be_text():
    with pytest.raises(UserError, match="line 1 on stdin"):
        list(read_entries([b"\xff"]))


def test_history_lies_in_the_state_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "fundamentallm" / "history"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert history_file() == tmp_path / ".local" / "state" / "fundamentallm" / "history"


def test_history_that_cannot_be_kept_is_no_error(tmp_path):
    (tmp_path / "fundamentallm").write_text("a file where the folder would be")
    history = History(tmp_path / "fundamentallm" / "history")
    history.append_string("To be")
    assert history.get_strings() == ["To be"]
    assert list(history.load_history_strings()) == []
    kept = History(tmp_path / "state" / "history")
    kept.append_string("To be\nor not")
    assert list(History(kept.filename).load_history_strings()) == ["To be\nor not"]
    assert (tmp_path / "state" / "history").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("typed", "files"), [("/load my", 1), ("/set bad-words-file=my", 1), ("/set stop=my", 0)])
def test_files_are_completed(typed, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my words.txt").touch()
    completer = _Completer(lambda text: ("", []))
    found = list(completer.get_completions(Document(typed), CompleteEvent(completion_requested=True)))
    assert [each.display_text for each in found] == ["my words.txt"] * files


def on_a_terminal(state, *options, **environment):
    command = [sys.executable, "-m", "fundamentallm_hf", "generate", MODEL, "--interactive", "--device", "cpu"]
    return Terminal(
        [*command, "--max-tokens", "12", "--seed", "42", *options],
        XDG_STATE_HOME=str(state),
        OMP_NUM_THREADS="1",
        **environment,
    )


def answer(text):
    return SPEED.sub("N tokens/s", text)


def test_a_session_on_a_terminal(tmp_path, shakespeare):
    """The guide's example session, then everything that needs a terminal; each start of the program takes seconds."""

    def expected(prompt, **settings):
        return Generator(shakespeare, notice=str, **({"max_tokens": 12, "seed": 42} | settings)).generate(prompt)

    def written(prompt, **settings):
        lines = [line.rstrip() for line in expected(prompt, **settings).split("\n")]  # blanks are not to be seen
        return "\n".join([*lines, "12 tokens, N tokens/s, seed 42, /more goes on"])

    with on_a_terminal(tmp_path) as terminal:
        terminal.wait(lambda terminal: terminal.at_the_prompt)
        assert terminal.text == f"{BANNER}\n>"
        for temperature in (0.5, 1.5):
            assert terminal.enter(f"/set temperature={temperature}") == f"Updated: temperature={temperature}"
            assert answer(terminal.enter("To be")) == written("To be", temperature=temperature)
        speed = "12 tokens, N tokens/s, seed 42, /more goes on"
        first, second = (expected("To be", temperature=each).rstrip() for each in (0.5, 1.5))
        assert answer(terminal.text) == (
            f"{BANNER}\n"
            f"> /set temperature=0.5\nUpdated: temperature=0.5\n\n"
            f"> To be\n{first}\n{speed}\n\n"
            f"> /set temperature=1.5\nUpdated: temperature=1.5\n\n"
            f"> To be\n{second}\n{speed}\n\n"
            f">"
        )
        assert terminal.enter("/reset") == "Settings are those of the start"

        # Tab: a command, a setting, a choice.
        terminal.send("/sta\t")
        terminal.wait("> /status")
        assert "\n* seed                  42  (default: not set)\n" in terminal.enter("")
        terminal.send("/set ov\t")
        terminal.wait("> /set overflow=")
        terminal.send("st\t")
        terminal.wait("> /set overflow=stop")
        assert terminal.enter("") == "Updated: overflow=stop"
        file = tmp_path / "settings.json"
        assert terminal.enter(f"/save {file}").replace("\n", "").replace(" ", "") == f"Saved:{file}"
        assert json.loads(file.read_text())["overflow"] == "stop"
        assert terminal.enter("/set overflow=slide") == "Updated: overflow=slide"

        # Several lines: pasted, in which nothing is done before Enter, and typed.
        terminal.send("\x1b[200~To be\r\n/quit\nor not\x1b[201~")
        terminal.wait("> To be\n. /quit\n. or not")
        note = "note: the model has no token for '/': it reads <UNK> instead, and cannot write it\n"
        assert answer(terminal.enter("")) == note + written("To be\n/quit\nor not")
        terminal.send("To\x1b\rbe\\\r")
        terminal.wait("> To\n. be\n.")
        assert answer(terminal.enter("or")).removeprefix(". or\n") == written("To\nbe\nor")

        # Ctrl-C stops the text and not the program; what is typed meanwhile waits.
        terminal.enter("/set max-tokens=100000")
        terminal.enter("/clear")
        assert terminal.text == ">"
        terminal.send("My lord\r")
        terminal.wait(lambda terminal: len(terminal.text) > 300)  # the window holds 128
        terminal.send("typed ahead")
        terminal.send("\x03")
        terminal.wait("stopped, /more goes on\nnote: the text has ")
        terminal.wait("> typed ahead")
        before_the_end = terminal.text.partition("stopped, /more")[0]
        assert "typed" not in before_the_end
        assert "^C" not in before_the_end
        terminal.send("\x03")
        terminal.wait(lambda terminal: terminal.at_the_prompt)
        terminal.send("\x03")
        terminal.wait("Ctrl-D or /quit leaves\n>")

        # Ctrl-D leaves.
        terminal.wait(lambda terminal: terminal.at_the_prompt)
        terminal.send("\x04")
        assert terminal.end() == 0
        assert terminal.text.endswith("\nGoodbye!")

    # A second run remembers, knows the first prompt, and says goodbye by command.
    with on_a_terminal(tmp_path, "--prompt", "To be", "--temperature", "0") as terminal:
        terminal.wait(lambda terminal: terminal.at_the_prompt)
        assert answer(terminal.text) == (
            "note: seed has no effect: at temperature 0 nothing is sampled\n"
            f"{BANNER}\n{expected('To be', temperature=0)}\n12 tokens, N tokens/s, /more goes on\n\n>"
        )
        terminal.send("\x1b[A")
        terminal.wait("> My lord")
        terminal.send("\x1b[A")
        terminal.wait("> /clear")
        terminal.send("\x15/quit\r")
        assert terminal.end() == 0
        assert terminal.text.endswith("> /quit\nGoodbye!")


def test_help_does_not_import_the_loop():
    code = (
        "import sys; sys.argv = ['fundamentallm', 'generate', '--help']\n"
        "from fundamentallm_hf.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'prompt_toolkit', 'rich', 'torch'} & set(sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "--interactive" in output


@pytest.mark.parametrize(
    ("options", "env", "colored"), [((), {}, True), (("--no-color",), {}, False), ((), {"NO_COLOR": "1"}, False)]
)
def test_colour_is_left_out_on_request(options, env, colored, tmp_path):
    with on_a_terminal(tmp_path, "--quiet", *options, **env) as terminal:
        terminal.wait(lambda terminal: terminal.at_the_prompt)
        assert terminal.text == ">"
        terminal.enter("/probs To be")
        terminal.enter("/nope")
        terminal.send("/sta")
        terminal.wait("/status")
        shown = {cell.fg for row in terminal.screen.buffer.values() for cell in row.values()}
        assert (shown != {"default"}) is colored, shown
        terminal.send("\x03")
        terminal.wait(lambda terminal: terminal.at_the_prompt)
        terminal.send("\x04")
        assert terminal.end() == 0
