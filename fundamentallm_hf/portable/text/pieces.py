"""The pieces of text that tokens add: whole characters, or bytes of an incomplete one."""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

REPLACEMENT = "\ufffd"
MOST_BYTES = 4  # of a character in UTF-8, each a token in the worst case


def common_length(one: Sequence[object], other: Sequence[object]) -> int:
    """How many of the first items of two sequences are equal."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (first, second) in enumerate(pairs) if first != second), min(len(one), len(other)))


class PiecesInOrder(NamedTuple):
    """The pieces of a vocabulary, sorted, so that those with a common prefix are adjacent.

    Attributes:
        order: the pieces that consist of whole characters.
        starts: where the ids of each piece start in `tokens`; one number more than pieces.
        tokens: the ids of all tokens, in the order of their pieces.
    """

    order: list[str]
    starts: list[int]
    tokens: list[int]

    @classmethod
    def of(cls, pieces: Sequence[str], tokens: Sequence[int]) -> "PiecesInOrder":
        """Sort the texts of tokens."""
        # Flat lists: a list for each piece would keep the garbage collector busy.
        order = sorted(set(pieces))
        ranks = dict(zip(order, range(len(order)), strict=True))
        rank_of = np.fromiter(map(ranks.__getitem__, pieces), dtype=np.int64, count=len(pieces))
        starts = np.concatenate([[0], np.bincount(rank_of, minlength=len(order)).cumsum()])
        in_turn = rank_of.argsort(kind="stable").tolist()
        return cls(order, starts.tolist(), [tokens[place] for place in in_turn])


def shared_length(one: str, other: str) -> int:
    """How many characters two texts have in common at the beginning."""
    most = min(len(one), len(other))
    length = 0
    while length < most and one[length] == other[length]:
        length += 1
    return length


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
