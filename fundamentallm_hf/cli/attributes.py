"""`fundamentallm train-attribute` and `fundamentallm attributes`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from fundamentallm_hf.files import is_local, local_path, read_lines
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.portable.guides.attribute_lookup import BUNDLED, known_attributes
from fundamentallm_hf.portable.guides.attributes import FITTED, FOLDER, Attribute

from .options import CONTEXT
from .prompts import read_openings
from .terminal import Notes

WHERE = {"model": "next to the model", "user": "your own", "package": "comes with fundamentallm"}


@click.command("train-attribute", context_settings=CONTEXT)
@click.argument("name")
@click.option("--with", "with_file", metavar="FILE", help="File of texts that have the attribute, one per line.")
@click.option("--without", "without_file", metavar="FILE", help="File of texts that lack it, one per line.")
@click.option(
    "--kind",
    type=click.Choice(["words", *FITTED]),
    help="Weighted words, for any model; or a pair of experts or a steering vector, made for MODEL only.  "
    "[default: words, or experts of a --description alone]",
)
@click.option("--classifier", metavar="NAME", help="A text classifier instead of texts: its folder or Hub id.")
@click.option("--label", metavar="NAME", help="Label of the classifier to guide towards.")
@click.option("--openings", metavar="FILE", help="For experts and vectors: prompts for the model, one per line.")
@click.option(
    "--texts",
    metavar="N",
    type=click.IntRange(min=8),
    help="Texts that the model writes to learn from.  [default: 4000, or fewer for a large model]",
)
@click.option(
    "--tokens",
    metavar="N",
    type=click.IntRange(min=1),
    help="Tokens of each, at most.  [default: about 300 characters]",
)
@click.option(
    "--measure",
    metavar="N",
    type=click.IntRange(min=0),
    help="Texts at each strength that is tried, to suggest one; 0 tries none.  [default: 48]",
)
@click.option("--model", metavar="MODEL", help="Model of the experts or the vector; the attribute is saved next to it.")
@click.option("--description", default="", help="Description in one line. Without texts and classifier, the source.")
@click.option("--opposite", default="", help="Description of the opposite, where the description is the source.")
@click.option("--force", is_flag=True, help="Replace an attribute of this name.")
def train_attribute(name: str, **options: Any) -> None:
    """Make the attribute NAME, for generate --guide-attribute NAME, from texts that have it and texts that lack it.

    Without --model it is saved among your own attributes, where every model finds it, and experts and vectors are made
    for the bundled story model. Those for a model on the Hub are saved there, too. Held-out texts measure how well an
    attribute separates the two sides. For experts and vectors, the command also suggests a strength: that at which 90%
    of the model's texts lean towards the attribute.

    A classifier guides by itself, but has to be evaluated at every step. With --kind experts or steering it is only the
    teacher: the model generates texts, the classifier labels them, and the attribute is made of those at both ends.

    A --description alone is enough for a model that follows instructions. It completes the words "a text that is". The
    model writes texts that fit it, and texts that fit the --opposite, and keeps those that it finds clearest.

    \b
    fundamentallm train-attribute formal --with letters.txt --without chats.txt
    fundamentallm train-attribute formal --with letters.txt --without chats.txt --kind experts --model my_model_hf
    fundamentallm train-attribute glad --classifier user/reviews --label POSITIVE
    fundamentallm train-attribute glad --classifier user/reviews --label POSITIVE --kind experts --openings starts.txt
    fundamentallm train-attribute glad --description "happy and cheerful" --opposite "sad and gloomy" --model user/chat
    """
    of_texts = {each: options.pop(each) for each in ("with_file", "without_file")}
    of_classifier = {each: options.pop(each) for each in ("classifier", "label")}
    samples = {each: options.pop(each) for each in ("openings", "texts", "tokens", "measure")}
    kind, opposite = options.pop("kind"), options.pop("opposite")
    described = _check(of_texts, of_classifier, samples, kind, options["description"], opposite)
    from fundamentallm_hf.training.make_attribute import Destination, from_classifier, words_from_texts

    to, notes = Destination(name, **options), Notes()
    facts: dict[str, str] = {}
    with _progress(notes) as show:
        if described or kind in FITTED:
            source = {**of_texts, **of_classifier, "opposite": opposite}
            made = _train(to, source, samples, kind or "experts", show, notes)
        elif of_classifier["classifier"] is None:
            made = words_from_texts(to, **of_texts, progress=show)
        else:
            made = from_classifier(to, of_classifier["classifier"], of_classifier["label"] or "")
            facts["classifier"] = of_classifier["classifier"]
    attribute, folder = made
    for what, value in (facts | _facts(attribute) | {"written to": str(folder)}).items():
        click.echo(f"{what:14}{value}")


def _train(
    to: Any,
    source: dict[str, Any],
    samples: dict[str, Any],
    kind: str,
    show: Callable[[str, int, int], None],
    notes: Notes,
) -> tuple[Attribute, Path]:
    from fundamentallm_hf.training.attribute_training import MEASURED, AttributeSamples, AttributeSource
    from fundamentallm_hf.training.make_attribute import trained_from

    texts = {f"{side}_texts": source[f"{side}_file"] for side in ("with", "without")}
    return trained_from(
        to,
        AttributeSource(
            to.description,
            source["opposite"],
            **{side: None if file is None else read_lines(file) for side, file in texts.items()},
            classifier=source["classifier"] or "",
            label=source["label"] or "",
        ),
        AttributeSamples(
            read_openings(samples["openings"]),
            samples["texts"],
            samples["tokens"],
            MEASURED if samples["measure"] is None else samples["measure"],
        ),
        kind,
        show,
        notes.say,
    )


@click.command(context_settings=CONTEXT)
@click.argument("model", required=False)
@click.option("--revision", metavar="NAME", help="Branch, tag or commit of a model on the Hub.")
def attributes(model: str | None, revision: str | None) -> None:
    """List the attributes that can guide MODEL, with a description of each.

    They are next to the model, among your own, or part of this package. Without MODEL, the bundled story model is
    meant.
    """
    found = known_attributes(_locate(model, Notes(), revision))
    width = max((len(name) for name, _, _ in found), default=0) + 2
    for name, where, attribute in found:
        click.echo(f"{name:{width}}{attribute.description} ({_what(attribute)}, {WHERE[where]})")
    if not found:
        click.echo("no attributes")


def _check(
    of_texts: dict[str, str | None],
    of_classifier: dict[str, str | None],
    samples: dict[str, Any],
    kind: str | None,
    description: str,
    opposite: str,
) -> bool:
    """Refuse options that do not go together. Returns whether the description is the source.

    Raises:
        UsageError: they do not.
    """
    classifier, label = of_classifier["classifier"], of_classifier["label"]
    has_texts = any(each is not None for each in of_texts.values())
    if label is not None and classifier is None:
        raise UsageError("--label names a label of a classifier, and there is none: give --classifier, too")
    if classifier is not None and (has_texts or kind == "words"):
        raise UsageError(
            "--classifier cannot be combined with --with, --without and --kind words: give a classifier or texts"
        )
    described = classifier is None and not has_texts and kind != "words" and bool(description.strip())
    if classifier is None and not described and None in of_texts.values():
        raise UsageError(
            "an attribute is made out of texts, --with FILE and --without FILE, of a --classifier, or, with a model "
            "that follows instructions, of a --description"
        )
    if opposite.strip() and not described:
        raise UsageError("--opposite is for an attribute out of a --description alone: give no texts and no classifier")
    if samples["texts"] is not None and has_texts:
        raise UsageError(
            "--texts is for texts that a model writes, and --with and --without give the texts: leave it out"
        )
    if any(each is not None for each in samples.values()) and not (described or kind in FITTED):
        raise UsageError(
            "--openings, --texts, --tokens and --measure are for what a model writes: give --kind experts or steering, "
            "with --classifier or texts, or a --description alone"
        )
    return described


@contextmanager
def _progress(notes: Notes) -> Iterator[Callable[[str, int, int], None]]:
    """Shows the current step, how far it is, and its length. The bar appears with the first step."""
    with ExitStack() as stack:
        update: Callable[..., None] | None = None

        def show(what: str, done: int, total: int) -> None:
            nonlocal update
            if update is None:
                bar = stack.enter_context(notes.progress())
                update = partial(bar.update, bar.add_task("", total=None))
            update(description=what, completed=done, total=total)

        yield show


def _facts(attribute: Attribute) -> dict[str, str]:
    """The facts to report about a new attribute."""
    if attribute.kind == "classifier":
        return {"label": attribute.label}
    if attribute.kind == "words":
        most, least = _extremes(attribute.words)
        facts = {"words": f"{len(attribute.words):,}", "most": most, "least": least}
    else:
        tokens = attribute.about["tokens"]
        facts = {
            "tokens": f"{tokens['with']:,} with, {tokens['without']:,} without",
            "size": f"{len(attribute.fitted):,} bytes",
        }
        if "teacher" in attribute.about:
            facts["teacher"] = attribute.about["teacher"]
    separation = attribute.about.get("held_out_auc")
    facts["held-out AUC"] = (
        "too few texts to hold some out" if separation is None else f"{separation:.3f} (0.5 is chance)"
    )
    return facts | _leaning(attribute)


def _leaning(attribute: Attribute) -> dict[str, str]:
    """How many texts lean towards a new attribute by strength, and the strength that is suggested."""
    effect = attribute.about.get("effect")
    if effect is None:
        return {}
    shares = effect["shares"]
    listed = ", ".join(f"{share:.0%} at {strength.replace('+0', '0')}" for strength, share in shares.items())
    perplexity = ", ".join(f"{ratio:.2f}" for ratio in attribute.about["perplexity"].values())
    suggested = attribute.about.get("suggested_strength")
    advice = "none: no strength made 90% of the texts lean" if suggested is None else f"{suggested:g} is suggested"
    if suggested == 0:
        advice = "none: 90% of the texts lean without a guide"
    return {
        "leaning": f"{listed} ({effect['what'].rstrip(',')})",
        "perplexity": f"{perplexity} (the model's own, relative to no guide)",
        "strength": advice,
    }


def _extremes(weights: Mapping[str, float], number: int = 8) -> tuple[str, str]:
    ordered = list(weights)  # the largest weights come first
    most = [word for word in ordered if weights[word] > 0][:number]
    least = [word for word in ordered if weights[word] < 0][:number]
    return ", ".join(most), ", ".join(least)


def _what(attribute: Attribute) -> str:
    words = f"{len(attribute.words)} words"
    if attribute.kind in FITTED:
        strength = attribute.about.get("suggested_strength")
        what = "experts" if attribute.kind == "experts" else "a steering vector"
        if isinstance(strength, int | float) and strength:
            what += f" for a strength of {strength:g}"
        return f"{what}, {words} for other models" if attribute.words else what
    if attribute.kind == "classifier":
        name = "a classifier" if isinstance(attribute.classifier, Path) else attribute.classifier
        return f"{name}: {attribute.label}" if attribute.label else name
    return words if attribute.kind == "words" else "two prompts"


class _Located:
    """Finds the attributes of a model without loading it."""

    def __init__(self, name_or_path: str) -> None:
        self.name_or_path = name_or_path


def _locate(model: str | None, notes: Notes, revision: str | None) -> _Located:
    if model is None:
        return _Located(str(BUNDLED.parent))
    path = local_path(model)
    if path.exists():
        return _Located(str(path))
    if is_local(model):
        raise UserError(f"there is no {model}: give a checkpoint, a folder or a Hub id such as user/name")
    from fundamentallm_hf.hub.download import fetch

    def choose(names: Sequence[str]) -> list[str]:
        return [name for name in names if name.startswith(f"{FOLDER}/") or name == "config.json"]

    return _Located(str(fetch(model, revision, choose=choose, notice=notes.say).folder))
