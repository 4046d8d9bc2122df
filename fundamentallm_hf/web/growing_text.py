"""A text while it is generated, where controls have shifted it, and which words a guide has pulled."""

import math
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fundamentallm_hf.generation.probabilities import Prediction, TokenNames, led_to
from fundamentallm_hf.generation.streaming import visible_from
from fundamentallm_hf.portable.decoding.control_effects import Shift

# A word is pulled where the guide made it at least this much more or less likely, in nats.
PULLED = 0.1
_WORD = re.compile(r"\w+")


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
    """Where controls have changed a finished text."""
    found, start = [], 0
    for token in tokens:
        shifts = [each for each in token.shifts if led_to(each, token.token, token.effects)]
        found += [PlacedShift.of(shift, start, names) for shift in shifts]
        start += len(token.text)
    return tuple(found)


class Pull(NamedTuple):
    """How much the guides moved a word.

    Attributes:
        start, end: of the word, in characters of the completion.
        nats: the log of the factor by which they made it more likely.
    """

    start: int
    end: int
    nats: float


def find_pulls(tokens: Sequence[Prediction]) -> tuple[Pull, ...]:
    """The words of a completion that guides have pulled."""
    factors, start = [], 0
    for token in tokens:
        factors.append((start + visible_from(token.text), token.effects.get("guide")))
        start += len(token.text)
    return _pulls("".join(token.text for token in tokens), factors)


def _pulls(text: str, factors: Iterable[tuple[int, float | None]]) -> tuple[Pull, ...]:
    """The words of a text that guides have pulled.

    Args:
        text: the completion so far.
        factors: of each token its first character that is no white space, and by what factor guides have made it more
            likely; None for not at all.
    """
    moved: dict[int, float] = {}
    for start, factor in factors:
        if factor:
            moved[start] = moved.get(start, 0.0) + math.log(factor)
    pulls = []
    for word in _WORD.finditer(text) if moved else ():
        nats = sum(moved.get(index, 0.0) for index in range(*word.span()))
        if abs(nats) >= PULLED:
            pulls.append(Pull(*word.span(), nats))
    return tuple(pulls)


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
        self._factors: list[tuple[int, float | None]] = []
        self._pieces: list[str] = []
        self._length = 0
        self._best: tuple[str, int] | None = None

    def take(self, piece: str) -> None:
        """One more piece."""
        for offset, shift, led in getattr(piece, "shifts", ()):
            if led:
                self._shifts.append(PlacedShift.of(shift, self._length + offset, self._names))
        for offset, effects in getattr(piece, "effects", ()):
            self._factors.append((self._length + offset, effects.get("guide")))
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
        text = "".join(self._pieces)
        return {"text": text, "shifts": tuple(self._shifts), "pulls": _pulls(text, list(self._factors))}
