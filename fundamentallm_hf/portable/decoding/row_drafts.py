"""Drafts for several rows at once: each row advances by as many tokens as it keeps of its drafts.

Rows reach different lengths, so this works only for calls whose processors depend only on the scores. At the end of the
context window the rows wait until all have reached it. Then `LeanLoop` continues with one column for all rows.
"""

from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from .drafts import Draft, Drafter, NgramTable
from .endings import EndCriteria
from .network_step import Run
from .seeded_sampling import SeededSampling

# With one row, drafting a token saves time if it is kept with a probability of at least MOST_WORTH - GAIN. The more
# rows share a pass, the less time a saved pass is worth.
MOST_WORTH, GAIN, SHARED = 0.3, 0.18, 0.6
# A pass is saved only if the row that is furthest behind saves it. Its limit is lower by half of SPREAD, and that of
# rows which are AHEAD of it by this many tokens is higher by as much.
SPREAD, AHEAD = 0.2, 16


def worth(rows: int) -> float:
    """The least probability of being kept at which drafting a token saves time, with this many rows."""
    return MOST_WORTH - GAIN / rows**SHARED


def worth_ahead(rows: int, ahead: int) -> float:
    """The same for a row that is some tokens ahead of the last one."""
    return worth(rows) + SPREAD * (min(1.0, ahead / AHEAD) - 0.5)


def ignores_text(criteria: StoppingCriteriaList) -> bool:
    """Whether none of these criteria depends on the text of a row."""
    return all((isinstance(each, EndCriteria) and not each.rows) or _is_blind(each) for each in criteria)


def is_over(criteria: StoppingCriteriaList, input_ids: torch.Tensor) -> bool:
    """Whether one of these criteria, none of which depends on the text of a row, ends rows (rows, length)."""
    return any(bool(each(input_ids, None).any()) for each in criteria if _is_blind(each))


def _is_blind(criterion: object) -> bool:
    return getattr(criterion, "ignores_text", False) is True


class RowDrafts:
    """Generates several rows up to a column, with drafts.

    Args:
        loop: the `LeanLoop` that has generated the first token of every row; changed **in place**.
        table: an n-gram table; may be None.
        limit: the column at which to stop.
    """

    def __init__(self, loop: Any, table: NgramTable | None, limit: int) -> None:
        self.loop, self.limit = loop, limit
        self.drafters = [Drafter(table) for _ in range(loop.rows)]
        self.texts = [row[: loop.length].tolist() for row in loop.ids]
        self.held = list(range(loop.rows))
        self.ended = [not going for going in loop.going]
        self.processors = LogitsProcessorList(loop.processors)

    @staticmethod
    def suits(loop: Any) -> bool:
        """Whether the rows of a call can advance independently."""
        chosen = loop.greedy or type(loop.chooser) is SeededSampling
        alone = loop.streamer is None and loop.pad is not None
        return loop.rows > 1 and loop.memoryless and chosen and alone and ignores_text(loop.criteria)

    def run(self) -> None:
        """Generate every row up to the limit or its end."""
        while going := [row for row in self.held if not self.ended[row] and len(self.texts[row]) < self.limit]:
            # A row that waits at the limit continues later, unless the limit is the maximum length.
            kept = going if self.limit == self.loop.most else [row for row in self.held if not self.ended[row]]
            if len(kept) <= self.loop.few * len(self.held):
                self.loop.step.keep_rows([self.held.index(row) for row in kept])
                self.held = kept
            last = min(len(self.texts[row]) for row in going)
            drafts = [self._draft(row, len(self.texts[row]) - last) for row in going]
            chosen = iter(self._chosen(going, drafts))
            for row, draft in zip(going, drafts, strict=True):
                self._write(row, draft, [next(chosen) for _ in range(len(draft.tokens) + 1)])
            self._ask_criteria()
        self._hand_back()

    def _draft(self, row: int, ahead: int) -> Draft:
        text, drafter = self.texts[row], self.drafters[row]
        drafter.worth = worth_ahead(self.loop.rows, ahead)
        return drafter(text, self.limit - len(text) - 1)

    def _chosen(self, going: list[int], drafts: list[Draft]) -> list[int]:
        """The tokens chosen after the last token of each row and after each of its drafts, row by row."""
        loop = self.loop
        runs: list[Run] = []
        for row, (drafted, *_) in zip(going, drafts, strict=True):
            text, padding = self.texts[row], loop.call.padding[row]
            new, column = [text[-1], *drafted], len(text) - 1
            positions = range(column - padding, column - padding + len(new))
            runs.append(Run(self.held.index(row), new, column, positions, padding))
        loop.count_pass(None)
        logits = loop.step.packed(runs)
        scores = logits.to(torch.float32, copy=True)
        for processor in self.processors:
            scores = processor(None, scores)
        if loop.chooser is None:
            return scores.argmax(dim=-1).tolist()
        rows = [row for row, run in zip(going, runs, strict=True) for _ in run.tokens]
        lengths = [run.column + 1 + index for run in runs for index in range(len(run.tokens))]
        return loop.chooser.choose_at(rows, lengths, scores)

    def _write(self, row: int, draft: Draft, chosen: list[int]) -> None:
        text, drafted, kept = self.texts[row], draft.tokens, 0
        for index, token in enumerate(chosen):
            text.append(token)
            self.ended[row] = token in self.loop.end_tokens
            if self.ended[row] or index == len(drafted) or token != drafted[index]:
                break
            kept += 1
        self.drafters[row].learn(draft, kept)

    def _ask_criteria(self) -> None:
        loop = self.loop
        if any(map(_is_blind, loop.criteria)):
            over = loop.criteria(loop.ids[:, : loop.length], None).tolist()
            self.ended = [was or now for was, now in zip(self.ended, over, strict=True)]

    def _hand_back(self) -> None:
        """Copy the rows back into the loop, which continues from there."""
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
