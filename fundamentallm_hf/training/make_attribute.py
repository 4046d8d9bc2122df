"""Makes attributes and writes them where they are found: out of texts, or with a text classifier.

torch and transformers are imported where a model is used, so that attributes of words are made without them.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundamentallm_hf.files import is_local, local_path, read_lines
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.attribute_lookup import user_folder
from fundamentallm_hf.portable.guides.attributes import FOLDER, Attribute, check_name

from .word_training import Training, train_words

if TYPE_CHECKING:
    from fundamentallm_hf.portable.guides.text_classifier import TextClassifier

    from .expert_training import ExpertTraining, Passage
    from .labelled_samples import OwnText

# How many texts a model generates for its own experts by default, and how many tokens each has at most.
TEXTS, TOKENS = 4000, 300
# Texts that are classified between two reports of progress.
_CLASSIFIED = 128

Progress = Callable[[str, int, int], None]
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Destination:
    """Where a new attribute is written, and what is said of it.

    Attributes:
        name: of the attribute.
        model: a folder or checkpoint on this machine, next to which it is written; None is the user's own attributes,
            where every model finds it. Experts are trained for this model, without one for the bundled model.
        description: what the attribute does, in a line; without one it is made up.
        force: replace an attribute of this name.
    """

    name: str
    model: str | None = None
    description: str = ""
    force: bool = False

    def folder(self) -> Path:
        """The folder of the attribute, asked before any work starts.

        Raises:
            UserError: the name cannot be one, there is no such model, or the attribute exists.
        """
        check_name(self.name)
        parent = user_folder()
        if self.model is not None:
            beside = local_path(self.model)
            if not beside.exists():
                raise UserError(
                    f"there is no {self.model}: give a folder or a checkpoint on this machine, or leave --model out, "
                    "and every model finds the attribute"
                )
            parent = (beside if beside.is_dir() else beside.parent) / FOLDER
        folder = parent / self.name
        if folder.exists() and not self.force:
            raise UserError(f"there is an attribute {self.name!r} in {parent} already: choose another name, or --force")
        return folder


@dataclass(frozen=True)
class Samples:
    """What a model generates for its own experts.

    Attributes:
        openings: a file of prompts, one per line; without it the model starts by itself.
        texts: how many it generates.
        tokens: how many tokens each has at most.
    """

    openings: str | None = None
    texts: int | None = None
    tokens: int | None = None


def from_texts(
    to: Destination,
    with_file: str,
    without_file: str,
    kind: str = "words",
    progress: Progress = lambda *_: None,
    notice: Notice = lambda _: None,
) -> tuple[Attribute, Path]:
    """Make an attribute out of two files with a text per line.

    Args:
        to: where it is written.
        with_file: texts that have the attribute.
        without_file: texts that lack it.
        kind: "words" or "experts".
        progress: called with the current step, how far it is, and its length.
        notice: called with what a user should know of the model, a line at a time.

    Returns:
        The attribute, and the folder that holds it.

    Raises:
        UserError: a file cannot be read, the attribute exists, or nothing tells the files apart.
    """
    folder = to.folder()
    texts, others = read_lines(with_file), read_lines(without_file)
    description = to.description or f"{kind} that tell {to.name} apart"
    if kind == "words":
        made = train_words(texts, others, partial(progress, "weighing words"))
        about = _about("log-odds ratios with an informative Dirichlet prior", made)
        attribute = Attribute("words", description, made.weights, about=about)
    else:
        from fundamentallm_hf.model_io.loading import load_model

        from .expert_training import train_experts

        words = _words_for_other_models(texts, others)
        model = load_model(to.model, notice=notice)
        attribute = _expert_attribute(
            train_experts(model, model.tokenizer, texts, others, progress), words, description
        )
    return attribute, _save(attribute, folder)


def from_classifier(to: Destination, classifier: str, label: str) -> tuple[Attribute, Path]:
    """Make an attribute out of a text classifier and one of its labels.

    Args:
        to: where it is written.
        classifier: `user/name` or `user/name@revision` on the Hub, or a folder, which is copied.
        label: one of its labels; "" where it has one alone.

    Returns:
        The attribute, and the folder that holds it.

    Raises:
        UserError: the classifier cannot be read or has no such label, or the attribute exists.
    """
    from fundamentallm_hf.portable.guides.text_classifier import TextClassifier

    folder = to.folder()
    location, source = _locate_classifier(classifier)
    attribute = Attribute("classifier", to.description, about={"source": source}, classifier=location, label=label)
    label = TextClassifier.load(location, label).label
    description = to.description or f"texts that {source} calls {label}"
    attribute = replace(attribute, label=label, description=description)
    return attribute, _save(attribute, folder)


def from_own_texts(
    to: Destination,
    classifier: str,
    label: str,
    samples: Samples,
    progress: Progress = lambda *_: None,
    notice: Notice = lambda _: None,
) -> tuple[Attribute, Path]:
    """Make experts out of what the model itself generates, sorted by a text classifier.

    Args:
        to: where they are written.
        classifier: see `from_classifier`; it is not kept.
        label: one of its labels.
        samples: what the model generates.
        progress, notice: as in `from_texts`.

    Returns:
        The attribute, and the folder that holds it.

    Raises:
        UserError: the classifier or the prompts cannot be read, the attribute exists, or the classifier cannot tell
            the texts apart.
    """
    from fundamentallm_hf.model_io.loading import load_model
    from fundamentallm_hf.portable.guides.text_classifier import TextClassifier

    from .expert_training import train_experts
    from .labelled_samples import sort_texts, write_texts

    folder = to.folder()
    openings = [""] if samples.openings is None else read_lines(samples.openings)
    location, source = _locate_classifier(classifier)
    judge = TextClassifier.load(location, label)
    model = load_model(to.model, notice=notice)
    judge.model.to(model.device)
    number, tokens = samples.texts or TEXTS, samples.tokens or TOKENS
    written = write_texts(model, model.tokenizer, openings, number, tokens, partial(progress, "writing texts"))
    having, lacking = sort_texts(written, _classify(judge, written, progress))
    made = train_experts(model, model.tokenizer, _passages(having), _passages(lacking), progress)
    words = _words_for_other_models([each.text for each in having], [each.text for each in lacking])
    attribute = _expert_attribute(made, words, to.description or f"texts that {source} calls {judge.label}")
    about = {**attribute.about, "teacher": source, "label": judge.label, "written": len(written)}
    attribute = replace(attribute, about=about)
    return attribute, _save(attribute, folder)


def _classify(judge: "TextClassifier", written: "Sequence[OwnText]", progress: Progress) -> list[float]:
    """The classifier's score of each text."""
    scores: list[float] = []
    while len(scores) < len(written):
        scores += judge([each.text for each in written[len(scores) : len(scores) + _CLASSIFIED]])
        progress("judging texts", len(scores), len(written))
    return scores


def _passages(texts: "Sequence[OwnText]") -> "list[Passage]":
    return [each.passage for each in texts]


def _locate_classifier(classifier: str) -> tuple[Path | str, str]:
    """A classifier's folder or its name on the Hub, and what it is called in descriptions."""
    if is_local(classifier):
        path = local_path(classifier)
        return path, path.resolve().name
    return classifier, classifier


def _words_for_other_models(texts: list[str], others: list[str]) -> dict[str, float]:
    """Words for models other than that of the experts; none where single words do not tell apart what experts may."""
    with suppress(UserError):
        return train_words(texts, others).weights
    return {}


def _expert_attribute(made: "ExpertTraining", words: dict[str, float], description: str) -> Attribute:
    about = _about("output-layer experts (adapters with a bottleneck), contrasted as in DExperts", made)
    about["tokens"] = {"with": made.tokens[0], "without": made.tokens[1]}
    return Attribute("experts", description, words, about=about, experts=made.experts.to_bytes())


def _about(method: str, made: "Training | ExpertTraining") -> dict[str, Any]:
    about: dict[str, Any] = {"method": method, "texts": {"with": made.texts[0], "without": made.texts[1]}}
    if made.separation is not None:
        about["held_out_auc"] = round(made.separation, 4)
    return about


def _save(attribute: Attribute, folder: Path) -> Path:
    try:
        attribute.save(folder)
    except OSError as error:
        raise UserError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error
    return folder
