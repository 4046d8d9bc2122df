"""The pieces of text that tokens add: whole characters, or bytes of an incomplete one."""

import codecs
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

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
        derived: a cache for other values computed from these pieces.
    """

    order: list[str]
    starts: list[int]
    tokens: list[int]
    derived: dict[str, Any]

    @classmethod
    def merged(
        cls, pieces: Sequence[str], tokens: Sequence[int], key: Callable[[str], Hashable], characters: Iterable[str]
    ) -> "PiecesInOrder":
        """Sort pieces, with one for all that are alike.

        Args:
            pieces: the texts of tokens.
            tokens: their ids.
            key: tells which characters are alike.
            characters: those that the pieces are made of.
        """
        alike: dict[Hashable, str] = {}
        table = str.maketrans({char: alike.setdefault(key(char), char) for char in sorted(characters)})
        # One long text is translated many times faster than its pieces one by one.
        between = next(char for char in map(chr, range(0x10FFFF, 0, -1)) if ord(char) not in table)
        texts = between.join(pieces).translate(table).split(between) if pieces else []
        # Few different texts may be left, so those are sorted. Flat lists: a list for each piece would keep the garbage
        # collector busy.
        order = sorted(set(texts))
        ranks = dict(zip(order, range(len(order)), strict=True))
        rank_of = np.fromiter(map(ranks.__getitem__, texts), dtype=np.int64, count=len(texts))
        starts = np.concatenate([[0], np.bincount(rank_of, minlength=len(order)).cumsum()])
        in_turn = rank_of.argsort(kind="stable").tolist()
        return cls(order, starts.tolist(), [tokens[place] for place in in_turn], {})

    def behind(self, first: str) -> "PiecesInOrder":
        """What is left of the pieces that start with the character `first`, without it."""
        low, high = bisect_left(self.order, first), bisect_left(self.order, chr(ord(first) + 1))
        start, end = self.starts[low], self.starts[high]
        rests = [piece[1:] for piece in self.order[low:high]]
        return PiecesInOrder(rests, [each - start for each in self.starts[low : high + 1]], self.tokens[start:end], {})


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
