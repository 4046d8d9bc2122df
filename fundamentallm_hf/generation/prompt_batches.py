"""Checks the ids and settings of a file's prompts, and groups the prompts into batches."""

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

# Number of batches to read at a time. With more, the prompts of a batch are closer in length; with fewer, texts that
# are written in order wait less for earlier ones.
AHEAD = 4
_KEPT_SETTINGS = 256


@dataclass(frozen=True)
class FilePrompt:
    """One prompt of a file.

    Attributes:
        number: index among the prompts of the file.
        line: number of its first line in the file, from 1.
        id: from the file, or else `line`.
        text: the prompt; None if it could not be read.
        settings: of its texts; None if there is an error.
        error: why no text can be generated; empty if there is no error.
        digest: of the input up to this prompt, for a stream.
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
        """Number of texts to write for it."""
        assert self.settings is not None
        return self.settings.best or self.settings.num_samples


class PromptReader:
    """Checks the prompts of a file, and combines their settings with those of the run.

    Args:
        file: the file of prompts.
        settings: of the run, checked; a prompt may override them.
    """

    def __init__(self, file: PromptsFile, settings: GenerationSettings) -> None:
        self.file, self.settings = file, settings
        # Many prompts of a file have the same settings.
        self._with = lru_cache(maxsize=_KEPT_SETTINGS)(self._checked)

    def read(self, raw: RawPrompt, ignored: Sequence[str] = ()) -> FilePrompt:
        """The checked prompt; one with an error if its id, text or settings are invalid.

        Args:
            raw: the prompt as the file contains it.
            ignored: columns to leave out.
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
        if settings.seed is None:  # a continued run has to use the same seed
            settings = settings.replace(seed=self.settings.seed)
        settings.check()
        return settings


def windows(
    reader: PromptReader, prompts: PromptStream, size: int, skip: "Skip | None" = None
) -> Iterator[list[FilePrompt]]:
    """Yield groups of prompts to form batches from: `size` prompts, or fewer if reading more would block.

    Args:
        reader: checks the prompts.
        prompts: the open file.
        size: maximum number of prompts in a group.
        skip: the prompts that are finished already.

    Raises:
        UserError: the input is not the one that the run was started with.
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
    """The prompts that an earlier run has finished. Called with a prompt, it returns whether to skip it.

    Args:
        done: number of finished prompts at the start of the file.
        ahead: numbers of finished prompts after those.
        digest: of the input up to the last of the first `done` prompts, for a stream; else empty.

    Raises:
        UserError: when called, if the input is not the one that the run was started with.
    """

    def __init__(self, done: int, ahead: Sequence[int], digest: str) -> None:
        self.done, self.ahead, self.digest, self.seen = done, set(ahead), digest, 0

    @property
    def other_input(self) -> UserError:
        """The error for a changed input."""
        return UserError(
            "the prompts from the pipe are not those that the output-file was started with: give the same prompts, or "
            "start again with --force"
        )

    def __call__(self, raw: RawPrompt) -> bool:
        self.seen = raw.number + 1
        if self.digest and self.seen == self.done and raw.digest != self.digest:
            raise self.other_input
        return raw.number < self.done or raw.number in self.ahead


def batches(prompts: Sequence[FilePrompt], rows: int, tokenizer: PreTrainedTokenizerBase) -> list[list[FilePrompt]]:
    """Group prompts of equal settings and similar lengths into batches, sorted by the first prompt of each.

    Args:
        prompts: prompts without errors.
        rows: number of texts to generate at a time.
        tokenizer: used to measure the prompts.
    """
    groups: dict[GenerationSettings, list[FilePrompt]] = {}
    for prompt in prompts:
        assert prompt.settings is not None
        groups.setdefault(prompt.settings, []).append(prompt)
    found = []
    for settings, group in groups.items():
        # No larger than what is generated at a time: if a prompt fails, its batch is split and generated again.
        size = max(1, rows // max(settings.num_samples, settings.beam_size))
        if len(group) > size:
            encoded = tokenizer([prompt.text or "" for prompt in group], verbose=False).input_ids
            lengths = {prompt.number: len(ids) for prompt, ids in zip(group, encoded, strict=True)}
            group = sorted(group, key=lambda prompt: (lengths[prompt.number], prompt.number))
        found += [group[index : index + size] for index in range(0, len(group), size)]
    return sorted(found, key=lambda batch: min(prompt.number for prompt in batch))
