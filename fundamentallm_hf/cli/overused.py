"""`fundamentallm overused`."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import click

from fundamentallm_hf.portable.errors import UserError

from .load import load
from .options import CONTEXT, model_options
from .prompts import read_openings
from .terminal import Notes


@click.command(context_settings=CONTEXT)
@click.argument("model", required=False)
@click.option(
    "--compared-with",
    metavar="FILE",
    help="Texts by people, one per line.  [default: the counts of the words that MODEL was trained on]",
)
@click.option("--openings", metavar="FILE", help="Prompts for the model, one per line.")
@click.option("--texts", type=click.IntRange(min=1), default=400, show_default=True, help="Texts to generate.")
@click.option("--tokens", type=click.IntRange(min=1), default=300, show_default=True, help="Tokens of each, at most.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the texts.")
@click.option(
    "--ratio",
    type=click.FloatRange(min=1.0),
    default=2.0,
    show_default=True,
    help="List what the model writes at least this many times as often as people.",
)
@click.option("--most", type=click.IntRange(min=1), default=1000, show_default=True, help="Entries, at most.")
@click.option("--output", metavar="FILE", help="Write the list to this file.  [default: stdout]")
@click.option("--force", is_flag=True, help="Replace the file.")
@model_options
def overused(
    model: str | None,
    compared_with: str | None,
    openings: str | None,
    output: str | None,
    force: bool,
    **options: Any,
) -> None:
    """List the words and phrases that MODEL writes far more often than people do, with weights.

    The model generates texts, which are compared with texts by people. Each line of the list is a word or a phrase of
    two or three words, and the weight that makes it as rare as in the texts by people. generate --word-weights-file
    takes the list. Without MODEL, the bundled story model is meant. Phrases are compared only with --compared-with.

    \b
    fundamentallm overused my_model_hf --compared-with books.txt --output weights.txt
    fundamentallm generate my_model_hf --prompt "Once" --word-weights-file weights.txt
    """
    from fundamentallm_hf.files import OutputFile, read_lines
    from fundamentallm_hf.training.overused import Search, find_overused

    search = Search(**{name: options.pop(name) for name in ("texts", "tokens", "seed", "ratio", "most")})
    people = None if compared_with is None else read_lines(compared_with)
    begins = read_openings(openings)
    notes = Notes()
    with ExitStack() as stack:
        target = None
        if output is not None:
            way_out = "choose another name, or replace it with --force"
            target = stack.enter_context(OutputFile(output, force=force, name="the list", way_out=way_out))
        loaded = load(model, notes, **options)
        bar = stack.enter_context(notes.progress())
        task = bar.add_task("generating", total=None)
        weights = find_overused(
            loaded,
            loaded.tokenizer,
            _counts(loaded) if people is None else people,
            begins,
            search,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        lines = "".join(f"{entry}:{weight:g}\n" for entry, weight in weights.items())
        if target is not None:
            target.stream.write(lines)
    if not weights:
        notes.say(f"nothing is {search.ratio:g} times as frequent as in the texts by people")
    if target is None:
        click.echo(lines, nl=False)
    else:
        click.echo(f"{len(weights):,} entries written to {target.path}")


def _counts(model: Any) -> Mapping[str, float]:
    """The counts of the words that a model was trained on.

    Raises:
        UserError: there are none.
    """
    from fundamentallm_hf.portable.decoding.sidecar_files import own_word_counts

    counts = own_word_counts(model)
    if counts is None:
        raise UserError("there are no word counts next to this model: give texts by people as --compared-with FILE")
    return counts.counts
