"""Where a missing word fits: its probability at this position, and the probability that it comes later.

At every position where an entry could start, its probability is recorded: from the model's probabilities of the next
    token, from word counts for the rest of the word, and, where they could matter, from a lookahead of the model over
    the first letters. The probabilities of a word differ by orders of magnitude between positions and models, so a
    position is judged by its rank among those seen so far, as in the secretary problem: the better it is, the fewer
    better ones are expected among the remaining positions.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..decoding.lookahead import ModelLookahead
from ..decoding.texts import TOKEN_BYTES, Texts
from ..text.token_tables import CERTAIN, TextState
from .must_include_plan import Progress, Requirements

# The model is asked about a position that would be taken with at least this probability, if the entry were this many
# times as probable there as word counts say, and as probable as they say everywhere else.
MATERIAL_PLACEMENT, UNDERRATED = 0.1, 3.0
# Once the entry follows with this probability, by word counts, the lookahead goes no further.
SURE = 0.5
# Most continuations that are looked ahead for one row in one step, and most prefixes of one entry.
MOST_STARTS_ASKED, MOST_BEGINNINGS = 12, 2
# A position is taken with the probability 1 / (1 + (PATIENCE x better positions to come) ^ SHARPNESS): nearly always if
# less than one is expected. On average that takes about one of the remaining positions, so words are spread evenly.
SHARPNESS, PATIENCE = 3.0, 1.0
# The last positions are not counted, so that no word is cut short to make space.
MARGIN = 2.0
# Number of positions that are remembered.
MEMORY = 256
# Lower bound of probabilities.
LEAST = 1e-15


class Seen(NamedTuple):
    """The probabilities of an entry at the positions seen so far where it could have started.

    Attributes:
        counted: by the model's next token and word counts.
        asked: by the lookahead of the model; nan where it was not asked.
    """

    counted: tuple[float, ...] = ()
    asked: tuple[float, ...] = ()

    def add(self, counted: float, asked: float = math.nan) -> "Seen":
        """Add one position; the oldest are forgotten."""
        return Seen((*self.counted[-MEMORY:], counted), (*self.asked[-MEMORY:], asked))

    def last(self) -> tuple[float, float]:
        """The probability at the last position, and the share of better ones, plus half of the equal ones."""
        counted, asked = np.array(self.counted), np.array(self.asked)
        told = ~np.isnan(asked)
        # Where word counts overestimate the entry in general, they do so where the model was not asked, too.
        scale = asked[told].sum() / max(LEAST, counted[told].sum()) if told.any() else 1.0
        known = np.where(told, asked, scale * counted)
        return float(asked[-1] if told[-1] else counted[-1]), _better(known, known[-1])


class Outlook(NamedTuple):
    """The prospects of one missing entry.

    Attributes:
        entry: its index.
        begun: probability that the started part becomes the entry.
        tokens: (beginnings,) ids of the tokens that start or continue it.
        chances: (beginnings,) float64, the probability of each that it becomes the entry.
        completing: ids of the tokens that complete it.
        here: its probability at the last position where it could start.
        better: the share of the positions seen that are better than this one.
    """

    entry: int
    begun: float
    tokens: np.ndarray
    chances: np.ndarray
    completing: np.ndarray
    here: float
    better: float


class Placement:
    """Follows the probabilities of missing entries along the rows of one call.

    Args:
        requirements: the entries.
        lookahead: the model, asked for probabilities; without it only word counts are used.
        temperature: the number that scores are divided by later.
    """

    def __init__(
        self, requirements: Requirements, lookahead: ModelLookahead | None = None, temperature: float = 1.0
    ) -> None:
        self.requirements = requirements
        self.lookahead = lookahead
        self.temperature = temperature
        # By length and tokens of a text: the probabilities of each entry at the positions so far, and those that the
        # model gave, by entry and next token.
        self._seen: dict[int, dict[bytes, tuple[Seen, ...]]] = {}
        self._asked: dict[int, dict[bytes, dict[tuple[int, int], float]]] = {}
        self._paths: dict[tuple[int, TextState | None, int], tuple[list[int], float]] = {}

    def __call__(
        self,
        texts: torch.Tensor | Texts,
        scores: torch.Tensor,
        states: Sequence[Progress],
        waiting: Sequence[Sequence[int]],
        left: Sequence[float],
    ) -> list[list[Outlook]]:
        """Compute the outlooks of all texts.

        Args:
            texts: the texts, or rows, (rows, length).
            scores: (texts, vocabulary).
            states: (texts,) the progress of each text.
            waiting: for each text, the entries whose turn it is.
            left: (texts,) positions that are left in the text.

        Returns:
            For each text, the outlook of each waiting entry that the next token could start or continue.
        """
        texts = Texts.of(texts)
        for kept in (self._seen, self._asked):
            for old in texts.far(kept):
                del kept[old]
        probabilities = (scores.float() / self.temperature).softmax(dim=-1).cpu().numpy()
        found = []
        for group in texts.groups():
            # The outlook of a text depends on what was seen and asked along its beginning.
            if self.lookahead is not None:
                self._ask(texts, group, probabilities, states, waiting, left)
            found += [
                self._outlooks(texts, index, probabilities[index], states[index], waiting[index]) for index in group
            ]
        return found

    def _outlooks(
        self, texts: Texts, index: int, probabilities: np.ndarray, progress: Progress, waiting: Sequence[int]
    ) -> list[Outlook]:
        row, length, token = texts.keys[index], texts.lengths[index], texts.last(index)
        asked = self._asked.get(length, {}).get(row, {})
        before = self._asked.get(length - 1, {}).get(texts.parents[index], {})
        seen = self._before(texts, index)
        outlooks = []
        for entry in waiting:
            place = progress.places[entry]
            assert place is not None
            table = self.requirements.tables[entry]
            outcomes, begun = table.table(place), table.chance(place)
            if not begun and not outcomes.greatest and not len(outcomes.completing):
                continue  # within another word
            (tokens, chances), completing = outcomes.beginnings, outcomes.completing.numpy()
            counted = float(probabilities[tokens] @ chances)
            told = [index for index, each in enumerate(tokens.tolist()) if (entry, each) in asked] if asked else []
            chances = chances.copy() if told else chances
            for index in told:
                chances[index] = asked[entry, int(tokens[index])]
            if begun:
                begun = before.get((entry, token), begun)
            else:
                sure = float(probabilities[completing].sum())
                exact = sure + float(probabilities[tokens] @ chances) if told else math.nan
                seen[entry] = seen[entry].add(sure + counted, exact)
            frequency = table.patterns.frequency
            here, better = seen[entry].last() if seen[entry].counted else (frequency, 0.5)
            outlooks.append(Outlook(entry, begun, tokens, chances, completing, here, better))
        self._seen.setdefault(length, {})[row] = tuple(seen)
        return outlooks

    def _before(self, texts: Texts, index: int) -> list[Seen]:
        known = self._seen.get(texts.lengths[index] - 1, {}).get(texts.parents[index])
        return list(known or [Seen()] * len(self.requirements.tables))

    def _ask(
        self,
        texts: Texts,
        group: Sequence[int],
        probabilities: np.ndarray,
        states: Sequence[Progress],
        waiting: Sequence[Sequence[int]],
        left: Sequence[float],
    ) -> None:
        """Let the model look ahead over the starts of entries, where that was not done already."""
        paths: list[tuple[int, int, list[int], float]] = []
        distinct: set[bytes] = set()
        for index in group:
            row = texts.keys[index]
            if row in distinct:  # beams start as copies of each other
                continue
            distinct.add(row)
            known = self._asked.get(texts.lengths[index], {}).get(row, {})
            seen = self._before(texts, index)
            found = []
            for entry in waiting[index]:
                for chance, token in self._beginnings(entry, states[index], probabilities[index]):
                    if (entry, token) in known or not self._matters(chance, seen[entry], left[index]):
                        continue
                    path, rest = self._path(entry, states[index].places[entry], token)
                    if len(path) > 1:
                        found.append((chance, (index, entry, path, rest)))
            found.sort(key=lambda way: -way[0])
            paths += [way for _, way in found[:MOST_STARTS_ASKED]]
        if not paths:
            return
        assert self.lookahead is not None
        answers = self.lookahead.logits(texts, [path[0] for path in paths], [path[2][:-1] for path in paths])
        for (index, entry, path, rest), logits in zip(paths, answers, strict=True):
            if logits is not None:
                self._keep(texts.keys[index], texts.lengths[index], entry, path, rest, logits)

    def _beginnings(self, entry: int, progress: Progress, probabilities: np.ndarray) -> list[tuple[float, int]]:
        """The most probable starts of an entry, each with an upper bound of its probability."""
        table = self.requirements.tables[entry]
        place = progress.places[entry]
        assert place is not None
        outcomes = table.table(place)
        if not outcomes.greatest:
            return []
        tokens, chances = outcomes.beginnings
        most = probabilities[tokens] * np.minimum(1.0, UNDERRATED * chances)
        best = np.argsort(-most)[:MOST_BEGINNINGS]
        return list(zip(most[best].tolist(), tokens[best].tolist(), strict=True))

    def _matters(self, most: float, seen: Seen, left: float) -> bool:
        """Whether a position could be taken, if the entry has the probability `most` there."""
        later = later_chance(most, _better(np.array([*seen.counted, most]), most), left)
        return most / max(LEAST, most + later) >= MATERIAL_PLACEMENT

    def _path(self, entry: int, place: TextState | None, token: int) -> tuple[list[int], float]:
        """The most probable continuation up to where the entry is certain, and its probability from there."""
        key = (entry, place, token)
        if key not in self._paths:
            table = self.requirements.tables[entry]
            assert place is not None
            path, state = [token], table.advance(place, token)
            ways = table.patterns.ways(state.patterns)
            spelled = table.vocabulary.spell_rest(table.vocabulary.piece(token), ways[0].text) if ways else None
            for following in spelled or ():
                if table.chance(state) >= SURE:
                    break
                path.append(following)
                state = table.advance(state, following)
            self._paths[key] = path, min(CERTAIN, table.chance(state) or CERTAIN)
        return self._paths[key]

    def _keep(self, row: bytes, length: int, entry: int, path: list[int], rest: float, logits: torch.Tensor) -> None:
        """Compute the probability of the entry after each prefix of `path`, from its end to its first token."""
        probabilities = (logits.float() / self.temperature).softmax(dim=-1)
        follows = probabilities[range(len(path) - 1), path[1:]].tolist()
        chance = rest
        for cut in range(len(path) - 1, -1, -1):
            key = row + b"".join(token.to_bytes(TOKEN_BYTES, "little") for token in path[:cut])
            chances = self._asked.setdefault(length + cut, {}).setdefault(key, {})
            chances[entry, path[cut]] = min(CERTAIN, chance)
            if cut:
                chance *= follows[cut - 1]


def later_chance(here: float, better: float, left: float) -> float:
    """The probability that an entry comes later by itself, chosen so that a position is taken as often as intended.

    With the probability `here` at a position and this one b, a required entry is started there with the probability
    here / (here + b), so b is `here` times the odds against the position.
    """
    return min(CERTAIN, max(LEAST, here * (PATIENCE * better * max(0.0, left - MARGIN)) ** SHARPNESS))


def _better(chances: np.ndarray, here: float) -> float:
    greater, equal = np.count_nonzero(chances > here), np.count_nonzero(chances == here)
    return (greater + equal / 2) / len(chances)
