"""The beams of a search as a tree: what was kept at every step, where it was dropped, and its score.

Beam search returns only the texts that have won. A recorder after all processors sees every beam that is alive, and the
score of its last token.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fundamentallm_hf.portable.decoding.recording import Recorder

Row = tuple[int, ...]


@dataclass(frozen=True)
class Branch:
    """A stretch of text that beams have shared, from where it leaves another to where it was given up or won.

    Attributes:
        text: what it adds after the position where it leaves.
        start: that position, in characters after the prompt.
        parent: which branch it leaves, by its index in the list; None for the first, which is the chosen text.
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
        self._last: dict[Row, torch.Tensor] = {}
        self._scores: dict[Row, float] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (beams, length); `scores`: (beams, vocabulary) log-probabilities. Returns the same."""
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
            text_of: returns the text that a token adds.
        """
        chosen = tuple(self.chosen)
        root = chosen[: self._prompt]
        if chosen[:-1] in self._last and chosen not in self._scores:  # the last token is chosen and never read
            self._scores[chosen] = self._scores[chosen[:-1]] + float(self._last[chosen[:-1]][chosen[-1]])
        last_step = max(map(len, self._last), default=0)
        children = self._children(chosen)
        branches: list[Branch] = []
        # Where a branch leaves another: its first row, its position in characters, and the branch it leaves.
        waiting: list[tuple[Row, int, int | None]] = []
        for child in sorted(children.get(root, ()), key=lambda child: child != chosen[: len(child)]):
            waiting.append((child, 0, 0 if waiting else None))
        while waiting:
            row, start, parent = waiting.pop(0)
            text, end = text_of(row[-1]), row
            while (after := self._longest(children.get(end, ()), chosen, end)) is not None:
                aside = (child for child in children[end] if child != after)
                waiting += [(child, start + len(text), len(branches)) for child in aside]
                end = after
                text += text_of(end[-1])
            if end == chosen:  # beams that are longer than the chosen text
                waiting += [(child, start + len(text), len(branches)) for child in children.get(end, ())]
            alive = end == chosen or len(end) >= last_step
            branches.append(Branch(text, start, parent, self._scores[end], len(end) - len(row) + 1, alive))
        return branches

    def _children(self, chosen: Row) -> dict[Row, list[Row]]:
        # If fewer than all beams are open, ended ones fill up their number.
        kept = [row for row in self._scores if len(row) > self._prompt and not self._is_empty(row, chosen)]
        children: dict[Row, list[Row]] = {}
        self._reach: dict[Row, int] = {}
        for row in sorted(kept, key=len, reverse=True):
            children.setdefault(row[:-1], []).append(row)
            self._reach[row] = max([len(row), *(self._reach[child] for child in children.get(row, ()))])
        return children

    def _longest(self, below: Sequence[Row], chosen: Row, row: Row) -> Row | None:
        """The row in which a branch continues: the chosen one, or the one that was kept longest."""
        if row == chosen[: len(row)]:
            return next((child for child in below if child == chosen[: len(child)]), None)
        return max(below, key=lambda child: (self._reach[child], self._scores[child]), default=None)

    def _is_empty(self, row: Row, chosen: Row) -> bool:
        """Whether a row was closed, or is noted only because it might have ended here."""
        might_have_ended = row[-1] in self.ends and row != chosen and row not in self._last
        return might_have_ended or self._scores[row] == -math.inf
