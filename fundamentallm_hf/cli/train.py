"""What `fundamentallm train` does, and its options out of the table of training options."""

import os
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from fundamentallm_hf.training.training_options import SHAPE_DEFAULTS, TrainingOptions, number_of

from .options import option


def training_options(command: Callable) -> Callable:
    """An option for every training option but the files and the folder, in the order of the table."""
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


def train(files: tuple[str, ...], quiet: bool, **options: Any) -> None:
    """Train a model and print its folder.

    Raises:
        UsageError: options contradict each other.
        UserError: see `train_model`.
    """
    checked = TrainingOptions(files=files, **options)
    # Texts are encoded once, and data loaders that fork would have it warn.
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
