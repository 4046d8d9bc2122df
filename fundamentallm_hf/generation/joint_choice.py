"""Chooses the next tokens of several texts at once, by those of their processors that look at nothing but the scores.

That is the final choice of a text without controls, and a guess for one whose controls read the text.
"""

import weakref
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from fundamentallm_hf.portable.decoding.lean_loop import LeanLoop
from fundamentallm_hf.portable.decoding.network_step import Chosen
from fundamentallm_hf.portable.decoding.seeded_sampling import choose_by

_KINDS: "weakref.WeakKeyDictionary[LeanLoop, str]" = weakref.WeakKeyDictionary()


def choose_together(loops: Sequence[LeanLoop], logits: Sequence[torch.Tensor]) -> list[Chosen | None]:
    """Choose the next tokens.

    Loops with equal processors share one call of them.

    Args:
        loops: of the texts.
        logits: (steps, vocabulary) of each.

    Returns:
        For each loop its choices; None where it has to choose by itself.

    Raises:
        ValueError: a score is not a number.
    """
    groups: dict[str, list[int]] = {}
    for index, loop in enumerate(loops):
        guesses = loop.runs is not None and len(logits[index]) > 1  # only drafts are compared with a guess
        if (loop.at_once or guesses) and (loop.greedy or loop.chooser is not None):
            groups.setdefault(_kind(loop), []).append(index)
    found: list[Chosen | None] = [None] * len(loops)
    for members in groups.values():
        first, sizes = loops[members[0]], [len(logits[each]) for each in members]
        scores = torch.cat([logits[each] for each in members])
        for processor in _processors(first):
            scores = processor(None, scores)
        tokens = _tokens([loops[each] for each in members], scores, sizes)
        start = 0
        for each, size in zip(members, sizes, strict=True):
            found[each] = Chosen(scores[start : start + size], tokens[start : start + size])
            start += size
    return found


def _tokens(loops: Sequence[LeanLoop], scores: torch.Tensor, sizes: Sequence[int]) -> list[int]:
    if loops[0].greedy:
        return scores.argmax(dim=-1).tolist()
    numbers = []
    for loop, size in zip(loops, sizes, strict=True):
        assert loop.chooser is not None
        numbers.append(loop.chooser.numbers(loop.length, size))
    return choose_by(torch.cat(numbers), scores).tolist()


def _processors(loop: LeanLoop) -> Sequence[LogitsProcessor]:
    """The processors by which a loop chooses or guesses."""
    if loop.at_once:
        return loop.processors
    assert loop.runs is not None
    return loop.runs.guessing


def _kind(loop: LeanLoop) -> str:
    """Equal for loops that choose in the same way. Made once: the processors of a loop do not change."""
    kind = _KINDS.get(loop)
    if kind is None:
        parts = ((type(each).__name__, sorted(vars(each).items())) for each in _processors(loop))
        kind = _KINDS[loop] = repr([loop.greedy, *parts])
    return kind
