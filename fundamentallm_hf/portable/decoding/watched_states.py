"""Processors that observe the input of the output layer, and how a decoding loop passes it to them.

In transformers' loop these processors record it with a hook on the output layer. A loop that calls no modules passes it
to them directly, so it must distinguish hooks that it may leave out from others.
"""

from typing import Any

import torch

from .texts import JudgesTexts, Texts

_MARK = "is_optional_hook"


class StatesWatcher(JudgesTexts):
    """A processor that receives the input of the output layer in every step, before any processor is called."""

    def show(self, states: torch.Tensor, index: int) -> None:
        """Receive the states of a pass.

        Args:
            states: (rows, tokens, hidden size), the state after each token of the pass.
            index: the index of each row's last token in this step. A pass over drafts is passed once per step.
        """
        raise NotImplementedError

    def show_all(self, states: torch.Tensor, texts: Texts) -> None:
        """Receive the states of a pass whose steps are processed together.

        Args:
            states: (texts, hidden size), the state after each text.
            texts: the texts.
        """
        raise NotImplementedError


def optional_hook(hook: Any) -> Any:
    """Mark a hook as that of a `StatesWatcher`; a loop that calls `show` does not need the hook."""
    setattr(hook, _MARK, True)
    return hook


def is_optional(hook: Any) -> bool:
    """Whether a loop that calls no modules may leave a hook out."""
    return getattr(hook, _MARK, False) is True
