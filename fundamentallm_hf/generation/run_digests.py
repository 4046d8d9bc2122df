"""Digests of what the texts of a run depend on, except its prompts and settings.

A run can continue only if they are unchanged, so that no output file mixes the texts of two models.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fundamentallm_hf.portable.decoding.sidecar_files import own_word_counts
from fundamentallm_hf.portable.guides.attribute_lookup import find_attribute
from fundamentallm_hf.portable.guides.attributes import Attribute, read_guides
from fundamentallm_hf.portable.guides.classifier_files import CLASSIFIER_FILES
from fundamentallm_hf.portable.model.records import weights_digest
from fundamentallm_hf.settings.generation_settings import GenerationSettings

# They differ between two copies of one model, or change as it is saved. The data types are those of the weights.
_UNSTABLE = ("_name_or_path", "transformers_version", "_commit_hash", "auto_map", "architectures", "dtype")


def run_digests(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: GenerationSettings
) -> dict[str, Any]:
    """The digests of a model, its tokenizer and its word counts, and of the attributes that the settings name.

    Attributes that only the settings of single prompts name are not known before the prompts are read.

    Raises:
        UserError: an attribute does not exist or cannot be read.
    """
    counts = own_word_counts(model)
    names = read_guides(settings.guide_attribute)  # whatever their common strength: a prompt may set another
    return {
        "model": model_digest(model),
        "tokenizer": tokenizer_digest(tokenizer),
        "word_counts": None if counts is None else _digest(sorted(counts.counts.items())),
        "attribute": {name: attribute_digest(find_attribute(model, name)) for name in names},
    }


def model_digest(model: PreTrainedModel) -> str:
    """A digest of a model's configurations and weights.

    Weights that are not in memory, because the model is larger than it, are left out.
    """
    configs = [
        sorted((key, str(value)) for key, value in config.to_dict().items() if key not in _UNSTABLE)
        for config in (model.config, model.generation_config)
    ]
    tensors = model.state_dict()
    shapes = sorted((name, str(tensor.dtype), list(tensor.shape)) for name, tensor in tensors.items())
    return _digest([configs, shapes, weights_digest(each for each in tensors.values() if not each.is_meta)])


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of a tokenizer: of its serialized form, or of the vocabulary of one that has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content: Any = sorted(tokenizer.get_vocab().items())
    else:
        # The last call sets padding and truncation.
        content = json.loads(backend.to_str()) | {"padding": None, "truncation": None}
    return _digest([content, str(sorted(tokenizer.special_tokens_map.items()))])


def attribute_digest(attribute: Attribute) -> str:
    """A digest of an attribute, without its description and other metadata."""
    classifier: Any = attribute.classifier
    if isinstance(classifier, Path):
        files = sorted({file for pattern in CLASSIFIER_FILES for file in classifier.glob(pattern)})
        classifier = [[file.name, _file_digest(file)] for file in files]
    fields = [attribute.kind, sorted(attribute.words.items()), attribute.with_text, attribute.without_text]
    return _digest([*fields, hashlib.sha256(attribute.fitted).hexdigest(), classifier, attribute.label])


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(content: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
