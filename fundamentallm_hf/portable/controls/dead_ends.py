"""Looks ahead through all controls together where they allow few tokens.

Each control keeps a completion possible for itself; two of them may each block the one that the other needs. A grammar
that allows "Paris" or "Rome" and a list that bans "Paris" leave nothing after `"Paris`, so its first letter has to be
masked already. Where only a few tokens are allowed, or where a banned word would be complete if the text ended,
continuations are tried token by token until the text may end or many tokens are allowed again.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import LogitsProcessor

from ..decoding.row_states import row_key
from ..text.token_tables import TextState
from .bad_words import BadWordsLogitsProcessor

# With more allowed tokens than this a continuation is assumed to exist.
_NARROW = 16
# Texts that are examined in one step for one row, and before the first step. Texts not examined stay allowed.
_EFFORT, _FIRST_EFFORT = 48, 400


class Closes(Protocol):
    """A control that can report which tokens it masks."""

    def closed(self, input_ids: torch.Tensor, size: int) -> torch.Tensor:
        """(rows, size) bool: the masked tokens."""


class Structure(Protocol):
    """A structure that knows completions without bad words."""

    def dead_ends(self, input_ids: torch.Tensor, index: int, tokens: Sequence[int]) -> list[int]:
        """The tokens after which it knows no completion of a row."""

    def has_completion(self, input_ids: torch.Tensor, index: int) -> bool:
        """Whether it knows a completion of a row."""


class DeadEndLogitsProcessor(LogitsProcessor):
    """Masks the tokens after which the controls together leave no way to a proper end.

    Args:
        stock: processors of transformers that mask tokens; each a pure function of the text.
        controls: controls of this library.
        bad_words: the bans among them.
        end_tokens: ids that end the text.
        silent_tokens: ids that add no text.
        structure: the structure among the controls. It spares a look where it knows a completion that the other
            controls allow.
    """

    def __init__(
        self,
        stock: Sequence[LogitsProcessor],
        controls: Sequence[Closes],
        bad_words: BadWordsLogitsProcessor,
        end_tokens: Sequence[int],
        silent_tokens: Sequence[int] = (),
        structure: Structure | None = None,
    ) -> None:
        self.stock = list(stock)
        self.controls = list(controls)
        self.bad_words = bad_words
        self.end_tokens = list(end_tokens)
        self.silent = frozenset(silent_tokens) - set(end_tokens)
        # A function of transformers may forbid what the structure would write.
        self.structure = structure if not self.stock else None
        self._alive: dict[bytes, bool] = {}
        self._left = 0

    def check(self, input_ids: torch.Tensor, size: int) -> None:
        """Check that a continuation exists after every prompt, `(rows, length)`.

        Raises:
            ValueError: there is none.
        """
        for index in range(len(input_ids)):
            self._left = _FIRST_EFFORT
            if self._is_dead(input_ids, index, size):
                raise ValueError(
                    "bad_words: nothing that the other controls allow can be written without a bad word: change one of "
                    "them"
                )

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores with dead ends masked."""
        closed: list[tuple[int, int]] = []
        for index, state in enumerate(self.bad_words.states(input_ids)):
            tokens = self._doubtful(scores[index].cpu(), state)
            if self.structure is not None and tokens:
                ends = [token for token in tokens if token in self.end_tokens]
                others = [token for token in tokens if token not in self.end_tokens]
                tokens = ends + self.structure.dead_ends(input_ids, index, others)
            self._left = _EFFORT
            closed += [(index, token) for token in tokens if self._leads_nowhere(input_ids, index, token, scores)]
        if not closed:
            return scores
        scores = scores.clone()
        scores[tuple(zip(*closed, strict=True))] = -torch.inf
        return scores

    def _doubtful(self, scores: torch.Tensor, state: TextState) -> list[int]:
        """The tokens that are looked at: all where few are open, else the likeliest behind which no text may end."""
        allowed = scores > -torch.inf
        if int(allowed.sum()) <= _NARROW + len(self.silent):
            tokens = self._tokens(allowed)
            if len(tokens) <= _NARROW:
                return tokens
        ending = self.bad_words.tables.table(state).ending
        ending = ending[allowed[ending]]
        likeliest = ending[scores[ending].argsort(descending=True)[:_EFFORT]]
        return [token for token in likeliest.tolist() if token not in self.silent]

    def _tokens(self, allowed: torch.Tensor) -> list[int]:
        return [token for token in allowed.nonzero().flatten().tolist() if token not in self.silent]

    def _leads_nowhere(self, input_ids: torch.Tensor, index: int, token: int, scores: torch.Tensor) -> bool:
        if token in self.end_tokens:
            return False
        longer = torch.nn.functional.pad(input_ids, (0, 1))
        longer[index, -1] = token
        return self._is_dead(longer, index, scores.shape[-1])

    def _is_dead(self, input_ids: torch.Tensor, index: int, size: int) -> bool:
        """Whether no continuation leads on from a row, depth first; False where the search gave up."""
        key = row_key(input_ids[index])
        if key in self._alive:
            return not self._alive[key]
        if self._left <= 0:
            return False
        self._left -= 1
        if self.structure is not None and self.structure.has_completion(input_ids, index):
            self._alive[key] = True
            return False
        allowed = self._allowed(input_ids, index, size)
        if allowed is None:  # the token budget is used up
            dead = self.bad_words.tables.ends(self.bad_words.states(input_ids)[index])
        elif bool(allowed[[end for end in self.end_tokens if end < size]].any()):
            dead = False
        else:
            tokens = self._tokens(allowed)
            dead = len(tokens) <= _NARROW
            for token in tokens if dead else ():
                longer = torch.nn.functional.pad(input_ids, (0, 1))
                longer[index, -1] = token
                if not self._is_dead(longer, index, size):
                    dead = False
                    break
        if self._left > 0:
            self._alive[key] = not dead
        return dead

    def _allowed(self, input_ids: torch.Tensor, index: int, size: int) -> torch.Tensor | None:
        """(size,) bool: the tokens that all controls allow; None where no more may be added."""
        room = self.bad_words.remaining
        if room is not None and room(input_ids)[index] <= 0:
            return None
        scores = torch.zeros(len(input_ids), size)
        try:
            for processor in self.stock:
                scores = processor(input_ids, scores)
        except ValueError:  # transformers rejects a function that allows nothing
            return torch.zeros(size, dtype=torch.bool)
        allowed = scores[index] > -torch.inf
        for control in self.controls:
            allowed = allowed & ~control.closed(input_ids, size)[index]
        return allowed


class Wrapped:
    """The tokens masked by a processor that only masks, and cheaply."""

    def __init__(self, processor: LogitsProcessor) -> None:
        self.processor = processor

    def closed(self, input_ids: torch.Tensor, size: int) -> torch.Tensor:
        """(rows, size) bool: the masked tokens."""
        return self.processor(input_ids, torch.zeros(len(input_ids), size)) == -torch.inf
