"""Counts the matches of regular expressions with weights.

A match counts where it is complete, as early as possible, and the next one begins after it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from .regex_matcher import EDGE, RegexMachine, State

# A match that has begun: the number of its expression, and the state of that.
Live = tuple[int, State]

_KEPT_READINGS = 1 << 17


class Tail(NamedTuple):
    """The state of the expressions, and what the text is due.

    Attributes:
        before: the kind of the last character.
        live: the matches that have begun.
        due: the sum of the weights that were completed, those of words included.
    """

    before: int = EDGE
    live: tuple[Live, ...] = ()
    due: float = 0.0


class WeightedRegexes:
    """Follows regular expressions through a text.

    Args:
        weights: of the expressions.
        ignore_case: compile them with `re.IGNORECASE`.

    Raises:
        ValueError: an expression is not valid.
    """

    def __init__(self, weights: dict[str, float], ignore_case: bool) -> None:
        self.machines = [RegexMachine([source], ignore_case) for source in weights]
        self._weights = [*weights.values()]
        self._begun: dict[tuple[int, str], tuple[dict[int, tuple[State, float]], int]] = {}
        self._steps: dict[tuple[int, tuple[Live, ...], str], Tail] = {}

    def step(self, tail: Tail, char: str) -> Tail:
        """Read one character."""
        key = (tail.before, tail.live, char)
        known = self._steps.get(key)
        if known is None:
            if len(self._steps) >= _KEPT_READINGS:
                self._steps.clear()
            known = self._steps[key] = self._step(*key)
        return known._replace(due=tail.due + known.due) if tail.due else known

    def read(self, number: int, state: State, char: str) -> tuple[State, float]:
        """Read one character in one expression; returns its new state, and what is due for it."""
        machine, due = self.machines[number], 0.0
        if state.pending and state.pending & machine.step(machine.neutral(state), char)[0].before:
            state, due = machine.neutral(state), self._weights[number]  # a match ended before this character
        state, hit = machine.step(state, char)
        return (machine.neutral(state), due + self._weights[number]) if hit else (state, due)

    def due_at_end(self, live: Sequence[Live]) -> float:
        """The weight of the matches that are complete if the text ends here."""
        return sum(self._weights[number] for number, state in live if self.machines[number].ends(state))

    def forget(self, tail: Tail) -> Tail:
        """The same state, without what is complete already or due."""
        live = [(number, self.machines[number].forget(state)) for number, state in tail.live]
        return Tail(tail.before, tuple(pair for pair in live if pair[1].threads))

    def _step(self, before: int, live: tuple[Live, ...], char: str) -> Tail:
        if (before, char) not in self._begun:
            self._begun[before, char] = self._begin(before, char)
        begun, kind = self._begun[before, char]
        found = begun
        if live:
            found = dict(begun)
            for number, state in live:
                found[number] = self.read(number, state, char)
        alive = tuple((at, found[at][0]) for at in sorted(found) if self.machines[at].alive(found[at][0]))
        return Tail(kind, alive, sum(found[at][1] for at in sorted(found)))

    def _begin(self, before: int, char: str) -> tuple[dict[int, tuple[State, float]], int]:
        """The expressions of which `char` begins or completes a match, and the kind of `char`."""
        found, kind = {}, EDGE
        for number, machine in enumerate(self.machines):
            state, due = self.read(number, State(frozenset(), before, 0), char)
            kind = state.before
            if due or machine.alive(state):
                found[number] = (state, due)
        return found, kind
