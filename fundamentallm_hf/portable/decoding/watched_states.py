"""Processors that want to see what the output layer reads, and how a decoding loop shows it to them.

Under transformers' loop they take it down by a hook on the output layer. A loop that calls no modules shows it to them
instead, and so has to tell their hooks from those of others.
"""

from typing import Any

import torch
from transformers import LogitsProcessor

_MARK = "only_watches_states"


class StatesWatcher(LogitsProcessor):
    """A processor that is shown what the output layer reads in every step, before any processor is called."""

    def show(self, states: torch.Tensor, index: int) -> None:
        """Show the states of a pass.

        Args:
            states: (rows, tokens, hidden size), those behind each token that the pass has read.
            index: which token is the last of every row in this step. A pass over drafts is shown once for each step.
        """
        raise NotImplementedError


def only_watches(hook: Any) -> Any:
    """Mark a hook as that of a `StatesWatcher`, which a loop that shows the states can do without."""
    setattr(hook, _MARK, True)
    return hook


def watches_states(hook: Any) -> bool:
    """Whether a hook was marked by `only_watches`."""
    return getattr(hook, _MARK, False) is True
