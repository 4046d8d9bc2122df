"""Files next to a model's weights: its tokenizer, its word counts, its draft table and what predicts its next word.

They are looked up in the folder or repository the model was loaded from, in the same revision, and kept on the model.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file, logging

from ..text.word_counts import FILE_NAME, WordCounts
from .drafts import NgramTable
from .next_words import NextWords
from .sidecar_names import DRAFT_FILE, NEXT_WORDS_FILE

logger = logging.get_logger(__name__)

Content = TypeVar("Content")


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
    return _own(model, "word_counts", FILE_NAME, WordCounts.load)


def own_draft_table(model: Any) -> NgramTable | None:
    """The draft table of a model: its attribute `draft_table`, or the one stored where it was loaded from."""

    def read(file: str) -> NgramTable | None:
        table = _read(file, NgramTable.load, "The drafts of the model are not used")
        if table is None or table.largest < model.config.vocab_size:
            return table
        logger.warning(f"{file} drafts tokens that the model does not have, so it is not used: make it again.")
        return None

    return _own(model, "draft_table", DRAFT_FILE, read)


def own_next_words(model: Any) -> NextWords | None:
    """What predicts a model's next word: its attribute `next_words`, or the file stored where it was loaded from."""

    def read(file: str) -> NextWords | None:
        found = _read(file, NextWords.load, "Words are not predicted")
        if found is None or found.hidden_size == model.config.hidden_size:
            return found
        logger.warning(f"{file} belongs to another model, so it is not used: make it again.")
        return None

    return _own(model, "next_words", NEXT_WORDS_FILE, read)


def _own(model: Any, attribute: str, name: str, read: Callable[[str], Content | None]) -> Content | None:
    """The attribute of a model, read once from a file next to its weights if it has none; None where that fails."""
    missing = f"_has_no_{attribute}"
    if getattr(model, attribute, None) is None and not getattr(model, missing, False):
        file = find_sidecar(model, name)
        found = read(file) if file else None
        setattr(model, attribute, found)
        setattr(model, missing, found is None)
    own: Content | None = getattr(model, attribute)
    return own


def _read(file: str, load: Callable[[str], Content], without: str) -> Content | None:
    """The content of a file that texts can do without: None, and a line that says so, where it cannot be read."""
    try:
        return load(file)
    except (ValueError, OSError) as error:
        logger.warning(f"{without}: {error}")
        return None


def save_sidecars(model: Any, folder: Any) -> None:
    """Write the word counts, the draft table and the next words of a model, as far as it has them, into a folder."""
    found = (
        (own_word_counts(model), FILE_NAME),
        (own_draft_table(model), DRAFT_FILE),
        (own_next_words(model), NEXT_WORDS_FILE),
    )
    for content, name in found:
        if content is not None:
            content.save(Path(folder) / name)


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
