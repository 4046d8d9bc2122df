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

from fundamentallm_hf.generation.chat import ChatPrompt
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.output_experts import (
    BOTTLENECK,
    ExpertPair,
    OutputAdapter,
    OutputWeights,
)

from .text_likelihood import joined
from .word_training import area_under_curve

SIDES = ("with", "without")
# Most tokens that are read of each side; fewer if the model is large: parameters times tokens.
MOST_TOKENS, _MOST_WORK = 500_000, 8e12
# Number of passes over each side, and bounds of the number of steps, each of this many tokens.
_PASSES, _STEPS, _LEAST_STEPS, BATCH = 3, 3000, 100, 1024
_RATE, _WARM_UP, _WEIGHT_DECAY = 2e-3, 50, 0.01
_BATCH_LOGITS = 1 << 23
_ROWS, _LONGEST = 16, 1024
# Of this many passages of each side, the last is held out; below the second number none is.
_HELD_OUT, _LEAST = 5, 10


@dataclass(frozen=True)
class Passage:
    """A text, and the parts of it that show the attribute or its absence; the text before a part is its context.

    Attributes:
        text: the whole text.
        spans: (first, last) characters of the parts; None for all of it.
        teacher: a prompt in place of the text before the first part, after which the model writes as the expert should;
            "" for none. It may be a `ChatPrompt`.
    """

    text: str
    spans: Sequence[tuple[int, int]] | None = None
    teacher: str = ""

    @property
    def taught(self) -> str:
        """What the teacher reads: its prompt, and the text from the first part on."""
        return joined(self.teacher, self.text[self.spans[0][0] if self.spans else 0 :])


@dataclass(frozen=True)
class ExpertTraining:
    """The result of the training.

    Attributes:
        experts: the pair.
        separation: on held-out texts, the probability that one with the attribute has a larger mean log-ratio than one
            without (the area under the ROC curve: 0.5 is random); None where there were too few to hold some out.
        texts: number of texts that were read with the attribute, and without.
        tokens: number of tokens the experts were trained on, with the attribute, and without.
    """

    experts: ExpertPair
    separation: float | None
    texts: tuple[int, int]
    tokens: tuple[int, int]


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
    if not tokenizer.is_fast:
        raise UserError("experts are trained with a fast tokenizer, and this model has none: choose --kind words")
    try:
        output = OutputWeights.of(model)
    except ValueError as error:
        raise UserError(f"{error}: choose --kind words") from error
    most = min(most_tokens, int(_MOST_WORK / sum(each.numel() for each in model.parameters())))
    reader = _Reader(model, tokenizer, most)
    sides = [
        _read_side(reader, name, given, progress)
        for name, given in zip(SIDES, (with_texts, without_texts), strict=True)
    ]
    holds_out = min(side.passages for side in sides) >= _LEAST
    held = [(side.owners % _HELD_OUT == _HELD_OUT - 1) & holds_out for side in sides]
    pair = ExpertPair(sides[0].states.shape[1], bottleneck, output.signature)
    for name, adapter, side, out in zip(SIDES, (pair.having, pair.lacking), sides, held, strict=True):
        report = partial(progress, f"learning texts {name}")
        _learn(adapter, output, side.only(~out), report, seed, batch)
    pair.eval().requires_grad_(False)
    # The states are kept in half precision, so the experts are measured and returned in it.
    pair = ExpertPair.from_bytes(pair.to_bytes())
    separation = None
    if holds_out:
        means = [_means(pair, output, side, out) for side, out in zip(sides, held, strict=True)]
        separation = area_under_curve(*means)
    tokens = [int((~out).sum()) for out in held]
    return ExpertTraining(pair, separation, (sides[0].passages, sides[1].passages), (tokens[0], tokens[1]))


def _read_side(
    reader: "_Reader", name: str, texts: Sequence[str | Passage], progress: Callable[[str, int, int], None]
) -> "_Side":
    passages = [Passage(each) if isinstance(each, str) else each for each in texts]
    read = reader.read(passages, partial(progress, f"reading texts {name}"))
    if not len(read.targets):
        raise UserError(f"the texts {name} the attribute hold nothing to learn from: give some, one a line")
    return read


@dataclass(frozen=True)
class _Side:
    """The states and tokens of one side.

    Attributes:
        states: (tokens, hidden size).
        teachers: (tokens, hidden size) the states after the teacher's prompt, nan where there is none; None where no
            passage has a teacher.
        targets: (tokens,) the next tokens.
        owners: (tokens,) the passage of each.
        passages: their number.
    """

    states: torch.Tensor
    teachers: torch.Tensor | None
    targets: torch.Tensor
    owners: torch.Tensor
    passages: int

    def only(self, picked: torch.Tensor) -> "_Side":
        """Some of the tokens; `picked` is (tokens,) bool."""
        teachers = None if self.teachers is None else self.teachers[picked]
        return _Side(self.states[picked], teachers, self.targets[picked], self.owners[picked], self.passages)


class _Reader:
    def __init__(self, model: Any, tokenizer: Any, most: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.most = most
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or _LONGEST
        self.window = min(positions, _LONGEST)

    def read(self, passages: Sequence[Passage], progress: Callable[[int, int], None]) -> _Side:
        states, teachers, targets, owners = [], [], [], []
        has_teachers = any(each.teacher for each in passages)
        count, number = 0, 0
        # Texts of one length are read together.
        order = sorted(range(len(passages)), key=lambda index: len(passages[index].text))
        # If not all are read, the omitted ones must not all be long.
        generator = torch.Generator().manual_seed(0)
        groups = [order[first : first + _ROWS] for first in range(0, len(order), _ROWS)]
        for done, picked in enumerate(torch.randperm(len(groups), generator=generator).tolist()):
            if count >= self.most:
                break
            group = [passages[index] for index in groups[picked]]
            for found, taught, following in self._read_both(group):
                if len(following):
                    states.append(found)
                    teachers += [taught] if has_teachers else []
                    targets.append(following)
                    owners.append(torch.full((len(following),), number))
                    count += len(following)
                    number += 1
            progress(max(done + 1, count * len(groups) // self.most), len(groups))
        if not states:
            return _Side(torch.zeros(0, 1), None, torch.zeros(0), torch.zeros(0), 0)
        of_teachers = torch.cat(teachers) if has_teachers else None
        return _Side(torch.cat(states), of_teachers, torch.cat(targets), torch.cat(owners), number)

    def _read_both(self, group: Sequence[Passage]) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """For each passage the states before the tokens of its parts, those of its teacher, and these tokens."""
        plain = self._read_group(group)
        asked = [index for index, each in enumerate(group) if each.teacher]
        taught = dict(zip(asked, self._read_group([_after_teacher(group[index]) for index in asked]), strict=True))
        found = []
        for index, (states, following) in enumerate(plain):
            teachers, theirs = taught.get(index, (states, following[:0]))
            # A tokenizer may divide the text in another way after another prompt.
            fits = torch.equal(theirs, following)
            found.append((states, teachers if fits else torch.full_like(states, torch.nan), following))
        return found

    @torch.no_grad()
    def _read_group(self, group: Sequence[Passage]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each passage the states before the tokens of its parts, and these tokens."""
        rows = []
        for each in group:
            read = self.tokenizer(
                each.text,
                return_offsets_mapping=True,
                verbose=False,
                add_special_tokens=not isinstance(each.text, ChatPrompt),
            )
            rows.append((read.input_ids[: self.window], read.offset_mapping))
        width = max((len(ids) for ids, _ in rows), default=0)
        if width < 2:
            return [(torch.zeros(0, 1), torch.zeros(0, dtype=torch.long)) for _ in group]
        device = self.model.device
        filler = next(token for ids, _ in rows for token in ids)
        # Padding comes last, where a causal model does not attend to it.
        tokens = torch.tensor([ids + [filler] * (width - len(ids)) for ids, _ in rows], device=device)
        passed: list[torch.Tensor] = []
        hook = self.model.get_output_embeddings().register_forward_pre_hook(lambda _, given: passed.append(given[0]))
        try:
            self.model(tokens, use_cache=False)
        finally:
            hook.remove()
        found = []
        for row, (each, (ids, offsets)) in enumerate(zip(group, rows, strict=True)):
            spans = each.spans if each.spans is not None else [(0, len(each.text))]
            inside = [
                index
                for index in range(1, len(ids))
                if any(first <= offsets[index][0] < last for first, last in spans) and offsets[index][1] > 0
            ]
            picked = torch.tensor(inside, dtype=torch.long)
            states = passed[-1][row, (picked - 1).to(device)].half().cpu()
            found.append((states, torch.tensor(ids)[picked]))
        return found


def _after_teacher(passage: Passage) -> Passage:
    """The passage as its teacher reads it."""
    start = passage.spans[0][0] if passage.spans else 0
    spans = passage.spans or [(0, len(passage.text))]
    moved = len(passage.teacher) - start
    return Passage(passage.taught, [(first + moved, last + moved) for first, last in spans])


def _learn(
    adapter: OutputAdapter,
    output: OutputWeights,
    side: _Side,
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


def _means(pair: ExpertPair, output: OutputWeights, side: _Side, held: torch.Tensor) -> list[float]:
    """The mean log-ratio of the tokens of every held-out passage."""
    pair = pair.to(output.weight.device)
    rows, owners = torch.nonzero(held)[:, 0], side.owners[held]
    ratios = torch.cat(
        [
            pair(side.states[part].to(output.weight.device), output).cpu().gather(1, side.targets[part, None])[:, 0]
            for part in rows.split(256)
        ]
    )
    _, passages = owners.unique(return_inverse=True)
    sums = torch.zeros(int(passages.max()) + 1).index_add(0, passages, ratios)
    return (sums / passages.bincount()).tolist()
