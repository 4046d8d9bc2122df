"""`fundamentallm generate`: its options, and their effects."""

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from fundamentallm_hf.files import OutputFile
from fundamentallm_hf.generation.processes import Processes
from fundamentallm_hf.generation.prompt_files import PROMPT_FORMATS

from .generate_request import Request, origin, read_request, streams_prompts
from .load import lend_attributes, load
from .options import CONTEXT, OUTPUT, PROMPT, GroupedCommand, given, model_options, option, setting_options
from .output import FORMATS, CompletionWriter
from .terminal import Notes
from .write_file import write_file
from .write_texts import write_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _no_color(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.color = False


@click.command(cls=GroupedCommand, context_settings=CONTEXT)
@click.argument("model", required=False)
@option(PROMPT, "--prompt", multiple=True, help="Start of the text; - reads it from stdin. May be given several times.")
@option(
    PROMPT,
    "--prompts-file",
    type=click.Path(),
    metavar="FILE",
    help="File with one prompt per line; empty lines are skipped; - is stdin. JSON lines, CSV and Parquet have "
    "settings for each prompt.",
)
@option(
    PROMPT,
    "--prompts-format",
    type=click.Choice(["auto", *PROMPT_FORMATS]),
    default="auto",
    show_default=True,
    help="What the prompts file holds; auto is by its name, and text for stdin.",
)
@option(
    PROMPT,
    "--prompt-column",
    default="prompt",
    show_default=True,
    metavar="NAME",
    help="Field or column of the prompts file that holds the prompt.",
)
@option(
    PROMPT,
    "--id-column",
    default="id",
    show_default=True,
    metavar="NAME",
    help="Field or column of the prompts file that holds the id of the prompt.",
)
@option(
    PROMPT,
    "--chat",
    is_flag=True,
    help="Answer each prompt as a message of a chat, through the model's chat template. A prompts file then holds one "
    'chat per line in JSON: a list of {"role": ..., "content": ...}.',
)
@option(PROMPT, "--system", metavar="TEXT", help="System message before the messages of --chat.")
@option(
    PROMPT,
    "--escape/--no-escape",
    default=True,
    show_default="on",
    help="Interpret \\n, \\t, \\x41 and \\u00e9 in prompts and stop strings as escapes.",
)
@option(
    PROMPT,
    "--config",
    type=click.Path(),
    metavar="FILE",
    help="File with settings by name in JSON or YAML, or with one line of jsonl output, whose text it reproduces; - is "
    "stdin. Options on the command line take precedence.",
)
@option(
    PROMPT,
    "--interactive",
    is_flag=True,
    help="Start a prompt loop; /help in it lists its commands.",
)
@option(
    PROMPT,
    "--resume",
    is_flag=True,
    help="Continue the last session of the prompt loop, with its texts, settings and model.",
)
@setting_options
@model_options
@option(
    OUTPUT,
    "--format",
    "form",
    type=click.Choice(FORMATS),
    show_default="text",
    help="Output format. For a prompts file with fields, or an output file called .jsonl for a prompts file, jsonl.",
)
@option(
    OUTPUT,
    "--output-file",
    type=click.Path(),
    metavar="FILE",
    help="Write the texts to a file: atomically, or, as jsonl for a prompts file, so that the same command continues "
    "where it was ended.",
)
@option(OUTPUT, "--force", is_flag=True, help="Replace the output file if it exists.")
@option(OUTPUT, "--append", is_flag=True, help="Append to the output file.")
@option(
    OUTPUT,
    "--unordered",
    is_flag=True,
    help="For a prompts file and jsonl, write the texts as they are finished, not in the order of the prompts.",
)
@option(
    OUTPUT,
    "--show-probs",
    is_flag=True,
    help="Show the most probable next tokens before the text; in JSON, for each of its tokens, too.",
)
@option(OUTPUT, "--probs-only", is_flag=True, help="Show the most probable next tokens and generate no text.")
@option(
    OUTPUT,
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Texts to generate at a time. Changes speed and memory use, not the texts.",
)
@option(OUTPUT, "--quiet", "-q", is_flag=True, help="Print only errors on stderr.")
@option(OUTPUT, "--no-color", is_flag=True, expose_value=False, callback=_no_color, help="No colour, as with NO_COLOR.")
@click.pass_context
def generate(ctx: click.Context, /, **options: Any) -> None:
    """Generate text with MODEL.

    MODEL is a FundamentaLLM checkpoint (final_model.pt or its folder), a Hugging Face folder, or a Hub id such as
    user/name or user/name@revision. Without MODEL, the bundled story model is used.

    \b
    fundamentallm generate --prompt "Once upon a time" --temperature 0.8 --top-p 0.9
    fundamentallm generate my_model/final_model.pt --prompt "The wizard" --max-tokens 500
    fundamentallm generate my_model/final_model.pt --interactive
    fundamentallm generate user/chat-model --chat --prompt "What do bees eat?" --bad-words honey
    """
    run(options, given(ctx))


def run(options: dict[str, Any], explicit: dict[str, Any]) -> None:
    """Run `generate` with the command's options.

    Args:
        options: every option by name.
        explicit: options given on the command line.

    Raises:
        UserError: a request cannot be fulfilled.
    """
    processes = Processes.of_launcher()
    notes = Notes(options["quiet"] or not processes.leads)
    if processes.size > 1 and not streams_prompts(options, explicit):
        if not processes.leads:
            return
        notes.say("several processes share only files of prompts: the first process does all the work")
    request = read_request(options, explicit)
    for text in request.settings.without_effect():
        notes.say(text)
    if options["interactive"]:
        _ask(request, options["escape"], notes)
        return
    request = replace(request, settings=request.settings.with_files_read())
    if request.prompts_file is not None:
        write_file(request, request.prompts_file, options, notes)
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
        output = CompletionWriter(request.form, origin(request, model), request.settings, file)
        write_texts(generator, request, output, notes)


def _ask(request: Request, escape: bool, notes: Notes) -> None:
    """Ask for one prompt after another."""
    from fundamentallm_hf.cli.interactive.loop import run_loop

    def load_named(model: str | None) -> "PreTrainedModel":
        # The revision and the permission to run code were given for the first model, not for those that /model names.
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
        resumed=request.resumed,
        chat=request.chat,
        system=request.system,
    )
