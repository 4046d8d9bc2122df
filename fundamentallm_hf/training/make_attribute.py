"""Creates attributes from texts, classifiers or descriptions, and saves them where they are found.

torch and transformers are imported where a model is used, so that attributes of words do not need them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundamentallm_hf.files import is_local, local_path, read_lines
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.attribute_lookup import user_folder
from fundamentallm_hf.portable.guides.attributes import FOLDER, Attribute, check_name

from .word_training import train_words

if TYPE_CHECKING:
    from .attribute_training import AttributeSamples, AttributeSource

Progress = Callable[[str, int, int], None]
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Destination:
    """The target and the metadata of a new attribute.

    Attributes:
        name: of the attribute.
        model: a local folder or checkpoint, next to which it is written; None is the folder of the user's attributes,
            where every model finds it. Experts and vectors are made for this model, or else for the bundled model.
        description: its effect, in one line; by default one is generated.
        force: replace an attribute of this name.
    """

    name: str
    model: str | None = None
    description: str = ""
    force: bool = False

    def folder(self, on_hub: bool = False) -> Path:
        """The folder of the attribute, checked before any work starts.

        Args:
            on_hub: whether the model may be on the Hub, where nothing can be written next to it.

        Raises:
            UserError: the name is invalid, there is no such model, or the attribute exists.
        """
        check_name(self.name)
        parent = user_folder()
        if self.model is not None and not (on_hub and not is_local(self.model)):
            path = local_path(self.model)
            if not path.exists():
                raise UserError(
                    f"there is no {self.model}: give a folder or a checkpoint on this machine, or leave --model out, "
                    "and every model finds the attribute"
                )
            parent = (path if path.is_dir() else path.parent) / FOLDER
        folder = parent / self.name
        if folder.exists() and not self.force:
            raise UserError(f"there is an attribute {self.name!r} in {parent} already: choose another name, or --force")
        return folder


def words_from_texts(
    to: Destination, with_file: str, without_file: str, progress: Progress = lambda *_: None
) -> tuple[Attribute, Path]:
    """Create an attribute of the kind words from two files with one text per line.

    Args:
        to: the target.
        with_file: texts that have the attribute.
        without_file: texts that lack it.
        progress: called with the name of the current step, the work done, and the total.

    Returns:
        The attribute, and its folder.

    Raises:
        UserError: a file cannot be read, the attribute exists, or nothing separates the texts of the two files.
    """
    folder = to.folder()
    texts = read_lines(with_file), read_lines(without_file)
    attribute = weigh_words(to.description or f"words that tell {to.name} apart", *texts, progress)
    return attribute, _save(attribute, folder)


def weigh_words(
    description: str,
    with_texts: Sequence[str],
    without_texts: Sequence[str],
    progress: Progress = lambda *_: None,
) -> Attribute:
    """Create an attribute of the kind words from texts.

    Args:
        description: its effect, in one line.
        with_texts: texts that have the attribute.
        without_texts: texts that lack it.
        progress: as in `words_from_texts`.

    Raises:
        UserError: nothing separates the texts of the two sides.
    """
    made = train_words(with_texts, without_texts, partial(progress, "weighing words"))
    about: dict[str, Any] = {
        "method": "log-odds ratios with an informative Dirichlet prior",
        "texts": {"with": made.texts[0], "without": made.texts[1]},
    }
    if made.separation is not None:
        about["held_out_auc"] = round(made.separation, 4)
    return Attribute("words", description, made.weights, about=about)


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

    from .attribute_training import locate_classifier

    folder = to.folder()
    location, source = locate_classifier(classifier)
    attribute = Attribute("classifier", to.description, about={"source": source}, classifier=location, label=label)
    label = TextClassifier.load(location, label).label
    description = to.description or f"texts that {source} calls {label}"
    attribute = replace(attribute, label=label, description=description)
    return attribute, _save(attribute, folder)


def trained_from(
    to: Destination,
    source: "AttributeSource",
    samples: "AttributeSamples",
    kind: str = "experts",
    progress: Progress = lambda *_: None,
    notice: Notice = lambda _: None,
) -> tuple[Attribute, Path]:
    """Create an attribute of the kind experts or steering; see `train_attribute`.

    Args:
        to: the target. A model on the Hub is trained for, too; its attribute is written to the folder of the user's
            attributes.
        source: what the attribute is made of.
        samples: the texts that the model writes.
        kind: "experts" or "steering".
        progress: as in `words_from_texts`.
        notice: called with lines for the user about the model.

    Returns:
        The attribute, and its folder.

    Raises:
        UserError: the classifier cannot be read, the attribute exists, or nothing tells the two sides apart.
    """
    from fundamentallm_hf.model_io.loading import load_model

    from .attribute_training import train_attribute

    folder = to.folder(on_hub=True)
    model = load_model(to.model, notice=notice)
    attribute = train_attribute(model, source, samples, progress, kind)
    if not attribute.description:
        what = "a vector that tells" if kind == "steering" else "experts that tell"
        attribute = replace(attribute, description=f"{what} {to.name} apart")
    return attribute, _save(attribute, folder)


def _save(attribute: Attribute, folder: Path) -> Path:
    try:
        attribute.save(folder)
    except OSError as error:
        raise UserError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error
    return folder
