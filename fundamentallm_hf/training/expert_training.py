"""Trains a pair of experts for a model from two kinds of texts.

The model reads every text once, and the outputs of its last layer are kept. On these each adapter learns, as a language
model, to predict the next token in texts of one kind, which takes seconds whatever the size of the model. Most of the
time is spent on reading.

A passage may have a teacher: a prompt that makes the model itself write such texts. The model then reads the passage
after that prompt, too, and the adapter learns the probabilities that it gives there to every token, not only which one
came: knowledge distillation (Hinton et al. 2015), which needs far fewer texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.output_experts import (
    BOTTLENECK,
    ExpertPair,
    OutputAdapter,
    OutputWeights,
)

from .text_sides import SIDES, Side, SidesTraining
from .text_states import MOST_TOKENS, Passage, Reader, read_sides

# Number of passes over each side, and bounds of the number of steps, each of this many tokens.
_PASSES, _STEPS, _LEAST_STEPS, BATCH = 3, 3000, 100, 1024
_RATE, _WARM_UP, _WEIGHT_DECAY = 2e-3, 50, 0.01
_BATCH_LOGITS = 1 << 23


@dataclass(frozen=True)
class ExpertTraining(SidesTraining):
    """The result of the training. The score of a text is the mean log-ratio of its tokens.

    Attributes:
        experts: the pair.
    """

    experts: ExpertPair


def train_experts(
    model: Any,
    tokenizer: Any,
    with_texts: Sequence[str | Passage],
    without_texts: Sequence[str | Passage],
    progress: Callable[[str, int, int], None] = lambda *_: None,
    bottleneck: int = BOTTLENECK,
    seed: int = 0,
    most_tokens: int = MOST_TOKENS,
    batch: int = BATCH,
) -> ExpertTraining:
    """Train the pair of experts of an attribute.

    Args:
        model: a causal language model.
        tokenizer: the tokenizer of the model, a fast one.
        with_texts: texts that have the attribute, such as the lines of a file.
        without_texts: texts that lack it.
        progress: called with the name of the current step, the work done, and the total.
        bottleneck: width of each adapter.
        seed: of the random numbers; the same one gives the same experts.
        most_tokens: most tokens that are read of each side; fewer for a large model.
        batch: tokens per step.

    Raises:
        UserError: a side has nothing to learn from, the tokenizer does not report the positions of its tokens, or the
            model has no output layer of plain weights.
    """
    try:
        output = OutputWeights.of(model)
    except ValueError as error:
        raise UserError(f"{error}: choose --kind words") from error
    sides = read_sides(Reader(model, tokenizer, most_tokens), with_texts, without_texts, progress)
    pair = ExpertPair(sides.having.states.shape[1], bottleneck, output.signature)
    for name, adapter, side in zip(SIDES, (pair.having, pair.lacking), sides.learned(), strict=True):
        _learn(adapter, output, side, partial(progress, f"learning texts {name}"), seed, batch)
    pair.eval().requires_grad_(False)
    # The states are kept in half precision, so the experts are measured and returned in it.
    pair = ExpertPair.from_bytes(pair.to_bytes())
    return ExpertTraining(*sides.results(partial(_mean_ratios, pair, output)), pair)


def _learn(
    adapter: OutputAdapter,
    output: OutputWeights,
    side: Side,
    progress: Callable[[int, int], None],
    seed: int,
    batch: int,
) -> None:
    """Train one expert to continue like the texts of its side, or like their teachers."""
    states, targets = side.states, side.targets
    # Where the model computes in bfloat16, the product with its vocabulary does, too: most of the work is there.
    dtype = torch.bfloat16 if output.weight.dtype == torch.bfloat16 else torch.float32
    output = OutputWeights(output.weight.to(dtype), None if output.bias is None else output.bias.to(dtype))

    def logs_of(states: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(states.to(dtype), *output).float().log_softmax(dim=-1)

    generator = torch.Generator().manual_seed(seed)
    device = output.weight.device
    adapter.to(device)
    with torch.no_grad():  # independent of random numbers drawn before
        bound = adapter.down.in_features**-0.5
        for each in (adapter.down.weight, adapter.down.bias):
            each.copy_(torch.empty(each.shape).uniform_(-bound, bound, generator=generator))
    size = max(16, min(batch, _BATCH_LOGITS // len(output.weight)))
    steps = max(_LEAST_STEPS, min(_STEPS * batch // size, _PASSES * len(targets) // size))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / min(_WARM_UP, steps / 2)) * (1 - step / steps)
    )
    with torch.enable_grad():
        for step in range(steps):
            picked = torch.randint(len(targets), (min(size, len(targets)),), generator=generator)
            logs = logs_of(adapter(states[picked].to(device, torch.float32)))
            losses = nn.functional.nll_loss(logs, targets[picked].to(device), reduction="none")
            if side.teachers is not None:
                taught = side.teachers[picked].to(device, torch.float32)
                with torch.no_grad():
                    chances = logs_of(taught.nan_to_num()).exp()
                losses = torch.where(taught.isnan().any(dim=1), losses, -(chances * logs).sum(dim=1))
            loss = losses.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress(step + 1, steps)


def _mean_ratios(pair: ExpertPair, output: OutputWeights, side: Side) -> list[float]:
    """The mean log-ratio of the tokens of every passage."""
    device = output.weight.device
    pair = pair.to(device)
    ratios = [
        pair(states.to(device), output).cpu().gather(1, targets[:, None])[:, 0]
        for states, targets in zip(side.states.split(256), side.targets.split(256), strict=True)
    ]
    return side.passage_means(torch.cat(ratios)).tolist()
