"""Generates the texts of a file of prompts, one record per line, and shows the progress."""

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from fundamentallm_hf.files import local_path
from fundamentallm_hf.generation.processes import Processes
from fundamentallm_hf.generation.prompt_files import PromptsFile, unused_columns
from fundamentallm_hf.generation.resumable_output import Output, ResumableFile, StreamOutput, is_resumable
from fundamentallm_hf.portable.errors import UserError

from .generate_request import Request, origin
from .load import lend_attributes, load
from .output import TOP
from .terminal import Notes

if TYPE_CHECKING:
    from fundamentallm_hf.generation.file_run import FileOptions, FileSummary
    from fundamentallm_hf.generation.generator import Generator


def write_file(request: Request, file: PromptsFile, options: dict[str, Any], notes: Notes) -> None:
    """Generate the texts of a file, or continue an earlier run of the same command.

    Args:
        request: the checked request.
        file: the prompts.
        options: of the command; they set where to write and in which order.
        notes: for notes and progress on stderr.

    Raises:
        UserError: the run cannot start or continue, or some prompts have failed.
    """
    processes = Processes.of_launcher()
    if not processes.leads:
        _join(request, options, processes)
        return
    with ExitStack() as stack:
        # Unreadable input and unwritable output are reported before the model is loaded.
        output, name = _output(options, stack)
        digest, total = ("", None) if file.is_stream else file.measure()
        _name_unused(file, notes)
        if file.path == "-" and sys.stdin.isatty():
            notes.say("reading the prompts from the terminal, end them with Ctrl-D")
        generator, how = _prepare(request, options, processes, notes)
        from fundamentallm_hf.generation.file_run import run_file

        covered = name == "stdout" and sys.stdout.isatty()
        report = _Progress(notes, total, not covered, stack)
        stack.enter_context(processes.connected())
        summary = run_file(generator, file, output, request.settings, how, report, digest, processes)
    _report(summary, name, notes)


def _join(request: Request, options: dict[str, Any], processes: Processes) -> None:
    """Generate batches for the first process, which alone reports to the user."""
    generator, how = _prepare(request, options, processes, Notes(quiet=True))
    from fundamentallm_hf.generation.file_run import join_run

    with processes.connected():
        join_run(generator, request.settings, how, processes)


def _prepare(
    request: Request, options: dict[str, Any], processes: Processes, notes: Notes
) -> tuple["Generator", "FileOptions"]:
    """Load the model; several processes use the GPUs of their host in turn."""
    loading = dict(request.loading)
    if processes.size > 1 and loading["device"] == "auto" and loading["device_map"] is None:
        import torch

        if torch.cuda.is_available():
            loading["device"] = f"cuda:{processes.local_rank % torch.cuda.device_count()}"
    model = load(request.model, notes, **loading)
    lend_attributes(model, request.attributes)
    from fundamentallm_hf.generation.file_run import FileOptions
    from fundamentallm_hf.generation.generator import Generator

    how = FileOptions(
        rows=request.batch_size,
        unordered=options["unordered"],
        origin=origin(request, model),
        probabilities=TOP if request.show_probs else 0,
        sample=request.sample,
    )
    return Generator(model, notice=notes.say), how


def _output(options: dict[str, Any], stack: ExitStack) -> tuple[Output, str]:
    """The output, and its name in messages."""
    path = options["output_file"]
    if path is None:

        def to_stdout(text: str) -> None:
            click.echo(text, nl=False)
            sys.stdout.flush()

        return StreamOutput(to_stdout), "stdout"
    if is_resumable(path):
        return ResumableFile(path, force=options["force"], append=options["append"]), path
    try:
        stream = stack.enter_context(local_path(path).open("a", encoding="utf-8", newline="\n"))
    except OSError as error:
        raise UserError(f"cannot write output-file {path}: {error.strerror or error}") from error

    def to_device(text: str) -> None:
        stream.write(text)
        stream.flush()

    return StreamOutput(to_device), path


def _name_unused(file: PromptsFile, notes: Notes) -> None:
    """Note which columns of a table are not settings: one of them may be misspelt."""
    if file.is_stream:
        return
    with file.open() as prompts:
        if unused := unused_columns(prompts.columns, file):
            notes.say(f"unused columns of {file.path}: {', '.join(unused)} (not settings)")


def _report(summary: "FileSummary", name: str, notes: Notes) -> None:
    texts = f"{summary.texts:,} {'text' if summary.texts == 1 else 'texts'}"
    if summary.errors:
        prompts = "prompt has" if summary.errors == 1 else "prompts have"
        raise UserError(
            f"{summary.errors:,} {prompts} failed, each with its error on a line of {name}; {texts} written"
        )
    if summary.was_complete:
        notes.say(f"{name} is already complete: {texts}")
    elif name != "stdout":
        notes.say(f"{texts} written to {name}")


class _Progress:
    """A progress bar with the remaining time and the speed.

    Args:
        notes: show the bar.
        total: number of prompts; None if unknown.
        shown: whether to show the bar.
        stack: removes the bar when it closes.
    """

    def __init__(self, notes: Notes, total: int | None, shown: bool, stack: ExitStack) -> None:
        self._notes, self._total, self._shown, self._stack = notes, total, shown, stack
        self._bar: Any = None
        self._start = 0.0

    def __call__(self, prompts: int, tokens: int) -> None:
        if self._bar is None:
            if prompts:
                self._notes.say(f"{prompts:,} prompts were finished before: continuing with the others")
            self._start = time.monotonic()
            self._bar = self._stack.enter_context(self._notes.progress(self._shown, speed=True))
            self._task = self._bar.add_task("generating", total=self._total, completed=prompts, speed="")
            return
        speed = tokens / max(time.monotonic() - self._start, 1e-9)
        self._bar.update(self._task, completed=prompts, speed=f"{speed:,.0f} tokens/s")
