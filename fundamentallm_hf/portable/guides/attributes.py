"""Attributes that texts can be guided towards: their files, and how users name them.

An attribute is a folder `attributes/NAME` with an `attribute.json` in it: the kind of guide, a description, and the
data of that kind. `attribute_lookup.py` finds attributes. Neither module imports torch or transformers until it looks
up a model on the Hub, so that the command line can list attributes at once.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..text.word_lists import split_entries
from .classifier_files import CLASSIFIER_FOLDER, ITS_OWN, copy_classifier

FOLDER, FILE_NAME, WORDS_NAME = "attributes", "attribute.json", "words.tsv"
KINDS = ("words", "experts", "steering", "prompts", "classifier")
# The kinds that fit one model only, and the file of each. Other models use the words of such an attribute, if any.
FITTED = {"experts": "experts.safetensors", "steering": "steering.safetensors"}
_FIELDS = {"experts": "experts", "steering": "vectors"}
# The range of a strength: for one attribute, and for the overall factor.
STRONGEST = 10.0
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*(?:@[A-Za-z0-9][\w./-]*)?", re.ASCII)
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Attribute:
    """An attribute, in memory.

    Attributes:
        kind: "words" (a list of weighted words), "experts" (a pair of adapters trained for one model), "steering"
            (vectors made for one model), "prompts" (two contexts that are contrasted) or "classifier" (a model that
            returns the probability that a text has it).
        description: its effect, in one line.
        words: for "words", the weight of each word; `lov*` is every word that starts so. For "experts" and
            "steering", the words that other models use instead, if any.
        experts: for "experts", the content of a file with the pair; see `ExpertPair`.
        vectors: for "steering", the content of a file with the vectors; see `SteeringVectors`.
        with_text, without_text: for "prompts", a context that has the attribute, and one that lacks it.
        classifier: for "classifier", a text classifier: `user/name` or `user/name@revision` on the Hub as a string, or
            a local folder as a path.
        label: for "classifier", the label that texts are guided towards; "" where it has only one.
        about: other metadata, such as its source and licence.

    Raises:
        UserError: it lacks what its kind needs.
    """

    kind: str
    description: str = ""
    words: Mapping[str, float] = field(default_factory=dict)
    with_text: str = ""
    without_text: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    experts: bytes = field(default=b"", repr=False)
    vectors: bytes = field(default=b"", repr=False)
    classifier: str | Path = ""
    label: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"the kind of an attribute has to be one of {', '.join(KINDS)} but is {self.kind!r}")
        if self.kind == "words" and not self.words:
            raise UserError("an attribute of the kind words has to hold words with weights but holds none")
        if self.kind in FITTED and not self.fitted:
            raise UserError(
                f"an attribute of the kind {self.kind} has to hold them in {FITTED[self.kind]} but holds none"
            )
        if not isinstance(self.words, Mapping) or not all(
            isinstance(word, str) and isinstance(weight, int | float) and math.isfinite(weight)
            for word, weight in self.words.items()
        ):
            raise UserError("the words of an attribute have to be texts with numbers for weights")
        if not isinstance(self.with_text, str) or not isinstance(self.without_text, str):
            raise UserError("with and without of an attribute have to be texts")
        if self.kind == "prompts" and self.with_text == self.without_text:
            raise UserError("an attribute of the kind prompts has to hold two texts that differ: with and without")
        if self.kind == "classifier":
            self._check_classifier()

    @property
    def fitted(self) -> bytes:
        """The content of the file of a kind in `FITTED`; empty for other kinds."""
        return getattr(self, _FIELDS[self.kind]) if self.kind in FITTED else b""

    def _check_classifier(self) -> None:
        named = isinstance(self.classifier, str) and _HUB_NAME.fullmatch(self.classifier)
        if not named and not isinstance(self.classifier, Path):
            raise UserError(
                f"the model of an attribute of the kind classifier has to be user/name on the Hub, or {ITS_OWN} for "
                f"the folder {CLASSIFIER_FOLDER} next to it, but is {self.classifier!r}"
            )
        if not isinstance(self.label, str):
            raise UserError(f"the label of an attribute has to be a text but is {self.label!r}")

    @classmethod
    def load(cls, folder: str | Path) -> "Attribute":
        """Read an attribute from its folder.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        place = Path(folder).expanduser()
        return cls.read(folder, lambda name: place / name)

    @classmethod
    def read(cls, shown: object, find: Any) -> "Attribute":
        """Read an attribute whose files are located one by one.

        Args:
            shown: its name in messages.
            find: called with the name of a file, returns its path.

        Raises:
            UserError: it cannot be read.
        """
        try:
            fields = json.loads(_text_of(find(FILE_NAME)))
            if not isinstance(fields, dict):
                raise ValueError(f"{FILE_NAME} has to hold fields by name")
            kind = fields.get("kind")
            if fields.get("words") is None and (fields.get("kind") == "words" or fields.pop("has_words", False)):
                fields["words"] = dict(_read_words(_text_of(find(WORDS_NAME))))
            if fields.get("kind") == "classifier" and fields.get("model") == ITS_OWN:
                fields["model"] = Path(find(CLASSIFIER_FOLDER))
                if not fields["model"].is_dir():
                    raise ValueError(f"there is no folder {CLASSIFIER_FOLDER} next to its {FILE_NAME}")
            if kind in FITTED:
                fields[_FIELDS[kind]] = _content_of(find(FITTED[kind]))
            return cls.of(fields)
        except OSError as error:
            raise UserError(f"cannot read the attribute {str(shown)!r}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"the attribute {str(shown)!r} cannot be used: {error}") from error

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Attribute":
        """The attribute with these fields: those of its file, and its words.

        Raises:
            UserError: they lack what their kind needs.
        """
        about = dict(fields)
        known = {
            "kind": about.pop("kind", None),
            "words": about.pop("words", None) or {},
            "description": str(about.pop("description", "")),
            "with_text": about.pop("with", ""),
            "without_text": about.pop("without", ""),
            "experts": about.pop("experts", b""),
            "vectors": about.pop("vectors", b""),
        }
        if known["kind"] == "classifier":
            known |= {"classifier": about.pop("model", ""), "label": about.pop("label", "")}
        return cls(**known, about=about)

    def to_dict(self) -> dict[str, Any]:
        """The fields for `of`, with the words of the largest weights first. Experts and vectors are bytes."""
        fields: dict[str, Any] = {"kind": self.kind, "description": self.description, **self.about}
        if self.kind == "prompts":
            return fields | {"with": self.with_text, "without": self.without_text}
        if self.kind == "classifier":
            return fields | {"model": self.classifier, "label": self.label}
        if self.kind in FITTED:
            fields[_FIELDS[self.kind]] = self.fitted
            if not self.words:
                return fields
        return fields | {"words": dict(sorted(self.words.items(), key=lambda item: (-item[1], item[0])))}

    def save(self, folder: str | Path) -> Path:
        """Write the attribute to a folder, which is created if it does not exist; a classifier's files are copied."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        fields = self.to_dict()
        if "words" in fields:
            lines = "".join(f"{word}\t{weight:g}\n" for word, weight in fields.pop("words").items())
            (folder / WORDS_NAME).write_text(lines, encoding="utf-8")
        if isinstance(self.classifier, Path):
            copy_classifier(self.classifier, folder / CLASSIFIER_FOLDER)
            fields["model"] = ITS_OWN
        if self.kind in FITTED:
            (folder / FITTED[self.kind]).write_bytes(fields.pop(_FIELDS[self.kind]))
            fields["has_words"] = bool(self.words)
        text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
        (folder / FILE_NAME).write_text(text, encoding="utf-8")
        return folder


def _content_of(file: Path) -> bytes:
    if Path(file).stat().st_size > _LARGEST:
        raise ValueError(f"{Path(file).name} is larger than {_LARGEST >> 20} MB")
    return Path(file).read_bytes()


def _text_of(file: Path) -> str:
    return _content_of(file).decode("utf-8-sig")


@lru_cache(maxsize=32)  # a call with a guide reads its words anew, which takes milliseconds
def _read_words(text: str) -> dict[str, float]:
    words = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        word, _, weight = line.strip().replace(" ", "\t").rpartition("\t")
        try:
            words[word.strip()] = float(weight)
        except ValueError:
            raise ValueError(f"line {number} of {WORDS_NAME} has to be a word and a weight but is {line!r}") from None
    return words


def read_guides(
    value: Any, strength: Any = None, names: tuple[str, str] = ("guide_attribute", "guide_strength")
) -> dict[str, float]:
    """The strengths that `guide_attribute` and `guide_strength` set.

    Args:
        value: "positive_sentiment", "positive_sentiment:2,formal:-1", or a list of such entries.
        strength: multiplies those of the items, which are 1 where they have none; None is 1.
        names: of the two as the caller's users know them, for errors.

    Returns:
        Strengths by name, without those that are 0.

    Raises:
        UserError: an item is not a valid name or strength.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.guides.attributes import read_guides
    >>> read_guides("positive_sentiment:2, formal", 0.5)
    {'positive_sentiment': 1.0, 'formal': 0.5}

    ```
    """
    entries = split_entries(value) if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) and entry.strip() for entry in entries):
        expected = "a name, or a list of names,"
        line = f"{names[0]} has to be {expected} but is {value!r}"
        raise UserError(line, setting="guide_attribute", value=value, expected=expected)
    overall = _strength(names[1], 1.0 if strength is None else strength, "guide_strength")
    found: dict[str, float] = {}
    for entry in entries:
        name, colon, own = entry.strip().rpartition(":")
        if not colon or "/" in own:  # a path may contain a colon, a strength no slash
            name, own = entry.strip(), "1"
        if not is_path(name):
            try:
                check_name(name)
            except UserError as error:
                raise UserError.of(error, setting="guide_attribute") from None
        found[name] = found.get(name, 0.0) + overall * _strength(f"the strength of {name}", own, "guide_attribute")
    return {name: each for name, each in found.items() if each}


def _strength(what: str, value: Any, setting: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= STRONGEST:
        expected = f"a number from {-STRONGEST:g} to {STRONGEST:g}"
        raise UserError(
            f"{what} has to be {expected} but is {value!r}", setting=setting, value=value, expected=expected
        )
    return number


def is_path(name: str) -> bool:
    """Whether an item is the path of an attribute, not its name."""
    return "/" in name or os.sep in name


def check_name(name: str) -> None:
    """Check that a text can be the name of an attribute.

    Raises:
        UserError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"the name of an attribute has to be of letters, digits, _, - and . but is {name!r}")
