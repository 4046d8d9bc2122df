"""`fundamentallm train`, with an option for each of the training options."""

import os
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from fundamentallm_hf.training.training_options import SHAPE_DEFAULTS, TrainingOptions, number_of

from .options import CONTEXT, OUTPUT, GroupedCommand, option


def training_options(command: Callable) -> Callable:
    """Create an option for every training option except the files and the folder, in the order of the table."""
    for each in reversed(fields(TrainingOptions)):
        if each.name != "files":
            command = _option(each)(command)
    return command


def _option(each: Field) -> Callable[[Callable], Callable]:
    about, name = each.metadata, each.name.replace("_", "-")
    default = SHAPE_DEFAULTS.get(each.name, each.default)
    keywords: dict[str, Any] = {"help": about["help"]}
    if each.name == "output_dir":
        keywords |= {"required": True, "metavar": "FOLDER"}
    elif isinstance(default, bool):
        keywords |= {"is_flag": True, "default": default}
        name = f"{name}/--no-{name}"
    else:
        kind = number_of(each)
        keywords |= {"type": click.Choice(about["choices"]) if "choices" in about else kind or str}
        keywords |= {"default": each.default, "show_default": False}
        if "metavar" in about:
            keywords["metavar"] = about["metavar"]
        shown = about.get("shown") or (None if default in (None, "") else f"{default}")
        if shown:
            keywords["help"] += f"  [default: {shown}]"
    return option(about["group"], f"--{name}", each.name, **keywords)


@click.command(cls=GroupedCommand, context_settings=CONTEXT)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@training_options
@option(OUTPUT, "--quiet", "-q", is_flag=True, help="Print only errors to stderr.")
def train(files: tuple[str, ...], quiet: bool, **options: Any) -> None:
    """Train a model on the text in the FILEs.

    Trains a new model, whose vocabulary is the characters of the text, or with --init-from an existing one: a
    FundamentaLLM checkpoint or a Hugging Face folder. Reports progress in bits per character, also on held-out text.
    The same command continues a run that was interrupted. Prints the folder of the model, which generate and push take.

    \b
    fundamentallm train stories.txt --output-dir runs/stories --steps 2000
    fundamentallm train mine.txt --init-from my_model/final_model.pt --output-dir runs/mine --steps 200
    accelerate launch -m fundamentallm_hf train stories.txt --output-dir runs/stories
    """
    checked = TrainingOptions(files=files, **options)
    # Texts are encoded once; data loaders that fork would cause a warning.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from fundamentallm_hf.training.run_plan import last_checkpoint
    from fundamentallm_hf.training.train_model import train_model

    def notice(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    try:
        folder = train_model(checked, notice)
    except KeyboardInterrupt:
        checkpoint = last_checkpoint(Path(checked.output_dir))
        where = f"at {checkpoint.name}" if checkpoint else "at the beginning, since there is no checkpoint yet"
        notice(f"interrupted: the same command continues {where}")
        raise
    click.echo(folder)
