"""What `fundamentallm generate` does once its options are read: checks them, loads the model, writes the texts.

Everything that can be refused without the model is refused before it is loaded. This file knows nothing of how options
are declared or of how texts are written into files.
"""

import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.portable.guides.attributes import Attribute, is_path, read_guides
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings
from fundamentallm_hf.settings.typed_values import unescape

from .output import TOP, Output, OutputFile, check_output, end_note, prediction_lines
from .prompts import prompts_from_options, read_prompts
from .saved_settings import SavedSettings, read_settings
from .terminal import Notes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fundamentallm_hf.generation.completion import Completion
    from fundamentallm_hf.generation.generator import Generator

# What to do instead of what has no place beside --interactive.
INSTEAD = {
    "prompts-file": "give its lines on stdin",
    "output-file": "send stdout there",
    "format": "texts are written as they are",
    "show-probs": "/probs shows them",
    "probs-only": "/probs shows them",
}


@dataclass(frozen=True)
class Request:
    """What was asked for, checked.

    Attributes:
        prompts: at least one, but where more can be typed.
        settings: of the generation.
        model: where it is; None is the bundled one.
        loading: the options by which it is loaded.
        form: "text", "json" or "jsonl".
        sample: the only sample that is meant, where settings write several; None for all.
        batch_size: texts to write at a time.
        show_probs: show the likeliest next tokens, too.
        probs_only: show nothing else.
        attributes: those that are named by their folders.
    """

    prompts: list[str]
    settings: GenerationSettings
    model: str | None
    loading: dict[str, Any]
    form: str
    sample: int | None
    batch_size: int
    show_probs: bool
    probs_only: bool
    attributes: dict[str, Attribute]

    @property
    def kept(self) -> int:
        """Texts for each prompt."""
        return 1 if self.sample is not None else self.settings.best or self.settings.num_samples


def run(options: dict[str, Any], explicit: dict[str, Any]) -> None:
    """Generate what the command's options ask for.

    Args:
        options: every option by name.
        explicit: those that were given.

    Raises:
        UserError: something cannot be done as asked.
    """
    notes = Notes(options["quiet"])
    request = read_request(options, explicit)
    for text in request.settings.without_effect():
        notes.say(text)
    if options["interactive"]:
        _ask(request, options["escape"], notes)
        return
    with ExitStack() as stack:
        file = None
        if options["output_file"] is not None:
            file = OutputFile(options["output_file"], force=options["force"], append=options["append"])
            stack.enter_context(file)
        model = load(request.model, notes, **request.loading)
        lend_attributes(model, request.attributes)
        from fundamentallm_hf.generation.generator import Generator

        generator = Generator(model, notice=notes.say, **request.settings.to_dict())
        _write(generator, request, Output(request.form, _origin(request, model), request.settings, file), notes)


def load(model: str | None, notes: Notes, **options: Any) -> "PreTrainedModel":
    """Load a model with nothing on stderr but what matters."""
    with notes.busy(f"loading {model or 'the bundled model'}"):
        from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
        from transformers.utils import logging

        from fundamentallm_hf.model_io.loading import load_model

        unwanted = are_progress_bars_disabled()
        logging.disable_progress_bar()  # of reading weights, which takes a moment; it also disables the Hub's
        if notes.shows_progress and not unwanted:
            enable_progress_bars()
        if notes.quiet:
            logging.set_verbosity_error()
        return load_model(model, notice=notes.say, progress=notes.shows_progress, **options)


def read_request(options: dict[str, Any], explicit: dict[str, Any]) -> Request:
    """Put options, saved settings and prompts together.

    Raises:
        UsageError: they contradict each other, or hold what cannot be.
        UserError: a file cannot be read.
    """
    if options["interactive"]:
        _check_interactive(options)
    check_output(options["form"], options["output_file"], options["force"], options["append"])
    if "prompt" in explicit and options["prompts_file"] is not None:
        raise UsageError("prompt and prompts-file are both set: give the prompts in one of them")
    sources = [*options["prompt"], options["prompts_file"], options["config"]]
    if sources.count("-") > 1:
        raise UsageError(
            "- stands for stdin more than once among prompt, prompts-file and config: it is read only once"
        )
    saved = read_settings(options["config"]) if options["config"] is not None else SavedSettings()
    typed = {name: value for name, value in explicit.items() if name in SETTINGS}
    if options["escape"]:
        for name in (name for name in typed if SETTINGS[name].escaped):
            typed[name] = [unescape(text) for text in typed[name]]
    settings = GenerationSettings(**saved.settings | typed)
    settings.check()
    _check_probabilities(options, settings)
    if options["prompts_file"] is not None:
        prompts = read_prompts(options["prompts_file"], options["escape"])
    elif "prompt" in explicit or "prompt" not in saved.others:
        prompts = prompts_from_options(options["prompt"], options["escape"])
        prompts = prompts or ([] if options["interactive"] else [""])
    else:
        prompts = [saved.others["prompt"]]
    loading = {"trust_remote_code": options["trust_remote_code"]}
    for name in ("device", "dtype", "revision"):
        loading[name] = options[name] if name in explicit else saved.others.get(name, options[name])
    sample = saved.sample if "num_samples" not in typed and "best" not in typed else None
    if sample is not None and sample >= settings.num_samples:
        raise UsageError(f"sample is {sample} in the config, but num-samples writes only {settings.num_samples}")
    return Request(
        prompts=prompts,
        settings=settings,
        model=options["model"] or saved.others.get("model"),
        loading=loading,
        form=options["form"],
        sample=sample,
        batch_size=options["batch_size"],
        show_probs=options["show_probs"] or options["probs_only"],
        probs_only=options["probs_only"],
        attributes=_read_attributes(settings),
    )


def _read_attributes(settings: GenerationSettings) -> dict[str, Attribute]:
    """The attributes that the option names by their folders."""
    try:
        return {name: Attribute.load(name) for name in filter(is_path, read_guides(settings.guide_attribute))}
    except UserError as error:  # as with every option whose value names nothing
        raise UsageError(f"guide-attribute: {error}") from error


def lend_attributes(model: "PreTrainedModel", attributes: dict[str, Attribute]) -> None:
    """Let a model know attributes by the folders in which the user has said they lie."""
    if attributes:
        model.attributes = (getattr(model, "attributes", None) or {}) | attributes


def _check_interactive(options: dict[str, Any]) -> None:
    given = {name: options[name.replace("-", "_")] for name in INSTEAD if name != "format"}
    given["format"] = options["form"] != "text"
    for name, instead in INSTEAD.items():
        if given[name]:
            raise UsageError(f"{name} has no place beside interactive: {instead}")
    if "-" in (*options["prompt"], options["config"]):
        raise UsageError("interactive reads its entries from stdin, so - has no place beside it: give them there")


def _check_probabilities(options: dict[str, Any], settings: GenerationSettings) -> None:
    if not options["probs_only"]:
        return
    idle = {
        "num-samples": settings.num_samples > 1,
        "output-file": options["output_file"] is not None,
        f"format {options['form']}": options["form"] != "text",
    }
    for name, is_set in idle.items():
        if is_set:
            raise UsageError(f"probs-only writes no text, so {name} has no place beside it: use --show-probs")


def _origin(request: Request, model: "PreTrainedModel") -> dict[str, Any]:
    """What a record says of the model, so that it is found again: on the Hub, the commit and not a branch.

    What is as usual is left out. Whether to run a repository's code is never written down: it has to be said each time.
    """
    usual = {"device": "auto", "dtype": "auto", "revision": None}
    told = {name: request.loading[name] for name in usual if request.loading[name] != usual[name]}
    commit = getattr(model.config, "_commit_hash", None)
    if request.model is None or commit is None:
        return {"model": request.model} | told
    return {"model": request.model.partition("@")[0]} | told | {"revision": commit}


def _ask(request: Request, escape: bool, notes: Notes) -> None:
    """Ask for one prompt after the other."""
    from fundamentallm_hf.cli.interactive.loop import run_loop

    def load_named(model: str | None) -> "PreTrainedModel":
        # Which revision, and whether its code is trusted, was said of the one model and not of those /model names.
        others = {} if model == request.model else {"revision": None, "trust_remote_code": False}
        loaded = load(model, notes, **request.loading | others)
        lend_attributes(loaded, request.attributes)
        return loaded

    run_loop(
        load_named,
        request.model,
        request.settings,
        request.prompts,
        escape=escape,
        batch_size=request.batch_size,
        quiet=notes.quiet,
    )


def _write(generator: "Generator", request: Request, output: Output, notes: Notes) -> None:
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
    """The texts, as they are finished, with the predictions for their first token if those are wanted."""
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


def _show_predictions(generator: "Generator", prompts: Iterable[str]) -> None:
    listed = list(prompts)
    for number, prompt in enumerate(listed):
        if number:
            click.echo()
        _show(generator, prompt, len(listed) > 1, generator.next_tokens(prompt, top=TOP))


def _show(generator: "Generator", prompt: str, named: bool, next_tokens: Any) -> None:
    if named:
        click.echo(f"Prompt: {prompt}")
    more = generator.model.config.get_text_config().vocab_size > len(next_tokens)
    click.echo("\n".join(prediction_lines(next_tokens, more)))


def _stream(generator: "Generator", prompt: str, notes: Notes) -> None:
    with generator.stream(prompt) as stream:
        pieces = iter(stream)
        # The prompt waits for the first piece, so that a refusal leaves stdout empty.
        first = next(pieces, "")
        click.echo(prompt, nl=False)
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
