"""One forward pass of any causal language model, and the position of the padding in a batch."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from .cache_names import cache_name


def forward(
    model: Any,
    tokens: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
    cache: Any = None,
    use_cache: bool = False,
    last: int = 0,
) -> Any:
    """Run a model on tokens with those of these arguments that its `forward` takes: models differ in that.

    Args:
        model: any causal language model.
        tokens: (rows, new) token ids.
        mask: (rows, earlier + new), 1 for tokens and 0 for padding; None where there is no padding.
        positions: (rows, new); by default the model counts them itself.
        cache: keys and values of the tokens before these, extended **in place**.
        use_cache: whether the output has a cache.
        last: how many of the last positions need logits; 0 is all. A model that cannot skip the others returns them.

    Returns:
        The model's output object.
    """
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(each.kind == inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    given = {
        "attention_mask": mask,
        "position_ids": positions,
        cache_name(parameters): cache,
        "use_cache": use_cache,
        "logits_to_keep": last,
    }
    known = {name: value for name, value in given.items() if name in parameters}
    # A decorator of transformers removes this from the arguments unless the function itself names it.
    return model(tokens, **known, **({"return_dict": True} if takes_any or "return_dict" in parameters else {}))


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Positions of tokens, counted over those that are no padding; `mask` and result: (rows, columns)."""
    return (mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def padding_of(padding: Sequence[int], row: int, rows: int) -> int:
    """Columns of padding before a row.

    Args:
        padding: (prompts,) columns of padding before each prompt; empty where there are none.
        row: index of a row; the rows of one prompt are side by side.
        rows: their number.
    """
    return padding[row * len(padding) // rows] if padding else 0
