"""Stop texts: texts that end a completion.

transformers' search for stop strings needs a vocabulary that has the letters a to f, and refuses stop strings that the
model cannot write. This one works on decoded text.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from .call_processors import CallProcessors
from .endings import EndCriteria


def find_stop(text: str, stops: Sequence[str], ends_behind: int, starts_from: int = 0) -> int | None:
    """The index where the first completed stop text begins, or None where there is none.

    Args:
        text: prompt and added text.
        stops: the stop texts, none empty.
        ends_behind: only stop texts that end after this index count, for instance after the prompt, which may hold any.
        starts_from: only stop texts that begin at this index or later count.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.decoding.stop_strings import find_stop
    >>> find_stop("User: hi\\nUser: you", ["\\nUser:", "you"], ends_behind=6)
    8

    ```
    """
    places = [(text.find(stop, max(starts_from, ends_behind - len(stop) + 1)), stop) for stop in stops]
    ends = [(place + len(stop), place) for place, stop in places if place >= 0]
    return min(ends)[1] if ends else None


def find_held(text: str, stops: Sequence[str], starts_from: int = 0) -> int:
    """The index from which the end of `text` may yet become a stop text; the length of `text` where nothing may."""
    longest = max(map(len, stops), default=1)
    for place in range(max(starts_from, len(text) - longest + 1), len(text)):
        if any(stop.startswith(text[place:]) for stop in stops):
            return place
    return len(text)


def settled(text: str) -> str:
    """`text` without the replacement characters at its end that stand for an incomplete character."""
    return text.rstrip("\N{REPLACEMENT CHARACTER}")


class StopAtText(StoppingCriteria):
    """Ends a row at the token that completes a stop text.

    Works on decoded text and on nothing but the row, so any tokenizer will do, and beams may be reordered.

    Args:
        tokenizer: decodes the rows.
        stops: the texts, none empty.
        prompt_columns: width of the padded prompts in tokens.
        min_tokens: a stop text counts only after this many new tokens.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], prompt_columns: int, min_tokens: int = 0
    ) -> None:
        self.tokenizer = tokenizer
        self.stops = stops
        # A stop text may begin in the prompt, but not within the tokens that have to be added.
        self.first_column = prompt_columns + min_tokens if min_tokens else 0
        # A character takes 4 bytes at most and a token holds one at least; the view may begin within a character.
        self.columns_in_view = 4 * max(map(len, stops)) + 4

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        begin = max(0, input_ids.shape[1] - self.columns_in_view)
        free = max(0, self.first_column - begin)
        done = [self._completes(row, free) for row in input_ids[:, begin:].tolist()]
        return torch.tensor(done, device=input_ids.device)

    def _completes(self, tokens: list[int], free: int) -> bool:
        """Whether the last of the tokens completes a stop text that begins after the first `free` of them."""
        parts = (tokens[:free], tokens[:-1], tokens)
        first, before, now = (self.tokenizer.decode(part, skip_special_tokens=True) for part in parts)
        return find_stop(now, self.stops, len(settled(before)), len(settled(first))) is not None


def add_stop(step: CallProcessors) -> None:
    """End the texts of a call before its `stop` texts."""
    if step.stop_strings and step.call.config.pad_token_id is not None:
        step.criterion(EndCriteria)  # so that a row that has ended is padded, also by a model without an end token
    if step.stops:
        call = step.call
        least = call.config.min_new_tokens or 0
        step.criteria.append(StopAtText(call.reader, step.stops, call.prompt_columns, least))
