"""Separates processors that only shape a distribution from those that forbid or prefer tokens.

transformers calls the former warpers (temperature, top-k, top-p and so on). Controls have to come before them: after a
warper, every token that is left might be one that a control forbids. A warper is recognized by its behaviour: it looks
only at the scores, and treats every token alike.
"""

from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

# The most frequent ones. Trying one takes as long as half a layer of a small model on a short prompt.
_WARPERS = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper)
# Processors that depend only on the scores of a step.
MEMORYLESS = (*_WARPERS, TypicalLogitsWarper)


def is_warper(processor: Any, size: int) -> bool:
    """Whether a processor of transformers is a warper, tested on `size` scores; False for processors of the caller."""
    if type(processor) in _WARPERS:
        return True
    kinds = [kind for kind in type(processor).__mro__ if kind not in (LogitsProcessor, object)]
    if not any(kind.__module__.startswith("transformers.") for kind in kinds):
        return False
    if any(isinstance(value, torch.nn.Module) for value in vars(processor).values()):
        return False
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, size, generator=generator) * 3
    scores[0, int(torch.randint(size, (1,), generator=generator))] = -torch.inf
    order = torch.randperm(size, generator=generator)
    try:
        # A processor that looks at the text fails here, and is no warper.
        straight, shuffled = processor(None, scores.clone()), processor(None, scores[:, order].clone())
    except (TypeError, AttributeError, IndexError, ValueError, RuntimeError):
        return False
    opened = bool((straight[scores == -torch.inf] > -torch.inf).any())
    return not opened and torch.allclose(straight[:, order], shuffled, rtol=1e-3, atol=1e-3)
