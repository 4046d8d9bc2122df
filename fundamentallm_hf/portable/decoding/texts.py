"""The texts after which a step of decoding, or several steps of it at once, have to choose a token.

A processor of transformers receives all rows at one length. Where drafted tokens are checked, the tokens after every
drafted one are wanted as well. These are texts of different lengths, most of them the beginning of another. Processors
that accept them process all drafts of a pass in one call instead of one call for each token.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import groupby

import torch
from transformers import LogitsProcessor

from .forward import padding_of

# Bytes of one token id in the key of a text.
TOKEN_BYTES = 8
# Assisted decoding goes back by as many tokens as it guesses.
KEPT_LENGTHS = 64


class Texts:
    """Rows of a call, each up to a length.

    Args:
        ids: (rows, columns) token ids of the call.
        rows: for each text its row.
        lengths: for each text its number of columns, padding included. A text comes after those that it begins with.
    """

    def __init__(self, ids: torch.Tensor, rows: Sequence[int], lengths: Sequence[int]) -> None:
        self.ids = ids
        self.rows = rows
        self.lengths = lengths

    @classmethod
    def of(cls, given: "torch.Tensor | Texts") -> "Texts":
        """The texts of a step in which all rows, (rows, length), have one length."""
        if isinstance(given, Texts):
            return given
        rows, length = given.shape
        return cls(given, range(rows), [length] * rows)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def keys(self) -> list[bytes]:
        """The tokens of each text as a dictionary key."""
        longest: dict[int, int] = {}
        for row, length in zip(self.rows, self.lengths, strict=True):
            longest[row] = max(length, longest.get(row, 0))
        held = self.ids.cpu().long().numpy()
        whole = {row: held[row, :length].tobytes() for row, length in longest.items()}
        return [whole[row][: TOKEN_BYTES * length] for row, length in zip(self.rows, self.lengths, strict=True)]

    @cached_property
    def parents(self) -> list[bytes]:
        """The key of each text without its last token."""
        found: list[bytes] = []
        for index, key in enumerate(self.keys):
            follows = index > 0 and len(self.keys[index - 1]) == len(key) - TOKEN_BYTES
            same = follows and self.rows[index - 1] == self.rows[index]
            found.append(self.keys[index - 1] if same else key[:-TOKEN_BYTES])  # a key is hashed once only
        return found

    def part(self, indices: Sequence[int]) -> "Texts":
        """Some of these texts, in the same order."""
        part = Texts(self.ids, [self.rows[index] for index in indices], [self.lengths[index] for index in indices])
        part.keys, part.parents = [self.keys[index] for index in indices], [self.parents[index] for index in indices]
        return part

    def last(self, index: int) -> int:
        """The last token of a text."""
        return int.from_bytes(self.keys[index][-TOKEN_BYTES:], "little")

    def tokens(self, index: int) -> torch.Tensor:
        """The tokens of a text, (length,)."""
        return self.ids[self.rows[index], : self.lengths[index]]

    def groups(self) -> list[list[int]]:
        """The indices of the texts, split where the length changes: none of a group continues another of it."""
        return [list(each) for _, each in groupby(range(len(self)), self.lengths.__getitem__)]

    def padding(self, index: int, padding: Sequence[int]) -> int:
        """The columns of padding before a text, given those before each prompt."""
        return padding_of(padding, self.rows[index], len(self.ids))

    def room(self, remaining: Callable[[torch.Tensor], Sequence[int]]) -> list[int]:
        """How many tokens each text may still get; `remaining` tells it for rows, (rows, length)."""
        known: dict[int, Sequence[int]] = {}
        for length in self.lengths:
            if length not in known:
                known[length] = remaining(self.ids[:, :length])
        return [known[length][row] for row, length in zip(self.rows, self.lengths, strict=True)]

    def far(self, lengths: Iterable[int]) -> list[int]:
        """Those of some lengths that no text is near; what was kept for them can be forgotten."""
        first, last = min(self.lengths) - KEPT_LENGTHS, max(self.lengths) + KEPT_LENGTHS
        return [length for length in lengths if not first <= length <= last]


def undecided(scores: torch.Tensor) -> list[int]:
    """The indices of the rows in which more than one token is left; `scores` are (rows, vocabulary).

    Where top-p and the like leave one token, whatever finite number is added to its score changes nothing. On a
    character model that is about every second to third position in four.
    """
    return ((scores > -torch.inf).sum(dim=-1) > 1).nonzero()[:, 0].tolist()


def longer_key(key: bytes, tokens: Iterable[int]) -> bytes:
    """The key of the text that continues the text of a key with some tokens."""
    return key + b"".join(token.to_bytes(TOKEN_BYTES, "little") for token in tokens)


class OneByOne(ValueError):
    """Raised by `judge_texts` where the texts have to be processed one by one, each after it has been written."""


class JudgesTexts(LogitsProcessor):
    """A processor that can process texts of different lengths in one call.

    What it returns for a text must not depend on which others it receives, apart from the texts that it begins with.

    Attributes:
        has_cheap_texts: several texts take it hardly longer than one, so that it may receive some that nobody writes.
    """

    has_cheap_texts = False

    @property
    def judges(self) -> bool:
        """Whether `judge_texts` can be called."""
        return True

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """Like a call of the processor: `scores` are (texts, vocabulary)."""
        raise NotImplementedError

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores, changed."""
        return self.judge_texts(Texts.of(input_ids), scores)
