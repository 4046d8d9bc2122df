"""Writes completions on stdout or into a file, as text, JSON or JSON lines, and formats what is shown with them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fundamentallm_hf.files import OutputFile, json_text
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.generation_settings import GenerationSettings

if TYPE_CHECKING:
    from fundamentallm_hf.generation.completion import Completion
    from fundamentallm_hf.generation.probabilities import Prediction

FORMATS = ("text", "json", "jsonl")
# Predictions shown for a position.
TOP = 10
_BAR = 20


class CompletionWriter:
    """Writes finished texts in a format.

    Args:
        form: "text", "json" or "jsonl".
        origin: the model's part of every record: its name, and the options needed to load it again.
        settings: of the generation.
        file: the target; None is stdout.
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
        """Write a piece of text unchanged, immediately."""
        if self.file is None:
            click.echo(text + end, nl=False)
            return
        try:
            self.file.stream.write(text + end)
            self.file.stream.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.file.name} {self.file.path}: {error.strerror or error}") from error

    def add(self, completion: "Completion", heading: str = "", next_tokens: "Sequence[Prediction]" = ()) -> None:
        """Write a text, or keep it for the end if the format is a single document.

        Args:
            completion: the text.
            heading: the header of the text in a file; stdout has only the text.
            next_tokens: the predictions for its first token.
        """
        if self.form == "text":
            if heading and self.file is not None:
                self.write(f"--- {heading} ---")
            self.write(completion.text, end="\n\n" if heading and self.file is not None else "\n")
            return
        from fundamentallm_hf.generation.completion import make_record

        record = make_record(completion, self.origin, self.settings, next_tokens)
        if self.form == "jsonl":
            self.write(json_text(record))
        else:
            self._records.append(record)

    def finish(self) -> None:
        """Write the texts that were kept."""
        if self.form == "json":
            self.write(json_text(self._records, indent=2))


def prediction_lines(predictions: "Sequence[Prediction]", more: bool = True) -> list[str]:
    """The most probable next tokens as text: with a bar, and the raw probability next to it.

    Args:
        predictions: the most probable first.
        more: whether there are others.
    """
    heads = [f"  {each.label}: {each.probability:.2f}" for each in predictions]
    width = max(map(len, heads), default=0)
    lines = ["Next token probabilities:"]
    for head, each in zip(heads, predictions, strict=True):
        bar = ("█" * round(each.probability * _BAR)).ljust(_BAR)
        lines.append(f"{head:{width}}  {click.style(bar, fg='cyan')}  model {each.model_probability:.2f}")
    return [*lines, "  ..."] if more else lines


def end_note(reason: str, overflow: str) -> str:
    """A note about the end of a text; empty for an ordinary end.

    Args:
        reason: the `finish_reason` of its completion.
        overflow: what to type to continue past a full window; empty where the model cannot.
    """
    if reason == "window":
        return "the text fills the model's window" + (f"; {overflow} goes on from its last part" if overflow else "")
    if reason == "blocked":
        return "the controls leave no continuation of the text, so it ends here: loosen them to go on"
    return ""


def check_output(form: str, file: str | None, force: bool, append: bool) -> None:
    """Reject options that contradict each other.

    Raises:
        UsageError: they contradict each other.
    """
    if force and append:
        raise UsageError("force and append are both set: --force replaces the output-file, --append adds to it")
    if file is None and (force or append):
        raise UsageError(f"{'force' if force else 'append'} is set but there is no output-file to write")
    if append and form == "json":
        raise UsageError("append is set, but a JSON document cannot follow another: use --format jsonl")
