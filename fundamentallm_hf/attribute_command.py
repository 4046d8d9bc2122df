"""What `fundamentallm train-attribute` and `fundamentallm attributes` do. This file knows nothing of their options."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .attribute_training import train_words
from .attributes import BUNDLED, FOLDER, Attribute, check_name, known_attributes, user_folder
from .errors import UserError
from .terminal import Notes


def train(name: str, with_file: str, without_file: str, model: str | None, description: str, force: bool) -> None:
    """Make a words attribute out of two files with a text a line, and write it where it will be found.

    Raises:
        UserError: a file cannot be read, the attribute exists, or nothing tells the files apart.
    """
    check_name(name)
    place = user_folder()
    if model is not None:
        beside = Path(model).expanduser()
        if not beside.exists():
            raise UserError(
                f"there is no {model}: give a folder or a checkpoint on this machine, or leave --model out, and every "
                "model finds the attribute"
            )
        place = (beside if beside.is_dir() else beside.parent) / FOLDER
    folder = place / name
    if folder.exists() and not force:
        raise UserError(f"there is an attribute {name!r} in {place} already: choose another name, or --force")
    texts, others = _lines(with_file), _lines(without_file)
    notes = Notes()
    with notes.progress() as bar:
        task = bar.add_task("weighing words", total=None)
        made = train_words(texts, others, lambda done, total: bar.update(task, completed=done, total=total))
    about: dict[str, Any] = {
        "method": "log-odds ratios with an informative Dirichlet prior",
        "texts": {"with": made.texts[0], "without": made.texts[1]},
    }
    if made.separation is not None:
        about["held_out_auc"] = round(made.separation, 4)
    attribute = Attribute("words", description or f"words that tell {name} apart", made.weights, about=about)
    try:
        attribute.save(folder)
    except OSError as error:
        raise UserError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error
    most, least = _extremes(made.weights)
    click.echo(f"{'words':14}{len(made.weights):,}")
    click.echo(f"{'most':14}{most}\n{'least':14}{least}")
    told = "too few texts to hold some out" if made.separation is None else f"{made.separation:.3f} (0.5 is chance)"
    click.echo(f"{'held-out AUC':14}{told}")
    click.echo(f"{'written to':14}{folder}")


def show(model: str | None, **loading: Any) -> None:
    """List the attributes that a model can be guided by.

    Raises:
        UserError: there is no such model, or an attribute cannot be read.
    """
    found = known_attributes(_place_of(model, Notes(), **loading))
    width = max((len(name) for name, _, _ in found), default=0) + 2
    for name, where, attribute in found:
        size = f"{len(attribute.words)} words" if attribute.kind == "words" else "two prompts"
        click.echo(f"{name:{width}}{attribute.description} ({size}, {WHERE[where]})")
    if not found:
        click.echo("no attributes")


WHERE = {"model": "beside the model", "user": "your own", "package": "comes with fundamentallm"}


class _Place:
    """As much of a model as attributes are found by: there is no need to load it."""

    def __init__(self, name_or_path: str) -> None:
        self.name_or_path = name_or_path


def _place_of(model: str | None, notes: Notes, revision: str | None = None) -> _Place:
    if model is None:
        return _Place(str(BUNDLED.parent))
    path = Path(model).expanduser()
    if path.exists():
        return _Place(str(path))
    if path.suffix == ".pt" or model.startswith((".", "/", "~")):
        raise UserError(f"there is no {model}: give a checkpoint, a folder or a Hub id such as user/name")
    from .hub_files import fetch

    def choose(names: Sequence[str]) -> list[str]:
        return [name for name in names if name.startswith(f"{FOLDER}/") or name == "config.json"]

    return _Place(str(fetch(model, revision, choose=choose, notice=notes.say).folder))


def _lines(file: str) -> list[str]:
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {file!r}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file!r} has to be UTF-8 text but is not (byte {error.start})") from error
    return [line for line in text.splitlines() if line.strip()]


def _extremes(weights: dict[str, float], number: int = 8) -> tuple[str, str]:
    ordered = list(weights)  # those that say most come first
    most = [word for word in ordered if weights[word] > 0][:number]
    least = [word for word in ordered if weights[word] < 0][:number]
    return ", ".join(most), ", ".join(least)
