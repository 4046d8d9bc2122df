"""`fundamentallm evaluate`."""

import json
from pathlib import Path
from typing import Any

import click

from .load import load
from .options import CONTEXT, model_options
from .terminal import Notes


@click.command(context_settings=CONTEXT)
@click.argument("model_and_file", nargs=-1, required=True, metavar="[MODEL] TEXT_FILE")
@click.option("--window", type=int, help="Tokens of context per window.  [default: the context length, at most 1024]")
@click.option("--stride", type=int, help="Tokens between the starts of two windows.  [default: half the window]")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Windows per pass.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--save", is_flag=True, help="Save the result next to MODEL, for its card.")
@click.option("--name", metavar="TEXT", help="Name of the text in the card.  [default: the file name]")
@click.option("--dataset", metavar="ID", help="Hub id of the data set that the text is from.")
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
    story model is evaluated.

    \b
    fundamentallm evaluate my_model/final_model.pt held_out.txt
    """
    if len(model_and_file) > 2:
        raise click.UsageError(f"expected [MODEL] TEXT_FILE but got {len(model_and_file)} arguments")
    model = model_and_file[0] if len(model_and_file) == 2 else None
    from fundamentallm_hf.evaluation import add_evaluation, evaluation_file, read_text
    from fundamentallm_hf.evaluation import evaluate as measure

    record = evaluation_file(model, loading["dtype"]) if save else None
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
    if record is not None:
        add_evaluation(record, loaded, result.to_dict(), name or Path(model_and_file[-1]).stem, dataset)
    if form == "json":
        click.echo(json.dumps(result.to_dict()))
    else:
        for name, value in result.to_dict().items():
            shown = f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
            click.echo(f"{name.replace('_', ' '):20}{shown:>12}")
