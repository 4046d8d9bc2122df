"""What `fundamentallm train-attribute` and `fundamentallm attributes` do. This file knows nothing of their options."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from fundamentallm_hf.files import is_local, local_path, read_text
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.portable.guides.attribute_lookup import BUNDLED, known_attributes, user_folder
from fundamentallm_hf.portable.guides.attributes import FOLDER, Attribute, check_name
from fundamentallm_hf.training.word_training import train_words

from .terminal import Notes

# Texts that a model writes for its own experts, their most tokens, and how many are judged between two signs of life.
TEXTS, TOKENS = 4000, 300
_JUDGED = 128


def make(name: str, **options: Any) -> None:
    """Make an attribute out of two files or a classifier, as the options of `fundamentallm train-attribute` say.

    Raises:
        UsageError: the options do not go together.
        UserError: see `train`, `from_classifier` and `from_own_texts`.
    """
    of_texts = {each: options.pop(each) for each in ("with_file", "without_file")}
    of_classifier = {each: options.pop(each) for each in ("classifier", "label")}
    of_own_texts = {each: options.pop(each) for each in ("openings", "texts", "tokens")}
    kind, own = options.pop("kind"), any(each is not None for each in of_own_texts.values())
    if own and (of_classifier["classifier"] is None or kind != "experts"):
        raise UsageError(
            "--openings, --texts and --tokens are for what a model writes itself: give --classifier and --kind experts"
        )
    if of_classifier["classifier"] is not None:
        if any(each is not None for each in of_texts.values()) or kind == "words":
            raise UsageError(
                "--classifier has no place beside --with, --without and --kind words: give a classifier or texts"
            )
        of_classifier["label"] = of_classifier["label"] or ""
        if kind == "experts":
            from_own_texts(name, **of_classifier, **of_own_texts, **options)
        else:
            from_classifier(name, **of_classifier, **options)
        return
    if of_classifier["label"] is not None:
        raise UsageError("--label names a label of a classifier, and there is none: give --classifier, too")
    if None in of_texts.values():
        raise UsageError("an attribute is made out of texts, --with FILE and --without FILE, or of a --classifier")
    train(name, **of_texts, kind=kind or "words", **options)


def train(
    name: str, with_file: str, without_file: str, kind: str, model: str | None, description: str, force: bool
) -> None:
    """Make an attribute out of two files with a text a line, and write it where it will be found.

    Raises:
        UserError: a file cannot be read, the attribute exists, or nothing tells the files apart.
    """
    folder = _place_for(name, model, force)
    texts, others = _lines(with_file), _lines(without_file)
    description = description or f"{kind} that tell {name} apart"
    make = _experts if kind == "experts" else _words
    attribute, told = make(texts, others, description, model)
    _finish(attribute, told, folder)


def from_classifier(name: str, classifier: str, label: str, model: str | None, description: str, force: bool) -> None:
    """Make an attribute out of a text classifier and one of its labels, and write it where it will be found.

    Args:
        name: of the attribute.
        classifier: `user/name` or `user/name@revision` on the Hub, or a folder, which is copied.
        label: one of its labels.
        model: beside which it is written; among the user's own without one.
        description: what it does, in a line.
        force: replace an attribute of this name.

    Raises:
        UserError: the classifier cannot be read or has no such label, or the attribute exists.
    """
    from fundamentallm_hf.portable.guides.text_classifier import TextClassifier

    folder = _place_for(name, model, force)
    place, source = _classifier_place(classifier)
    attribute = Attribute("classifier", description, about={"source": source}, classifier=place, label=label)
    label = TextClassifier.load(place, label).label
    attribute = replace(attribute, label=label, description=description or f"texts that {source} calls {label}")
    _save(attribute, folder)
    _tell({"classifier": classifier, "label": label}, folder)


def from_own_texts(
    name: str,
    classifier: str,
    label: str,
    openings: str | None,
    texts: int | None,
    tokens: int | None,
    model: str | None,
    description: str,
    force: bool,
) -> None:
    """Make experts out of what the model itself writes, sorted by a text classifier, and write them.

    Args:
        name: of the attribute.
        classifier: see `from_classifier`; it is not kept.
        label: one of its labels.
        openings: a file with beginnings of texts, one a line; without it the model begins by itself.
        texts: how many are written; default `TEXTS`.
        tokens: how long they are at most; default `TOKENS`.
        model: that the experts are for, and beside which they are written; without it the bundled model, and the
            user's own attributes.
        description: what it does, in a line.
        force: replace an attribute of this name.

    Raises:
        UserError: the classifier or the openings cannot be read, the attribute exists, or the classifier cannot tell
            the texts apart.
    """
    from fundamentallm_hf.model_io.loading import load_model
    from fundamentallm_hf.portable.guides.text_classifier import TextClassifier
    from fundamentallm_hf.training.expert_training import train_experts
    from fundamentallm_hf.training.labelled_samples import sort_texts, write_texts

    folder = _place_for(name, model, force)
    beginnings = [""] if openings is None else _lines(openings)
    place, source = _classifier_place(classifier)
    judge = TextClassifier.load(place, label)
    notes = Notes()
    base = load_model(model, notice=notes.say)
    judge.model.to(base.device)
    with notes.progress() as bar:
        show = _shown_in(bar)
        written = write_texts(
            base, base.tokenizer, beginnings, texts or TEXTS, tokens or TOKENS, partial(show, "writing texts")
        )
        scores: list[float] = []
        while len(scores) < len(written):
            scores += judge([each.text for each in written[len(scores) : len(scores) + _JUDGED]])
            show("judging texts", len(scores), len(written))
        having, lacking = sort_texts(written, scores)
        passages = [[each.passage for each in side] for side in (having, lacking)]
        made = train_experts(base, base.tokenizer, passages[0], passages[1], show)
    words = _words_beside([each.text for each in having], [each.text for each in lacking])
    description = description or f"texts that {source} calls {judge.label}"
    attribute, told = _expert_attribute(made, words, description)
    about = {"teacher": source, "label": judge.label, "written": len(written)}
    _finish(replace(attribute, about={**attribute.about, **about}), {"teacher": source} | told, folder)


def _classifier_place(classifier: str) -> tuple[Path | str, str]:
    """A classifier's folder or name on the Hub, and what it is called."""
    if is_local(classifier):
        path = local_path(classifier)
        return path, path.resolve().name
    return classifier, classifier


def _place_for(name: str, model: str | None, force: bool) -> Path:
    """The folder of a new attribute: beside a model, or among the user's own."""
    check_name(name)
    place = user_folder()
    if model is not None:
        beside = local_path(model)
        if not beside.exists():
            raise UserError(
                f"there is no {model}: give a folder or a checkpoint on this machine, or leave --model out, and every "
                "model finds the attribute"
            )
        place = (beside if beside.is_dir() else beside.parent) / FOLDER
    folder = place / name
    if folder.exists() and not force:
        raise UserError(f"there is an attribute {name!r} in {place} already: choose another name, or --force")
    return folder


def _save(attribute: Attribute, folder: Path) -> None:
    try:
        attribute.save(folder)
    except OSError as error:
        raise UserError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error


def _finish(attribute: Attribute, told: dict[str, str], folder: Path) -> None:
    """Write what was trained, and tell of it."""
    _save(attribute, folder)
    separation = attribute.about.get("held_out_auc")
    told["held-out AUC"] = (
        "too few texts to hold some out" if separation is None else f"{separation:.3f} (0.5 is chance)"
    )
    _tell(told, folder)


def _shown_in(bar: Any) -> Callable[[str, int, int], None]:
    """A line in a progress bar that tells what is done, how far it is, and how far it has to go."""
    task = bar.add_task("", total=None)
    return lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def _tell(told: dict[str, str], folder: Path) -> None:
    for what, value in (told | {"written to": str(folder)}).items():
        click.echo(f"{what:14}{value}")


def _words(
    texts: list[str], others: list[str], description: str, model: str | None
) -> tuple[Attribute, dict[str, str]]:
    """Weighted words, and what there is to tell of them."""
    with Notes().progress() as bar:
        made = train_words(texts, others, partial(_shown_in(bar), "weighing words"))
    about = _about("log-odds ratios with an informative Dirichlet prior", made)
    most, least = _extremes(made.weights)
    told = {"words": f"{len(made.weights):,}", "most": most, "least": least}
    return Attribute("words", description, made.weights, about=about), told


def _experts(
    texts: list[str], others: list[str], description: str, model: str | None
) -> tuple[Attribute, dict[str, str]]:
    """A pair of experts, with words beside them for other models, and what there is to tell of it."""
    from fundamentallm_hf.model_io.loading import load_model
    from fundamentallm_hf.training.expert_training import train_experts

    words = _words_beside(texts, others)
    notes = Notes()
    base = load_model(model, notice=notes.say)
    with notes.progress() as bar:
        made = train_experts(base, base.tokenizer, texts, others, _shown_in(bar))
    return _expert_attribute(made, words, description)


def _words_beside(texts: list[str], others: list[str]) -> dict[str, float]:
    """Words for other models than that of the experts; none where single words do not tell apart what experts may."""
    with suppress(UserError):
        return train_words(texts, others).weights
    return {}


def _expert_attribute(made: Any, words: dict[str, float], description: str) -> tuple[Attribute, dict[str, str]]:
    """The attribute, and what there is to tell of it."""
    about = _about("output-layer experts (adapters with a bottleneck), contrasted as in DExperts", made)
    about["tokens"] = {"with": made.tokens[0], "without": made.tokens[1]}
    experts = made.experts.to_bytes()
    told = {"tokens": f"{made.tokens[0]:,} with, {made.tokens[1]:,} without", "size": f"{len(experts):,} bytes"}
    return Attribute("experts", description, words, about=about, experts=experts), told


def _about(method: str, made: Any) -> dict[str, Any]:
    about: dict[str, Any] = {"method": method, "texts": {"with": made.texts[0], "without": made.texts[1]}}
    if made.separation is not None:
        about["held_out_auc"] = round(made.separation, 4)
    return about


def show(model: str | None, **loading: Any) -> None:
    """List the attributes that a model can be guided by.

    Raises:
        UserError: there is no such model, or an attribute cannot be read.
    """
    found = known_attributes(_place_of(model, Notes(), **loading))
    width = max((len(name) for name, _, _ in found), default=0) + 2
    for name, where, attribute in found:
        click.echo(f"{name:{width}}{attribute.description} ({_what(attribute)}, {WHERE[where]})")
    if not found:
        click.echo("no attributes")


def _what(attribute: Attribute) -> str:
    words = f"{len(attribute.words)} words"
    if attribute.kind == "experts":
        return f"experts, {words} for other models" if attribute.words else "experts"
    if attribute.kind == "classifier":
        name = "a classifier" if isinstance(attribute.classifier, Path) else attribute.classifier
        return f"{name}: {attribute.label}" if attribute.label else name
    return words if attribute.kind == "words" else "two prompts"


WHERE = {"model": "beside the model", "user": "your own", "package": "comes with fundamentallm"}


class _Place:
    """As much of a model as attributes are found by: there is no need to load it."""

    def __init__(self, name_or_path: str) -> None:
        self.name_or_path = name_or_path


def _place_of(model: str | None, notes: Notes, revision: str | None = None) -> _Place:
    if model is None:
        return _Place(str(BUNDLED.parent))
    path = local_path(model)
    if path.exists():
        return _Place(str(path))
    if is_local(model):
        raise UserError(f"there is no {model}: give a checkpoint, a folder or a Hub id such as user/name")
    from fundamentallm_hf.hub.download import fetch

    def choose(names: Sequence[str]) -> list[str]:
        return [name for name in names if name.startswith(f"{FOLDER}/") or name == "config.json"]

    return _Place(str(fetch(model, revision, choose=choose, notice=notes.say).folder))


def _lines(file: str) -> list[str]:
    return [line for line in read_text(file).splitlines() if line.strip()]


def _extremes(weights: dict[str, float], number: int = 8) -> tuple[str, str]:
    ordered = list(weights)  # those that say most come first
    most = [word for word in ordered if weights[word] > 0][:number]
    least = [word for word in ordered if weights[word] < 0][:number]
    return ", ".join(most), ", ".join(least)
