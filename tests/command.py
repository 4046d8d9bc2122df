"""Runs the command: in this process with models that are loaded only once, in another one, or on a terminal."""

import os
import pty
import shlex
import signal
import subprocess
import sys
from functools import cache

from click.testing import CliRunner
from conftest import FIXTURES

import fundamentallm_hf.model_io.loading
from fundamentallm_hf.cli.main import cli

MODEL = str(FIXTURES / "learned" / "final_model.pt")
# `fundamentallm generate` in a process, and its environment: nothing of the user's settings.
COMMAND = [sys.executable, "-m", "fundamentallm_hf", "generate", MODEL]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
_load = cache(fundamentallm_hf.model_io.loading.load_model)
# Prints the arguments of every call of the command, so that a shell can tell what a script would run.
_RECORDER = r"""fundamentallm() { printf '%s\x1f' "$@"; printf '\x1e'; }"""


def heed_interrupts():
    """For `preexec_fn`: tests that run in the background of a shell hand down that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*options, env=None, **keywords):
    """Start `COMMAND` with these options in a process of its own; without `stdout` and `stderr`, these are pipes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | keywords
    return subprocess.Popen([*COMMAND, *options], env=ENVIRONMENT | (env or {}), preexec_fn=heed_interrupts, **pipes)


def on_a_terminal(*options, env=None):
    """What a terminal shows of stdout and stderr of `COMMAND`, which has to succeed."""
    ours, theirs = pty.openpty()
    process = start(*options, env={"TERM": "xterm", "COLUMNS": "80"} | (env or {}), stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert process.wait(60) == 0
    return seen.decode()


def run(*arguments, stdin=None, env=None):
    runner = CliRunner(env=env)
    return runner.invoke(cli, [str(argument) for argument in arguments], input=stdin, prog_name="fundamentallm")


def load_once(monkeypatch, stand_in=None):
    """Load each model once for all tests; `stand_in` is the model that stands for every name."""

    def load_model(source=None, *, device="auto", dtype=None, revision=None, trust_remote_code=False, **_):
        fundamentallm_hf.model_io.loading.choose_device(device)
        return _load(stand_in if stand_in is not None else source, device="cpu")

    monkeypatch.setattr("fundamentallm_hf.model_io.loading.load_model", load_model)


def calls_of(script):
    """The arguments of every call of the command in a shell script, as the shell makes them."""
    shell = subprocess.run(["bash", "-euc", f"{_RECORDER}\n{script}"], capture_output=True, text=True, check=True)
    return [call.split("\x1f")[:-1] for call in shell.stdout.split("\x1e")[:-1]]


def option_lines(block):
    """The lists of options in a block that names no command: continued lines are one, comments none."""
    lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]
