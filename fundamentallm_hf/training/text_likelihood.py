"""The probability that a model gives to whole texts, each after a context."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from fundamentallm_hf.generation.chat import ChatPrompt, encode
from fundamentallm_hf.portable.decoding.forward import forward, positions_of

# Texts that are read at once, and most logits of a pass.
_ROWS, _LOGITS = 32, 1 << 26


class Likelihood(NamedTuple):
    """The probability of one text.

    Attributes:
        log: of all its tokens, in nats.
        tokens: their number; 0 for a text without any.
    """

    log: float
    tokens: int


class _Read(NamedTuple):
    ids: list[int]
    first: int  # the first token that belongs to the text


def likelihoods(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Likelihood]:
    """The probability of every text after its context.

    Args:
        model: a causal language model.
        tokenizer: the tokenizer of the model.
        pairs: contexts, and the texts that follow them. A context may be a `ChatPrompt`.
        progress: called with the number of texts that were read, and the total.

    Returns:
        One for each pair. Where context and text exceed the model's context length, the last tokens do not count.
    """
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    alone = encode([context for context, _ in pairs], tokenizer)
    whole = encode([joined(context, text) for context, text in pairs], tokenizer)
    read = [_Read(ids[:window], _first(before, ids)) for before, ids in zip(alone, whole, strict=True)]
    order = sorted(range(len(pairs)), key=lambda index: len(read[index].ids))
    found: dict[int, Likelihood] = {}
    while len(found) < len(pairs):
        longest = max(1, len(read[order[min(len(order), len(found) + _ROWS) - 1]].ids))
        rows = max(1, min(_ROWS, _LOGITS // (longest * len(tokenizer))))
        group = order[len(found) : len(found) + rows]
        found |= zip(group, _read_group(model, [read[index] for index in group]), strict=True)
        progress(len(found), len(pairs))
    return [found[index] for index in range(len(pairs))]


def joined(context: str, text: str) -> str:
    """The context with a text after it: of a chat the beginning of the answer, so no special tokens are added."""
    return ChatPrompt(context + text, context.messages) if isinstance(context, ChatPrompt) else context + text


def _first(context: Sequence[int], whole: Sequence[int]) -> int:
    """The first token that differs from those of the context alone; never the very first, which nothing predicts."""
    pairs = enumerate(zip(context, whole, strict=False))
    return max(1, next((index for index, (one, other) in pairs if one != other), min(len(context), len(whole))))


@torch.no_grad()
def _read_group(model: Any, group: Sequence[_Read]) -> list[Likelihood]:
    width = max(len(each.ids) for each in group)
    # Padding comes first, so that the texts end together and only the last positions need logits.
    last = max(len(each.ids) - each.first for each in group)
    if last < 1:
        return [Likelihood(0.0, 0) for _ in group]
    filler = next(each.ids[0] for each in group if each.ids)
    device = model.device
    tokens = torch.tensor([[filler] * (width - len(each.ids)) + each.ids for each in group], device=device)
    mask = torch.tensor([[0] * (width - len(each.ids)) + [1] * len(each.ids) for each in group], device=device)
    given = None if bool(mask.all()) else mask
    logits = forward(model, tokens, mask=given, positions=positions_of(mask), last=last + 1).logits[:, -last - 1 : -1]
    found = []
    for row, each in enumerate(group):
        count = max(0, len(each.ids) - each.first)
        logs = logits[row, last - count :].float().log_softmax(dim=-1)
        picked = logs.gather(1, tokens[row, width - count :, None])
        found.append(Likelihood(float(picked.sum()), count))
    return found
