"""Reads texts with a model, and keeps its states: what experts and steering vectors are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from fundamentallm_hf.generation.chat import ChatPrompt
from fundamentallm_hf.portable.decoding.steering import decoder_layers
from fundamentallm_hf.portable.errors import UserError

from .text_likelihood import joined
from .text_sides import SIDES, Side, Sides

# Most tokens that are read of each side; fewer if the model is large: parameters times tokens.
MOST_TOKENS, _MOST_WORK = 500_000, 8e12
ROWS, LONGEST = 16, 1024


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


def read_sides(
    reader: "Reader",
    with_texts: Sequence[str | Passage],
    without_texts: Sequence[str | Passage],
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Sides:
    """Read the texts of both sides.

    Raises:
        UserError: there is nothing to learn from on one side.
    """
    texts = zip(SIDES, (with_texts, without_texts), strict=True)
    return Sides(*(_read_side(reader, name, of_side, progress) for name, of_side in texts))


def _read_side(
    reader: "Reader", name: str, texts: Sequence[str | Passage], progress: Callable[[str, int, int], None]
) -> Side:
    passages = [Passage(each) if isinstance(each, str) else each for each in texts]
    read = reader.read(passages, partial(progress, f"reading texts {name}"))
    if not len(read.targets):
        raise UserError(f"the texts {name} the attribute hold nothing to learn from: give some, one a line")
    return read


class Reader:
    """Reads passages with a model, and keeps a state for each of their tokens.

    Args:
        model: a causal language model.
        tokenizer: the tokenizer of the model, a fast one.
        most: tokens that are read of each side; fewer if the model is large.
        layer: the index of the layer whose output at the tokens is kept; None for the input of the output layer from
            which they are predicted.

    Raises:
        UserError: the tokenizer does not report the positions of its tokens.
    """

    def __init__(self, model: Any, tokenizer: Any, most: int = MOST_TOKENS, layer: int | None = None) -> None:
        if not tokenizer.is_fast:
            raise UserError("a fast tokenizer is needed to read texts, and this model has none: choose --kind words")
        self.model = model
        self.tokenizer = tokenizer
        self.layer = layer
        self.most = min(most, int(_MOST_WORK / sum(each.numel() for each in model.parameters())))
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or LONGEST
        self.window = min(positions, LONGEST)

    def read(self, passages: Sequence[Passage], progress: Callable[[int, int], None]) -> Side:
        states, teachers, targets, owners = [], [], [], []
        has_teachers = any(each.teacher for each in passages)
        count, number = 0, 0
        # Texts of one length are read together.
        order = sorted(range(len(passages)), key=lambda index: len(passages[index].text))
        # If not all are read, the omitted ones must not all be long.
        generator = torch.Generator().manual_seed(0)
        groups = [order[first : first + ROWS] for first in range(0, len(order), ROWS)]
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
            return Side(torch.zeros(0, 1), None, torch.zeros(0), torch.zeros(0), 0)
        of_teachers = torch.cat(teachers) if has_teachers else None
        return Side(torch.cat(states), of_teachers, torch.cat(targets), torch.cat(owners), number)

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
        hook = self._watch(passed.append)
        try:
            self.model(tokens, use_cache=False)
        except _Enough:
            pass
        finally:
            hook.remove()
        # The output layer predicts a token from the state before it. Between layers the first state of all is left out:
        # models use it as a place to attend to, and its numbers may be a thousand times larger than those of others.
        before = 1 if self.layer is None else 0
        found = []
        for row, (each, (ids, offsets)) in enumerate(zip(group, rows, strict=True)):
            spans = each.spans if each.spans is not None else [(0, len(each.text))]
            inside = [
                index
                for index in range(1, len(ids))
                if any(first <= offsets[index][0] < last for first, last in spans) and offsets[index][1] > 0
            ]
            picked = torch.tensor(inside, dtype=torch.long)
            states = passed[-1][row, (picked - before).to(device)].half().cpu()
            found.append((states, torch.tensor(ids)[picked]))
        return found

    def _watch(self, keep: Callable[[torch.Tensor], None]) -> Any:
        """A hook that keeps the states of a pass; what comes after the layer is left out."""
        if self.layer is None:
            return self.model.get_output_embeddings().register_forward_pre_hook(lambda _, given: keep(given[0]))

        def passing(_: Any, __: Any, output: Any) -> None:
            keep(output[0] if isinstance(output, tuple) else output)
            raise _Enough

        return decoder_layers(self.model)[self.layer].register_forward_hook(passing)


class _Enough(Exception):
    """Ends a pass whose other results nobody needs."""


def _after_teacher(passage: Passage) -> Passage:
    """The passage as its teacher reads it."""
    start = passage.spans[0][0] if passage.spans else 0
    spans = passage.spans or [(0, len(passage.text))]
    moved = len(passage.teacher) - start
    return Passage(passage.taught, [(first + moved, last + moved) for first, last in spans])
