"""The beams of a search as a tree: what was kept at every step, where it was given up, and with which score.

Beam search returns the texts that have won; the others are gone. A recorder that stands behind all processors sees every
beam that is alive, and what the last token of each was worth. This file knows nothing of how a tree is drawn.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from .recording import Recorder


@dataclass(frozen=True)
class Branch:
    """A stretch of text that beams have shared, from where it leaves another to where it was given up or won.

    Attributes:
        text: what it adds behind the place where it leaves.
        start: that place, in characters behind the prompt.
        parent: which branch it leaves, by its place in the list; None for the first, which is the chosen text.
        score: at its end, the sum of its tokens' log-probabilities after settings and controls, in nats, from the
            prompt on. The ranking at the end of a search also divides by the length.
        steps: how many tokens it was kept for.
        alive: it was still among the beams at the last step.
    """

    text: str
    start: int
    parent: int | None
    score: float
    steps: int
    alive: bool

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


class BeamRecorder(Recorder):
    """Remembers every beam of one search over one prompt, with its score.

    Args:
        end_tokens: with them a beam is complete, and is seen no more.

    Attributes:
        chosen: the tokens that have won, prompt included.
    """

    def __init__(self, end_tokens: Sequence[int] = ()) -> None:
        self.ends = list(end_tokens)
        self.chosen: list[int] = []
        self._prompt = 0
        self._last: dict[tuple[int, ...], torch.Tensor] = {}
        self._scores: dict[tuple[int, ...], float] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (beams, length); `scores`: (beams, vocabulary) log-probabilities. Returns them as they are."""
        rows = [tuple(row) for row in input_ids.tolist()]
        if not self._scores:
            self._prompt = len(rows[0])
            self._scores[rows[0]] = 0.0
        before, self._last = self._last, {}
        for row, found in zip(rows, scores.float().cpu(), strict=True):
            if row not in self._scores:
                self._scores[row] = self._scores[row[:-1]] + float(before[row[:-1]][row[-1]])
            for end in self.ends:
                self._scores.setdefault((*row, end), self._scores[row] + float(found[end]))
            self._last[row] = found
        return scores

    def branches(self, text_of: Callable[[int], str]) -> list[Branch]:
        """The tree as stretches of text; the first is the chosen one, from the prompt to its end.

        Args:
            text_of: what a token adds to the text.
        """
        chosen = tuple(self.chosen)
        for parent, found in self._last.items():  # the last token of a search is chosen and never read
            if chosen[:-1] == parent:
                self._scores[chosen] = self._scores[parent] + float(found[chosen[-1]])
        last_step = max(map(len, self._last), default=0)
        # Where fewer than the beams are open, closed ones fill their number up.
        kept = {row for row in self._scores if len(row) > self._prompt and not self._is_empty(row, chosen)}
        children: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for row in sorted(kept, key=len):
            children.setdefault(row[:-1], []).append(row)
        reach: dict[tuple[int, ...], int] = {}
        for row in sorted(kept, key=len, reverse=True):
            reach[row] = max([len(row), *(reach[child] for child in children.get(row, ()))])

        def follow(row: tuple[int, ...]) -> tuple[int, ...] | None:
            below = children.get(row, ())
            on_path = next((child for child in below if child == chosen[: len(child)]), None)
            if on_path is not None or row == chosen[: len(row)]:
                return on_path
            return max(below, key=lambda child: (reach[child], self._scores[child]), default=None)

        found: list[Branch] = []
        waiting: list[tuple[tuple[int, ...], tuple[int, ...], int, int | None]] = []
        first = follow(chosen[: self._prompt])
        if first is not None:
            waiting.append((chosen[: self._prompt], first, 0, None))
        waiting += [
            (chosen[: self._prompt], child, 0, 0)
            for child in children.get(chosen[: self._prompt], ())
            if child != first
        ]
        while waiting:
            _, row, start, parent = waiting.pop(0)
            text, end, place = "", row, len(found)
            while True:
                text += text_of(end[-1])
                after = follow(end)
                waiting += [
                    (end, child, start + len(text), place) for child in children.get(end, ()) if child != after
                ]
                if after is None:
                    break
                end = after
            alive = len(end) >= last_step or end == chosen
            found.append(Branch(text, start, parent, self._scores[end], len(end) - len(row) + 1, alive))
        return found

    def _is_empty(self, row: tuple[int, ...], chosen: tuple[int, ...]) -> bool:
        """Whether a row was closed, or is noted only because it might have ended here."""
        might_have_ended = row[-1] in self.ends and row != chosen and row not in self._last
        return might_have_ended or self._scores[row] == -math.inf
