"""Reads training texts from files or a data set, and splits off the held-out ones."""

from collections.abc import Sequence
from pathlib import Path

from fundamentallm_hf.files import read_text
from fundamentallm_hf.portable.errors import UserError

from .training_options import TrainingOptions


def read_texts(options: TrainingOptions) -> list[str]:
    """The training texts, without the separators.

    Raises:
        UserError: a file or the data set cannot be read, or there is no text in it.
    """
    if options.dataset:
        texts = _dataset_texts(options)
    else:
        texts = [text for file in options.files for text in _split(read_text_file(file), options.separator)]
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        raise UserError(f"there is no text in {options.dataset or ', '.join(map(str, options.files))}: give some")
    return texts


def read_text_file(path: str | Path) -> str:
    """The text of a file.

    Raises:
        UserError: it cannot be read, is not UTF-8, or is empty.
    """
    text = read_text(path)
    if not text.strip():
        raise UserError(f"{str(path)!r} is empty: give a file with text to train on")
    return text


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else [text]


def _dataset_texts(options: TrainingOptions) -> list[str]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError("a dataset needs the package datasets: pip install 'fundamentallm-hf[train]'") from None
    try:
        rows = load_dataset(options.dataset, split="train", streaming=True).take(options.dataset_texts)
        texts = []
        for row in rows:
            if not isinstance(row.get(options.dataset_column), str):
                raise UserError(
                    f"{options.dataset} has no column of text {options.dataset_column!r} but {', '.join(row)}: "
                    "name one with dataset_column"
                )
            texts.append(row[options.dataset_column])
    except UserError:
        raise
    except Exception as error:  # the readers of many formats and the network may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"the data set {options.dataset!r} cannot be read: {reason}") from error
    return texts


def split_held_out(options: TrainingOptions, texts: list[str]) -> tuple[list[str], list[str]]:
    """Training texts and held-out texts: the named file, or the last texts, a twentieth of them at most.

    Raises:
        UserError: the held-out file cannot be read, or the texts are too short to hold some out.
    """
    if options.held_out:
        return texts, [text.strip() for text in _split(read_text_file(options.held_out), options.separator)]
    if len(texts) >= 20:
        cut, wanted = len(texts) - 1, options.held_out_characters or sum(map(len, texts))
        while cut > len(texts) - len(texts) // 20 and sum(map(len, texts[cut:])) < wanted:
            cut -= 1
        return texts[:cut], texts[cut:]
    *whole, last = texts
    cut = len(last) - max(1, total_length(texts) // 20)
    if cut < 1:
        raise UserError("the texts are too short to hold a twentieth out: name a held-out file")
    return [*whole, last[:cut]], [last[cut:]]


def total_length(texts: Sequence[str]) -> int:
    """Characters of all texts."""
    return sum(map(len, texts))
