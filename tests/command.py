"""Runs the command in this process, with models that are loaded only once."""

import shlex
import signal
import subprocess
from functools import cache

from click.testing import CliRunner
from conftest import FIXTURES

import fundamentallm_hf.model_io.loading
from fundamentallm_hf.cli.main import cli

MODEL = str(FIXTURES / "learned" / "final_model.pt")
_load = cache(fundamentallm_hf.model_io.loading.load_model)
# Prints the arguments of every call of the command, so that a shell can tell what a script would run.
_RECORDER = r"""fundamentallm() { printf '%s\x1f' "$@"; printf '\x1e'; }"""


def heed_interrupts():
    """For `preexec_fn`: tests that run in the background of a shell hand down that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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
