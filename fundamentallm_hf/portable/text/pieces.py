"""The pieces of text that tokens add: whole characters, or bytes of an incomplete one."""

import codecs
from collections.abc import Callable, Hashable, Iterable, Sequence
from string import ascii_letters
from typing import NamedTuple

REPLACEMENT = "\ufffd"


class PiecesInOrder(NamedTuple):
    """The pieces of a vocabulary, sorted, so that those with a common prefix are adjacent.

    Attributes:
        order: the pieces that consist of whole characters.
        tokens: for each piece, the ids that add it.
        rough: indices of the pieces in which anything other than an ASCII letter follows an ASCII letter.
        parts: ids of tokens that add no whole character, or may not.
    """

    order: list[str]
    tokens: list[list[int]]
    rough: list[int]
    parts: list[int]

    def merged(self, key: Callable[[str], Hashable], characters: Iterable[str]) -> "PiecesInOrder":
        """The same with one piece for all that are alike: characters with the same `key` are alike."""
        alike: dict[Hashable, str] = {}
        table = str.maketrans({char: alike.setdefault(key(char), char) for char in sorted(characters)})
        tokens: dict[str, list[int]] = {}
        for piece, of_piece in zip(self.order, self.tokens, strict=True):
            tokens.setdefault(piece.translate(table), []).extend(of_piece)
        order = sorted(tokens)
        return PiecesInOrder(order, [tokens[piece] for piece in order], rough_pieces(order), self.parts)


def rough_pieces(order: Sequence[str]) -> list[int]:
    """Indices of the pieces in which anything other than an ASCII letter follows an ASCII letter."""
    return [
        index for index, piece in enumerate(order) if any(char in ascii_letters for char in piece.rstrip(ascii_letters))
    ]


def add_piece(pending: bytes, piece: str | bytes, errors: str = "replace") -> tuple[str, bytes]:
    """Add a piece to a text that ends in the first bytes of a character.

    Args:
        pending: those bytes, or none.
        piece: the text or bytes that the next token adds.
        errors: how bytes that form no character are handled: see `bytes.decode`.

    Returns:
        The characters that are now complete, and the bytes of an incomplete one.
    """
    if isinstance(piece, str):
        if not piece or not pending:
            return piece, pending
        return pending.decode("utf-8", errors) + piece, b""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    text = decoder.decode(pending + piece)
    return text, decoder.getstate()[0]


def as_bytes(piece: str | bytes) -> bytes:
    """A piece as bytes."""
    return piece.encode() if isinstance(piece, str) else piece


def decode_run(run: bytes) -> str:
    """The text that a decoder returns for adjacent byte-fallback tokens: if one is invalid, it replaces them all."""
    try:
        return run.decode()
    except UnicodeDecodeError:
        return REPLACEMENT * len(run)
