"""Where a missing entry would stand well: how likely it is here, and how likely it comes later by itself.

At every place where an entry could begin, its chance is noted: from the model's probabilities of the next token, from
word counts for how the word would go on, and from the model itself, which reads the first letters ahead, where they
could matter. Chances of a word differ by orders of magnitude from place to place and from model to model, so a place is
judged by its rank among those seen so far, as in the secretary problem: the better it is, the fewer better ones are to
be expected among those that are left. This file knows nothing of budgets or of what is closed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .model_lookahead import ModelLookahead
from .requirements import Progress, Requirements
from .row_states import KEPT_LENGTHS
from .token_tables import CERTAIN

# The model is asked about a place that would be taken with at least this chance, were the entry so many times as likely
# there as word counts say.
MATERIAL, UNDERRATED = 0.05, 30.0
# A beginning from which the entry follows with this chance, by word counts, is read ahead no further.
SURE = 0.5
# Continuations that are read ahead for one row in one step, at most, and beginnings of one entry.
MOST_ASKED, MOST_BEGINNINGS = 12, 2
# A place is taken with the chance 1 / (1 + (PATIENCE x better places to come) ^ SHARPNESS): nearly always if less than
# one is to be expected. On average that makes about one in the places that are left, so that words fall evenly.
SHARPNESS, PATIENCE = 3.0, 1.2
# The last places are not counted on, so that nobody breaks off a word to make room.
MARGIN = 2.0
# Places that are remembered.
MEMORY = 256
# Chances are never taken for less.
LEAST = 1e-15


# The chances of an entry at the places seen so far.
Chances = tuple[float, ...]


class Outlook(NamedTuple):
    """How things stand with one missing entry.

    Attributes:
        entry: its index.
        begun: the chance that what was begun becomes the entry.
        tokens: (beginnings,) ids of the tokens that begin it or go on with it.
        chances: (beginnings,) float64, the chance of each that it becomes the entry.
        completing: ids of the tokens that complete it.
        here: its chance at the last place where it could begin.
        better: the share of the places seen that are better than this one.
    """

    entry: int
    begun: float
    tokens: np.ndarray
    chances: np.ndarray
    completing: np.ndarray
    here: float
    better: float


class Placement:
    """Follows the chances of missing entries along the rows of one call.

    Args:
        requirements: the entries.
        lookahead: the model, to be asked for chances; without it word counts are all there is.
        temperature: by which scores are divided later on.
    """

    def __init__(
        self, requirements: Requirements, lookahead: ModelLookahead | None = None, temperature: float = 1.0
    ) -> None:
        self.requirements = requirements
        self.lookahead = lookahead
        self.temperature = temperature
        # By the length of a text and its tokens: the chances of each entry at the places up to there, and those that
        # the model gave, by entry and next token.
        self._seen: dict[int, dict[bytes, tuple[Chances, ...]]] = {}
        self._asked: dict[int, dict[bytes, dict[tuple[int, int], float]]] = {}

    def __call__(
        self,
        input_ids: torch.Tensor,
        scores: torch.Tensor,
        states: Sequence[Progress],
        waiting: Sequence[Sequence[int]],
        left: Sequence[float],
    ) -> list[list[Outlook]]:
        """Tell how things stand.

        Args:
            input_ids: (rows, length).
            scores: (rows, vocabulary).
            states: (rows,) how far each row has come.
            waiting: for each row, the entries whose turn it is.
            left: (rows,) places that are left in the row.

        Returns:
            For each row, the outlook of each waiting entry.
        """
        length = input_ids.shape[1]
        for kept in (self._seen, self._asked):
            for old in [known for known in kept if abs(known - length) > KEPT_LENGTHS]:
                del kept[old]
        rows = [row.tobytes() for row in input_ids.cpu().numpy()]
        probabilities = (scores.float() / self.temperature).softmax(dim=-1).cpu().numpy()
        if self.lookahead is not None:
            self._ask(input_ids, rows, probabilities, states, waiting, left)
        return [
            self._outlooks(row, length, *of_row)
            for row, *of_row in zip(rows, probabilities, states, waiting, strict=True)
        ]

    def _outlooks(
        self, row: bytes, length: int, probabilities: np.ndarray, progress: Progress, waiting: Sequence[int]
    ) -> list[Outlook]:
        width = len(row) // length
        token = int.from_bytes(row[-width:], "little")
        asked = self._asked.get(length, {}).get(row, {})
        before = self._asked.get(length - 1, {}).get(row[:-width], {})
        seen = self._before(row, length)
        outlooks = []
        for entry in waiting:
            place = progress.places[entry]
            assert place is not None
            table = self.requirements.tables[entry]
            outcomes = table.table(place)
            tokens, chances = outcomes.risky.numpy(), outcomes.chances.numpy().astype(np.float64)
            completing = outcomes.completing.numpy()
            for index, candidate in enumerate(tokens.tolist() if asked else ()):
                chances[index] = asked.get((entry, candidate), chances[index])
            begun = table.chance(place)
            if begun:
                begun = before.get((entry, token), begun)
            elif len(tokens) or len(completing):
                here = float(probabilities[tokens] @ chances + probabilities[completing].sum())
                seen[entry] = (*seen[entry][-MEMORY:], here)
            here, better = compared(seen[entry] or (self.requirements.tables[entry].patterns.frequency,))
            outlooks.append(Outlook(entry, begun, tokens, chances, completing, here, better))
        self._seen.setdefault(length, {})[row] = tuple(seen)
        return outlooks

    def _before(self, row: bytes, length: int) -> list[Chances]:
        known = self._seen.get(length - 1, {}).get(row[: -(len(row) // length)])
        return list(known or [()] * len(self.requirements.tables))

    def _ask(
        self,
        input_ids: torch.Tensor,
        rows: list[bytes],
        probabilities: np.ndarray,
        states: Sequence[Progress],
        waiting: Sequence[Sequence[int]],
        left: Sequence[float],
    ) -> None:
        """Let the model read ahead the beginnings of entries, where that was not done already."""
        length = input_ids.shape[1]
        paths: list[tuple[int, int, list[int], float]] = []
        for index, row in enumerate(rows):
            if row in rows[:index]:  # beams begin as copies of each other
                continue
            known = self._asked.get(length, {}).get(row, {})
            seen = self._before(row, length)
            found = []
            for entry in waiting[index]:
                found += [
                    (weight, (index, entry, path, rest))
                    for weight, path, rest in self._beginnings(entry, states[index], probabilities[index])
                    if (entry, path[0]) not in known and taken(weight, seen[entry], left[index]) >= MATERIAL
                ]
            found.sort(key=lambda way: -way[0])
            paths += [way for _, way in found[:MOST_ASKED]]
        if not paths:
            return
        assert self.lookahead is not None
        answers = self.lookahead.logits(input_ids, [path[0] for path in paths], [path[2][:-1] for path in paths])
        for (index, entry, path, rest), logits in zip(paths, answers, strict=True):
            if logits is not None:
                self._keep(rows[index], length, entry, path, rest, logits)

    def _beginnings(
        self, entry: int, progress: Progress, probabilities: np.ndarray
    ) -> list[tuple[float, list[int], float]]:
        """The likeliest beginnings of an entry that leave anything to ask.

        Returns:
            For each the most that its chance could be, its tokens up to where the entry is sure, and the chance of it
            from there.
        """
        table = self.requirements.tables[entry]
        place = progress.places[entry]
        assert place is not None
        outcomes = table.table(place)
        if not outcomes.greatest:
            return []
        tokens, chances = outcomes.risky.numpy(), outcomes.chances.numpy()
        most = probabilities[tokens] * np.minimum(1.0, UNDERRATED * chances)
        found = []
        for index in np.argsort(-most)[:MOST_BEGINNINGS].tolist():
            path, state = [int(tokens[index])], table.advance(place, int(tokens[index]))
            ways = table.patterns.ways(state.patterns)
            spelled = table.vocabulary.spell_rest(table.vocabulary.piece(path[0]), ways[0].text) if ways else None
            for token in spelled or ():
                if table.chance(state) >= SURE:
                    break
                path.append(token)
                state = table.advance(state, token)
            if len(path) > 1:
                found.append((float(most[index]), path, min(CERTAIN, table.chance(state) or CERTAIN)))
        return found

    def _keep(self, row: bytes, length: int, entry: int, path: list[int], rest: float, logits: torch.Tensor) -> None:
        """Work out the chance of the entry behind each beginning of `path`, from its end to its first token."""
        probabilities = (logits.float() / self.temperature).softmax(dim=-1).cpu()
        width = len(row) // length
        chance = rest
        for cut in range(len(path) - 1, -1, -1):
            key = row + b"".join(token.to_bytes(width, "little") for token in path[:cut])
            chances = self._asked.setdefault(length + cut, {}).setdefault(key, {})
            chances[entry, path[cut]] = min(CERTAIN, chance)
            if cut:
                chance *= float(probabilities[cut - 1, path[cut]])


def compared(seen: Chances) -> tuple[float, float]:
    """The chance at the last place of `seen`, and the share of them that are better, half of those that are as good."""
    here = seen[-1]
    better = sum(chance > here for chance in seen) + sum(chance == here for chance in seen) / 2
    return here, better / len(seen)


def later_chance(here: float, better: float, left: float) -> float:
    """The chance that an entry comes later by itself, so that a place is taken as often as it ought to be.

    With the chance `here` at a place and this one b, an entry that has to appear is begun there with the chance
    here / (here + b), so b is `here` times the odds against the place.
    """
    return min(CERTAIN, max(LEAST, here * (PATIENCE * better * max(0.0, left - MARGIN)) ** SHARPNESS))


def taken(here: float, seen: Chances, left: float) -> float:
    """The chance to take a place, given that the entry has to appear, if it has the chance `here` there."""
    return here / max(LEAST, here + later_chance(*compared((*seen, here)), left))
