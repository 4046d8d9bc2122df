"""Chooses the tokens after all drafts of a pass at once, where no processor looks at the text.

`judged_runs.py` does the same where processors judge the text after every draft.
"""

from collections.abc import Sequence
from typing import Any

import torch

from .network_step import Chosen
from .row_drafts import ignores_text
from .texts import common_length


class FreeRuns:
    """Appends the tokens of each pass to a call with one row.

    Args:
        loop: the `LeanLoop` that decodes.
    """

    def __init__(self, loop: Any) -> None:
        self.loop = loop

    def _choose(self, logits: torch.Tensor) -> Chosen:
        """Choose after every row of these logits, (steps, vocabulary), by processors that look at nothing else."""
        loop = self.loop
        scores = logits
        for processor in loop.processors:
            scores = processor(None, scores)
        if loop.greedy:
            return Chosen(scores, scores.argmax(dim=-1).tolist())
        if loop.chooser is not None:
            return Chosen(scores, loop.chooser.choose_run(loop.length, scores))
        return Chosen(scores, [])

    def write(self, logits: torch.Tensor, drafted: Sequence[int], chosen: Chosen | None) -> int:
        """Choose tokens as long as they match the drafted ones, and return their number.

        Args:
            logits: (drafted + 1, vocabulary) after the text and after each drafted token.
            drafted: the drafted tokens.
            chosen: what others have chosen from these logits.
        """
        loop = self.loop
        chosen = self._choose(logits) if chosen is None else chosen
        start, streamer = loop.length, loop.streamer
        in_runs = loop.recorder is not None or getattr(streamer, "takes_runs", False)
        if in_runs:
            loop.streamer = None  # it may ask for the probabilities that are recorded below
        if chosen.tokens and loop.streamer is None and ignores_text(loop.criteria):
            written = self._append_run(chosen.tokens, drafted)
        else:
            written = self._append_each(chosen, drafted)
        if loop.recorder is not None:
            loop.recorder.record_run(loop.ids[0, : loop.length], start, logits[:written], chosen.scores[:written])
        if in_runs:
            loop.streamer = streamer
            if streamer is not None:
                streamer.put(loop.ids[0, start : loop.length].cpu())
        return written

    def _append_each(self, chosen: Chosen, drafted: Sequence[int]) -> int:
        """Append chosen tokens one by one, as long as they match the drafted ones. Returns their number."""
        loop = self.loop
        for index in range(len(drafted) + 1):
            # Without a seed every choice uses a number from torch's generator, so only the necessary ones are made.
            token = chosen.tokens[index] if chosen.tokens else loop.choose(chosen.scores[index : index + 1])[0]
            loop.append([token])
            if not any(loop.going) or (index < len(drafted) and token != drafted[index]):
                return index + 1
        return len(drafted) + 1

    def _append_run(self, tokens: Sequence[int], drafted: Sequence[int]) -> int:
        """Like `_append_each`, but in one step: for criteria that do not depend on the text."""
        loop = self.loop
        over = bool(loop.criteria) and bool(loop.criteria(loop.ids[:, : loop.length], None).any())
        count = 1 if over else min(common_length(tokens, drafted) + 1, loop.most - loop.length)
        count = next((index for index in range(count) if tokens[index] in loop.end_tokens), count - 1) + 1
        loop.enter(tokens[:count])
        loop.length += count
        loop.lengths[0] += count
        loop.going = [not over and loop.length < loop.most and tokens[count - 1] not in loop.end_tokens]
        return count
