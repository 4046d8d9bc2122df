"""Generates the texts of a request and writes them: streamed, one after another, or with their probabilities."""

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from fundamentallm_hf.settings.chat_messages import Messages, started_reply

from .generate_request import Request
from .output import TOP, CompletionWriter, end_note, prediction_lines
from .terminal import Notes

if TYPE_CHECKING:
    from fundamentallm_hf.generation.completion import Completion
    from fundamentallm_hf.generation.generator import Generator


def write_texts(generator: "Generator", request: Request, output: CompletionWriter, notes: Notes) -> None:
    """Generate the texts of the request, and write them.

    Args:
        generator: with the request's settings.
        request: the prompts and options.
        output: the writer for texts that are not streamed.
        notes: for further messages, and the progress.
    """
    if request.probs_only:
        _show_predictions(generator, request.prompts)
        return
    alone = len(request.prompts) == 1 and request.kept == 1
    if request.form == "text" and output.file is None and alone and request.sample is None:
        if request.show_probs:
            _show_predictions(generator, request.prompts)
            click.echo()
        _stream(generator, request.prompts[0], notes)
        return
    number = 0
    total = len(request.prompts) * request.kept
    covered = output.file is None and request.form != "json" and sys.stdout.isatty()
    with notes.progress(shown=total > 1 and not covered) as bar:
        task = bar.add_task("writing", total=total)
        for completions, next_tokens in _batches(generator, request):
            for completion in completions:
                heading = "" if total == 1 else _heading(number, completion, request)
                if heading and request.form == "text" and output.file is None:
                    notes.head(heading)
                output.add(completion, heading, next_tokens)
                _explain_end(generator, completion, notes)
                number += 1
                bar.update(task, completed=number)
        output.finish()
    if output.file is not None:
        notes.say(f"{number} {'text' if number == 1 else 'texts'} written to {output.file.path}")


def _batches(generator: "Generator", request: Request) -> Iterator[tuple[list["Completion"], Any]]:
    """The texts, as they are finished, with the predictions for their first token if requested."""
    detailed = request.form != "text"
    options: dict[str, Any] = {"rows": request.batch_size, "scored": detailed}
    if request.show_probs and detailed:
        options["probabilities"] = TOP

    def chosen(completions: list["Completion"]) -> list["Completion"]:
        return (
            completions if request.sample is None else [each for each in completions if each.sample == request.sample]
        )

    if not request.show_probs:
        for completions in generator.iterate(request.prompts, **options):
            yield chosen(completions), ()
        return
    for prompt in request.prompts:
        next_tokens = generator.next_tokens(prompt, top=TOP)
        if not detailed:
            _show(generator, prompt, len(request.prompts) > 1, next_tokens)
            click.echo()
        for completions in generator.iterate([prompt], **options):
            yield chosen(completions), next_tokens


def _show_predictions(generator: "Generator", prompts: Iterable[str | Messages]) -> None:
    listed = list(prompts)
    for number, prompt in enumerate(listed):
        if number:
            click.echo()
        _show(generator, prompt, len(listed) > 1, generator.next_tokens(prompt, top=TOP))


def _show(generator: "Generator", prompt: str | Messages, named: bool, next_tokens: Any) -> None:
    if named:
        click.echo(f"Prompt: {prompt if isinstance(prompt, str) else prompt[-1]['content']}")
    more = generator.model.config.get_text_config().vocab_size > len(next_tokens)
    click.echo("\n".join(prediction_lines(next_tokens, more)))


def _stream(generator: "Generator", prompt: str | Messages, notes: Notes) -> None:
    with generator.stream(prompt) as stream:
        pieces = iter(stream)
        # The prompt waits for the first piece, so that an error leaves stdout empty.
        first = next(pieces, "")
        click.echo(prompt if isinstance(prompt, str) else started_reply(prompt) or "", nl=False)
        for piece in itertools.chain([first], pieces):
            click.echo(piece, nl=False)
            sys.stdout.flush()
        click.echo()
    _explain_end(generator, stream.result, notes)


def _heading(number: int, completion: "Completion", request: Request) -> str:
    parts = []
    if len(request.prompts) > 1:
        parts.append(f"prompt {number // request.kept + 1} of {len(request.prompts)}")
    if request.kept > 1:
        parts.append(f"sample {number % request.kept + 1} of {request.kept}")
    if completion.seed is not None:
        parts.append(f"seed {completion.seed}")
    return ", ".join(parts)


def _explain_end(generator: "Generator", completion: "Completion", notes: Notes) -> None:
    from fundamentallm_hf.portable.decoding.context_window import can_slide

    if text := end_note(completion.finish_reason, "--overflow slide" if can_slide(generator.model) else ""):
        notes.say(text)
