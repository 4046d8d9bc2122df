"""Files next to a model's weights that decoding needs: its tokenizer, its word counts and its draft table.

They are looked up in the folder or repository the model was loaded from, in the same revision, and kept on the model.
"""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file, logging

from ..text.word_counts import FILE_NAME, WordCounts
from .draft_file import DRAFT_FILE, NEXT_WORDS_FILE
from .drafts import NgramTable
from .next_words import NextWords

logger = logging.get_logger(__name__)


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


def own_draft_table(model: Any) -> NgramTable | None:
    """The draft table of a model: the one it carries as `draft_table`, or the one next to the weights it came from."""
    if getattr(model, "draft_table", None) is None and not getattr(model, "_has_no_draft_table", False):
        file = find_sidecar(model, DRAFT_FILE)
        model.draft_table = _read_draft_table(file, model.config.vocab_size) if file else None
        model._has_no_draft_table = model.draft_table is None
    return model.draft_table


def own_next_words(model: Any) -> NextWords | None:
    """What predicts a model's next word: its attribute `next_words`, or the file next to the weights it came from."""
    if getattr(model, "next_words", None) is None and not getattr(model, "_has_no_next_words", False):
        file = find_sidecar(model, NEXT_WORDS_FILE)
        model.next_words = _read_next_words(file, model.config.hidden_size) if file else None
        model._has_no_next_words = model.next_words is None
    return model.next_words


def _read_next_words(file: str, width: int) -> NextWords | None:
    """The classifier in a file; None, and a line that says so, where it is of no use. Word weights can do without."""
    try:
        found = NextWords.load(file)
    except (ValueError, OSError) as error:
        logger.warning(f"Words are not predicted: {error}")
        return None
    if found.hidden_size == width:
        return found
    logger.warning(f"{file} belongs to another model, so it is not used: make it again.")
    return None


def _read_draft_table(file: str, size: int) -> NgramTable | None:
    """The table in a file; None, and a line that says so, where it is of no use. A text can do without."""
    try:
        table = NgramTable.load(file)
    except (ValueError, OSError) as error:
        logger.warning(f"The drafts of the model are not used: {error}")
        return None
    if table.largest < size:
        return table
    logger.warning(f"{file} drafts tokens that the model does not have, so it is not used: make it again.")
    return None


def save_sidecars(model: Any, folder: Any) -> None:
    """Write the word counts, the draft table and the next words of a model, as far as it has them, into a folder."""
    counts, table, next_words = own_word_counts(model), own_draft_table(model), own_next_words(model)
    if counts is not None:
        counts.save(Path(folder) / FILE_NAME)
    if table is not None:
        table.save(Path(folder) / DRAFT_FILE)
    if next_words is not None:
        next_words.save(Path(folder) / NEXT_WORDS_FILE)


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
