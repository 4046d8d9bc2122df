"""Builds the n-gram table that drafts a model's text, from its training text or from its samples."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from fundamentallm_hf.portable.decoding.drafts import KEY_BITS, KEY_FACTOR, KEY_MASK, NgramTable
from fundamentallm_hf.portable.decoding.sidecar_names import DRAFT_FILE
from fundamentallm_hf.portable.errors import UserError

ORDER = 10
ENTRIES = 50_000
# The least count of a context; rarer ones are unreliable.
_LEAST = 2
# The weight of an entry that changes the probability of the next token, but not the token.
_CONFIDENCE = 0.15


def count_ngrams(tokens: Sequence[int], order: int = ORDER, entries: int = ENTRIES) -> NgramTable:
    """Count the n-grams of a text. Keep the contexts that predict better than the next shorter one.

    Args:
        tokens: token ids of the text.
        order: tokens in the longest context.
        entries: number of contexts to keep; each takes 7 bytes on disk for a character model.

    Returns:
        The table. A context that is not in it gets the prediction of its longest suffix in the table.
    """
    text = np.asarray(tokens, dtype=np.uint64)
    following = text[1:]
    if not len(following):
        return NgramTable(order, {})
    keys = np.zeros(len(following), dtype=np.uint64)
    guess, chance = _best(keys, following)
    known = {0: (int(guess[0]), float(chance[0]))}
    columns: list[tuple[np.ndarray, ...]] = []
    for length in range(1, min(order, len(following)) + 1):
        if length > 1:  # the first positions have no context of this length
            keys, following, guess, chance = (each[1:] for each in (keys, following, guess, chance))
        keys = (keys * np.uint64(KEY_FACTOR) + text[: len(keys)] + np.uint64(1)) & np.uint64(KEY_MASK)
        shorter, shorter_chance = guess, chance
        guess, chance = _best(keys, following)
        _, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        right = np.bincount(inverse, weights=following == shorter[first][inverse]) / counts
        gain = chance[first] - right + _CONFIDENCE * np.abs(shorter_chance[first] - right)
        worth = np.where(counts >= _LEAST, counts * gain, 0.0)
        columns.append((worth, keys[first] | np.uint64(length << KEY_BITS), guess[first], chance[first]))
        # If a context adds nothing, longer ones are compared with the shorter one that replaces it.
        useful = (worth > 0)[inverse]
        guess, chance = np.where(useful, guess, shorter), np.where(useful, chance, shorter_chance)
    worth, contexts, guesses, chances = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    best = np.argsort(-worth, kind="stable")[:entries]
    best = best[worth[best] > 0]
    known |= {int(contexts[each]): (int(guesses[each]), float(chances[each])) for each in best}
    return NgramTable(order, known)


def _best(keys: np.ndarray, following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent next token of the context at each position, and its probability."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    pairs = inverse.astype(np.uint64) * np.uint64(1 << 24) + following
    pair, pair_counts = np.unique(pairs, return_counts=True)
    of_context = (pair >> np.uint64(24)).astype(np.int64)
    order = np.lexsort((-pair_counts, of_context))
    first = np.concatenate([[True], np.diff(of_context[order]) > 0])
    best = order[first]
    tokens = (pair[best] & np.uint64((1 << 24) - 1)).astype(np.uint64)
    # Add one to the count: a token that was seen once is not certain.
    chances = pair_counts[best] / (counts + 1.0)
    return tokens[inverse], chances[inverse]


def add_draft(folder: str | os.PathLike[str], text: str, entries: int = ENTRIES) -> Path:
    """Build the draft table of a model from text like its own, and write it to the model folder.

    Args:
        folder: a Hugging Face folder with a tokenizer.
        text: preferably the model's training text, or its samples; a few million characters are enough.
        entries: as in `count_ngrams`.

    Returns:
        The path of the written file.

    Raises:
        UserError: the folder does not exist or has no tokenizer, or the text is empty.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{str(path)!r} has to be a model folder, and is none: convert the model first")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} has no tokenizer to read the text with: {error}") from error
    tokens = tokenizer(text, verbose=False).input_ids
    if len(tokens) < 2:
        raise UserError("the text is empty: give text of the kind that the model writes")
    file = path / DRAFT_FILE
    count_ngrams(tokens, entries=entries).save(file)
    return file
