"""Follows a beam search over one prompt: the best text so far, and how much of it is certain."""

import time
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from fundamentallm_hf.portable.decoding.endings import EndCriteria
from fundamentallm_hf.portable.text.pieces import common_length

# Called with what the best beam adds to the prompt, and how many of these characters are certain.
TakeBest = Callable[[str, int], None]
# Seconds between two reports, at least.
PACE = 0.05


class BeamProgress(StoppingCriteria):
    """Reports the best beam, and ends no text.

    transformers' search shows the candidates of every step to the stopping criteria, the best one first. The prefix
    that they all share with every text that has ended is certain: one of the latter may still win.

    Args:
        take: receives the text.
        tokenizer: of the model.
        given: tokens of the prompt.
        beams: number of beams. Of the candidates only the first ones, one for each beam, can end.
        end_tokens: ids that end a text.
        stops: texts that end it.
        ends: criteria that end it.
        alone: what is added is decoded by itself, as the reply in a chat.
    """

    def __init__(
        self,
        take: TakeBest,
        tokenizer: PreTrainedTokenizerBase,
        given: int,
        beams: int,
        end_tokens: Sequence[int],
        stops: Sequence[str] = (),
        ends: Sequence[EndCriteria] = (),
        alone: bool = False,
    ) -> None:
        self.take, self.tokenizer, self.given, self.beams = take, tokenizer, given, beams
        self.end_tokens, self.stops, self.ends = frozenset(end_tokens), stops, ends
        self.alone = alone
        self._ended: list[int] | None = None  # the prefix of all texts that have ended; None while there are none
        self._prompt_end: int | None = None  # in characters
        self._last = float("-inf")

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        """`input_ids`: (candidates, length). Returns (candidates,) bool, all False."""
        rows = input_ids.tolist()
        for row in rows[: self.beams]:
            if self._has_ended(row):
                self._ended = row if self._ended is None else row[: common_length(self._ended, row)]
        if time.monotonic() - self._last >= PACE:
            others = rows[1:] if self._ended is None else [*rows[1:], self._ended]
            certain = min((common_length(rows[0], other) for other in others), default=len(rows[0]))
            text, sure = self._added(rows[0]), self._added(rows[0][:certain]).rstrip("\N{REPLACEMENT CHARACTER}")
            self.take(text, common_length(text, sure))
            self._last = time.monotonic()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def _has_ended(self, row: list[int]) -> bool:
        if row[-1] in self.end_tokens or any(each.holds(row[:-1]) for each in self.ends):
            return True
        text = self._added(row) if self.stops else ""
        return any(stop in text for stop in self.stops)

    def _added(self, row: list[int]) -> str:
        if self.alone:
            return self._decode(row[self.given :])
        if self._prompt_end is None:  # all rows have the same prompt
            self._prompt_end = len(self._decode(row[: self.given]))
        return self._decode(row)[self._prompt_end :]

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)
