"""A text while it is generated, and where controls have shifted it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fundamentallm_hf.generation.probabilities import Prediction, TokenNames
from fundamentallm_hf.portable.decoding.control_effects import Shift


@dataclass(frozen=True)
class PlacedShift:
    """A position where controls have changed what will probably be written.

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
    """Where controls have shifted a finished text."""
    found, start = [], 0
    for token in tokens:
        found += [PlacedShift.of(shift, start, names) for shift in token.shifts]
        start += len(token.text)
    return tuple(found)


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
        self._shifts += [
            PlacedShift.of(shift, self._length + offset, self._names) for offset, shift in getattr(piece, "shifts", ())
        ]
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
