"""Chooses the tokens after all drafts of a pass at once, where no processor looks at the text.

`judged_runs.py` does the same where processors judge the text after every draft.
"""

from collections.abc import Sequence
from typing import Any

import torch

from .network_step import Chosen


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
        if loop.recorder is not None:
            loop.streamer = None  # it may ask for the probabilities that are recorded below
        if chosen.tokens:
            written = loop.append_run(chosen.tokens, drafted)
        else:
            written = self._append_drawn(chosen.scores, drafted)
        if loop.recorder is not None:
            loop.recorder.record_run(loop.ids[0, : loop.length], start, logits[:written], chosen.scores[:written])
            loop.streamer = streamer
            if streamer is not None:
                streamer.put(loop.ids[0, start : loop.length].cpu())
        return written

    def _append_drawn(self, scores: torch.Tensor, drafted: Sequence[int]) -> int:
        """Draw tokens by scores, (drafted + 1, vocabulary), as long as they match the drafted ones.

        Without a seed every choice uses a number from torch's generator, so only the necessary ones are made.
        """
        loop = self.loop
        for index in range(len(drafted) + 1):
            (token,) = loop.choose(scores[index : index + 1])
            loop.append([token])
            if not any(loop.going) or (index < len(drafted) and token != drafted[index]):
                return index + 1
        return len(drafted) + 1
