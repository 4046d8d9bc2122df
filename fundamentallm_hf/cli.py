"""The command `fundamentallm`: reads options, calls the library, prints.

Texts and results go to stdout, everything else to stderr. A wrong use exits with 2, a failure with 1, each with one
line. Nothing heavy is imported before the options are known to be right, so `--help` answers at once.
"""

import codecs
import importlib.util
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import UserError
from .settings import SETTINGS, GenerationSettings, Setting

if TYPE_CHECKING:
    from rich.progress import Progress
    from transformers import PreTrainedModel

    from .generation import Completion, Generator

# Half a surrogate pair is no character, so its escape stays as it was typed.
ESCAPE = re.compile(
    r"\\(?:[\\ntr]|x[\da-fA-F]{2}|u(?![dD][89a-fA-F])[\da-fA-F]{4}|U(?:0010|000[1-9a-fA-F])[\da-fA-F]{4})"
)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class SettingType(click.ParamType):
    """Lets a setting check its own values."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = {int: "integer", float: "number", bool: "boolean"}.get(setting.kind, "text")

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return f"[{'|'.join(self.setting.choices)}]" if self.setting.choices else None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.setting.parse(value)
        except UserError as error:
            self.fail(str(error).partition(" ")[2], param, ctx)


class GroupedCommand(click.Command):
    """A command whose help shows the settings under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                setting = SETTINGS.get(param.name or "")
                groups.setdefault(setting.group if setting else "Options", []).append(record)
        for heading in sorted(groups, key=lambda name: name == "Options"):
            with formatter.section(heading):
                formatter.write_dl(groups[heading])


def _joined(ctx: click.Context, param: click.Parameter, lists: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """The entries of an option that may be given several times, each of which may hold several."""
    return tuple(itertools.chain.from_iterable(lists))


def setting_options(command: Callable) -> Callable:
    """An option for every setting, in the order of the table."""
    for setting in reversed(SETTINGS.values()):
        switch = setting.kind is bool
        command = click.option(
            f"--{setting.label}/--no-{setting.label}" if switch else f"--{setting.label}",
            setting.name,
            type=bool if switch else SettingType(setting),
            default=setting.default,
            show_default=setting.default not in (None, ()),
            multiple=setting.kind is tuple,
            callback=_joined if setting.kind is tuple else None,
            help=setting.help,
        )(command)
    return command


def model_options(command: Callable) -> Callable:
    """The options that say where the model runs."""
    device = click.option("--device", default="auto", show_default=True, metavar="[auto|cpu|cuda|mps]", help="Run on.")
    revision = click.option("--revision", help="Branch, tag or commit of a model on the Hub.")
    return device(revision(command))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What the user can put right becomes one line on stderr and exit code 1."""
    try:
        yield
    except UserError as error:
        raise click.ClickException(str(error)) from None


def load(model: str | None, device: str, revision: str | None) -> "PreTrainedModel":
    """Load a model with nothing on stderr but what matters."""
    from transformers.utils import logging

    from .loading import load_model

    logging.disable_progress_bar()
    return load_model(model, device=device, revision=revision)


def say(text: str) -> None:
    """One line on stderr."""
    click.echo(f"note: {text}", err=True)


def unescape(text: str) -> str:
    r"""`\n`, `\t`, `\x41`, `\u00e9` and a doubled backslash as characters, the rest as it was typed."""
    return ESCAPE.sub(lambda escape: codecs.decode(escape[0], "unicode_escape"), text)


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="fundamentallm")
def cli() -> None:
    """FundamentaLLM's language models in the Hugging Face ecosystem."""


@cli.command(cls=GroupedCommand, context_settings=CONTEXT)
@click.argument("model", required=False)
@click.option("--prompt", help="How the text begins; - reads it from stdin.  [default: empty]")
@click.option(
    "--escape/--no-escape", default=True, show_default=True, help="Read \\n in prompt and stop as a line break."
)
@click.option("--interactive", is_flag=True, help="Ask for one prompt after the other; /help lists what else it does.")
@setting_options
@model_options
def generate(
    model: str | None,
    prompt: str | None,
    escape: bool,
    interactive: bool,
    device: str,
    revision: str | None,
    **settings: Any,
) -> None:
    """Write text with MODEL.

    MODEL is a FundamentaLLM checkpoint (final_model.pt or its folder), a Hugging Face folder, or a Hub id such as
    user/name or user/name@revision. Without MODEL, the bundled story model writes.

    \b
    fundamentallm generate --prompt "Once upon a time" --temperature 0.8 --top-p 0.9
    fundamentallm generate my_model/final_model.pt --prompt "The wizard" --max-tokens 500
    fundamentallm generate my_model/final_model.pt --interactive
    """
    if interactive and prompt == "-":
        raise click.UsageError("--interactive reads stdin itself: give it entries there, or leave out --prompt -")
    with one_line_errors():
        if escape:
            settings["stop"] = [unescape(text) for text in settings["stop"]]
        chosen = GenerationSettings(**settings)
        chosen.check()
        if interactive:
            from .interactive import run_loop

            pinned = {model: revision}  # the revision is of this model, not of those that /model names
            read = unescape if escape else str
            run_loop(lambda name: load(name, device, pinned.get(name)), model, chosen, prompt, read)
            return
        text = _read_stdin() if prompt == "-" else prompt or ""
        if escape and prompt != "-":
            text = unescape(text)
        loaded = load(model, device, revision)
        from .generation import Generator

        generator = Generator(loaded, notice=say, **chosen.to_dict())
        if chosen.num_samples == 1:
            _stream(generator, text)
        else:
            _print_samples(generator.complete(text))


def _read_stdin() -> str:
    if sys.stdin.isatty():
        say("reading the prompt from the terminal, end it with Ctrl-D")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"the prompt on stdin is not UTF-8 text (byte {error.start})") from None


def _stream(generator: "Generator", prompt: str) -> None:
    with generator.stream(prompt) as stream:
        pieces = iter(stream)
        # The prompt waits for the first piece, so that a refusal leaves stdout empty.
        first = next(pieces, "")
        click.echo(prompt, nl=False)
        for piece in itertools.chain([first], pieces):
            click.echo(piece, nl=False)
            sys.stdout.flush()
        click.echo()
    _explain_end(stream.result)


def _print_samples(completions: "list[Completion]") -> None:
    for number, completion in enumerate(completions, 1):
        seed = "" if completion.seed is None else f", seed {completion.seed}"
        click.echo(f"--- sample {number} of {len(completions)}{seed} ---", err=True)
        click.echo(completion.text)
        _explain_end(completion)


def _explain_end(completion: "Completion") -> None:
    if completion.finish_reason == "window":
        say("the text fills the model's window; --overflow slide goes on from its last part")
    if completion.finish_reason == "blocked":
        say("the controls leave no continuation of the text, so it ends here: loosen them to go on")


@cli.command(context_settings=CONTEXT)
@click.argument("checkpoint")
@click.argument("folder")
@click.option("--force", is_flag=True, help="Replace FOLDER if it holds something.")
def convert(checkpoint: str, folder: str, force: bool) -> None:
    """Turn a FundamentaLLM CHECKPOINT into a Hugging Face FOLDER.

    CHECKPOINT is a .pt file or the folder that holds it. The folder is written whole or not at all, and loads with
    pipeline("text-generation", model=FOLDER).

    \b
    fundamentallm convert my_model/final_model.pt my_model_hf
    """
    with one_line_errors():
        from transformers.utils import logging

        from .checkpoint import convert_checkpoint

        logging.disable_progress_bar()
        click.echo(convert_checkpoint(checkpoint, folder, force=force))


@cli.command(context_settings=CONTEXT)
@click.argument("model_and_file", nargs=-1, required=True, metavar="[MODEL] TEXT_FILE")
@click.option("--window", type=int, help="Tokens the model sees at once.  [default: all it can, 1024 at most]")
@click.option("--stride", type=int, help="Tokens the window moves on by.  [default: half of it]")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Windows at a time.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@model_options
def evaluate(
    model_and_file: tuple[str, ...],
    window: int | None,
    stride: int | None,
    batch_size: int,
    form: str,
    device: str,
    revision: str | None,
) -> None:
    """Measure how well MODEL predicts the text in TEXT_FILE.

    Works for any causal language model; bits per character compare across tokenizers. Without MODEL, the bundled
    story model is measured.

    \b
    fundamentallm evaluate my_model/final_model.pt held_out.txt
    """
    if len(model_and_file) > 2:
        raise click.UsageError(f"expected [MODEL] TEXT_FILE but got {len(model_and_file)} arguments")
    model = model_and_file[0] if len(model_and_file) == 2 else None
    with one_line_errors():
        from .evaluation import evaluate as measure
        from .evaluation import read_text

        text = read_text(model_and_file[-1])
        loaded = load(model, device, revision)
        with _progress() as progress:
            task = progress.add_task("evaluating", total=None)
            result = measure(
                loaded,
                loaded.tokenizer,
                text,
                window=window,
                stride=stride,
                batch_size=batch_size,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        if form == "json":
            click.echo(json.dumps(result.to_dict()))
        else:
            for name, value in result.to_dict().items():
                shown = f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
                click.echo(f"{name.replace('_', ' '):20}{shown:>12}")


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Serve models over HTTP, as `transformers serve` does.

    Takes the OPTIONS of `transformers serve`. Controls travel in the "generation_config" of a request.
    """
    with one_line_errors():
        for needed in ("fastapi", "uvicorn", "openai"):
            if importlib.util.find_spec(needed) is None:
                raise UserError(f"serving needs the package {needed}: pip install 'fundamentallm-hf[serve]'")
        from transformers.cli.transformers import main as transformers_main

        from . import registration as registration

        sys.argv = ["transformers", "serve", *options]
        transformers_main()


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def main() -> None:
    """Run the command line."""
    try:
        cli(prog_name="fundamentallm")
    except KeyboardInterrupt:
        sys.exit(130)
