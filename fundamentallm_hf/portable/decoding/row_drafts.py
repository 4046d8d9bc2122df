"""Drafts for several rows at once: every row goes on as far as its own drafts are kept.

Rows come to be of different lengths, so this is for calls whose processors look at nothing but the scores. Where the
window is full the rows have waited for each other, and the loop goes on with one column for all.
"""

from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from .drafts import Drafter, NgramTable
from .endings import EndCriteria
from .seeded_sampling import SeededSampling

# With one row a drafted token is worth its time when it is kept with a chance of MOST_WORTH less GAIN. The more rows
# share a pass, the less a pass that is saved is worth.
MOST_WORTH, GAIN, SHARED = 0.5, 0.3, 0.6


def worth(rows: int) -> float:
    """How likely a drafted token has to be kept to be worth its time beside so many rows."""
    return MOST_WORTH - GAIN / rows**SHARED


def ignores_text(criteria: StoppingCriteriaList) -> bool:
    """Whether nothing among these criteria looks at the text of a row."""
    return all((isinstance(each, EndCriteria) and not each.rows) or _is_blind(each) for each in criteria)


def _is_blind(criterion: object) -> bool:
    return getattr(criterion, "ignores_text", False) is True


class RowDrafts:
    """Writes several rows up to a column, with drafts.

    Args:
        loop: the `LeanLoop` that has written the first token of every row; changed **in place**.
        table: an n-gram table, if there is one.
        limit: the column up to which to write.
    """

    def __init__(self, loop: Any, table: NgramTable | None, limit: int) -> None:
        self.loop, self.limit = loop, limit
        self.drafters = [Drafter(table, worth(loop.rows)) for _ in range(loop.rows)]
        self.texts = [row[: loop.length].tolist() for row in loop.ids]
        self.padding = torch.tensor(loop.call.padding)
        self.held = list(range(loop.rows))
        self.ended = [not going for going in loop.going]
        self.processors = LogitsProcessorList(loop.processors)

    @staticmethod
    def suits(loop: Any) -> bool:
        """Whether rows of a call may go on by themselves."""
        chosen = loop.greedy or type(loop.chooser) is SeededSampling
        alone = loop.streamer is None and loop.pad is not None
        return loop.rows > 1 and loop.memoryless and chosen and alone and ignores_text(loop.criteria)

    def run(self) -> None:
        """Write every row up to the limit, or to its end."""
        while going := [row for row in self.held if not self.ended[row] and len(self.texts[row]) < self.limit]:
            # A row that waits at the limit goes on later, unless the limit is the end of all texts.
            kept = going if self.limit == self.loop.most else [row for row in self.held if not self.ended[row]]
            if len(kept) <= self.loop.few * len(self.held):
                self.loop.step.keep_rows([self.held.index(row) for row in kept])
                self.held = kept
            drafts = [self._draft(row) for row in going]
            chosen = iter(self._chosen(going, drafts))
            for row, drafted in zip(going, drafts, strict=True):
                self._write(row, drafted, [next(chosen) for _ in range(len(drafted) + 1)])
            self._ask_criteria()
        self._hand_back()

    def _draft(self, row: int) -> list[int]:
        text = self.texts[row]
        return self.drafters[row](text, self.limit - len(text) - 1)

    def _chosen(self, going: list[int], drafts: list[list[int]]) -> list[int]:
        """The token that is chosen behind the last of each row and behind each of its drafts, one after the other."""
        loop = self.loop
        tokens: list[int] = []
        columns: list[int] = []
        rows: list[int] = []
        places: list[int] = []
        for row, drafted in zip(going, drafts, strict=True):
            tokens += [self.texts[row][-1], *drafted]
            columns += range(len(self.texts[row]) - 1, len(self.texts[row]) + len(drafted))
            rows += [row] * (len(drafted) + 1)
            places += [self.held.index(row)] * (len(drafted) + 1)
        for counter in loop.counters:
            counter.passes += 1
        at = torch.tensor(columns)
        logits = loop.step.packed(torch.tensor(tokens), at, torch.tensor(places), self.padding[self.held])
        scores = logits.to(torch.float32, copy=True)
        for processor in self.processors:
            scores = processor(None, scores)
        if loop.chooser is None:
            return scores.argmax(dim=-1).tolist()
        return loop.chooser.choose_at(rows, [column + 1 for column in columns], scores)

    def _write(self, row: int, drafted: list[int], chosen: list[int]) -> None:
        text, kept = self.texts[row], 0
        for index, token in enumerate(chosen):
            text.append(token)
            self.ended[row] = token in self.loop.end_tokens
            if self.ended[row] or index == len(drafted) or token != drafted[index]:
                break
            kept += 1
        if drafted:
            self.drafters[row].learn(len(drafted), kept)

    def _ask_criteria(self) -> None:
        loop = self.loop
        if any(map(_is_blind, loop.criteria)):
            over = loop.criteria(loop.ids[:, : loop.length], None).tolist()
            self.ended = [was or now for was, now in zip(self.ended, over, strict=True)]

    def _hand_back(self) -> None:
        """Let the loop go on from where the rows are."""
        loop = self.loop
        length = max(map(len, self.texts))
        assert loop.pad is not None
        loop.make_room(length)
        for row, text in enumerate(self.texts):
            loop.ids[row, :length] = torch.tensor([*text, *[loop.pad] * (length - len(text))])
        loop.lengths = [of_row + length - loop.length for of_row in loop.lengths]
        loop.length, loop.step.length, loop.unread = length, length - 1, 1
        loop.going = [not ended and length < loop.most for ended in self.ended]
        loop.held = self.held if len(self.held) < loop.rows else None
