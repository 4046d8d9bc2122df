"""The text that every token of a tokenizer adds.

Controls over text have to know, before a token is chosen, which characters it would add. Every tokenizer has different
rules for that (a byte-level token may be part of a character, a SentencePiece token may begin with a space that only
shows after another token, special tokens show nothing), so nothing is assumed: every token is decoded between two
others, and only where that shows a broken character are its bytes read from its name.
"""

import re
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

from .character_classes import is_surrogate
from .pieces import REPLACEMENT, PiecesInOrder, add_piece, as_bytes, decode_run, rough_pieces

_MOST_BYTES = 4  # of a character
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer as text.

    Attributes:
        pieces: for every token id, the text that it adds, or bytes where it is only a part of a character. Special
            tokens, and ids that the tokenizer does not use, add nothing.
        strips_leading_space: the decoder removes one space from the very start of the text.
        strips_trailing_space: the decoder removes one space from the very end of the text.
        fallback: ids of single bytes that the tokenizer uses only where it has no better token.
        errors: how the decoder handles bytes that form no character, as in `bytes.decode`: "replace" or "ignore".
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
        """The vocabulary of `tokenizer`, cached; created again when tokens were added since.

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
        """Tokens that add `text`, each the longest that fits; None where some character has no token.

        A character without a token is written in bytes, if the vocabulary has them.
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
        """The tokens for parts of a character: those of byte-level words, and those of byte fallback."""
        found: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        for token, piece in enumerate(self.pieces):
            if token in self.fallback or (isinstance(piece, bytes) and len(piece) < _MOST_BYTES):
                found[token in self.fallback].setdefault(as_bytes(piece), token)
        return found

    @cached_property
    def characters(self) -> frozenset[str]:
        """Every character that some token adds whole."""
        return frozenset(char for piece in self._spelling for char in piece)

    def can_write(self, char: str) -> bool:
        """Whether some tokens add this character, in bytes or together with others."""
        return char in self.characters or (not is_surrogate(char) and self.spell(char) is not None)

    def spell_rest(self, piece: str | bytes, rest: str) -> list[int] | None:
        """Tokens that add `rest` to a word that starts with `piece`: in capitals, if it starts so."""
        return self.spell(rest.upper() if _shouted(piece) else rest)

    def begins_with(self, token: int, rest: str) -> bool:
        """Whether `token` and `rest` together are tokenized with `token` first: words have their usual tokens."""
        piece = self.piece(token)
        if isinstance(piece, bytes):
            return True
        whole = piece + (rest.upper() if _shouted(piece) else rest)
        return (self.spell(whole) or [-1])[0] == token

    def completing(self, tail: str, text: str) -> Iterator[int]:
        """The tokens that complete `text`, partly or wholly, after a text that ends in `tail`."""
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
        """The pieces that consist of whole characters, in the order of their text."""
        tokens: dict[str, list[int]] = {}
        parts = []
        for token, piece in enumerate(self.pieces):
            if isinstance(piece, bytes) or token in self.fallback:
                parts.append(token)
            elif piece:
                tokens.setdefault(piece, []).append(token)
        order = sorted(tokens)
        return PiecesInOrder(order, [tokens[piece] for piece in order], rough_pieces(order), parts)

    @cached_property
    def longest(self) -> int:
        """Number of characters in the longest token."""
        return max(map(len, self._spelling), default=0)

    @cached_property
    def silent(self) -> tuple[int, ...]:
        """The tokens that add no text."""
        return tuple(token for token, piece in enumerate(self.pieces) if not piece)

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """Every character that has a token."""
        return tuple(piece for piece in self._spelling if len(piece) == 1)

    def all_continuations(self, fallback: bool) -> bool:
        """Whether every continuation byte of a character has a token, so that every character can be completed."""
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
        """Whether it adds no text: a special token, or an id without a token."""
        return not self.piece(token)

    def piece(self, token: int) -> str | bytes:
        """The text of `token`; empty for an id beyond the tokenizer's, as models with padded vocabularies have."""
        return self.pieces[token] if token < len(self.pieces) else ""


def _shouted(piece: str | bytes) -> bool:
    return isinstance(piece, str) and piece.isupper() and len(piece.strip()) > 1


# Characters of two, three and four bytes.
_TRIED_CHARACTERS = ("é", "ÿ", "日", "😀")
_VIEWS: "weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[int, ...], Vocabulary]]" = (
    weakref.WeakKeyDictionary()
)


def _read(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    names: list[str | None] = tokenizer.convert_ids_to_tokens(list(range(_size(tokenizer))))
    used = [token for token, name in enumerate(names) if name is not None]
    fallback = frozenset(token for token in used if _BYTE_TOKEN.fullmatch(names[token] or ""))
    # Adjacent bytes are decoded together, so none of them can be the token that the others are decoded between.
    anchor = _anchor(tokenizer, [token for token in used if token not in fallback] or used)
    before, twice = _decode(tokenizer, [[anchor], [anchor, anchor]])
    behind = twice.removeprefix(before)
    pieces: list[str | bytes] = [""] * len(names)
    bytes_of = _byte_letters()
    for token, text in zip(used, _decode(tokenizer, [[anchor, token, anchor] for token in used]), strict=True):
        # Where a decoder rewrites the neighbouring text (none is known to), the whole result is the safer answer.
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
    """The bytes of tokens for which a decoder shows nothing unless they form a whole character.

    Such a decoder reads bytes with `errors="ignore"`, as ByT5's does; each token is named by the character with the
    code of its byte. That is verified before it is used.
    """
    letters = {name: token for token, name in enumerate(names) if name is not None and len(name) == 1}
    high = {token: bytes([ord(name)]) for token in silent if len(name := names[token] or "") == 1 and ord(name) < 256}
    rows = [[letters.get(chr(byte), -1) for byte in char.encode()] for char in _TRIED_CHARACTERS]
    if not high or any(-1 in row for row in rows) or _decode(tokenizer, rows) != list(_TRIED_CHARACTERS):
        return {}
    return high


def _whole_or_bytes(name: str, piece: str, bytes_of: dict[str, int]) -> str | bytes:
    """The bytes of a token whose text is a broken character, if its name shows them; its text otherwise."""
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
    """The letters that represent bytes in byte-level tokenizers: printable bytes as themselves, others as free ones."""
    letters = set(pre_tokenizers.ByteLevel.alphabet())
    own = {chr(byte): byte for byte in range(256) if chr(byte) in letters}
    rest = sorted(letters - own.keys())
    return own | dict(zip(rest, (byte for byte in range(256) if chr(byte) not in own), strict=True))


def _size(tokenizer: PreTrainedTokenizerBase) -> int:
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _anchor(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> int:
    """The token to decode the others between: if possible one letter, to which its neighbours add no space."""
    texts = dict(zip(tokens, _decode(tokenizer, [[token] for token in tokens]), strict=True))
    unfit = {token: (not text or REPLACEMENT in text, not text.isalpha(), len(text)) for token, text in texts.items()}
    best = min(unfit.values())
    candidates = [token for token in tokens if unfit[token] == best]
    twice = zip(candidates, _decode(tokenizer, [[token, token] for token in candidates]), strict=True)
    return next((token for token, text in twice if text == 2 * texts[token]), candidates[0])


def _decode(tokenizer: PreTrainedTokenizerBase, rows: list[list[int]]) -> list[str]:
    return tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
