"""Prompts of a file with their ids and settings, and how they are put into batches."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerBase

from fundamentallm_hf.portable.controls.setting import is_text
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.generation_settings import GenerationSettings, find_setting

from .prompt_files import PromptsFile, PromptStream, RawPrompt, unused_columns

# Batches of prompts that are read ahead: the more, the nearer in length are the prompts of a batch; the fewer, the
# sooner is a text in its place in the order of the prompts.
AHEAD = 4
_KEPT_SETTINGS = 256


@dataclass(frozen=True)
class FilePrompt:
    """One prompt of a file.

    Attributes:
        number: its index among the prompts of the file.
        line: where it is in the file, from 1.
        id: as the file says, else `line`.
        text: the prompt; None where there is none.
        settings: with which it is generated; None where they cannot be.
        error: why it cannot be generated; empty where it can.
        digest: of the input up to it, for a stream.
    """

    number: int
    line: int
    id: str | int
    text: str | None = None
    settings: GenerationSettings | None = None
    error: str = ""
    digest: str = ""

    @property
    def kept(self) -> int:
        """How many texts it gets."""
        assert self.settings is not None
        return self.settings.best or self.settings.num_samples


class PromptReader:
    """Makes prompts of what a file holds of them.

    Args:
        file: how it is read.
        settings: of every prompt that does not say otherwise, checked.
    """

    def __init__(self, file: PromptsFile, settings: GenerationSettings) -> None:
        self.file, self.settings = file, settings
        # Many prompts of a file have the same settings.
        self._with = lru_cache(maxsize=_KEPT_SETTINGS)(self._checked)

    def read(self, raw: RawPrompt, ignored: Sequence[str] = ()) -> FilePrompt:
        """The prompt, or one with an error where it says what cannot be.

        Args:
            raw: as the file holds it.
            ignored: columns that are left out.
        """
        name: str | int = raw.line
        text = None
        try:
            if isinstance(raw.content, UserError):
                raise raw.content
            fields = {key: value for key, value in raw.content.items() if key not in ignored}
            name = self._id(fields.pop(self.file.id_column, None), raw.line)
            text = self._text(fields)
            settings = self._with(json.dumps(fields, default=repr)) if fields else self.settings
        except UserError as error:
            return FilePrompt(raw.number, raw.line, name, text, None, str(error), raw.digest)
        return FilePrompt(raw.number, raw.line, name, text, settings, "", raw.digest)

    def _id(self, given: Any, line: int) -> str | int:
        if given is None:
            return line
        if (
            isinstance(given, bool)
            or not isinstance(given, str | int)
            or (isinstance(given, str) and not is_text(given))
        ):
            raise UsageError(f"{self.file.id_column} has to be text or a whole number but is {given!r}")
        return given

    def _text(self, fields: dict[str, Any]) -> str:
        column = self.file.prompt_column
        if column not in fields:
            raise UsageError(f"there is no {column!r}: give the prompt in a field of this name")
        text = fields.pop(column)
        if not isinstance(text, str):
            raise UsageError(f"{column} has to be text but is {text!r}")
        if not is_text(text):
            raise UsageError(f"{column} is not UTF-8 text: convert it to UTF-8 first")
        return text

    def _checked(self, fields: str) -> GenerationSettings:
        changes = {find_setting(name).name: value for name, value in json.loads(fields).items()}
        settings = self.settings.replace(**changes).with_files_read()
        if settings.seed is None:  # not another one after the run was continued
            settings = settings.replace(seed=self.settings.seed)
        settings.check()
        return settings


def windows(
    reader: PromptReader, prompts: PromptStream, size: int, skip: "Skip | None" = None
) -> Iterator[list[FilePrompt]]:
    """The prompts that are batched together: as many as `size`, or those that can be had without waiting.

    Args:
        reader: of the file.
        prompts: what it holds.
        size: most prompts of a window.
        skip: those that are done.
    """
    ignored = unused_columns(prompts.columns, reader.file)
    waiting = (reader.read(raw, ignored) for raw in prompts if skip is None or not skip(raw))
    while window := list(islice(waiting, 1)):
        while len(window) < size and prompts.ready() and (more := list(islice(waiting, 1))):
            window += more
        yield window
    if skip is not None and skip.seen < skip.done:
        raise skip.other_input


class Skip:
    """Which prompts of a file are done already.

    Args:
        done: how many from the beginning.
        ahead: numbers of others.
        digest: of the input that holds the first `done`, where it is a stream; else empty.

    Raises:
        UserError: when called with a prompt that shows that the input is another one.
    """

    def __init__(self, done: int, ahead: Sequence[int], digest: str) -> None:
        self.done, self.ahead, self.digest, self.seen = done, set(ahead), digest, 0

    @property
    def other_input(self) -> UserError:
        """The error for an input that was exchanged."""
        return UserError(
            "the prompts that are read from the pipe are not those that the output-file was begun with: give the same, "
            "or begin anew with --force"
        )

    def __call__(self, raw: RawPrompt) -> bool:
        self.seen = raw.number + 1
        if self.digest and self.seen == self.done and raw.digest != self.digest:
            raise self.other_input
        return raw.number < self.done or raw.number in self.ahead


def batches(prompts: Sequence[FilePrompt], rows: int, tokenizer: PreTrainedTokenizerBase) -> list[list[FilePrompt]]:
    """Batches of prompts of the same settings and of similar lengths, that with the first prompt first.

    Args:
        prompts: without those that have an error.
        rows: texts to generate at a time.
        tokenizer: measures the prompts.
    """
    groups: dict[GenerationSettings, list[FilePrompt]] = {}
    for prompt in prompts:
        assert prompt.settings is not None
        groups.setdefault(prompt.settings, []).append(prompt)
    found = []
    for settings, group in groups.items():
        # As many as are generated at a time: whoever fails is found by generating its batch again, one by one.
        size = max(1, rows // max(settings.num_samples, settings.beam_size))
        if len(group) > size:
            encoded = tokenizer([prompt.text or "" for prompt in group], verbose=False).input_ids
            lengths = {prompt.number: len(ids) for prompt, ids in zip(group, encoded, strict=True)}
            group = sorted(group, key=lambda prompt: (lengths[prompt.number], prompt.number))
        found += [group[index : index + size] for index in range(0, len(group), size)]
    return sorted(found, key=lambda batch: min(prompt.number for prompt in batch))
