"""Guesses how a text goes on, so that several tokens can be checked in one pass of the network (speculative decoding).

A guess never changes the text: a token is kept when it is the one that is chosen anyway. Guesses come from the text so
far (prompt lookup) and from an n-gram table next to the model's weights. Neither looks at the network.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

# A context is found by a number made of its tokens. Two that share one cost a wrong guess, and nothing else.
KEY_FACTOR, KEY_BITS = 0x9E3779B1, 32
KEY_MASK = (1 << KEY_BITS) - 1
# More tokens in one pass cost more than the last of them save.
MOST = 12
# A further token is drafted while it is this likely to be kept: by then it costs about as much as it saves.
_WORTH = 0.2
# The least number of tokens of the text so far that have to agree, and how likely its next one is taken to be kept.
_AGREEING, _ECHO = 8, 0.7
# What a call learns of its own acceptance counts beside so many tokens that were as good as expected, and is forgotten
# by this part at every pass: a text may become easier again.
_PRIOR, _FORGOTTEN = 16.0, 0.01


def context_keys(tokens: Sequence[int], order: int) -> list[int]:
    """A number for each of the last 1, 2, … `order` tokens, as far as there are so many; the shortest first."""
    key, keys = 0, []
    for count, token in enumerate(reversed(tokens[-order:]), start=1):
        key = (key * KEY_FACTOR + token + 1) & KEY_MASK
        keys.append(key | count << KEY_BITS)
    return keys


class NgramTable:
    """The likeliest next token after many contexts, and how likely it is (a back-off n-gram, its rest left out).

    Args:
        order: tokens in the longest context.
        entries: by `context_keys`, a token and its probability. 0 stands for no context.
    """

    def __init__(self, order: int, entries: dict[int, tuple[int, float]]) -> None:
        self.order = order
        self.entries = entries

    def next(self, tokens: Sequence[int]) -> tuple[int, float] | None:
        """The token that the longest known context has next, and its probability."""
        found, entries = self.entries.get(0), self.entries
        for key in context_keys(tokens, self.order):
            found = entries.get(key, found)
        return found

    @property
    def largest(self) -> int:
        """The largest token id in the table; -1 if it is empty."""
        return max((token for token, _ in self.entries.values()), default=-1)

    @classmethod
    def load(cls, file: str | Path) -> "NgramTable":
        """Read what `save` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            parts = load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is not a draft table: {error}") from error
        if parts.keys() != {"contexts", "lengths", "tokens", "percent"}:
            raise ValueError(f"{file} is not a draft table: make one with `fundamentallm draft FOLDER TEXT_FILE`")
        sizes = {each.shape for each in parts.values()}
        if len(sizes) > 1 or any(each.dim() != 1 or each.is_floating_point() for each in parts.values()):
            raise ValueError(f"{file} is not a draft table: it has to hold columns of whole numbers of one length")
        contexts, lengths, tokens, percent = (
            parts[name].tolist() for name in ("contexts", "lengths", "tokens", "percent")
        )
        keys = [context & KEY_MASK | length << KEY_BITS for context, length in zip(contexts, lengths, strict=True)]
        values = zip(tokens, [each / 100 for each in percent], strict=True)
        return cls(max(lengths, default=0), dict(zip(keys, values, strict=True)))

    def save(self, file: str | Path) -> None:
        """Write the table: 4 bytes for each context, 1 for its length, 1 to 4 for the token, 1 for its percentage."""
        tokens = [token for token, _ in self.entries.values()]
        width = next(kind for kind in (torch.uint8, torch.int16, torch.int32) if max(tokens, default=0) < _limit(kind))
        keys = torch.tensor(list(self.entries), dtype=torch.long)
        parts = {
            "contexts": (keys & KEY_MASK).to(torch.int32),
            "lengths": (keys >> KEY_BITS).to(torch.uint8),
            "tokens": torch.tensor(tokens, dtype=width),
            "percent": torch.tensor([round(100 * value) for _, value in self.entries.values()], dtype=torch.uint8),
        }
        save_file(parts, file)


def _limit(kind: torch.dtype) -> int:
    return torch.iinfo(kind).max + 1


class SuggestsTokens:
    """A processor that knows how its text goes on, as far as it is bound to or as good as sure to."""

    def suggested(self, input_ids: torch.Tensor) -> list[list[int]]:
        """For each row of `input_ids`, (rows, length), the tokens that come next in all likelihood; none if it cannot
        tell. They are drafts: one that is not chosen costs time and nothing else."""
        raise NotImplementedError


class Drafter:
    """Guesses the next tokens of one text, and learns how often it is right.

    Args:
        table: an n-gram table, if there is one.
        worth: a token is drafted while all up to it are kept with at least this chance.
    """

    def __init__(self, table: NgramTable | None = None, worth: float = _WORTH) -> None:
        self.table = table
        self.worth = worth
        self.expected = self.kept = _PRIOR
        self._chances: list[float] = []
        # Where each run of tokens in the text was seen last, by its tokens; how much of the text has been entered.
        self._seen: dict[tuple[int, ...], int] = {}
        self._entered = 0

    def __call__(self, tokens: list[int], most: int, suggested: Sequence[int] = ()) -> list[int]:
        """How `tokens` and those that are `suggested` may go on: as many as are worth checking, `most` at most.

        `tokens` have to begin with those of the call before.
        """
        self._enter(tokens)
        text, chance = [*tokens, *suggested], 1.0
        echo = self._seen.get(tuple(text[-_AGREEING:]))
        drafted: list[int] = []
        self._chances = []
        self.expected += _FORGOTTEN * (_PRIOR - self.expected)
        self.kept += _FORGOTTEN * (_PRIOR - self.kept)
        trust = self.kept / self.expected
        while len(drafted) < min(most, MOST):
            if echo is not None and echo < len(text):
                token, likely = text[echo], _ECHO
                guess = self.table.next(text) if self.table is not None else None
                if guess is not None and (guess[1] > likely or guess[0] == token):
                    token, likely = guess[0], max(guess[1], likely)
                echo = echo + 1 if text[echo] == token else None
            else:
                found = self.table.next(text) if self.table is not None else None
                if found is None:
                    break
                token, likely = found
            chance *= min(1.0, likely * trust)
            if chance < self.worth:
                break
            self._chances.append(likely)
            drafted.append(token)
            text.append(token)
        return drafted

    def learn(self, drafted: int, kept: int) -> None:
        """Take note of how many of the tokens that were drafted last have been kept."""
        judged = min(kept + 1, drafted)
        self.expected += sum(self._chances[:judged])
        self.kept += kept

    def _enter(self, tokens: list[int]) -> None:
        for end in range(max(self._entered, _AGREEING), len(tokens)):
            self._seen[tuple(tokens[end - _AGREEING : end])] = end
        self._entered = max(self._entered, len(tokens))
