"""Where a missing entry would stand well: how likely it is here, and how likely it comes later by itself.

At every place where an entry could begin, its chance is noted: from the model's probabilities of the next token, from
word counts for how the word would go on, and from the model itself, which reads the first letters ahead, where they
could matter. The average over the places seen so far tells what to expect of those that are left, so it needs no
scale: a word that the model finds unlikely everywhere is compared with itself alone. This file knows nothing of budgets
or of what is closed.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .model_lookahead import ModelLookahead
from .requirements import Progress, Requirements
from .row_states import KEPT_LENGTHS
from .token_tables import CERTAIN

# The model is asked where an entry could be begun with at least this chance, were it so many times as likely here as
# word counts say.
MATERIAL, UNDERRATED = 0.02, 30.0
# A beginning from which the entry follows with this chance, by word counts, is read ahead no further.
SURE = 0.5
# Continuations that are read ahead for one row in one step, at most, and beginnings of one entry.
MOST_ASKED, MOST_BEGINNINGS = 12, 2
# A place counts by its chance to this power, so that a good place is preferred to many poor ones.
SHARPNESS = 2.0
# Before any place is seen, as many are taken for seen as this, at so many times the entry's frequency.
PRIOR, PEAK = 2, 3.0
# Sampling at low temperatures, top-p and greedy decoding pass over what is merely possible, so the places that are left
# count for less than they would if every token were sampled by its probability; and the last of them not at all, so
# that nobody breaks off a word to make room.
RARER, MARGIN = 0.5, 2.0
# Chances are never taken for less.
LEAST = 1e-15


class Seen(NamedTuple):
    """The places seen so far where an entry could have begun.

    Attributes:
        places: their number.
        total: the sum of its chances there, each to the power of `SHARPNESS`.
        last: its chance at the last of them.
    """

    places: int = 0
    total: float = 0.0
    last: float = 0.0


class Outlook(NamedTuple):
    """How things stand with one missing entry.

    Attributes:
        entry: its index.
        begun: the chance that what was begun becomes the entry.
        tokens: (beginnings,) ids of the tokens that begin it or go on with it.
        chances: (beginnings,) float64, the chance of each that it becomes the entry.
        completing: ids of the tokens that complete it.
        average: its chance at an average place, as far as is known.
    """

    entry: int
    begun: float
    tokens: np.ndarray
    chances: np.ndarray
    completing: np.ndarray
    average: float


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
        # By the length of a text and its tokens: what was seen of each entry up to there, and the chances that the
        # model gave, by entry and next token.
        self._seen: dict[int, dict[bytes, tuple[Seen, ...]]] = {}
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
            for index, candidate in enumerate(tokens.tolist() if asked else ()):
                chances[index] = asked.get((entry, candidate), chances[index])
            begun = table.chance(place)
            if begun:
                begun = before.get((entry, token), begun)
            elif len(tokens):
                here = float(probabilities[tokens] @ chances)
                seen[entry] = Seen(seen[entry].places + 1, seen[entry].total + here**SHARPNESS, here)
            average = self._average(entry, seen[entry])
            outlooks.append(Outlook(entry, begun, tokens, chances, outcomes.completing.numpy(), average))
        self._seen.setdefault(length, {})[row] = tuple(seen)
        return outlooks

    def _before(self, row: bytes, length: int) -> list[Seen]:
        known = self._seen.get(length - 1, {}).get(row[: -(len(row) // length)])
        return list(known or [Seen()] * len(self.requirements.tables))

    def _average(self, entry: int, seen: Seen) -> float:
        """What the places that are left hold for the entry, next to the one at which the text stands."""
        usual = self.requirements.tables[entry].patterns.frequency
        total = (PRIOR * (PEAK * usual) ** SHARPNESS + seen.total) / (PRIOR + seen.places)
        last = seen.last or usual
        return max(LEAST, min(CERTAIN, total / max(LEAST, last) ** (SHARPNESS - 1)))

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
                later = later_chance(self._average(entry, seen[entry]._replace(last=0.0)), left[index])
                found += [
                    (weight, (index, entry, path, rest))
                    for weight, path, rest in self._beginnings(entry, states[index], probabilities[index], later)
                    if (entry, path[0]) not in known
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
        self, entry: int, progress: Progress, probabilities: np.ndarray, later: float
    ) -> list[tuple[float, list[int], float]]:
        """The beginnings of an entry that are worth a question.

        Returns:
            For each how much it matters, its tokens up to where the entry is sure, and the chance of it from there.
        """
        table = self.requirements.tables[entry]
        place = progress.places[entry]
        assert place is not None
        outcomes = table.table(place)
        if not outcomes.greatest:
            return []
        tokens, chances = outcomes.risky.numpy(), outcomes.chances.numpy()
        weights = probabilities[tokens] * np.minimum(1.0, UNDERRATED * chances) / later
        found = []
        for index in np.argsort(-weights)[:MOST_BEGINNINGS].tolist():
            if weights[index] < MATERIAL:
                break
            path, state = [int(tokens[index])], table.advance(place, int(tokens[index]))
            ways = table.patterns.ways(state.patterns)
            spelled = table.vocabulary.spell(ways[0].text) if ways else None
            for token in spelled or ():
                if table.chance(state) >= SURE:
                    break
                path.append(token)
                state = table.advance(state, token)
            if len(path) > 1:
                found.append((float(weights[index]), path, min(CERTAIN, table.chance(state) or CERTAIN)))
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


def later_chance(average: float, left: float) -> float:
    """The chance that an entry comes by itself at one of the places that are left."""
    return max(LEAST, -math.expm1(max(0.0, left - MARGIN) * math.log1p(-min(CERTAIN, average * RARER))))
