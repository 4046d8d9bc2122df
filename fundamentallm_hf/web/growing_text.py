"""A text while it is generated, and where controls have shifted it."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fundamentallm_hf.generation.probabilities import Prediction, TokenNames
from fundamentallm_hf.portable.decoding.control_effects import Shift

# A token counts as chosen because of a control that made it so many times as likely.
RAISED = 1.1


@dataclass(frozen=True)
class PlacedShift:
    """A position where controls have changed what is written.

    Attributes:
        start: of its token, in characters after the prompt.
        phase: which controls did, as in `Shift`.
        away, towards: the texts of the tokens that lost and gained the most.
    """

    start: int
    phase: str
    away: str
    towards: str

    @classmethod
    def of(cls, shift: Shift, start: int, names: TokenNames) -> "PlacedShift":
        """With texts in place of tokens."""
        return cls(start, shift.phase, names.text(shift.away), names.text(shift.towards))


def find_shifts(tokens: Sequence[Prediction], names: TokenNames) -> tuple[PlacedShift, ...]:
    """Where controls have changed a finished text: the token that was chosen is one that they have made more likely."""
    found, start = [], 0
    for token in tokens:
        found += [PlacedShift.of(shift, start, names) for shift in token.shifts if _changed(token, shift)]
        start += len(token.text)
    return tuple(found)


def _changed(token: Prediction, shift: Shift) -> bool:
    # Without a factor, the token was impossible before.
    raised = token.effects.get(shift.phase, math.inf) > RAISED
    return shift.away != token.token and (raised or shift.towards == token.token)


class GrowingText:
    """Receives a text from the thread that generates it.

    Args:
        names: texts of the tokens.

    Attributes:
        changed: set whenever there is more of it.
    """

    def __init__(self, names: TokenNames) -> None:
        self.changed, self._names = threading.Event(), names
        self._shifts: list[PlacedShift] = []
        self._pieces: list[str] = []
        self._length = 0
        self._best: tuple[str, int] | None = None

    def take(self, piece: str) -> None:
        """One more piece."""
        for offset, shift in getattr(piece, "shifts", ()):
            placed = PlacedShift.of(shift, self._length + offset, self._names)
            # What a control has moved away from was chosen all the same.
            if not placed.away or not piece.startswith(placed.away, offset):
                self._shifts.append(placed)
        self._length += len(piece)
        self._pieces.append(piece)
        if not self.changed.is_set():
            self.changed.set()

    def show_best(self, text: str, settled: int) -> None:
        """The best text of a beam search so far, and how many of its characters are certain."""
        self._best = text, settled
        self.changed.set()

    def fields(self) -> dict[str, Any]:
        """The fields of `Written` for the text so far."""
        if self._best is not None:
            return {"text": self._best[0], "settled": self._best[1]}
        return {"text": "".join(self._pieces), "shifts": tuple(self._shifts)}
