"""Writes texts where they were asked for: as text, JSON or a JSON line each, on stdout or into a file.

A file is written beside its target under a hidden name and moved into place when it is complete. This file knows
nothing of how texts come to be.
"""

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import click

from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.generation_settings import GenerationSettings

if TYPE_CHECKING:
    from fundamentallm_hf.generation.generator import Completion
    from fundamentallm_hf.generation.probabilities import Prediction

FORMATS = ("text", "json", "jsonl")
# Predictions shown for a place.
TOP = 10
_BAR = 20
_LINE_BREAKS = "\x85\u2028\u2029"


class OutputFile:
    """A file that is there whole or not at all; the place to write is made, and so known to be good, at once.

    Pipes and devices are written to as they are.

    Args:
        path: the target.
        force: replace what is there.
        append: keep what is there and write behind it.
        name: what it is called in errors.
        way_out: what they advise where it exists.

    Raises:
        UserError: the file is there already and neither was said, or nothing can be written there.
    """

    def __init__(
        self,
        path: str,
        *,
        force: bool = False,
        append: bool = False,
        name: str = "output-file",
        way_out: str = "use --force to replace it or --append to write behind it",
    ) -> None:
        self.name, self._way_out = name, way_out
        self.path = Path(os.path.realpath(Path(path).expanduser()))
        self._hidden: Path | None = None
        try:
            self.stream = self._prepare(path, force, append)
        except BaseException as error:
            self._clear()
            if isinstance(error, OSError):
                raise UserError(f"cannot write {name} {path}: {error.strerror or error}") from error
            raise

    def _prepare(self, shown: str, force: bool, append: bool) -> IO[str]:
        there = self.path.exists()
        if self.path.is_dir():
            raise UserError(f"{self.name} {shown} is a folder: give the name of a file")
        if not self.path.parent.is_dir():
            raise UserError(f"{self.name} {shown} lies in {self.path.parent}, which is no folder: make it first")
        if there and not stat.S_ISREG(self.path.stat().st_mode):
            return self.path.open("a", encoding="utf-8", newline="\n")
        if there and not (force or append):
            raise UserError(f"{self.name} {shown} exists: {self._way_out}")
        if there and not os.access(self.path, os.W_OK):
            raise UserError(f"cannot write {self.name} {shown}: it is write-protected")
        number, hidden = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent)
        os.close(number)
        self._hidden = Path(hidden)
        # The mode that the file had, or that a new one gets here.
        mask = os.umask(0)
        os.umask(mask)
        self._hidden.chmod(stat.S_IMODE(self.path.stat().st_mode) if there else 0o666 & ~mask)
        if there and append:
            shutil.copyfile(self.path, self._hidden)
        return self._hidden.open("a", encoding="utf-8", newline="\n")

    def _clear(self) -> None:
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(BrokenPipeError):
                self.stream.close()
            if kind is None and self._hidden is not None:
                self._hidden.replace(self.path)
        except OSError as failure:
            raise UserError(f"cannot write {self.name} {self.path}: {failure.strerror or failure}") from failure
        finally:
            self._clear()


class Output:
    """Takes finished texts and writes them in a format.

    Args:
        form: "text", "json" or "jsonl".
        origin: what every record says of the model: its name, and what else is needed to load it so again.
        settings: of the generation.
        file: where to write; None is stdout.
    """

    def __init__(
        self, form: str, origin: dict[str, Any], settings: GenerationSettings, file: OutputFile | None = None
    ) -> None:
        self.form = form
        self.origin = origin
        self.settings = settings
        self.file = file
        self._records: list[dict[str, Any]] = []

    def write(self, text: str, end: str = "\n") -> None:
        """Write a piece of text as it is, at once."""
        if self.file is None:
            click.echo(text + end, nl=False)
            return
        try:
            self.file.stream.write(text + end)
            self.file.stream.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.file.name} {self.file.path}: {error.strerror or error}") from error

    def add(self, completion: "Completion", heading: str = "", next_tokens: "Sequence[Prediction]" = ()) -> None:
        """Write a text, or keep it for the end where the format is one whole.

        Args:
            completion: the text.
            heading: tells it from the others in a text file; on stdout a text stands alone.
            next_tokens: what could have stood first.
        """
        if self.form == "text":
            if heading and self.file is not None:
                self.write(f"--- {heading} ---")
            self.write(completion.text, end="\n\n" if heading and self.file is not None else "\n")
            return
        from fundamentallm_hf.generation.completion import make_record

        record = make_record(completion, self.origin, self.settings, next_tokens)
        if self.form == "jsonl":
            self.write(_json(record))
        else:
            self._records.append(record)

    def finish(self) -> None:
        """Write what was kept."""
        if self.form == "json":
            self.write(_json(self._records, indent=2))


def _json(value: Any, indent: int | None = None) -> str:
    """JSON in readable characters, but for those that some programs take for line breaks."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return "".join(f"\\u{ord(char):04x}" if char in _LINE_BREAKS else char for char in text)


def prediction_lines(predictions: "Sequence[Prediction]", more: bool = True) -> list[str]:
    """The likeliest next tokens for people: with a bar, and the model's own probability beside it.

    Args:
        predictions: the likeliest first.
        more: there are others.
    """
    heads = [f"  {each.label}: {each.probability:.2f}" for each in predictions]
    width = max(map(len, heads), default=0)
    lines = ["Next token probabilities:"]
    for head, each in zip(heads, predictions, strict=True):
        bar = ("█" * round(each.probability * _BAR)).ljust(_BAR)
        lines.append(f"{head:{width}}  {click.style(bar, fg='cyan')}  model {each.model_probability:.2f}")
    return [*lines, "  ..."] if more else lines


def end_note(reason: str, overflow: str) -> str:
    """What a user should know of how a text ended; nothing where it ended as was to be expected.

    Args:
        reason: the `finish_reason` of its completion.
        overflow: what to type to go on past a full window; empty where the model cannot.
    """
    if reason == "window":
        return "the text fills the model's window" + (f"; {overflow} goes on from its last part" if overflow else "")
    if reason == "blocked":
        return "the controls leave no continuation of the text, so it ends here: loosen them to go on"
    return ""


def check_output(form: str, file: str | None, force: bool, append: bool) -> None:
    """Refuse options that ask for different things.

    Raises:
        UsageError: they do.
    """
    if force and append:
        raise UsageError("force and append are both set: --force replaces the output-file, --append writes behind it")
    if file is None and (force or append):
        raise UsageError(f"{'force' if force else 'append'} is set but there is no output-file to write")
    if append and form == "json":
        raise UsageError("append is set, but behind a JSON document no second one can stand: use --format jsonl")
