"""Drafts the next tokens, so that one pass of the network can check several of them (speculative decoding).

A draft never changes the text: a drafted token is kept only if the model chooses the same one. Drafts come from the
text so far (prompt lookup) and from an n-gram table next to the model's weights. Neither uses the network.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

# The key of a context is a hash of its tokens. A collision costs a wrong draft, nothing else.
KEY_FACTOR, KEY_BITS = 0x9E3779B1, 32
KEY_MASK = (1 << KEY_BITS) - 1
# Beyond this number the last drafted tokens cost more time than they save.
MOST = 16
# A token is drafted if it is kept with at least this probability. At this value its cost equals its benefit.
_WORTH = 0.12
# Prompt lookup: the number of tokens that must match, and the assumed probability that the next one is kept.
_AGREEING, _ECHO = 8, 0.7
# Acceptance statistics of a call: the weight of the prior in tokens, and the share of the statistics that every pass
# discards, since a text may become easier again.
_PRIOR, _FORGOTTEN = 16.0, 0.01


def context_keys(tokens: Sequence[int], order: int) -> list[int]:
    """The keys of the contexts of the last 1, 2, … `order` tokens, shortest first; fewer if the text is shorter."""
    key, keys = 0, []
    for count, token in enumerate(reversed(tokens[-order:]), start=1):
        key = (key * KEY_FACTOR + token + 1) & KEY_MASK
        keys.append(key | count << KEY_BITS)
    return keys


class NgramTable:
    """The most probable next token of each context, and its probability (the top of a back-off n-gram model).

    Args:
        order: tokens in the longest context.
        entries: a token and its probability for each key of `context_keys`. Key 0 is the empty context.
    """

    def __init__(self, order: int, entries: dict[int, tuple[int, float]]) -> None:
        self.order = order
        self.entries = entries

    def next(self, tokens: Sequence[int]) -> tuple[int, float] | None:
        """The next token by the longest known context, and its probability."""
        entries = self.entries
        for key in reversed(context_keys(tokens, self.order)):
            if key in entries:
                return entries[key]
        return entries.get(0)

    @property
    def largest(self) -> int:
        """The largest token id in the table; -1 if it is empty."""
        return max((token for token, _ in self.entries.values()), default=-1)

    @classmethod
    def load(cls, file: str | Path) -> "NgramTable":
        """Read a table that `save` wrote.

        Raises:
            ValueError: the file is not a draft table.
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
        """Write the table. A context takes 4 bytes, its length 1, the token 1 to 4 and its percentage 1."""
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
    """A processor that can predict the next tokens, because it forces them or makes them nearly certain."""

    def suggested(self, input_ids: torch.Tensor) -> list[list[int]]:
        """Draft the next tokens of each row.

        A wrong draft costs only time.

        Args:
            input_ids: (rows, length).

        Returns:
            For each row the most probable next tokens; empty if the processor cannot predict them.
        """
        raise NotImplementedError


def first_suggestion(suggesting: Iterable[SuggestsTokens], input_ids: torch.Tensor) -> list[int]:
    """The tokens that the first of some processors suggests after a single row, (1, length); empty if none does."""
    return next(filter(None, (each.suggested(input_ids)[0] for each in suggesting)), [])


class Draft(NamedTuple):
    """Drafted tokens.

    Attributes:
        tokens: the tokens.
        suggested: how many of them, from the first on, a processor has suggested.
        probabilities: of the others, that each is kept if those before it are.
    """

    tokens: list[int]
    suggested: int = 0
    probabilities: Sequence[float] = ()


class Drafter:
    """Drafts the next tokens of one text, and tracks how many of them are kept.

    Args:
        table: an n-gram table; may be None.
        worth: a token is drafted if it and all before it are kept with at least this probability.
    """

    def __init__(self, table: NgramTable | None = None, worth: float = _WORTH) -> None:
        self.table = table
        self.worth = worth
        self.expected = self.kept = _PRIOR
        # The last position after each run of tokens in the text, and how many tokens have been entered.
        self._seen: dict[tuple[int, ...], int] = {}
        self._entered = 0

    def __call__(
        self, tokens: list[int], most: int, suggested: Sequence[int] = (), certain: int | None = None
    ) -> Draft:
        """Draft the tokens that are worth checking.

        Args:
            tokens: the text so far.
            most: the maximum number of drafted tokens, `suggested` included.
            suggested: tokens that are drafted already and follow `tokens`; the first of the result.
            certain: how many of `tokens` are in the text for certain; by default all. The next call has to start with
                these.
        """
        self._enter(tokens if certain is None else tokens[:certain])
        suggested = suggested[:most]
        most -= len(suggested)
        text, probability = [*tokens, *suggested], 1.0
        echo = self._seen.get(tuple(text[-_AGREEING:]))
        drafted: list[int] = []
        probabilities: list[float] = []
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
            probability *= min(1.0, likely * trust)
            if probability < self.worth:
                break
            probabilities.append(likely)
            drafted.append(token)
            text.append(token)
        return Draft([*suggested, *drafted], len(suggested), probabilities)

    def learn(self, draft: Draft, kept: int) -> None:
        """Record how many tokens of a draft were kept."""
        kept -= draft.suggested
        if draft.probabilities and kept >= 0:
            self.expected += sum(draft.probabilities[: kept + 1])
            self.kept += kept

    def _enter(self, tokens: list[int]) -> None:
        for end in range(max(self._entered, _AGREEING), len(tokens)):
            self._seen[tuple(tokens[end - _AGREEING : end])] = end
        self._entered = max(self._entered, len(tokens))
