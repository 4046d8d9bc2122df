"""Causal attention in blocks of queries, for training on CPUs.

Each block of queries is multiplied only with the keys up to its own end, so at long windows nearly half of the scores
are never computed. It is written in plain operations, for a compiled model: on CPUs that multiply bf16 matrices, the
backward pass of torch's fused attention takes a third of a training step at windows of 256.

Training windows have no padding, so the only mask is the causal one.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

# Smaller blocks compute fewer scores in vain; beyond these limits their number costs more than they save.
LEAST_BLOCK, MOST_BLOCKS = 64, 8


def blockwise_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of `query`, `key` and `value`, `(batch, heads, length, head_dim)`: `(batch, length, heads, head_dim)`.

    Raises:
        ValueError: there are keys of earlier tokens, or a mask.
    """
    length = query.shape[2]
    if attention_mask is not None or key.shape[2] != length:
        raise ValueError("blockwise attention is for training: whole windows, without padding and without a cache")
    block = max(LEAST_BLOCK, -(-length // MOST_BLOCKS))
    outputs = []
    for start in range(0, length, block):
        end = min(start + block, length)
        scores = torch.matmul(query[:, :, start:end], key[:, :, :end].transpose(-1, -2)) * scaling
        rows = torch.arange(start, end, device=query.device)[:, None]
        columns = torch.arange(end, device=query.device)
        scores = scores.float().masked_fill(columns > rows, float("-inf"))
        weights = nn.functional.softmax(scores, dim=-1).to(query.dtype)
        weights = nn.functional.dropout(weights, p=dropout, training=module.training)
        outputs.append(torch.matmul(weights, value[:, :, :end]))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def register() -> None:
    """Make it known to transformers as `blockwise`."""
    AttentionInterface.register("blockwise", blockwise_attention_forward)
    AttentionMaskInterface.register("blockwise", lambda *args, **kwargs: None)
