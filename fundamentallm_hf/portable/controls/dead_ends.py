"""Looks ahead through all controls together where they allow few tokens.

Each control keeps a completion possible for itself; two of them may each block the one that the other needs. A grammar
that allows "Paris" or "Rome" and a list that bans "Paris" leave nothing after `"Paris`, so its first letter has to be
masked already. Where only a few tokens are allowed, continuations are tried token by token until the text may end or
many tokens are allowed again; what has not been tried stays allowed.

Where a banned word would be complete if the text ended, it is the other way round: such a token is masked unless a way
on is known. Otherwise a text that can neither end nor continue would have to end in the banned word.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from transformers import LogitsProcessor

from ..decoding.row_states import row_key
from .bad_words import BadWordsLogitsProcessor
from .must_include import MustIncludeLogitsProcessor
from .whole_text_words import contradiction

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

    def always_completed(self, input_ids: torch.Tensor, index: int) -> torch.Tensor | None:
        """(size,) bool: the tokens after which a completion is known without looking at them; None if none are."""


class DeadEndLogitsProcessor(LogitsProcessor):
    """Masks the tokens after which the controls together leave no way to a proper end.

    Args:
        stock: processors of transformers that mask tokens; each a pure function of the text.
        controls: controls of this library.
        bad_words: the bans among them, if there are any.
        including: the required words among them, if there are any.
        remaining: called with the token ids `(rows, length)`, returns how many tokens each row may still get.
        end_tokens: ids that end the text.
        silent_tokens: ids that add no text.
        structure: the structure among the controls. It spares a look where it knows a completion that the other
            controls allow.
    """

    def __init__(
        self,
        stock: Sequence[LogitsProcessor],
        controls: Sequence[Closes],
        bad_words: BadWordsLogitsProcessor | None,
        including: MustIncludeLogitsProcessor | None,
        remaining: Callable[[torch.Tensor], Sequence[int]],
        end_tokens: Sequence[int],
        silent_tokens: Sequence[int] = (),
        structure: Structure | None = None,
    ) -> None:
        self.stock = list(stock)
        self.controls = list(controls)
        self.bad_words = bad_words
        self.including = including
        self.remaining = remaining
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
                requirements = None if self.including is None else self.including.requirements
                raise ValueError(contradiction(requirements, self.bad_words is not None))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores with dead ends masked."""
        closed: list[tuple[int, int]] = []
        for index in range(len(input_ids)):
            closed += [(index, token) for token in self._dead_ends(input_ids, index, scores[index].cpu())]
        if not closed:
            return scores
        scores = scores.clone()
        scores[tuple(zip(*closed, strict=True))] = -torch.inf
        return scores

    def _dead_ends(self, input_ids: torch.Tensor, index: int, scores: torch.Tensor) -> list[int]:
        """The tokens to mask in a row, of which the scores are (vocabulary,)."""
        allowed = scores > -torch.inf
        ending = self._ending(input_ids, index, allowed)
        few = self._tokens(allowed) if int(allowed.sum()) <= _NARROW + len(self.silent) else []
        few = few if len(few) <= _NARROW else []
        if self.structure is not None and len(ending):
            known = self.structure.always_completed(input_ids, index)
            ending = ending if known is None else ending[~known[ending]]
        ending = ending[scores[ending].argsort(descending=True)]
        must_not_end = ending[:_EFFORT].tolist()
        doubtful = [token for token in few if token not in must_not_end and token not in self.end_tokens]
        if self.structure is not None:
            must_not_end = self.structure.dead_ends(input_ids, index, must_not_end) if must_not_end else []
            doubtful = self.structure.dead_ends(input_ids, index, doubtful) if doubtful else []
        self._left = _EFFORT
        dead = [token for token in doubtful if self._is_dead(_longer(input_ids, index, token), index, len(scores))]
        dead += [token for token in must_not_end if not self._leads_out(input_ids, index, token, len(scores))]
        return dead + ending[_EFFORT:].tolist()

    def _ending(self, input_ids: torch.Tensor, index: int, allowed: torch.Tensor) -> torch.Tensor:
        """(tokens,) long: the tokens after which a banned word would be complete if the text ended."""
        if self.bad_words is None:
            return torch.zeros(0, dtype=torch.long)
        ending = self.bad_words.tables.table(self.bad_words.states(input_ids)[index]).ending
        ending = ending[allowed[ending]]
        shown = [token not in self.silent and token not in self.end_tokens for token in ending.tolist()]
        return ending[torch.tensor(shown, dtype=torch.bool)]

    def _tokens(self, allowed: torch.Tensor) -> list[int]:
        return [token for token in allowed.nonzero().flatten().tolist() if token not in self.silent]

    def _leads_out(self, input_ids: torch.Tensor, index: int, token: int, size: int) -> bool:
        """Whether some tokens that all controls allow follow a token, after which no banned word is complete."""
        if self._left <= 0:
            return False
        self._left -= 1
        longer = _longer(input_ids, index, token)
        allowed = self._allowed(longer, index, size)
        if allowed is None:
            return False
        ending = self._ending(longer, index, allowed)
        allowed[[end for end in self.end_tokens if end < size]] = False
        allowed[ending] = False
        if self._tokens(allowed):
            return True
        return any(self._leads_out(longer, index, each, size) for each in ending[:_NARROW].tolist())

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
            dead = self._must_go_on(input_ids, index)
        elif bool(allowed[[end for end in self.end_tokens if end < size]].any()):
            dead = False
        else:
            tokens = self._tokens(allowed)
            dead = len(tokens) <= _NARROW
            for token in tokens if dead else ():
                if not self._is_dead(_longer(input_ids, index, token), index, size):
                    dead = False
                    break
        if self._left > 0:
            self._alive[key] = not dead
        return dead

    def _must_go_on(self, input_ids: torch.Tensor, index: int) -> bool:
        """Whether a row may not end, by the words."""
        bans, including = self.bad_words, self.including
        if bans is not None and bans.tables.ends(bans.states(input_ids)[index]):
            return True
        return including is not None and bool(including.requirements.missing(including.states(input_ids)[index]))

    def _allowed(self, input_ids: torch.Tensor, index: int, size: int) -> torch.Tensor | None:
        """(size,) bool: the tokens that all controls allow; None where no more may be added."""
        if self.remaining(input_ids)[index] <= 0:
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


def _longer(input_ids: torch.Tensor, index: int, token: int) -> torch.Tensor:
    """The rows, (rows, length), with one more token: `token` in the row `index`, 0 in the others."""
    longer = torch.nn.functional.pad(input_ids, (0, 1))
    longer[index, -1] = token
    return longer


class Wrapped:
    """The tokens masked by a processor that only masks, and cheaply."""

    def __init__(self, processor: LogitsProcessor) -> None:
        self.processor = processor

    def closed(self, input_ids: torch.Tensor, size: int) -> torch.Tensor:
        """(rows, size) bool: the masked tokens."""
        return self.processor(input_ids, torch.zeros(len(input_ids), size)) == -torch.inf
