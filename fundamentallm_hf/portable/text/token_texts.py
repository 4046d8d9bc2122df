"""Reads what every token of a tokenizer adds to the text.

Tokenizers differ in this. A byte-level token may be part of a character, a SentencePiece token may start with a space
that appears only after another token, and special tokens add nothing. So every token is decoded between two others.
Only if the result contains a broken character are its bytes read from its name.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

from .pieces import REPLACEMENT

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Tokens that are examined together to find an anchor, and the rank of an ideal one (see `_anchor`).
_MOST_AT_ONCE, _LETTER = 1024, (False, False, 1)
# Rows that are decoded together: more would start the garbage collector.
_ROWS_AT_ONCE = 512
# With fewer rows than this, the faster decoder saves no time.
_SLOW = 4096
# Tokens with names that begin alike of which the text is read at the start of a text.
_OF_A_GROUP = 2
# Characters of two, three and four bytes.
_TRIED_CHARACTERS = ("é", "ÿ", "日", "😀")


class TokenTexts(NamedTuple):
    """The text that each token of a tokenizer adds. `Vocabulary` documents the fields."""

    pieces: tuple[str | bytes, ...]
    strips_leading_space: bool
    strips_trailing_space: bool
    fallback: frozenset[int]
    errors: str
    openings: dict[int, str]


def read_token_texts(tokenizer: PreTrainedTokenizerBase) -> TokenTexts:
    """Decode every token of a tokenizer to find the text that it adds."""
    names = _names(tokenizer)
    used = [token for token, name in enumerate(names) if name is not None]
    fallback = frozenset(token for token in used if _BYTE_TOKEN.fullmatch(names[token] or ""))
    # Adjacent byte tokens are decoded together, so none of them can be the anchor.
    anchor = _anchor(tokenizer, [token for token in used if token not in fallback] or used)
    before, twice = _decode(tokenizer, [[anchor], [anchor, anchor]])
    after = twice.removeprefix(before)
    pieces: list[str | bytes] = [""] * len(names)
    bytes_of = _byte_letters()
    for token, text in zip(used, _decode_each(tokenizer, used, [anchor], [anchor]), strict=True):
        # If a decoder changes the anchor's text (none is known to), keep the whole text.
        piece = text.removeprefix(before).removesuffix(after)
        pieces[token] = _whole_or_bytes(names[token] or "", piece, bytes_of) if REPLACEMENT in piece else piece
    unshown = _unshown_bytes(tokenizer, names, [token for token in used if pieces[token] == ""])
    for token, raw in unshown.items():
        pieces[token] = raw
    words = [token for token in used if isinstance(added := pieces[token], str) and added.strip()]
    opening = next((token for token in words if str(pieces[token]).startswith(" ")), None)
    closing = next((token for token in words if str(pieces[token]).endswith(" ")), None)
    strips = opening is not None and not _decode(tokenizer, [[opening]])[0].startswith(" ")
    return TokenTexts(
        pieces=tuple(pieces),
        strips_leading_space=strips,
        strips_trailing_space=closing is not None and not _decode(tokenizer, [[closing]])[0].endswith(" "),
        fallback=fallback,
        errors="ignore" if unshown else "replace",
        openings=_openings(tokenizer, names, pieces, (anchor, after), strips),
    )


def _openings(
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str | None],
    pieces: Sequence[str | bytes],
    behind: tuple[int, str],
    strips: bool,
) -> dict[int, str]:
    """What tokens add at the start of a text, where that is another text than elsewhere.

    WordPiece keeps the mark of a token that continues a word ("##ing") if there is no word to continue. Tokens whose
    names begin alike are treated alike, so only two of each such group are examined, and all of those that differ.

    Args:
        tokenizer: the tokenizer.
        names: of its tokens.
        pieces: what they add elsewhere.
        behind: a token to put behind them, and what it adds there.
        strips: the decoder removes a space from the start of the text.
    """
    groups: dict[str, list[int]] = {}
    for token, (name, piece) in enumerate(zip(names, pieces, strict=True)):
        if name and isinstance(piece, str) and piece and name[0] != piece[0]:
            groups.setdefault(name[:2], []).append(token)

    def differing(tokens: list[int]) -> dict[int, str]:
        texts = (text.removesuffix(behind[1]) for text in _decode_each(tokenizer, tokens, [], [behind[0]]))
        usual = (str(pieces[token]).removeprefix(" " if strips else "") for token in tokens)
        return {token: text for token, text, same in zip(tokens, texts, usual, strict=True) if text != same}

    if not groups:
        return {}
    samples = differing([token for tokens in groups.values() for token in tokens[:_OF_A_GROUP]])
    others = [token for tokens in groups.values() if not samples.keys().isdisjoint(tokens) for token in tokens]
    return differing(others) if others else {}


def _unshown_bytes(
    tokenizer: PreTrainedTokenizerBase, names: Sequence[str | None], silent: Sequence[int]
) -> dict[int, bytes]:
    """The bytes of tokens that a decoder omits unless they form a whole character.

    Such a decoder reads bytes with `errors="ignore"`, as ByT5's does. The name of each token is the character whose
    code is its byte. A few characters are decoded first to verify this.
    """
    letters = {name: token for token, name in enumerate(names) if name is not None and len(name) == 1}
    high = {token: bytes([ord(name)]) for token in silent if len(name := names[token] or "") == 1 and ord(name) < 256}
    rows = [[letters.get(chr(byte), -1) for byte in char.encode()] for char in _TRIED_CHARACTERS]
    if not high or any(-1 in row for row in rows) or _decode(tokenizer, rows) != list(_TRIED_CHARACTERS):
        return {}
    return high


def _whole_or_bytes(name: str, piece: str, bytes_of: dict[str, int]) -> str | bytes:
    """The bytes of a token whose text is a broken character, if its name contains them; otherwise its text."""
    fallback = _BYTE_TOKEN.fullmatch(name)
    if fallback:
        raw = bytes([int(fallback[1], 16)])
    elif all(letter in bytes_of for letter in name):
        raw = bytes(bytes_of[letter] for letter in name)
    else:
        return piece
    if raw.decode("utf-8", "replace") != piece:
        return piece
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _byte_letters() -> dict[str, int]:
    """The characters that byte-level tokenizers use for bytes: printable ones stay, the others get the rest."""
    letters = set(pre_tokenizers.ByteLevel.alphabet())
    own = {chr(byte): byte for byte in range(256) if chr(byte) in letters}
    rest = sorted(letters - own.keys())
    return own | dict(zip(rest, (byte for byte in range(256) if chr(byte) not in own), strict=True))


def _names(tokenizer: PreTrainedTokenizerBase) -> Sequence[str | None]:
    """The name of each token, by id; None for an id that the tokenizer does not use."""
    known = tokenizer.get_vocab()
    size = max(known.values(), default=-1) + 1
    if not tokenizer.is_fast:
        names: Sequence[str | None] = tokenizer.convert_ids_to_tokens(list(range(size)))
        return names
    found: list[str | None] = [None] * size
    for name, token in known.items():
        found[token] = name
    return found


def _anchor(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> int:
    """The token to put around the others for decoding: ideally one letter that gets no space next to itself."""
    unfit: dict[int, tuple[bool, bool, int]] = {}
    texts: dict[int, str] = {}
    for first in range(0, len(tokens), _MOST_AT_ONCE):
        block = tokens[first : first + _MOST_AT_ONCE]
        texts = dict(zip(block, _decode(tokenizer, [[token] for token in block]), strict=True))
        for token, text in texts.items():
            unfit[token] = (not text or REPLACEMENT in text, not text.isalpha(), len(text))
        letters = [token for token in block if unfit[token] == _LETTER]
        twice = zip(letters, _decode(tokenizer, [[token, token] for token in letters]), strict=True)
        found = next((token for token, text in twice if text == 2 * texts[token]), None)
        if found is not None:
            return found
    best = min(unfit.values())
    candidates = [token for token in tokens if unfit[token] == best]
    once = _decode(tokenizer, [[token] for token in candidates])
    doubled = _decode(tokenizer, [[token, token] for token in candidates])
    fits = (token for token, text, two in zip(candidates, once, doubled, strict=True) if two == 2 * text)
    return next(fits, candidates[0])


def _decode_each(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], before: list[int], after: list[int]
) -> list[str]:
    """The text of each token between others.

    The rows of a large tokenizer are made a few at a time: all of them at once would keep the garbage collector busy.
    """
    if len(tokens) < _SLOW or not tokenizer.is_fast:
        return _decode(tokenizer, [[*before, token, *after] for token in tokens])
    decoded: list[str] = []
    for first in range(0, len(tokens), _ROWS_AT_ONCE):
        rows = [[*before, token, *after] for token in tokens[first : first + _ROWS_AT_ONCE]]
        decoded += tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True)
    # The backend tokenizer takes a third of the time. Its result is used if it agrees on a sample of the rows; it may
    # not if the class overrides decoding.
    step = len(tokens) // _SLOW * 4 + 1
    if _decode(tokenizer, [[*before, token, *after] for token in tokens[::step]]) == decoded[::step]:
        return decoded
    return _decode(tokenizer, [[*before, token, *after] for token in tokens])


def _decode(tokenizer: PreTrainedTokenizerBase, rows: list[list[int]]) -> list[str]:
    return tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
