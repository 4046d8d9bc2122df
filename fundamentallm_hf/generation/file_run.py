"""Generates the texts of a file of prompts in batches, and writes them in order or as they are finished.

A run that was killed can be continued; its output is the same as without the interruption.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fundamentallm_hf.files import json_text
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .completion import Completion, make_record
from .processes import Processes
from .prompt_batches import AHEAD, FilePrompt, PromptReader, Skip, batches, windows
from .prompt_files import PromptsFile
from .resumable_output import Finished, Output
from .run_digests import run_digests

if TYPE_CHECKING:
    from .generator import Generator

# Number of unexpected errors in a row that ends the run: the prompts are not the cause.
MOST_UNEXPECTED = 10

# Called with the number of finished prompts, and the number of tokens that this run has generated.
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class FileSummary:
    """The result of a run.

    Attributes:
        texts: number of texts in the output.
        errors: number of prompts with an error in the output.
        was_complete: whether an earlier run had finished all prompts.
    """

    texts: int
    errors: int
    was_complete: bool = False


@dataclass(frozen=True)
class FileOptions:
    """How to generate and write the texts of a file. No option changes a text.

    Attributes:
        rows: number of texts to generate at a time.
        unordered: write the texts as they are finished, not in the order of the prompts.
        origin: fields for every record that identify the model.
        probabilities: number of alternatives to each token in the records; 0 leaves the probabilities out.
        sample: index of the only sample to write for each prompt; None for all samples.
    """

    rows: int = 32
    unordered: bool = False
    origin: dict[str, Any] | None = None
    probabilities: int = 0
    sample: int | None = None


def run_file(
    generator: "Generator",
    file: PromptsFile,
    output: Output,
    settings: GenerationSettings,
    options: FileOptions,
    report: Report = lambda prompts, tokens: None,
    digest: str = "",
    processes: Processes | None = None,
) -> FileSummary:
    """Generate the texts of all prompts of a file.

    Args:
        generator: generates the texts with its model.
        file: the prompts.
        output: where to write the records.
        settings: of the run; a prompt may override them.
        options: how to generate and write.
        report: called after each batch.
        digest: of the file; computed if empty.
        processes: the connected processes that share the work. This one is the first; the others call `join_run`.

    Raises:
        UserError: the settings are invalid, or the output belongs to another run.
    """
    processes = processes or Processes()
    settings = settings.with_files_read()
    settings.check()
    plan = {
        "input": "pipe" if file.is_stream else digest or file.measure()[0],
        "reading": file.reading,
        "settings": settings.to_dict(),
        **_common_digests(generator, settings, processes),
        "record": {"origin": options.origin, "probabilities": options.probabilities, "sample": options.sample},
        "unordered": options.unordered,
    }
    complete, reachable = False, True
    try:
        output.begin(plan, secrets.randbits(32))
        before = output.state
        if not before.complete:
            seeded = settings if settings.seed is not None else settings.replace(seed=before.seed)
            _run(PromptReader(file, seeded), output, _BatchWriter(generator, options, processes), report)
        complete = True
    except UserError:
        raise
    except BaseException:  # perhaps during an exchange: the others notice when this process ends
        reachable = False
        raise
    finally:
        output.close(complete)
        if reachable:
            with suppress(UserError):
                processes.broadcast(None)
    return FileSummary(output.state.texts, output.state.errors, before.complete)


def join_run(generator: "Generator", settings: GenerationSettings, options: FileOptions, processes: Processes) -> None:
    """Generate the batches that the first process sends, until it sends no more.

    Args:
        generator: with the same model.
        settings: as those of the first process.
        options: as those of the first process.
        processes: the connected processes that share the work.
    """
    _common_digests(generator, settings, processes)
    writer = _BatchWriter(generator, options, processes)
    while (parts := processes.broadcast()) is not None:
        processes.gather(writer.assigned_part(parts))


def _common_digests(generator: "Generator", settings: GenerationSettings, processes: Processes) -> dict[str, Any]:
    """The digests of what the texts depend on, which have to be the same in all processes.

    Raises:
        UserError: they differ, or an attribute of the settings cannot be read.
    """
    gathered = processes.gather(run_digests(generator.model, generator.tokenizer, settings))
    for index, digests in enumerate(gathered):
        if changed := [name for name in digests if digests[name] != gathered[0][name]]:
            raise UserError(
                f"process {index} has loaded another {changed[0].replace('_', ' ')} than process 0: give all hosts the "
                "same files"
            )
    return gathered[0] if gathered else {}


def _run(reader: PromptReader, output: Output, writer: "_BatchWriter", report: Report) -> None:
    state, rows = output.state, writer.options.rows
    skip = Skip(state.done, [*state.ahead], state.digest)
    finished_prompts, tokens = state.done + len(state.ahead), 0
    report(finished_prompts, tokens)
    with reader.file.open() as prompts:
        for window in windows(reader, prompts, rows * AHEAD * writer.processes.size, skip):
            for finished in _in_turn(window, _finish(window, writer), writer.options.unordered):
                output.write(finished)
                finished_prompts += len(finished)
                tokens += sum(each.tokens for each in finished)
                report(finished_prompts, tokens)


def _finish(window: list[FilePrompt], writer: "_BatchWriter") -> Iterator[list[Finished]]:
    """Yield the finished prompts of a window, in any order."""
    if failed := [prompt for prompt in window if prompt.error]:
        yield [_failed(prompt, prompt.error) for prompt in failed]
    parts = batches([prompt for prompt in window if not prompt.error], writer.options.rows, writer.generator.tokenizer)
    if writer.processes.size == 1:
        yield from map(writer.write, parts)
    elif parts:
        writer.processes.broadcast(parts)
        yield from writer.processes.gather(writer.assigned_part(parts))


def _in_turn(window: list[FilePrompt], parts: Iterator[list[Finished]], unordered: bool) -> Iterator[list[Finished]]:
    """Yield the finished prompts of a window as soon as they can be written: in order, unless `unordered`."""
    if unordered:
        yield from parts
        return
    waiting: dict[int, Finished] = {}
    turns = iter([prompt.number for prompt in window])
    turn = next(turns, None)
    for part in parts:
        waiting |= {each.number: each for each in part}
        ready = []
        while turn in waiting:
            ready.append(waiting.pop(turn))
            turn = next(turns, None)
        if ready:
            yield ready


class _BatchWriter:
    """Generates batches of prompts.

    Args:
        generator: generates the texts with its model.
        options: how to generate and write.
        processes: the processes that share the batches.
    """

    def __init__(self, generator: "Generator", options: FileOptions, processes: Processes) -> None:
        self.generator, self.options, self.processes = generator, options, processes
        self._unexpected = 0

    def assigned_part(self, parts: Sequence[Sequence[FilePrompt]]) -> list[Finished]:
        """The finished prompts of the batches that are assigned to this process."""
        assigned = parts[self.processes.rank :: self.processes.size]
        return [finished for batch in assigned for finished in self.write(batch)]

    def write(self, batch: Sequence[FilePrompt]) -> list[Finished]:
        """Generate a batch of prompts of equal settings. If it fails, split it to find the prompts with errors.

        Raises:
            Exception: an unexpected error that occurs for `MOST_UNEXPECTED` prompts in a row.
        """
        try:
            found = [self._finished(prompt, texts) for prompt, texts in self._texts(batch)]
        except UserError as error:
            if len(batch) == 1:
                return [_failed(batch[0], str(error))]
        except Exception as error:
            if len(batch) == 1:
                self._unexpected += 1
                if self._unexpected == MOST_UNEXPECTED:
                    raise
                return [_failed(batch[0], f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")]
        else:
            self._unexpected = 0
            return found
        half = len(batch) // 2
        return self.write(batch[:half]) + self.write(batch[half:])

    def _texts(self, batch: Sequence[FilePrompt]) -> Iterator[tuple[FilePrompt, list[Completion]]]:
        settings = batch[0].settings
        assert settings is not None
        written = self.generator.iterate(
            [prompt.text or "" for prompt in batch],
            rows=self.options.rows,
            scored=True,
            probabilities=self.options.probabilities,
            **settings.to_dict(),
        )
        completions = [completion for part in written for completion in part]
        for index, prompt in enumerate(batch):
            yield prompt, completions[index * prompt.kept : (index + 1) * prompt.kept]

    def _finished(self, prompt: FilePrompt, completions: list[Completion]) -> Finished:
        assert prompt.settings is not None
        next_tokens: list[Any] = []
        if self.options.probabilities:
            changes = prompt.settings.to_dict()
            next_tokens = self.generator.next_tokens(prompt.text or "", top=self.options.probabilities, **changes)
        head = {"id": prompt.id, "line": prompt.line}
        lines = [
            json_text(head | make_record(completion, self.options.origin or {}, prompt.settings, next_tokens))
            for completion in completions
            if self.options.sample in (None, completion.sample)
        ]
        return Finished(prompt.number, lines, False, sum(each.tokens for each in completions), prompt.digest)


def _failed(prompt: FilePrompt, error: str) -> Finished:
    head: dict[str, Any] = {"id": prompt.id, "line": prompt.line}
    if prompt.text is not None:
        head["prompt"] = prompt.text
    return Finished(prompt.number, [json_text(head | {"error": error})], True, 0, prompt.digest)
