"""Files next to a model's weights that controls need: its tokenizer and its word counts.

They are looked up in the folder or repository the model was loaded from, in the same revision, and kept on the model.
"""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..text.word_counts import FILE_NAME, WordCounts


def own_tokenizer(model: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: its attribute `tokenizer`, or the one in the folder or repository it was loaded from.

    Raises:
        ValueError: the model has no tokenizer and was not loaded from anywhere.
    """
    carried = getattr(model, "tokenizer", None)
    if isinstance(carried, PreTrainedTokenizerBase):
        return carried
    if not model.name_or_path:
        raise ValueError("the model was made in memory and has no tokenizer: pass tokenizer=")
    # Without its config transformers would read it again, fail where it needs code, and warn of a model of another
    # type; without the last argument it would ask on stdin whether to run that code.
    model.tokenizer = AutoTokenizer.from_pretrained(
        model.name_or_path, config=model.config, revision=_revision(model), trust_remote_code=False
    )
    return model.tokenizer


def own_word_counts(model: Any) -> WordCounts | None:
    """The word counts of a model: its attribute `word_counts`, or those stored where it was loaded from."""
    if getattr(model, "word_counts", None) is None and not getattr(model, "_has_no_word_counts", False):
        file = find_sidecar(model, FILE_NAME)
        model.word_counts = WordCounts.load(file) if file else None
        model._has_no_word_counts = file is None
    return model.word_counts


def find_sidecar(model: Any, name: str) -> str | None:
    """The path of a file next to the weights of a model, local or from the Hub; None where there is none."""
    place = model.name_or_path
    if not place:
        return None
    path = Path(place)
    if path.exists():
        file = (path if path.is_dir() else path.parent) / name
        return str(file) if file.is_file() else None
    # Only this project's models have such files, and asking the Hub for it takes time.
    if model.config.model_type != "fundamentallm":
        return None
    try:
        return cached_file(
            place,
            name,
            revision=_revision(model),
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):
        return None  # the folder is gone, or never existed: controls work without


def _revision(model: Any) -> str | None:
    return getattr(model.config, "_commit_hash", None)
