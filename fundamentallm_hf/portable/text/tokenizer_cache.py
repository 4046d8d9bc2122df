"""Caches the token texts of large tokenizers on disk, so that the next process need not decode every token again.

Each tokenizer has one file in `fundamentallm/tokenizers` of the user's cache folder (XDG Base Directory Specification).
Its name is a hash of everything that the texts depend on. The folder can be deleted at any time. If the environment
variable `FUNDAMENTALLM_NO_CACHE` is set, the cache is neither read nor written. A file that is damaged or cannot be
written only costs time.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from .token_texts import TokenTexts, read_token_texts

OFF_VARIABLE = "FUNDAMENTALLM_NO_CACHE"
# Smaller tokenizers are read faster than they are hashed.
LEAST_TOKENS = 10_000
# Increase this when the contents or the format of a file change.
_FORMAT = 2


def cache_folder() -> Path:
    """The folder of the cache files."""
    home = os.environ.get("XDG_CACHE_HOME") or ""
    return (Path(home) if home.startswith("/") else Path("~/.cache").expanduser()) / "fundamentallm" / "tokenizers"


def token_texts(tokenizer: PreTrainedTokenizerBase) -> TokenTexts:
    """The text that every token of a tokenizer adds, from the cache if possible; otherwise read and cached."""
    if os.environ.get(OFF_VARIABLE) or not tokenizer.is_fast or len(tokenizer) < LEAST_TOKENS:
        return read_token_texts(tokenizer)
    try:
        file = cache_folder() / f"{_hash(tokenizer)}.json"
        found = _load(file)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return read_token_texts(tokenizer)
    if found is None:
        found = read_token_texts(tokenizer)
        _save(found, file)
    return found


def _hash(tokenizer: PreTrainedTokenizerBase) -> str:
    kind = type(tokenizer)
    parts = [
        *(_FORMAT, transformers.__version__, tokenizers.__version__, f"{kind.__module__}.{kind.__qualname__}"),
        *(sorted(tokenizer.all_special_ids), tokenizer.backend_tokenizer.to_str()),
    ]
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _load(file: Path) -> TokenTexts | None:
    """The contents of a file; None if it does not exist or is not valid."""
    try:
        kept = json.loads(file.read_bytes())
        pieces = tuple(piece if isinstance(piece, str) else bytes.fromhex(*piece) for piece in kept["pieces"])
        errors, fallback = kept["errors"], frozenset(kept["fallback"])
        strips = kept["strips_leading_space"], kept["strips_trailing_space"]
        openings = {int(token): text for token, text in kept["openings"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    whole = kept.get("tokens") == len(pieces) and all(isinstance(token, int) for token in fallback)
    whole = whole and all(isinstance(text, str) for text in openings.values())
    if not whole or errors not in ("replace", "ignore") or not all(isinstance(each, bool) for each in strips):
        return None
    return TokenTexts(pieces, *strips, fallback, errors, openings)


def _save(texts: TokenTexts, file: Path) -> None:
    """Write a file atomically; ignores failure."""
    kept: dict[str, Any] = texts._asdict() | {
        "pieces": [piece if isinstance(piece, str) else [piece.hex()] for piece in texts.pieces],
        "fallback": sorted(texts.fallback),
        "tokens": len(texts.pieces),
    }
    hidden = ""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, hidden = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem[:16]}.", suffix=".partial")
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            json.dump(kept, stream, separators=(",", ":"))
        Path(hidden).replace(file)
    except OSError:
        if hidden:
            with contextlib.suppress(OSError):
                Path(hidden).unlink()
