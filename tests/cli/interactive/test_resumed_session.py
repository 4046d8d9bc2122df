"""The prompt loop on a terminal: a session that branches, is edited, is killed, and goes on."""

import json
import os
import re
import signal
import stat
import sys

import pytest
from click.testing import CliRunner
from command import MODEL
from pseudo_terminal import Terminal

from fundamentallm_hf import Generator
from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.generation.tree_file import read_tree

COMMAND = [sys.executable, "-m", "fundamentallm_hf", "generate"]


def on_a_terminal(state, *options, **environment):
    command = [*COMMAND, "--interactive", "--device", "cpu", *options]
    return Terminal(command, XDG_STATE_HOME=str(state), OMP_NUM_THREADS="1", **environment)


def saved_sessions(state):
    return sorted((state / "fundamentallm" / "sessions").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)


def as_one_line(text):
    """A text as it is seen on a screen, wherever lines are broken."""
    return "".join(text.split())


def editor(folder):
    """An editor that changes the first word, and ends the last line as editors do."""
    script = folder / "editor"
    script.write_text("#!/bin/sh\nsed -i 's/To be/Not to be/; $a\\' \"$1\"\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def test_a_session_is_killed_and_goes_on(tmp_path, shakespeare):
    def written(prompt, **settings):
        return Generator(shakespeare, notice=str, **({"max_tokens": 12, "seed": 42} | settings)).generate(prompt)

    first = written("To be")
    longer, other = written(first), written(first, seed=43)
    with on_a_terminal(tmp_path, MODEL, "--max-tokens", "12", "--seed", "42", EDITOR=editor(tmp_path)) as terminal:
        terminal.wait(lambda terminal: terminal.at_the_prompt)
        assert saved_sessions(tmp_path) == []
        terminal.enter("To be")
        terminal.enter("/more")
        terminal.enter("/retry")
        assert as_one_line(terminal.enter("/undo")).startswith(as_one_line(longer) + "text3,12tokens,seed42,")
        assert as_one_line(terminal.enter("/redo")).startswith(as_one_line(other) + "text4,12tokens,seed43,")
        shown = as_one_line(terminal.enter("/diff 3"))
        assert "[-" in shown
        assert "{+" in shown
        terminal.enter("/go 2")
        edited = as_one_line(terminal.enter("/edit"))
        assert edited == as_one_line(first.replace("To be", "Not to be")) + "text5,/moregoeson"
        terminal.enter("/set show-probs=inline")
        begun = terminal.screen.cursor.y
        terminal.enter("/more")
        colours = {
            cell.bg for row in range(begun, terminal.screen.cursor.y) for cell in terminal.screen.buffer[row].values()
        }
        assert len(colours) > 2
        # Killed in the middle of a long text.
        terminal.enter("/set max-tokens=100000")
        terminal.send("My lord\r")
        terminal.wait(
            lambda terminal: saved_sessions(tmp_path) and "interrupted" in saved_sessions(tmp_path)[-1].read_text()
        )
        os.kill(terminal.process.pid, signal.SIGKILL)
        terminal.process.wait()
        while terminal.read():
            pass
        screen = as_one_line(terminal.text)

    (file,) = saved_sessions(tmp_path)
    assert file.stat().st_mode & 0o077 == 0
    tree = read_tree(str(file)).tree
    texts = {node.id: tree.text(node.id) for node in tree}
    begun = tree.text(tree.current.id)
    assert begun.startswith("My lord")
    assert as_one_line(begun) in screen
    assert (texts[2], texts[3], texts[4]) == (first, longer, other)

    # Without the model, the settings and the seed: they are those of the session.
    with on_a_terminal(tmp_path, "--resume", "--max-tokens", "12") as terminal:
        terminal.wait(lambda terminal: terminal.at_the_prompt)
        assert "resumed 8 texts; /branches lists them" in terminal.text
        assert as_one_line(begun) in as_one_line(terminal.text)
        listed = terminal.enter("/branches")
        assert len(listed.split("\n")) == 8
        assert "* 8  " in listed
        assert as_one_line(terminal.enter("/more")).count("seed42") == 1
        whole = read_tree(str(saved_sessions(tmp_path)[-1])).tree
        assert whole.text(9) == written(begun)
        terminal.enter("/undo")
        assert as_one_line(terminal.enter("/undo")).startswith(as_one_line(whole.text(6)) + "text6,")
        terminal.enter("/go 4")
        terminal.enter("/retry")
        terminal.send("\x04")
        assert terminal.end() == 0
    last = saved_sessions(tmp_path)[-1]
    assert last != file
    tree = read_tree(str(last)).tree
    assert {number: tree.text(number) for number in texts} == texts
    assert tree.text(tree.current.id) == written(first, seed=44)


def test_a_session_on_a_terminal_without_texts_leaves_no_file(tmp_path):
    with on_a_terminal(tmp_path, MODEL) as terminal:
        terminal.wait(lambda terminal: terminal.at_the_prompt)
        assert "there is no text yet" in terminal.enter("/branches")
        terminal.send("\x04")
        assert terminal.end() == 0
    assert saved_sessions(tmp_path) == []


def resumed(state, *options, stdin=""):
    return CliRunner(env={"XDG_STATE_HOME": str(state)}).invoke(cli, ["generate", *options], input=stdin)


@pytest.mark.parametrize(
    ("content", "options", "line", "code"),
    [
        (None, ("--interactive", "--resume"), "there is no session to resume in ", 1),
        ("{", ("--interactive", "--resume"), "is not JSON: ", 1),
        ('{"format": "fundamentallm-tree", "version": 9}', ("--interactive", "--resume"), "it has version 9", 1),
        (None, ("--resume",), "resume is set without interactive, whose last session it continues: add --inter", 2),
    ],
)
def test_what_cannot_be_resumed_is_one_line(tmp_path, content, options, line, code):
    folder = tmp_path / "fundamentallm" / "sessions"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "a.json").write_text(content)
    result = resumed(tmp_path, *options)
    assert (result.exit_code, result.stdout) == (code, "")
    assert line in result.stderr
    assert result.stderr.count("\n") == 1


def test_scripts_can_resume_and_leave_no_files(tmp_path, shakespeare):
    folder = tmp_path / "fundamentallm" / "sessions"
    folder.mkdir(parents=True)
    head = {
        "format": "fundamentallm-tree",
        "version": 1,
        "model": MODEL,
        "settings": {"temperature": 0, "max_tokens": 4},
    }
    prompt = {"id": 1, "parent": None, "name": "a", "prompt": "To be", "completion": ""}
    saved = json.dumps(head | {"history": [1], "position": 0, "nodes": [prompt]})
    (folder / "a.json").write_text(saved)
    result = resumed(tmp_path, "--interactive", "--resume", "--max-tokens", "8", stdin="/more\n/go 2\n")
    text = Generator(shakespeare, temperature=0, max_tokens=8).generate("To be")
    assert result.stdout == text.removeprefix("To be") + "\n"
    facts = r"text 2, 8 tokens, perplexity \d+\.\d\d, max-tokens=8, temperature=0, /more goes on"
    assert re.search(f"{re.escape(text)}\n{facts}\n$", result.stderr)
    assert [file.read_text() for file in folder.iterdir()] == [saved]
