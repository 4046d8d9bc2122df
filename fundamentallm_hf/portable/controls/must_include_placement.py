"""Where a missing word fits: its probability at this position, and the probability that it comes later.

At every position where an entry could start in its usual spelling, its probability is recorded: from the model's
probabilities of the next token, and from a lookahead of the model over the rest of the word. Word counts estimate the
rest where the model cannot be asked, and tell where it need not be asked: there, no entry is started. The probabilities
of a word differ by orders of magnitude between positions and models, so a position is judged by its rank among those
seen so far, as in the secretary problem: the better it is, the fewer better ones are expected among the remaining
positions.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from ..decoding.lookahead import ModelLookahead
from ..decoding.texts import Texts, longer_key
from ..text.characters import is_word
from ..text.token_tables import CERTAIN, TextState
from .must_include_plan import Progress, Requirements
from .must_include_spelling import Spellings, Tail

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
# Lower bound of probabilities: a rare word of many tokens may have 1e-40.
LEAST = 1e-200
# What looks like a started entry is another word if the model ends it with this probability.
ENDED = 0.5
# In place of a token: the model was not asked about the entry here, since the position would hardly be taken.
_UNASKED = -1


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


class Starts(NamedTuple):
    """The tokens that spell one missing entry in the usual way at one position.

    Attributes:
        tokens: (beginnings,) ids of the tokens that start or continue it.
        probabilities: (beginnings,) float64, the model's probability of each.
        chances: (beginnings,) float64, by word counts, the probability of each that it becomes the entry.
        completing: ids of the tokens that complete it.
        sure: the model's probability of those.
    """

    tokens: np.ndarray
    probabilities: np.ndarray
    chances: np.ndarray
    completing: np.ndarray
    sure: float


_NOTHING = Starts(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, np.int64), 0.0)


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

    Attributes:
        spellings: the usual spelling of the entries.
    """

    def __init__(
        self, requirements: Requirements, lookahead: ModelLookahead | None = None, temperature: float = 1.0
    ) -> None:
        self.requirements = requirements
        self.spellings = Spellings(requirements.sources, requirements.vocabulary)
        self.lookahead = lookahead
        self.temperature = temperature
        # By length and tokens of a text: the probabilities of each entry at the positions so far, and those that the
        # model gave, by entry and next token; nan where asking it was not worth while.
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
        starts = [
            self._starts(texts, index, of_text, progress, entries)
            for index, (of_text, progress, entries) in enumerate(zip(probabilities, states, waiting, strict=True))
        ]
        found = []
        for group in texts.groups():
            # The outlook of a text depends on what was seen and asked along its beginning.
            if self.lookahead is not None:
                self._ask(texts, group, states, starts, left)
            found += [self._outlooks(texts, index, states[index], starts[index]) for index in group]
        return found

    def _starts(
        self, texts: Texts, index: int, probabilities: np.ndarray, progress: Progress, waiting: Sequence[int]
    ) -> dict[int, Starts]:
        """The tokens that start, continue or complete each waiting entry in its usual spelling."""
        tail: Tail | None = None
        found = {}
        for entry in waiting:
            place = progress.places[entry]
            assert place is not None
            outcomes = self.requirements.tables[entry].table(place)
            (tokens, chances), completing = outcomes.beginnings, outcomes.completing.numpy()
            if not len(tokens) and not len(completing):  # as within most other words
                found[entry] = _NOTHING
                continue
            tail = self.spellings.tail(texts.tokens(index)) if tail is None else tail
            ended = self.spellings.is_begun(entry, tail) and float(probabilities[self._breaks].sum()) >= ENDED
            both = [*tokens.tolist(), *completing.tolist()]
            fits = np.array(self.spellings.customary(entry, tail, both, ended), dtype=bool)
            usual, fits = fits[: len(tokens)], fits[len(tokens) :]
            tokens, completing = tokens[usual], completing[fits]
            sure = float(probabilities[completing].sum())
            found[entry] = Starts(tokens, probabilities[tokens].astype(np.float64), chances[usual], completing, sure)
        return found

    @cached_property
    def _breaks(self) -> np.ndarray:
        """The tokens after which the last word has ended: those that start with no letter, and the silent ones."""
        pieces = self.requirements.vocabulary.pieces
        breaks = [
            token for token, piece in enumerate(pieces) if isinstance(piece, str) and not is_word(piece[:1] or " ")
        ]
        return np.array(breaks, dtype=np.int64)

    def _outlooks(self, texts: Texts, index: int, progress: Progress, starts: dict[int, Starts]) -> list[Outlook]:
        row, length, token = texts.keys[index], texts.lengths[index], texts.last(index)
        asked = self._asked.get(length, {}).get(row, {})
        before = self._asked.get(length - 1, {}).get(texts.parents[index], {})
        seen = self._before(texts, index)
        outlooks = []
        for entry, (tokens, probabilities, counted, completing, sure) in starts.items():
            place = progress.places[entry]
            assert place is not None
            begun = self.requirements.tables[entry].chance(place)
            if not begun and not len(tokens) and not len(completing):
                continue  # within another word, or not where people would write it
            chances = np.zeros_like(counted) if (entry, _UNASKED) in asked else counted.copy()
            told = [at for at, each in enumerate(tokens.tolist()) if (entry, each) in asked] if asked else []
            for at in told:
                chances[at] = asked[entry, int(tokens[at])]
            if begun:
                begun = 0.0 if (entry, _UNASKED) in before else before.get((entry, token), begun)
            else:
                exact = sure + float(probabilities @ chances) if told else math.nan
                seen[entry] = seen[entry].add(sure + float(probabilities @ counted), exact)
            frequency = self.requirements.tables[entry].patterns.frequency
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
        states: Sequence[Progress],
        starts: Sequence[dict[int, Starts]],
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
            known = self._asked.setdefault(texts.lengths[index], {}).setdefault(row, {})
            seen = self._before(texts, index)
            found = []
            for entry, of_entry in starts[index].items():
                place = states[index].places[entry]
                most = of_entry.probabilities
                if len(most):
                    most = most * np.minimum(1.0, UNDERRATED * of_entry.chances)
                if not len(most) or not self._matters(entry, place, float(most.sum()), seen[entry], left[index]):
                    if self.spellings.is_known(entry):
                        known[entry, _UNASKED] = math.nan
                    continue
                known.pop((entry, _UNASKED), None)  # a text may be processed again, with answers to earlier questions
                for each in np.argsort(-most)[:MOST_BEGINNINGS].tolist():
                    token = int(of_entry.tokens[each])
                    if (entry, token) in known or not most[each]:
                        continue
                    path, rest = self._path(entry, place, token)
                    if len(path) > 1:
                        found.append((float(most[each]), (index, entry, path, rest)))
            found.sort(key=lambda way: -way[0])
            paths += [way for _, way in found[:MOST_STARTS_ASKED]]
        if not paths:
            return
        assert self.lookahead is not None
        answers = self.lookahead.logits(texts, [path[0] for path in paths], [path[2][:-1] for path in paths])
        for (index, entry, path, rest), logits in zip(paths, answers, strict=True):
            if logits is not None:
                self._keep(texts.keys[index], texts.lengths[index], entry, path, rest, logits)

    def _matters(self, entry: int, place: TextState | None, most: float, seen: Seen, left: float) -> bool:
        """Whether a position could be taken, if the entry has the probability `most` there."""
        if not most:
            return False
        begun = place is not None and self.requirements.tables[entry].chance(place) and seen.counted
        if begun:  # the position is the one where it was started
            later = later_chance(*seen.last(), left)
        else:
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
            key = longer_key(row, path[:cut])
            chances = self._asked.setdefault(length + cut, {}).setdefault(key, {})
            chances[entry, path[cut]] = min(CERTAIN, chance)
            if cut:
                chance *= follows[cut - 1]


def later_chance(here: float, better: float, left: float, least_odds: float = 0.0) -> float:
    """The probability that an entry comes later by itself, chosen so that a position is taken as often as intended.

    With the probability `here` at a position and this one b, a required entry is started there with the probability
    here / (here + b), so b is `here` times the odds against the position, which are `least_odds` or more.
    """
    odds = (PATIENCE * better * max(0.0, left - MARGIN)) ** SHARPNESS
    return min(CERTAIN, max(LEAST, here * max(least_odds, odds)))


def _better(chances: np.ndarray, here: float) -> float:
    greater, equal = np.count_nonzero(chances > here), np.count_nonzero(chances == here)
    return (greater + equal / 2) / len(chances)
