"""How a text ends: the probability of an end, and what happens where no continuation is left."""

import math
from collections.abc import Callable, Sequence
from itertools import compress

import torch
from transformers import StoppingCriteria
from transformers.utils import logging

from .row_states import row_key
from .texts import JudgesTexts, OneByOne, Texts

logger = logging.get_logger(__name__)

# Below any real score, and small enough to be summed over a beam in half precision.
_LAST_RESORT = -1e4


class LengthPenaltyLogitsProcessor(JudgesTexts):
    """Makes a text longer or shorter by changing the probability that it ends.

    transformers' `length_penalty` acts in beam search only, where it weights finished texts by their length. This is
    its counterpart for texts that are generated one token at a time: the odds of ending at a token are divided by
    `100 ** (penalty - 1)`, so 1.5 makes an end ten times less likely and 0.5 ten times more likely.

    Args:
        penalty: above 1 lengthens, below 1 shortens, 1 changes nothing.
        end_tokens: ids that end the text.
    """

    has_cheap_texts = True

    def __init__(self, penalty: float, end_tokens: Sequence[int]) -> None:
        self.shift = -(penalty - 1.0) * math.log(100.0)
        self.end_tokens = torch.tensor(list(end_tokens), dtype=torch.long)

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. Returns the scores with the odds shifted."""
        scores = scores.clone()
        scores[:, self.end_tokens[self.end_tokens < scores.shape[-1]].to(scores.device)] += self.shift
        return scores


class EndCriteria(StoppingCriteria):
    """Ends the rows that a processor had to end.

    The caller of `generate()` may pass one and read from it which rows were ended.

    Attributes:
        rows: their tokens before the end, as bytes of int64.
    """

    # transformers pads rows that have ended before the others only if some criterion has this attribute.
    eos_token_id = None

    def __init__(self) -> None:
        self.rows: set[bytes] = set()

    def holds(self, tokens: Sequence[int]) -> bool:
        """Whether the row with these tokens had to be ended after them."""
        return bool(self.rows) and row_key(torch.tensor(tokens)) in self.rows

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        """`input_ids`: (rows, length). Returns (rows,) bool."""
        if not self.rows:
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        ended = [row_key(row) in self.rows for row in input_ids[:, :-1]]
        return torch.tensor(ended, device=input_ids.device)


class ClosedEndCriteria(EndCriteria):
    """Ends the rows for which the controls left no token, as `OpenEndLogitsProcessor` found.

    Attributes:
        tell: log a warning about them.
    """

    def __init__(self, tell: bool = True) -> None:
        super().__init__()
        self.tell = tell


class CompleteEndCriteria(EndCriteria):
    """Ends the rows whose text is complete and cannot be continued, which is a proper end.

    Attributes:
        judge: returns whether a row of these tokens has a complete text; None where no text has to be complete.
    """

    def __init__(self) -> None:
        super().__init__()
        self.judge: Callable[[Sequence[int]], bool] | None = None

    def judges(self, tokens: Sequence[int]) -> bool:
        """Whether the text of a row with these tokens is complete, however it ended."""
        return self.judge is not None and self.judge(tokens)


class OpenEndLogitsProcessor(JudgesTexts):
    """Ends a text cleanly where controls have masked every continuation. Must come after all of them.

    Where every score of a row is masked, greedy decoding silently writes token 0, and sampling fails.

    Args:
        closing_token: the token to write there; None if the model has no token that can serve as an end.
        criteria: records which rows have ended so.
        tell: log a warning; off for beams, where other texts continue.
        silent_tokens: ids that add no text and so are no continuation, such as those of special tokens.
        complete: knows the rows in which only an end should be allowed.
        unfinished: called with the token ids `(rows, length)`, returns which rows must not end.
    """

    has_cheap_texts = True

    def __init__(
        self,
        closing_token: int | None,
        criteria: ClosedEndCriteria,
        tell: bool = True,
        silent_tokens: Sequence[int] = (),
        complete: CompleteEndCriteria | None = None,
        unfinished: Callable[[torch.Tensor], Sequence[bool]] | None = None,
    ) -> None:
        self.unfinished = unfinished
        self.closing_token = closing_token
        self.silent_tokens = torch.tensor(list(silent_tokens), dtype=torch.long)
        self._silent = frozenset(silent_tokens)
        self.criteria = criteria
        self.tell = tell
        self.complete = complete

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`.

        Raises:
            OneByOne: a text may have to end, which is recorded only for one that has been written.
        """
        if not self._are_open(scores):
            raise OneByOne
        return scores

    def _are_open(self, scores: torch.Tensor) -> bool:
        best = scores.max(dim=-1)
        return self._silent.isdisjoint(best.indices.tolist()) and all(
            each > -torch.inf for each in best.values.tolist()
        )

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns scores with an allowed token in every row.

        Raises:
            ValueError: every score of a row is masked, and it must not end, or the model has no token to end it with.
        """
        if self._are_open(scores):
            return scores
        silent = self.silent_tokens[self.silent_tokens < scores.shape[-1]].to(scores.device)
        closed = scores.index_fill(-1, silent, -torch.inf).amax(dim=-1) == -torch.inf
        if self.complete is not None and bool(closed.any()):
            may_end = [row_key(row) in self.complete.rows for row in input_ids]
            closed = closed & ~(torch.tensor(may_end, device=scores.device) & (scores.amax(dim=-1) > -torch.inf))
        if not bool(closed.any()):
            return scores
        if self.closing_token is None or self.closing_token >= scores.shape[-1]:
            raise ValueError(
                "the controls leave no continuation, and the model has neither an end-of-text nor a padding token to "
                "end with: loosen them, or set pad_token_id"
            )
        rows = self.criteria.rows
        # A row that has ended is still scored while others continue.
        fresh = [
            bool(is_closed) and row_key(row) not in rows and row_key(row[:-1]) not in rows
            for row, is_closed in zip(input_ids, closed, strict=True)
        ]
        if self.unfinished is not None and any(compress(self.unfinished(input_ids), fresh)):
            raise ValueError(
                "bad_words: the other controls leave no continuation but to end in a bad word: change one of them"
            )
        if self.tell and self.criteria.tell and any(fresh):
            logger.warning("The controls leave no continuation of the text, so it ends here: loosen them to go on.")
        rows |= {row_key(row) for row in input_ids[closed]}
        scores = scores.masked_fill(closed[:, None], -torch.inf)
        scores[closed, self.closing_token] = _LAST_RESORT
        return scores
