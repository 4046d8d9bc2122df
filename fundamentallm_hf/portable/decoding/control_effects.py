"""What the controls do to the probabilities of every step: which tokens they mask, lower or raise, phase by phase.

A pair of processors around each phase compares the scores before and after it, both warped by temperature, top-k and
the like: what those would cut off anyway is no effect of a control. The pair changes no score.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from .phases import CONSTRAINTS, Phase
from .row_states import row_key
from .texts import TOKEN_BYTES, JudgesTexts, Texts

# Applies the warpers that come after a phase to scores, (rows, vocabulary).
Warp = Callable[[torch.Tensor], torch.Tensor]
# The phases that are observed. A penalty on length changes no more than when a text ends.
OBSERVED = (*(phase for phase in CONSTRAINTS if phase is not Phase.LENGTH), Phase.GUIDE)
# A phase shifts a text where it moves at least this share of the probability to other tokens.
LEAST_SHIFT = 0.1


@dataclass(frozen=True, slots=True)
class Shift:
    """A position where a phase of the controls has changed what will probably be written.

    Attributes:
        phase: which one, by its name in lower case: "ban", "require", "guide" and so on.
        moved: the share of the probability that it moved to other tokens, 0 to 1.
        away: the token that lost the most.
        towards: the token that gained the most.
    """

    phase: str
    moved: float
    away: int
    towards: int


@dataclass
class StepEffects:
    """What the phases did at one position.

    Attributes:
        shifts: where they changed what will probably be written.
        factors: by phase and token, the probability after the phase divided by the one before it; only for tokens that
            were asked for, and phases that changed anything.
    """

    shifts: tuple[Shift, ...] = ()
    factors: dict[str, dict[int, float]] = field(default_factory=dict)


class _Before(JudgesTexts):
    """Notes the scores before a phase, by the tokens of each text."""

    def __init__(self, warp: Warp) -> None:
        self.warp = warp
        self.scores: dict[bytes, torch.Tensor] = {}

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. Returns the scores unchanged."""
        self.scores = dict(zip(texts.keys, self.warp(scores.float()).log_softmax(dim=-1), strict=True))
        return scores


class _After(JudgesTexts):
    """Compares the scores after a phase with those before it."""

    def __init__(self, before: _Before) -> None:
        self.before = before
        self.found: dict[bytes, tuple[torch.Tensor, torch.Tensor]] = {}

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. Returns the scores unchanged."""
        after = self.before.warp(scores.float()).log_softmax(dim=-1)
        for key, row in zip(texts.keys, after, strict=True):
            if key in self.before.scores:
                self.found[key] = self.before.scores[key], row
        return scores


class ControlEffects:
    """Collects what the phases do, for a recorder.

    A text may be judged several times, and drafted tokens be rejected, so the values wait under the tokens of the text
    until the recorder asks for them.

    Args:
        greedy: the most probable token is taken, so nothing moves until another one is the most probable.
    """

    def __init__(self, greedy: bool = False) -> None:
        self.greedy = greedy
        self._phases: dict[Phase, _After] = {}
        self._steps: dict[bytes, StepEffects] = {}
        # Those of the last step, while it is not known which token is chosen: by row and phase the logs of the factors.
        self._last: dict[bytes, dict[str, torch.Tensor]] = {}

    def around(self, phase: Phase, warp: Warp) -> tuple[JudgesTexts, JudgesTexts]:
        """The processors to put before and after the processors of a phase.

        Args:
            phase: which one.
            warp: applies the warpers that come after the phase.
        """
        before = _Before(warp)
        self._phases[phase] = _After(before)
        return before, self._phases[phase]

    def record(self, rows: torch.Tensor, listed: Iterable[Iterable[int]]) -> None:
        """Keep what the phases did in this step.

        Args:
            rows: (rows, length) their tokens.
            listed: for each row the tokens to keep factors of; that of the token it goes on with is kept as well.
        """
        if not self._phases:
            return
        before, self._last = self._last, {}
        for row, tokens in zip(rows, listed, strict=True):
            key, token = row_key(row), int(row[-1])
            parent = row_key(row[:-1])
            for phase, changes in before.get(parent, {}).items():
                self._steps[parent].factors[phase][token] = _factor(changes[token])
            self._steps[key], self._last[key] = self._step(key, tokens)
        for after in self._phases.values():
            # What is left are drafts that were rejected, or will be judged again.
            length = TOKEN_BYTES * rows.shape[1]
            after.found = {key: pair for key, pair in after.found.items() if len(key) > length}

    def _step(self, key: bytes, tokens: Iterable[int]) -> tuple[StepEffects, dict[str, torch.Tensor]]:
        shifts, factors, changed, tokens = list[Shift](), {}, {}, list(tokens)
        for phase, after in self._phases.items():
            if key not in after.found:
                continue
            old, new = after.found[key]
            gains = new.exp() - old.exp()
            moved = float(gains.clamp(min=0).sum())
            if not moved > 1e-6:
                continue
            away, towards = int(gains.argmin()), int(gains.argmax())
            if self.greedy:
                away, towards = int(old.argmax()), int(new.argmax())
                moved = float(away != towards)
            name = phase.name.lower()
            changes = torch.where(old.isneginf(), torch.nan, new - old).cpu()
            changed[name] = changes
            factors[name] = {token: _factor(changes[token]) for token in tokens}
            if moved >= LEAST_SHIFT:
                shifts.append(Shift(name, moved, away, towards))
        return StepEffects(tuple(shifts), factors), changed

    def after(self, row: torch.Tensor | bytes) -> StepEffects:
        """What the phases did in the step after these tokens, (length,) or their key."""
        return (self._phases and self._steps.get(row_key(row))) or StepEffects()

    def of_token(self, row: torch.Tensor | bytes, token: int) -> dict[str, float]:
        """By phase, the factor by which it changed the probability of a token after these, (length,) or their key."""
        if not self._phases:
            return {}
        key = row_key(row)
        found = {name: values[token] for name, values in self.after(row).factors.items() if token in values}
        # The last token of a text is chosen, and never read.
        found |= {name: _factor(changes[token]) for name, changes in self._last.get(key, {}).items()}
        return {name: factor for name, factor in found.items() if not math.isnan(factor)}


def _factor(change: torch.Tensor) -> float:
    return float(change.exp())
