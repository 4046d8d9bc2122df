"""Required words and the end of a text: the fewest tokens that write both.

Words come first, and the end after them. An expression that depends on what follows it, such as one with `$`, may have
to come last instead, after the words that the end needs. So a way that holds all of it is searched for, token by token,
and whatever it begins with keeps the rest of it.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import numpy as np

from ..decoding.stop_strings import find_stop
from ..text.text_units import ONE_OF_EACH, UnitState
from ..text.unit_tables import UnitText
from .ending_plan import NEVER, USUAL_MARKS, EndingPlan
from .must_include_plan import Progress, Requirements
from .spelled_text import Spelling

# Tokens that are tried as the next one of the shortest way to an end, and places on it from which words are tried.
_TRIED_STEPS, _TRIED_PLACES = 64, 24
# Ways that are kept.
_MOST_WAYS = 20_000
_Node = tuple[UnitText, Progress]


class EndingWords:
    """The fewest tokens that write the required words and an end.

    Args:
        plan: the number of tokens needed to an end.
        advance: the state of a text after one more token.
        requirements: the required words.
    """

    def __init__(
        self, plan: EndingPlan, advance: Callable[[UnitText, int], UnitText], requirements: Requirements
    ) -> None:
        self.plan, self.requirements = plan, requirements
        self._advance, self._ending = advance, _Ending(plan)
        self._ways: dict[_Node, list[int] | None] = {}

    def need(self, state: UnitText, progress: Progress) -> int:
        """The least number of tokens that write the missing words and then an end; `NEVER` where there is none."""
        if not self.depends_on_end(progress):
            ways = self.requirements.plans(progress)
            return min((self.need_after(state, way) for way in ways), default=NEVER)
        way = self.way(state, progress)
        return NEVER if way is None else len(way)

    def need_after(self, state: UnitText, tokens: Sequence[int]) -> int:
        """Tokens that write the missing words in this way and then an end."""
        need = self.plan.need(reduce(self._advance, tokens, state))
        # Behind the last required word, no letter may come first.
        return min(NEVER, len(tokens) + need + (need > 1))

    def first_tokens(self, state: UnitText, progress: Progress) -> list[int]:
        """The tokens with which the shortest ways begin."""
        ways = self.requirements.plans(progress)
        if self.depends_on_end(progress):
            ways = [self.way(state, progress) or []]
        return [way[0] for way in ways if way]

    def sure_tokens(self, state: UnitText, progress: Progress, room: int) -> list[int]:
        """The token with which a way begins that fits into `room` tokens, where one was searched for."""
        way = self.way(state, progress) if self.depends_on_end(progress) else None
        return way[:1] if way and len(way) <= room else []

    def depends_on_end(self, progress: Progress) -> bool:
        """Whether a way has to be searched for: an expression that is not there for certain depends on what follows.

        Not with last words, before which all entries are written.
        """
        return not self.plan.last and self._is_open_ended(progress)

    def keeps(self, state: UnitText, progress: Progress, last: Sequence[Spelling]) -> bool:
        """Whether all entries are still there at the end of a text, with these ways to write its last words."""
        return not self._is_open_ended(progress) or self._search(state, progress, last) is not None

    def _is_open_ended(self, progress: Progress) -> bool:
        return any(progress.places[entry] is not None for entry in self.requirements.open_ended)

    def way(self, state: UnitText, progress: Progress) -> list[int] | None:
        """Tokens after which all entries are there and the text may end; None if none were found."""
        node = _bare(state), progress
        if node in self._ways:
            return self._ways[node]
        if len(self._ways) > _MOST_WAYS:
            self._ways.clear()
        found = self._ways[node] = self._search(state, progress)
        # A text that follows this way has the rest of it.
        for place, token in enumerate(found or ()):
            assert found is not None
            node = _bare(self._advance(node[0], token)), self.requirements.follow(node[1], token)
            known = self._ways.get(node)
            if known is None or len(known) > len(found) - place - 1:
                self._ways[node] = found[place + 1 :]
        return found

    def _search(self, state: UnitText, progress: Progress, last: Sequence[Spelling] | None = None) -> list[int] | None:
        if (found := self._ended([], (state, progress), last)) is not None:
            return found
        # The words that come last have to fit into the numbers as well, so some of the way is left out.
        for tokens, node in [*self._to_end(state, progress)][: -_TRIED_PLACES - 1 : -1]:
            if (found := self._ended(tokens, node, last)) is not None:
                return found
        return None

    def _ended(self, tokens: list[int], node: _Node, last: Sequence[Spelling] | None) -> list[int] | None:
        """The tokens, then the missing words, then an end; None if no such text was found."""
        for way in self._ways_of_words(node):
            after = self._after(node, way)
            for end in itertools.chain(self.plan.endings(after[0], last), self._last_of(after, last)):
                if self._is_whole(after, end):
                    return [*tokens, *way, *end]
        return None

    def _ways_of_words(self, node: _Node) -> Iterator[list[int]]:
        """Ways to write the missing words, those first that an end may follow, with and without a space before them."""
        between = self.requirements.vocabulary.token(" ")
        spaces = [[]] if between is None else [[], [between]]
        for before in [] if self.plan.last else spaces:
            state, progress = self._after(node, before)
            place = self.plan.tables.states[self.plan.tables.flushed(state).place]
            way = self.requirements.plan(progress, (self._ending, place))
            if way is not None and self._is_open(node[1], before):
                yield [*before, *way]
        yield from self.requirements.plans(node[1])

    def _last_of(self, node: _Node, last: Sequence[Spelling] | None) -> Iterator[list[int]]:
        """The shortest way to an end, with last words if there are some."""
        *_, (tokens, after) = [([], node), *self._to_end(*node)]
        if tokens and not self.plan.last:
            yield tokens
        elif tokens:
            yield from ([*tokens, *end] for end in self.plan.endings(after[0], last))

    def _after(self, node: _Node, tokens: Sequence[int]) -> _Node:
        state, progress = node
        for token in tokens:
            state, progress = self._advance(state, token), self.requirements.follow(progress, token)
        return state, progress

    def _is_whole(self, node: _Node, end: Sequence[int]) -> bool:
        """Whether a text may end after these tokens, with all entries in it."""
        requirements = self.requirements
        if not self._is_open(node[1], end):
            return False
        after = self._after(node, end)
        return not requirements.missing(after[1]) and self.plan.may_end(after[0])

    def _is_open(self, progress: Progress, tokens: Sequence[int]) -> bool:
        requirements = self.requirements
        if not requirements.is_open(progress, list(tokens)):
            return False
        text = progress.tail + requirements.vocabulary.text(list(tokens), continues=True)
        return not requirements.stops or find_stop(text, requirements.stops, len(progress.tail)) is None

    def _to_end(self, state: UnitText, progress: Progress) -> Iterator[tuple[list[int], _Node]]:
        """A short way to an end without banned words, one token more at a time: the tokens and what follows.

        It adds one word at a time, so that the words to be included find their place among the numbers.
        """
        tokens: list[int] = []
        while 0 < self.plan.need(state) < NEVER:
            for token in self._closer(state):
                after = self._advance(state, token)
                is_closer = self.plan.need(after) < self.plan.need(state) or after.words == state.words + 1
                if is_closer and self._is_open(progress, [token]):
                    tokens, state, progress = [*tokens, token], after, self.requirements.follow(progress, token)
                    yield tokens, (state, progress)
                    break
            else:
                return

    def _closer(self, state: UnitText) -> list[int]:
        """Some of the tokens that lead to an end, those first that add one word at most."""
        base, need, group_of = self.plan.tables.flushed(state), self.plan.need(state), self.plan.tables.group_of
        behind = self.plan.needs_behind(base.place, self.plan.left(base))
        words = self.plan.tables.effects(base.place).words
        least = 0 if self.plan.words is None else self.plan.words[0]
        slowly = (behind <= need) & (words == 1) & (base.words < least)
        rank = np.select([(behind < need) & (words <= 1), slowly, behind < need], [0, 1, 2], 3)[group_of]
        rank[group_of < 0] = 3
        order = np.argsort(rank, kind="stable")[:_TRIED_STEPS]
        return order[rank[order] < 3].tolist()


class _Ending:
    """The condition that a text may end, numbers aside: see `Condition`."""

    def __init__(self, plan: EndingPlan) -> None:
        self._units, self._may_end = plan.tables.units, plan.settings.may_end

    def after(self, state: UnitState, char: str) -> UnitState:
        return self._units.read(state, char)[0]

    def holds(self, state: UnitState) -> bool:
        return self._may_end(state)

    def distance(self, state: UnitState) -> int:
        return int(not self._may_end(state))

    def letters(self) -> Sequence[str]:
        return (*USUAL_MARKS, *ONE_OF_EACH)


def _bare(state: UnitText) -> UnitText:
    """The same state without what no end depends on."""
    return state._replace(length=0, ends=0, ended_at=0)
