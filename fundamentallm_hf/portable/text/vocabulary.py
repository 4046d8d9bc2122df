"""What every token of a tokenizer adds to the text.

Controls over text have to know, before a token is chosen, which characters it would add. Every tokenizer has rules of
its own for that (a byte-level token may be part of a character, a SentencePiece token may begin with a space that only
shows after another token, special tokens show nothing), so nothing is assumed: every token is decoded between two
others, and only where that shows a broken character are its bytes read from its name. This file knows nothing of
models.
"""

import codecs
import re
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from string import ascii_letters
from typing import NamedTuple

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

from .character_classes import is_surrogate

REPLACEMENT = "\ufffd"
_MOST_BYTES = 4  # of a character
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's tokens as text.

    Attributes:
        pieces: for every token id, what it adds: text, or bytes where it holds only a part of a character. Special
            tokens, and ids that the tokenizer does not use, add nothing.
        strips_leading_space: the decoder takes one space from the very beginning of the text.
        strips_trailing_space: the decoder takes one space from the very end of the text.
        fallback: ids that stand for a byte, and that a tokenizer uses only where it has no better token.
        errors: what the decoder does with bytes that make no character, as `bytes.decode` calls it: "replace" or
            "ignore".
    """

    pieces: tuple[str | bytes, ...]
    strips_leading_space: bool = False
    strips_trailing_space: bool = False
    fallback: frozenset[int] = frozenset()
    errors: str = "replace"
    _spelling: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    _holders: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    _limited: dict[int, "Vocabulary"] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for token in sorted(range(len(self.pieces)), key=self.fallback.__contains__):
            piece = self.pieces[token]
            if isinstance(piece, str) and piece:
                self._spelling.setdefault(piece, token)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Vocabulary":
        """The view of `tokenizer`: made at first use, and again when tokens were added since.

        Example:

        ```python
        >>> from fundamentallm_hf import load_model
        >>> from fundamentallm_hf.portable.text.vocabulary import Vocabulary
        >>> vocabulary = Vocabulary.of(load_model(device="cpu").tokenizer)
        >>> vocabulary.pieces[vocabulary.token("a")]
        'a'

        ```
        """
        version = (len(tokenizer), *tokenizer.all_special_ids)
        known = _VIEWS.get(tokenizer)
        if known is None or known[0] != version:
            known = _VIEWS[tokenizer] = (version, _read(tokenizer))
        return known[1]

    def limited(self, size: int) -> "Vocabulary":
        """Only the tokens with ids below `size`: a model may have fewer scores than its tokenizer has tokens."""
        if size >= len(self.pieces):
            return self
        if size not in self._limited:
            kept = frozenset(token for token in self.fallback if token < size)
            self._limited[size] = replace(
                self, pieces=self.pieces[:size], fallback=kept, _spelling={}, _holders={}, _limited={}
            )
        return self._limited[size]

    def token(self, text: str) -> int | None:
        """The token that adds exactly `text`, if there is one."""
        return self._spelling.get(text)

    def spell(self, text: str) -> list[int] | None:
        """Tokens that add `text`, each the longest that fits; None where some character has none.

        A character without a token of its own is written in bytes, if the vocabulary has them.
        """
        tokens: list[int] = []
        place = 0
        while place < len(text):
            for end in range(min(len(text), place + self.longest), place, -1):
                token = self._spelling.get(text[place:end])
                if token is not None:
                    break
            else:
                end, raw = (
                    place + 1,
                    self.spell_bytes(text[place].encode("utf-8", "surrogatepass"), bool(self.fallback)),
                )
                if raw is None:
                    return None
                tokens += raw
                place = end
                continue
            tokens.append(token)
            place = end
        return tokens

    def spell_bytes(self, raw: bytes, fallback: bool) -> list[int] | None:
        """Tokens that add these bytes, each the longest that fits: byte-fallback tokens, or parts of characters."""
        tokens = []
        known = self._byte_tokens[fallback]
        while raw:
            found = next((cut for cut in range(min(len(raw), _MOST_BYTES), 0, -1) if raw[:cut] in known), None)
            if found is None:
                return None
            tokens.append(known[raw[:found]])
            raw = raw[found:]
        return tokens

    @cached_property
    def _byte_tokens(self) -> tuple[dict[bytes, int], dict[bytes, int]]:
        """The tokens for parts of a character: those of whole words, and those of byte fallback."""
        found: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        for token, piece in enumerate(self.pieces):
            if token in self.fallback or (isinstance(piece, bytes) and len(piece) < _MOST_BYTES):
                found[token in self.fallback].setdefault(as_bytes(piece), token)
        return found

    @cached_property
    def characters(self) -> frozenset[str]:
        """Every character that a token adds whole."""
        return frozenset(char for piece in self._spelling for char in piece)

    def can_write(self, char: str) -> bool:
        """Whether some tokens add this character, be it in bytes or together with others."""
        return char in self.characters or (not is_surrogate(char) and self.spell(char) is not None)

    def spell_rest(self, piece: str | bytes, rest: str) -> list[int] | None:
        """Tokens that add `rest` to a word that began with `piece`: in capitals, if that is how it began."""
        return self.spell(rest.upper() if _shouted(piece) else rest)

    def begins_with(self, token: int, rest: str) -> bool:
        """Whether `token` and `rest` together are written with `token` first: words have their customary tokens."""
        piece = self.piece(token)
        if isinstance(piece, bytes):
            return True
        whole = piece + (rest.upper() if _shouted(piece) else rest)
        return (self.spell(whole) or [-1])[0] == token

    def completing(self, tail: str, text: str) -> Iterator[int]:
        """The tokens that complete `text`, in part or wholly, behind a text that ends in `tail`."""
        yield from self._holding(text)
        for done in range(1, len(text)):
            if tail.endswith(text[:done]):
                missing = text[done:]
                first = bisect_left(self._sorted, missing)
                last = bisect_left(self._sorted, missing + "\U0010ffff", lo=first)
                for piece in self._sorted[first:last]:
                    yield from self._alike[piece]

    def _holding(self, text: str) -> tuple[int, ...]:
        if text not in self._holders:
            holding = (tokens for piece, tokens in self._alike.items() if text in piece)
            self._holders[text] = tuple(token for tokens in holding for token in tokens)
        return self._holders[text]

    @cached_property
    def _alike(self) -> dict[str, list[int]]:
        alike: dict[str, list[int]] = {piece: [] for piece in self._spelling}
        for token, piece in enumerate(self.pieces):
            if isinstance(piece, str) and piece:
                alike[piece].append(token)
        return alike

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._spelling)

    @cached_property
    def in_order(self) -> "PiecesInOrder":
        """The pieces that are whole characters, in the order of their text."""
        tokens: dict[str, list[int]] = {}
        parts = []
        for token, piece in enumerate(self.pieces):
            if isinstance(piece, bytes) or token in self.fallback:
                parts.append(token)
            elif piece:
                tokens.setdefault(piece, []).append(token)
        order = sorted(tokens)
        rough = [
            index
            for index, piece in enumerate(order)
            if any(char in ascii_letters for char in piece.rstrip(ascii_letters))
        ]
        return PiecesInOrder(order, [tokens[piece] for piece in order], rough, parts)

    @cached_property
    def longest(self) -> int:
        """Characters in the longest token."""
        return max(map(len, self._spelling), default=0)

    @cached_property
    def silent(self) -> tuple[int, ...]:
        """The tokens that add no text."""
        return tuple(token for token, piece in enumerate(self.pieces) if not piece)

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """Every character that is a token of its own."""
        return tuple(piece for piece in self._spelling if len(piece) == 1)

    def all_continuations(self, fallback: bool) -> bool:
        """Whether every byte within a character is a token of its own, so that every character can be completed."""
        return self._continuations[fallback]

    @cached_property
    def _continuations(self) -> tuple[bool, bool]:
        found: tuple[set[bytes], set[bytes]] = (set(), set())
        for token, piece in enumerate(self.pieces):
            if isinstance(piece, bytes) and len(piece) == 1:
                found[token in self.fallback].add(piece)
        wanted = {bytes([byte]) for byte in range(0x80, 0xC0)}
        return wanted <= found[0], wanted <= found[1]

    def text(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`, special tokens left out."""
        parts = []
        pending = run = b""
        for token in tokens:
            piece = self.piece(token)
            if token in self.fallback:
                run += as_bytes(piece)
            elif piece:
                added, pending = add_piece(pending, piece, self.errors)
                parts += [decode_run(run), added]
                run = b""
        text = "".join(parts) + decode_run(run) + pending.decode("utf-8", self.errors)
        text = text.removeprefix(" ") if self.strips_leading_space else text
        return text.removesuffix(" ") if self.strips_trailing_space else text

    def is_border(self, token: int) -> bool:
        """Whether it adds no text: a special token, or an id that nothing stands for."""
        return not self.piece(token)

    def piece(self, token: int) -> str | bytes:
        """What `token` adds; nothing for an id beyond the tokenizer's, as models with padded vocabularies have."""
        return self.pieces[token] if token < len(self.pieces) else ""


class PiecesInOrder(NamedTuple):
    """The pieces of a vocabulary, sorted, so that those with one beginning stand side by side.

    Attributes:
        order: the pieces that are whole characters.
        tokens: for each, the ids that add it.
        rough: indices of the pieces in which something else follows a letter of ASCII; in all others nothing but such
            letters does.
        parts: ids of what is no whole character, or may not be.
    """

    order: list[str]
    tokens: list[list[int]]
    rough: list[int]
    parts: list[int]


def add_piece(pending: bytes, piece: str | bytes, errors: str = "replace") -> tuple[str, bytes]:
    """Add a piece to a text that ends in the first bytes of a character.

    Args:
        pending: those bytes, or none.
        piece: what the next token adds.
        errors: what becomes of bytes that make no character: see `bytes.decode`.

    Returns:
        The characters that are now whole, and the bytes that still wait.
    """
    if isinstance(piece, str):
        if not piece or not pending:
            return piece, pending
        return pending.decode("utf-8", errors) + piece, b""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    text = decoder.decode(pending + piece)
    return text, decoder.getstate()[0]


def _shouted(piece: str | bytes) -> bool:
    return isinstance(piece, str) and piece.isupper() and len(piece.strip()) > 1


def as_bytes(piece: str | bytes) -> bytes:
    """A piece as the bytes that it stands for."""
    return piece.encode() if isinstance(piece, str) else piece


def decode_run(run: bytes) -> str:
    """What a decoder makes of byte-fallback tokens side by side: where one fits nowhere, it replaces them all."""
    try:
        return run.decode()
    except UnicodeDecodeError:
        return REPLACEMENT * len(run)


# Characters of two, three and four bytes.
_TRIED_CHARACTERS = ("é", "ÿ", "日", "😀")
_VIEWS: "weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[int, ...], Vocabulary]]" = (
    weakref.WeakKeyDictionary()
)


def _read(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    names: list[str | None] = tokenizer.convert_ids_to_tokens(list(range(_size(tokenizer))))
    used = [token for token, name in enumerate(names) if name is not None]
    fallback = frozenset(token for token in used if _BYTE_TOKEN.fullmatch(names[token] or ""))
    # Bytes that stand side by side are decoded together, so none of them can be what the others are decoded between.
    anchor = _anchor(tokenizer, [token for token in used if token not in fallback] or used)
    before, twice = _decode(tokenizer, [[anchor], [anchor, anchor]])
    behind = twice.removeprefix(before)
    pieces: list[str | bytes] = [""] * len(names)
    bytes_of = _byte_letters()
    for token, text in zip(used, _decode(tokenizer, [[anchor, token, anchor] for token in used]), strict=True):
        # Where a decoder rewrites what stands beside (none is known to), the whole is the safer answer.
        piece = text.removeprefix(before).removesuffix(behind)
        pieces[token] = _whole_or_bytes(names[token] or "", piece, bytes_of) if REPLACEMENT in piece else piece
    unshown = _unshown_bytes(tokenizer, names, [token for token in used if pieces[token] == ""])
    for token, raw in unshown.items():
        pieces[token] = raw
    words = [(token, added) for token in used if isinstance(added := pieces[token], str) and added.strip()]
    opening = next((token for token, piece in words if piece.startswith(" ")), None)
    closing = next((token for token, piece in words if piece.endswith(" ")), None)
    return Vocabulary(
        pieces=tuple(pieces),
        strips_leading_space=opening is not None and not _decode(tokenizer, [[opening]])[0].startswith(" "),
        strips_trailing_space=closing is not None and not _decode(tokenizer, [[closing]])[0].endswith(" "),
        fallback=fallback,
        errors="ignore" if unshown else "replace",
    )


def _unshown_bytes(
    tokenizer: PreTrainedTokenizerBase, names: Sequence[str | None], silent: Sequence[int]
) -> dict[int, bytes]:
    """The bytes that tokens stand for of which a decoder shows nothing unless they make a whole character.

    Such a decoder reads bytes with `errors="ignore"`, as ByT5's does; each token is named by the character with the
    code of its byte. That is put to the test before it is believed.
    """
    letters = {name: token for token, name in enumerate(names) if name is not None and len(name) == 1}
    high = {token: bytes([ord(name)]) for token in silent if len(name := names[token] or "") == 1 and ord(name) < 256}
    rows = [[letters.get(chr(byte), -1) for byte in char.encode()] for char in _TRIED_CHARACTERS]
    if not high or any(-1 in row for row in rows) or _decode(tokenizer, rows) != list(_TRIED_CHARACTERS):
        return {}
    return high


def _whole_or_bytes(name: str, piece: str, bytes_of: dict[str, int]) -> str | bytes:
    """The bytes of a token whose text is a broken character, if its name tells them; its text otherwise."""
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
    """The letters by which byte-level tokenizers name bytes: printable ones name themselves, the rest what is left."""
    letters = set(pre_tokenizers.ByteLevel.alphabet())
    own = {chr(byte): byte for byte in range(256) if chr(byte) in letters}
    rest = sorted(letters - own.keys())
    return own | dict(zip(rest, (byte for byte in range(256) if chr(byte) not in own), strict=True))


def _size(tokenizer: PreTrainedTokenizerBase) -> int:
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _anchor(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> int:
    """The token to decode the others between: at best one letter, to which its neighbours add no space."""
    texts = dict(zip(tokens, _decode(tokenizer, [[token] for token in tokens]), strict=True))
    unfit = {token: (not text or REPLACEMENT in text, not text.isalpha(), len(text)) for token, text in texts.items()}
    best = min(unfit.values())
    candidates = [token for token in tokens if unfit[token] == best]
    twice = zip(candidates, _decode(tokenizer, [[token, token] for token in candidates]), strict=True)
    return next((token for token, text in twice if text == 2 * texts[token]), candidates[0])


def _decode(tokenizer: PreTrainedTokenizerBase, rows: list[list[int]]) -> list[str]:
    return tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
