"""How a text longer than the context window is continued.

A FundamentaLLM model has a position for each of its first `max_position_embeddings` tokens and none beyond. `slide`
lets it continue: when the window is full, the oldest part is dropped and the rest is encoded again from position 0. The
start of a row's window depends only on the number of its tokens, so the same text is always continued from the same
context: in a batch or alone, with or without a cache, in one call or in two.

This file only chooses which tokens the network sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, StoppingCriteria
from transformers.utils import logging

from ..errors import UserError

logger = logging.get_logger(__name__)
# `topic` of the log record about a prompt that is longer than the window, for handlers that report it themselves.
OUT_OF_SIGHT = "out_of_sight"

OVERFLOW_MODES = ("slide", "stop", "error")


def window_start(length: int, window: int) -> int:
    """The first token still visible when a row has `length` tokens and the window holds `window`.

    The window moves by half its size at a time, so a long text is encoded again once every half window: the work stays
        linear in the length of the text, and at least half a window of context is always visible.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.decoding.context_window import window_start
    >>> [window_start(length, window=8) for length in (7, 8, 9, 12, 13)]
    [0, 0, 4, 4, 8]

    ```
    """
    if length <= window:
        return 0
    step = max(1, window // 2)
    return -(-(length - window) // step) * step


def slides(before: int, after: int, window: int) -> int:
    """How many times the window moves while a row grows from `before` to `after` tokens.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.decoding.context_window import slides
    >>> slides(before=5, after=13, window=8)
    2

    ```
    """
    step = max(1, window // 2)
    return (window_start(after, window) - window_start(before, window)) // step


def can_slide(model: PreTrainedModel) -> bool:
    """Whether `model` can continue from the last part of a text that has outgrown its window; others end there."""
    return model.config.model_type == "fundamentallm"


@dataclass(frozen=True)
class View:
    """The tokens that the network sees in one step.

    Attributes:
        columns: how many of the last columns of `input_ids` to encode.
        attention_mask: `(rows, cached + columns)`, or None where every token of every row is visible.
        position_ids: `(rows, columns)`.
        restart: the cache has to be emptied first.
    """

    columns: int
    attention_mask: torch.Tensor | None
    position_ids: torch.Tensor
    restart: bool


def view(lengths: Sequence[int], cached: int, new: int, window: int, device: torch.device) -> View:
    """Choose which tokens to encode, for rows that have outgrown the window or share a batch with one that has.

    Args:
        lengths: real tokens of every row so far, the new ones included.
        cached: number of columns in the cache.
        new: number of columns missing from the cache.
        window: the model's number of positions.
        device: device of the tensors.
    """
    in_sight = [length - window_start(length, window) for length in lengths]
    restart = cached + new > window
    columns = max(in_sight) if restart else new
    total = columns if restart else cached + new
    sight = torch.tensor(in_sight, device=device)[:, None]
    # Rows end together, so a row's visible tokens are its last columns, and the columns before them are padding.
    place = torch.arange(total, device=device) - (total - sight)
    mask = None if min(in_sight) >= total else (place >= 0).long()
    return View(columns, mask, place[:, -columns:].clamp(min=0), restart)


class WindowFullCriteria(StoppingCriteria):
    """Ends a row when its real tokens fill the window (`overflow="stop"`).

    Args:
        room: for every row, how many tokens may be added.
        prompt_columns: width of the padded prompts in tokens.
    """

    # transformers pads rows that have ended before the others only if some criterion has this attribute.
    eos_token_id = None

    def __init__(self, room: Sequence[int], prompt_columns: int) -> None:
        self.room = torch.tensor(room)
        self.prompt_columns = prompt_columns

    def room_of(self, rows: int) -> torch.Tensor:
        """(rows,) how many tokens may be added to each row, where rows made of one prompt are adjacent."""
        # Beam search asks about more candidates than it has rows.
        return self.room[torch.arange(rows) * len(self.room) // rows]

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        room = self.room_of(len(input_ids)).to(input_ids.device)
        return input_ids.shape[1] - self.prompt_columns >= room


def check_overflow(
    overflow: str, prompt_lengths: Sequence[int], new_tokens: int, window: int, cannot_slide: str = ""
) -> None:
    """Check the overflow mode before anything is computed, and warn if part of a prompt is not visible.

    Args:
        overflow: "slide", "stop" or "error".
        prompt_lengths: real tokens of every prompt.
        new_tokens: how many tokens may be added at most.
        window: the model's number of positions.
        cannot_slide: the reason why this call cannot slide; None if it can.

    Raises:
        ValueError: an unknown mode, or a text that does not fit.
    """
    if overflow not in OVERFLOW_MODES:
        expected = f"one of {', '.join(OVERFLOW_MODES)}"
        line = f"overflow has to be {expected} but is {overflow!r}"
        raise UserError(line, setting="overflow", value=overflow, expected=expected)
    longest = max(prompt_lengths, default=0)
    fits = longest + new_tokens <= window
    if overflow == "slide" and cannot_slide and not fits:
        raise ValueError(
            f"{longest} prompt tokens and {new_tokens} new ones outgrow the window of {window}, and {cannot_slide}: "
            f"ask for fewer tokens, or set overflow='stop'"
        )
    if overflow == "stop" and longest >= window:
        raise UserError(
            f"the prompt has {longest} tokens and fills the model's window of {window}: shorten it, "
            f"or set overflow='slide' to go on from its last part",
            setting="prompt",
        )
    if overflow == "error" and not fits:
        fewer = f"ask for at most {window - longest} tokens, " if longest < window else ""
        raise ValueError(
            f"{longest} prompt tokens and {new_tokens} new ones do not fit into the model's window of {window}: "
            f"shorten the prompt, {fewer}or set overflow='slide'"
        )
    if cut := window_start(longest, window):
        logger.warning(
            f"The prompt has {longest} tokens and the model's window holds {window}: "
            f"the first {cut} tokens of the prompt are out of its sight.",
            extra={"topic": OUT_OF_SIGHT},
        )
