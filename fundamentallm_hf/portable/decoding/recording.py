"""Records the probabilities by which tokens are chosen, after every setting and control.

The scores that `generate()` returns cannot be used: `SeededSampling` masks all tokens except the one it has drawn.
"""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from .control_effects import ControlEffects, Warp
from .phases import Phase
from .row_states import row_key, row_keys, split_key

# Raw probabilities of every step are kept up to this number of scores: those of a character model.
_KEPT_VOCABULARY = 1024


class Recorder(LogitsProcessor):
    """Records the scores and leaves them unchanged.

    A recorder among the `logits_processor` of `generate()` is moved after all processors that shape the distribution
    and before the choice; the processor that `first_look` returns is moved before all of them.
    """

    def first_look(self) -> LogitsProcessor | None:
        """A processor that sees the raw scores of every step; None where none is needed."""
        return None

    def around(self, phase: Phase, warp: Warp) -> tuple[LogitsProcessor, LogitsProcessor] | None:
        """Processors that see the scores before and after a phase of controls; None where none are needed.

        Args:
            phase: which one.
            warp: applies the warpers that come after the phase.
        """
        return None


class FirstLook(LogitsProcessor):
    """Notes which tokens are most probable before anything has changed the scores.

    Attributes:
        raw: the raw log-probabilities after every row, (vocabulary,); empty where the vocabulary is large.
    """

    def __init__(self, top: int) -> None:
        self.top = top
        self.tokens: torch.Tensor | None = None
        self.raw: dict[bytes, torch.Tensor] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.tokens = self.of(scores)
        self.keep([row_key(row) for row in input_ids], scores)
        return scores

    def keep(self, keys: Sequence[bytes], scores: torch.Tensor) -> None:
        """Keep the raw scores after the rows with these keys, (rows, vocabulary)."""
        if scores.shape[-1] <= _KEPT_VOCABULARY:
            self.raw |= zip(keys, scores.float().log_softmax(dim=-1).cpu(), strict=True)

    def of(self, scores: torch.Tensor) -> torch.Tensor:
        """The most probable tokens by raw scores, (rows, top)."""
        return scores.topk(min(self.top, scores.shape[-1])).indices.cpu()


class RawRecorder(Recorder):
    """Keeps the raw log-probabilities of every step, from which the score of a text follows.

    Args:
        top: how many of the most probable tokens `FirstLook` notes.
    """

    def __init__(self, top: int = 0) -> None:
        self.top = top
        self._look = FirstLook(top)

    def first_look(self) -> LogitsProcessor:
        """Notes the raw scores."""
        return self._look

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores unchanged."""
        return scores

    def record_run(self, row: torch.Tensor, start: int, raw: torch.Tensor, scores: torch.Tensor) -> None:
        """Record several steps of one row at once.

        Args:
            row: (length,) its tokens, up to the one that the last step chose.
            start: number of tokens before the first step.
            raw: (steps, vocabulary) the raw scores.
            scores: (steps, vocabulary) the final scores.
        """
        self._look.keep(row_keys(row, start)[:-1], raw)

    def raw(self, row: torch.Tensor, start: int) -> torch.Tensor | None:
        """The raw log-probabilities of every token of `row`, (length,), from `start` on, (steps, vocabulary).

        None where they were not kept.
        """
        known = [self._look.raw.get(key) for key in row_keys(row, start)[:-1]]
        found = [each for each in known if each is not None]
        return torch.stack(found) if found and len(found) == len(known) else None


class ProbabilityRecorder(RawRecorder):
    """Keeps the probabilities of every step under the tokens of the row, so rows may be reordered.

    Args:
        top: for how many tokens of every step to keep the probability: the most probable after all controls, and as
            many that are the most probable in the raw scores.
        greedy: the most probable token is taken, whatever its probability.
        beams: rows are dropped and resumed, so the whole distribution of every step has to be kept; without beams only
            that of the last step is.

    Attributes:
        first: (vocabulary,) the probabilities after the first row's prompt; None before the first step.
        effects: what each phase of the controls did.
    """

    def __init__(self, top: int, greedy: bool = False, beams: bool = False) -> None:
        super().__init__(top)
        self.greedy = greedy
        self.beams = beams
        self.first: torch.Tensor | None = None
        self._whole: dict[bytes, torch.Tensor] = {}
        self._likeliest: dict[bytes, dict[int, float]] = {}
        self._chosen: dict[bytes, float] = {}
        self.effects = ControlEffects(greedy)

    def around(self, phase: Phase, warp: Warp) -> tuple[LogitsProcessor, LogitsProcessor]:
        """Observes every phase."""
        return self.effects.around(phase, warp)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores unchanged."""
        rows, likeliest = self._read(scores, self._look.tokens)
        before, self._whole = self._whole, dict(self._whole) if self.beams else {}
        for row, whole, best in zip(input_ids, rows, likeliest, strict=True):
            key = row_key(row)
            parent = before.get(row_key(row[:-1]))
            if parent is not None and not self.beams:
                self._chosen[key] = float(parent[int(row[-1])])
            self._whole[key] = whole
            self._likeliest[key] = best
        self.effects.record(input_ids, likeliest)
        return scores

    def record_run(self, row: torch.Tensor, start: int, raw: torch.Tensor, scores: torch.Tensor) -> None:
        """See `RawRecorder`."""
        rows, likeliest = self._read(scores, self._look.of(raw))
        values = rows.gather(-1, row[start:, None]).flatten().tolist()
        keys = row_keys(row, start)
        self._likeliest |= zip(keys[:-1], likeliest, strict=True)
        self._chosen |= zip(keys[1:], values, strict=True)
        self._whole = {keys[-2]: rows[-1]}
        self._look.keep(keys[:-1], raw)

    def _read(self, scores: torch.Tensor, looked: torch.Tensor | None) -> tuple[torch.Tensor, list[dict[int, float]]]:
        """The probabilities of every step, (steps, vocabulary), and those of the most probable tokens."""
        if self.greedy:
            rows = torch.nn.functional.one_hot(scores.argmax(dim=-1), scores.shape[-1]).float().cpu()
        else:
            rows = scores.float().softmax(dim=-1).cpu()
        if self.first is None:
            self.first = rows[0]
        tokens = rows.topk(min(self.top, rows.shape[-1])).indices
        if looked is not None:
            tokens = torch.cat([tokens, looked], dim=-1)
        values = rows.gather(-1, tokens)
        return rows, [dict(zip(*best, strict=True)) for best in zip(tokens.tolist(), values.tolist(), strict=True)]

    def chosen(self, row: torch.Tensor | bytes) -> float:
        """The probability that the last token of `row`, (length,) or its key, had when it was chosen."""
        key = row_key(row)
        known = self._chosen.get(key)
        if known is not None:
            return known
        before, token = split_key(key)
        return float(self._whole[before][token])

    def likeliest(self, row: torch.Tensor | bytes) -> dict[int, float]:
        """The most probable tokens after `row`, (length,) or its key, before or after all controls.

        With the final probability of each.
        """
        return self._likeliest[row_key(row)]
