"""Creates attributes from texts or with a text classifier, and saves them where they are found.

torch and transformers are imported where a model is used, so that attributes of words do not need them.
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

# Number of texts that a model generates for its experts by default, and most tokens of each.
TEXTS, TOKENS = 4000, 300
# Texts that are classified between two reports of progress.
_CLASSIFIED = 128

Progress = Callable[[str, int, int], None]
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Destination:
    """The target and the metadata of a new attribute.

    Attributes:
        name: of the attribute.
        model: a local folder or checkpoint, next to which it is written; None is the folder of the user's attributes,
            where every model finds it. Experts are trained for this model, or else for the bundled model.
        description: its effect, in one line; by default one is generated.
        force: replace an attribute of this name.
    """

    name: str
    model: str | None = None
    description: str = ""
    force: bool = False

    def folder(self) -> Path:
        """The folder of the attribute, checked before any work starts.

        Raises:
            UserError: the name is invalid, there is no such model, or the attribute exists.
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
    """The texts that a model generates for its experts.

    Attributes:
        openings: a file of prompts, one per line; without it the model starts without a prompt.
        texts: number of texts.
        tokens: most tokens of each.
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
    """Create an attribute from two files with one text per line.

    Args:
        to: the target.
        with_file: texts that have the attribute.
        without_file: texts that lack it.
        kind: "words" or "experts".
        progress: called with the name of the current step, the work done, and the total.
        notice: called with lines for the user about the model.

    Returns:
        The attribute, and its folder.

    Raises:
        UserError: a file cannot be read, the attribute exists, or nothing separates the texts of the two files.
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
    """Create an attribute from a text classifier and one of its labels.

    Args:
        to: the target.
        classifier: `user/name` or `user/name@revision` on the Hub, or a folder, which is copied.
        label: one of its labels; "" where it has only one.

    Returns:
        The attribute, and its folder.

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
    """Create experts from texts that the model itself generates, sorted by a text classifier.

    Args:
        to: the target.
        classifier: see `from_classifier`; it is not kept.
        label: one of its labels.
        samples: the texts to generate.
        progress, notice: as in `from_texts`.

    Returns:
        The attribute, and its folder.

    Raises:
        UserError: the classifier or the prompts cannot be read, the attribute exists, or the classifier scores all
            texts alike.
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
    """A classifier's folder or its name on the Hub, and its name in descriptions."""
    if is_local(classifier):
        path = local_path(classifier)
        return path, path.resolve().name
    return classifier, classifier


def _words_for_other_models(texts: list[str], others: list[str]) -> dict[str, float]:
    """Words for models other than that of the experts; none where single words do not separate the texts."""
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
