"""Reads the facts of a model folder: architecture, size, alphabet, attributes, training and evaluations.

Nothing is loaded as a model and nothing in the folder is run. Damaged files are left out or refused in one line.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fundamentallm_hf.model_io.model_folder import one_line
from fundamentallm_hf.portable.decoding.sidecar_names import BESIDE_WEIGHTS
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.attributes import FILE_NAME as ATTRIBUTE_FILE
from fundamentallm_hf.portable.guides.attributes import FOLDER as ATTRIBUTES
from fundamentallm_hf.portable.guides.attributes import Attribute
from fundamentallm_hf.portable.model.records import EVALUATION, TRAINING, read_records, records_of, weights_digest
from fundamentallm_hf.portable.text.word_counts import FILE_NAME as WORD_COUNTS
from fundamentallm_hf.portable.text.word_counts import WordCounts

OWN_TYPE = "fundamentallm"
_LARGEST = 64 << 20
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class ModelFacts:
    """The contents of a model folder.

    Attributes:
        config, generation: the fields of `config.json` and `generation_config.json`.
        parameters: number of parameters, with tied ones counted once.
        weight_bytes: size of the weights' files.
        dtypes: the precisions in them.
        vocabulary: ids by token; empty for kinds of tokenizers that are not read here.
        specials: the special tokens.
        attributes: those next to the model, by name.
        counts: the word counts next to it.
        training, evaluations: the records of exactly these weights.
    """

    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    parameters: int
    weight_bytes: int
    dtypes: tuple[str, ...]
    vocabulary: Mapping[str, int] = field(default_factory=dict)
    specials: tuple[str, ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    counts: WordCounts | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluations: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_fundamentallm(self) -> bool:
        """Whether it is a FundamentaLLM model."""
        return self.config.get("model_type") == OWN_TYPE

    @property
    def characters(self) -> str:
        """The characters that the model can read and write, where every token is one character; else empty."""
        tokens = [token for token in self.vocabulary if token not in self.specials]
        return "".join(sorted(tokens)) if tokens and all(len(token) == 1 for token in tokens) else ""

    @property
    def ends(self) -> bool:
        """Whether the model has a token that ends its texts."""
        return self.generation.get("eos_token_id") is not None

    def writes(self, text: str) -> bool:
        """Whether the model has tokens for all of a text, as far as that is known."""
        known = set(self.characters)
        return not known or set(text) <= known


def read_facts(folder: str | Path) -> ModelFacts:
    """Read a model folder.

    Raises:
        UserError: it is not a model folder, or a file in it is damaged.
    """
    folder = Path(folder)
    config = _json(folder / "config.json")
    if not config:
        raise UserError(f"{str(folder)!r} is no model folder: it has no config.json")
    files = sorted(file for file in folder.glob("*.safetensors") if file.name not in BESIDE_WEIGHTS)
    if not files:
        raise UserError(f"{str(folder)!r} holds no weights: expected model.safetensors")
    parameters, dtypes = _size(files)
    vocabulary, specials = _vocabulary(_json(folder / "tokenizer.json"))
    training, evaluations = (read_records(folder / name) for name in (TRAINING, EVALUATION))
    if training or evaluations:
        digest = _digest(files)
        training, evaluations = records_of(training, digest), records_of(evaluations, digest)
    counts = folder / WORD_COUNTS
    return ModelFacts(
        config=config,
        generation=_json(folder / "generation_config.json"),
        parameters=parameters,
        weight_bytes=sum(file.stat().st_size for file in files),
        dtypes=dtypes,
        vocabulary=vocabulary,
        specials=specials,
        attributes={
            each.name: Attribute.load(each)
            for each in sorted((folder / ATTRIBUTES).glob("*"))
            if (each / ATTRIBUTE_FILE).is_file()
        },
        counts=WordCounts.load(counts) if counts.is_file() else None,
        training=training[-1] if training else {},
        evaluations=tuple(each for each in evaluations if _is_evaluation(each)),
    )


def _is_evaluation(record: Mapping[str, Any]) -> bool:
    figures = [record.get(name) for name in ("bits_per_character", "perplexity", "accuracy", "characters", "window")]
    return isinstance(record.get("dataset"), dict) and all(
        isinstance(each, int | float) and math.isfinite(each) for each in [*figures, record.get("stride")]
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        if not file.is_file():
            return {}
        if file.stat().st_size > _LARGEST:
            raise UserError(f"{file.name} is larger than {_LARGEST >> 20} MB")
        content = json.loads(file.read_text(encoding="utf-8"))
    except UserError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {str(file)!r}: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(file)!r} has to hold fields by name")
    return content


def _size(files: list[Path]) -> tuple[int, tuple[str, ...]]:
    """The number of parameters, and their precisions, from the files' headers alone."""
    total = 0
    dtypes: dict[str, None] = {}
    try:
        for file in files:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no dict)
                    part = opened.get_slice(name)
                    number = 1
                    for size in part.get_shape():
                        number *= size
                    total += number
                    dtype = part.get_dtype()
                    dtypes[_DTYPES.get(dtype, dtype.lower())] = None
    except (OSError, SafetensorError) as error:
        raise UserError(f"the weights in {str(files[0].parent)!r} cannot be read: {one_line(error)}") from error
    return total, tuple(dtypes)


def _digest(files: list[Path]) -> str:
    def tensors() -> Any:
        for file in files:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    yield opened.get_tensor(name)

    return weights_digest(tensors())


def _vocabulary(tokenizer: Mapping[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
    model = tokenizer.get("model")
    found = model.get("vocab") if isinstance(model, dict) else None
    added = [each for each in tokenizer.get("added_tokens") or () if isinstance(each, dict)]
    specials = tuple(str(each.get("content")) for each in added if each.get("special"))
    return (dict(found) if isinstance(found, dict) else {}), specials
