"""The command `fundamentallm`: declares its commands and options, and hands them on.

Nothing heavy is imported before the options are known to be right, so `--help` answers at once. This file knows nothing
of how the work is done.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import click

from .errors import UserError
from .generate_command import load, run
from .options import OUTPUT, PROMPT, GroupedCommand, given, model_options, option, setting_options
from .output import FORMATS
from .terminal import Commands, Notes, prepare_process

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
SHELLS = ("bash", "zsh", "fish")


def _no_color(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.color = False


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(package_name="fundamentallm-hf", prog_name="fundamentallm")
def cli() -> None:
    """FundamentaLLM's language models in the Hugging Face ecosystem."""


@cli.command(cls=GroupedCommand, context_settings=CONTEXT)
@click.argument("model", required=False)
@option(
    PROMPT, "--prompt", multiple=True, help="How the text begins; - reads it from stdin. May be given several times."
)
@option(
    PROMPT,
    "--prompts-file",
    type=click.Path(),
    metavar="FILE",
    help="A file with one prompt a line, empty lines left out; - is stdin.",
)
@option(
    PROMPT,
    "--escape/--no-escape",
    default=True,
    show_default="on",
    help="Read \\n, \\t, \\x41 and \\u00e9 in prompts and stop texts as the characters they stand for.",
)
@option(
    PROMPT,
    "--config",
    type=click.Path(),
    metavar="FILE",
    help="Settings by name in JSON or YAML, or one line of a jsonl file, which writes its text again; - is stdin. "
    "Options that are given win.",
)
@option(
    PROMPT,
    "--interactive",
    is_flag=True,
    help="Ask for one prompt after the other; /help tells there what else can be done.",
)
@setting_options
@model_options
@option(
    OUTPUT,
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="How texts are written.",
)
@option(
    OUTPUT,
    "--output-file",
    type=click.Path(),
    metavar="FILE",
    help="Write the texts to a file, whole or not at all.",
)
@option(OUTPUT, "--force", is_flag=True, help="Replace the output file if it exists.")
@option(OUTPUT, "--append", is_flag=True, help="Write behind what the output file holds.")
@option(
    OUTPUT,
    "--show-probs",
    is_flag=True,
    help="Show the likeliest next tokens before the text; in JSON, for every token of it, too.",
)
@option(OUTPUT, "--probs-only", is_flag=True, help="Show the likeliest next tokens and write no text.")
@option(
    OUTPUT,
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="How many texts to write at a time. Changes the speed and the memory it takes, not the texts.",
)
@option(OUTPUT, "--quiet", "-q", is_flag=True, help="Nothing on stderr but errors.")
@option(OUTPUT, "--no-color", is_flag=True, expose_value=False, callback=_no_color, help="No colour, as with NO_COLOR.")
@click.pass_context
def generate(ctx: click.Context, /, **options: Any) -> None:
    """Write text with MODEL.

    MODEL is a FundamentaLLM checkpoint (final_model.pt or its folder), a Hugging Face folder, or a Hub id such as
    user/name or user/name@revision. Without MODEL, the bundled story model writes.

    \b
    fundamentallm generate --prompt "Once upon a time" --temperature 0.8 --top-p 0.9
    fundamentallm generate my_model/final_model.pt --prompt "The wizard" --max-tokens 500
    fundamentallm generate my_model/final_model.pt --interactive
    """
    run(options, given(ctx))


@cli.command(context_settings=CONTEXT)
@click.argument("checkpoint")
@click.argument("folder")
@click.option("--force", is_flag=True, help="Replace FOLDER if it holds something.")
def convert(checkpoint: str, folder: str, force: bool) -> None:
    """Turn a FundamentaLLM CHECKPOINT into a Hugging Face FOLDER.

    CHECKPOINT is a .pt file, the folder that holds it, or the Hub id of a repository that holds it. The folder is
    written whole or not at all, and loads with pipeline("text-generation", model=FOLDER).

    \b
    fundamentallm convert my_model/final_model.pt my_model_hf
    """
    from transformers.utils import logging

    from .checkpoint import convert_checkpoint
    from .loading import find_checkpoint

    logging.disable_progress_bar()
    source = find_checkpoint(checkpoint, Notes().say)
    click.echo(convert_checkpoint(source, folder, force=force))


@cli.command(context_settings=CONTEXT)
@click.argument("model_and_file", nargs=-1, required=True, metavar="[MODEL] TEXT_FILE")
@click.option("--window", type=int, help="Tokens the model sees at once.  [default: all it can, 1024 at most]")
@click.option("--stride", type=int, help="Tokens the window moves on by.  [default: half of it]")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Windows at a time.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--save", is_flag=True, help="Keep the result beside MODEL, for its card.")
@click.option("--name", metavar="TEXT", help="What the text is called there.  [default: the name of the file]")
@click.option("--dataset", metavar="ID", help="The data set on the Hub that the text is from.")
@model_options
def evaluate(
    model_and_file: tuple[str, ...],
    window: int | None,
    stride: int | None,
    batch_size: int,
    form: str,
    save: bool,
    name: str | None,
    dataset: str | None,
    **loading: Any,
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
    from .evaluation import evaluate as measure
    from .evaluation import read_text
    from .records import add_evaluation, evaluation_place

    place = evaluation_place(model, loading["dtype"]) if save else None
    text = read_text(model_and_file[-1])
    notes = Notes()
    loaded = load(model, notes, **loading)
    with notes.progress() as bar:
        task = bar.add_task("evaluating", total=None)
        result = measure(
            loaded,
            loaded.tokenizer,
            text,
            window=window,
            stride=stride,
            batch_size=batch_size,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if place is not None:
        add_evaluation(place, loaded, result.to_dict(), name or Path(model_and_file[-1]).stem, dataset)
    if form == "json":
        click.echo(json.dumps(result.to_dict()))
    else:
        for name, value in result.to_dict().items():
            shown = f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
            click.echo(f"{name.replace('_', ' '):20}{shown:>12}")


@cli.command("train-attribute", context_settings=CONTEXT)
@click.argument("name")
@click.option("--with", "with_file", metavar="FILE", help="Texts that have the attribute, one a line.")
@click.option("--without", "without_file", metavar="FILE", help="Texts that lack it, one a line.")
@click.option(
    "--kind",
    type=click.Choice(["words", "experts"]),
    help="Weighted words, for any model; or a pair of experts trained on top of MODEL, for that one.  [default: words]",
)
@click.option("--classifier", metavar="NAME", help="Instead of texts, a text classifier: its folder or Hub id.")
@click.option("--label", metavar="NAME", help="Which of the classifier's labels to lean towards.")
@click.option("--openings", metavar="FILE", help="With both: beginnings of what the model writes, one a line.")
@click.option("--texts", metavar="N", type=click.IntRange(min=8), help="How many it writes.  [default: 4000]")
@click.option("--tokens", metavar="N", type=click.IntRange(min=1), help="How long they are.  [default: 300]")
@click.option("--model", metavar="MODEL", help="Write it beside this model, with which it travels.")
@click.option("--description", default="", help="What it does, in a line.")
@click.option("--force", is_flag=True, help="Replace an attribute of this name.")
def train_attribute(name: str, **options: Any) -> None:
    """Make the attribute NAME, for generate --guide-attribute NAME, out of texts that have it and texts that lack it.

    Without --model it is kept among your own attributes, where every model finds it, and experts are trained on the
    bundled story model. Held-out texts tell how well it tells the two sides apart.

    A classifier guides by itself, at the price of being asked in every step. With --kind experts it is only the
    teacher: the model writes texts, the classifier sorts them, and experts learn from those at both ends.

    \b
    fundamentallm train-attribute formal --with letters.txt --without chats.txt
    fundamentallm train-attribute formal --with letters.txt --without chats.txt --kind experts --model my_model_hf
    fundamentallm train-attribute glad --classifier user/reviews --label POSITIVE
    fundamentallm train-attribute glad --classifier user/reviews --label POSITIVE --kind experts --openings starts.txt
    """
    from .attribute_command import make

    make(name, **options)


@cli.command(context_settings=CONTEXT)
@click.argument("model", required=False)
@click.option("--revision", metavar="NAME", help="Branch, tag or commit of a model on the Hub.")
def attributes(model: str | None, revision: str | None) -> None:
    """List the attributes that MODEL can be guided by, with what each does.

    They lie beside it, among your own, or come with this package. Without MODEL, those of the bundled story model.
    """
    from .attribute_command import show

    show(model, revision=revision)


@cli.command(context_settings=CONTEXT)
@click.argument("model_and_name", nargs=-1, required=True, metavar="[MODEL] USER/NAME")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--revision", metavar="NAME", help="The branch to commit to; it is made if it is not there.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--message", metavar="TEXT", help="What the commit says.  [default: Upload USER/NAME]")
@click.option("--license", metavar="ID", help="The model's licence, by the Hub's name for it, such as mit.")
@click.option("--dry-run", is_flag=True, help="List what would be sent, with sizes in bytes, and send nothing.")
@click.option("--trust-remote-code", is_flag=True, help="Run the code of a MODEL that is none of FundamentaLLM's.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on stderr but errors.")
def push(model_and_name: tuple[str, ...], **options: Any) -> None:
    """Publish MODEL on the Hub as USER/NAME, in one commit.

    Weights, tokenizer, generation config, attributes, code for trust_remote_code and a card are sent; a checkpoint is
    converted first. Nothing is sent that holds optimizer state, paths of this machine, tokens or pickles. What was
    interrupted goes on with the same command. Log in with `hf auth login`, or set HF_TOKEN. Without MODEL, the bundled
    story model is sent.

    \b
    fundamentallm push my_model/final_model.pt user/stories --private
    fundamentallm push my_model_hf user/stories --create-pr --message "Train longer"
    """
    from .hub_command import push as publish

    publish(model_and_name, **options)


@cli.command(context_settings=CONTEXT)
@click.argument("name", metavar="USER/NAME")
@click.argument("folder", required=False)
@click.option("--revision", metavar="NAME", help="Branch, tag or commit; the same as behind an @ in USER/NAME.")
@click.option("--force", is_flag=True, help="Replace FOLDER if it holds something.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on stderr but errors.")
def pull(name: str, folder: str | None, **options: Any) -> None:
    """Get USER/NAME, or USER/NAME@REVISION, from the Hub.

    All files but pickles, checked against their checksums; nothing in them is run. FOLDER is written whole or not at
    all; without it the files stay where every MODEL argument finds them, also without a network. Prints where they are.

    \b
    fundamentallm pull user/stories
    fundamentallm pull user/stories@v1 stories
    """
    from .hub_command import pull as get

    get(name, folder, **options)


@cli.command(context_settings=CONTEXT)
@click.argument("folder")
@click.argument("name", required=False, metavar="[USER/NAME]")
@click.option("--license", metavar="ID", help="The model's licence, by the Hub's name for it, such as mit.")
@click.option("--language", multiple=True, metavar="CODE", help="A language it writes, such as en.")
@click.option(
    "--dataset", "datasets", multiple=True, metavar="ID", help="A data set on the Hub that it was trained on."
)
@click.option("--base-model", metavar="ID", help="The model on the Hub that it was trained from.")
def card(folder: str, name: str | None, **metadata: Any) -> None:
    """Write the card of the model in FOLDER, its README.md, out of what lies there.

    What you change, add or delete in it stays so when it is written again, here or by push, which writes it anyway.
    With USER/NAME its examples name the model on the Hub. --language and --dataset may be given several times.

    \b
    fundamentallm card my_model_hf user/stories --license mit --language en
    """
    from .model_card import update_card

    values = {key: list(value) if isinstance(value, tuple) else value for key, value in metadata.items()}
    click.echo(update_card(folder, repo_id=name, metadata=values))


@cli.command("push-controls", context_settings=CONTEXT)
@click.argument("name", metavar="USER/NAME")
@click.option("--output", metavar="FOLDER", help="Write the repository into FOLDER and send nothing.")
@click.option("--force", is_flag=True, help="Replace FOLDER if it holds something.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--revision", metavar="NAME", help="The branch to commit to; it is made if it is not there.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--message", metavar="TEXT", help="What the commit says.")
@click.option("--dry-run", is_flag=True, help="List what would be sent, with sizes in bytes, and send nothing.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on stderr but errors.")
def push_controls(name: str, **options: Any) -> None:
    """Publish the controls on the Hub as USER/NAME, for models that are not of this package.

    Whoever uses transformers can then write, without installing anything more, model.generate(**inputs,
    custom_generate="USER/NAME", trust_remote_code=True, must_include=["dragon"]).

    \b
    fundamentallm push-controls user/controlled-generation --dry-run
    fundamentallm push-controls user/controlled-generation
    """
    from .controls_command import push as publish

    publish(name, **options)


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Serve models over HTTP, as `transformers serve` does.

    Takes the OPTIONS of `transformers serve`. Controls travel in the "generation_config" of a request. With
    --continuous-batching, requests without controls are answered together, and others one by one beside them.
    """
    for needed in ("fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(needed) is None:
            raise UserError(f"serving needs the package {needed}: pip install 'fundamentallm-hf[serve]'")
    from transformers.cli.transformers import main as transformers_main

    from . import registration as registration
    from .serving import answer_with_controls

    answer_with_controls()
    sys.argv = ["transformers", "serve", *options]
    transformers_main()


@cli.command(context_settings=CONTEXT)
@click.option("--model", metavar="MODEL", help="As for generate.  [default: the bundled story model]")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other machines in.")
@click.option("--port", type=click.IntRange(1, 65535), help="Where it listens.  [default: 7860, or the next free one]")
@click.option("--open/--no-open", "browser", default=False, show_default="off", help="Open it in the browser.")
@model_options
def space(**options: Any) -> None:
    """Start the web demo: a page on which one sees what every control does.

    It is also a server for programs, with named endpoints and an MCP server; the page tells how to use them.

    \b
    fundamentallm space
    fundamentallm space --model my_model/final_model.pt --port 8000
    """
    from .space_command import serve_page

    serve_page(**options)


@cli.command(context_settings=CONTEXT)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes SHELL complete the command's options.

    \b
    eval "$(fundamentallm completion bash)"           # in ~/.bashrc
    eval "$(fundamentallm completion zsh)"            # in ~/.zshrc
    fundamentallm completion fish > ~/.config/fish/completions/fundamentallm.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "fundamentallm", "_FUNDAMENTALLM_COMPLETE").source())


def main() -> None:
    """Run the command line."""
    try:
        prepare_process()
        cli(prog_name="fundamentallm")
    except KeyboardInterrupt:
        sys.exit(130)
