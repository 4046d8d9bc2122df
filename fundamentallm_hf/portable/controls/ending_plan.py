"""How many tokens a text needs until it may end: at a word, sentence, line or paragraph, and with so many of them.

The automaton of `text_units.py` with the words and sentences that may still come is a graph of a few thousand nodes,
and a token is one of a few hundred kinds of steps in it. The least number of steps to an end, from every node, is
computed once for a setting.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from ..text.character_classes import characters_behind
from ..text.characters import needs_boundary
from ..text.text_units import EMPTY, UnitState
from ..text.unit_tables import UnitTables, UnitText
from .end_settings import EndSettings
from .spelled_text import Spelling

# The usual ends of a sentence.
USUAL_MARKS = (".", "!", "?")
# More tokens than any text may have.
NEVER = 1 << 30


class Goal(NamedTuple):
    """States from which a text can end.

    Attributes:
        at: (states,) bool, the states.
        cost: the tokens that have to follow there, those of the last words.
        words, sentences: (states,) how many of them those tokens add.
        open_ends: (states,) 1 where the last sentence counts only because the text ends then, else 0.
    """

    at: np.ndarray
    cost: int
    words: np.ndarray
    sentences: np.ndarray
    open_ends: np.ndarray


class EndingPlan:
    """The least number of tokens to an end, for one vocabulary and one setting.

    Args:
        tables: what every token does.
        settings: what the end has to be.
        room: the most tokens that any text may get; counts beyond it are out of reach.
        last: the ways to write each of the texts of which one has to come last; none for any.

    Attributes:
        unit: what a text is led to the end of: what it ends with or, if there are last words, what comes before them.
        ends: (states,) bool, whether a text in a state has the end of one.
        open_ends: (states,) 1 where the last sentence counts only if the text ends here, else 0.
        words, sentences: the ranges in `settings`, None for any. Numbers of words that `room` tokens cannot reach are
            all replaced by the least of them.
        needs: (words + 1, sentences + 1, states) tokens to an end, by how many words and sentences may still come.
        needs_after: the same where at least one token has to come.
        most_needed: the most tokens that an end takes from any state, its numbers aside.
        last_cost, last_words: the most tokens and words of the last words.
    """

    def __init__(
        self, tables: UnitTables, settings: EndSettings, room: int, last: Sequence[Sequence[Spelling]] = ()
    ) -> None:
        self.tables, self.settings, self.last = tables, settings, [list(ways) for ways in last]
        tables.explore()
        self.open_ends = np.array([int(state.open_end) for state in tables.states])
        self._final = np.array([settings.ends(state) for state in tables.states])
        self.unit = settings.unit
        zeros = np.zeros_like(self.open_ends)
        self.ends, goals = self._final, [Goal(self._final, 0, zeros, zeros, self.open_ends)]
        if self.last:
            self.unit = settings.lead
            after = self.unit == "sentence"
            self.ends = np.array(
                [state.after_sentence if after else state.has_word and not state.in_word for state in tables.states]
            )
            goals = [self._goal(ways) for ways in self.last]
        self.last_cost = max((goal.cost for goal in goals), default=0)
        self.last_words = max((int(goal.words.max()) for goal in goals), default=0)
        free = _Distances(tables, goals, None, None)
        reached = free.needs[0, 0]
        self.most_needed = int(reached[reached < NEVER].max(initial=0))
        words, sentences = settings.words, settings.sentences
        # Words that cannot be reached make no difference, and would only make the graph larger.
        most = room * (1 + max(int(tables.effects(place).words.max()) for place in range(len(tables.states))))
        if words is not None and words[1] > most:
            words = (min(words[0], most + 1), most + 1)
        self.words, self.sentences = words, sentences
        counted = free
        if words is not None or sentences is not None:
            counted = _Distances(tables, goals, words, sentences)
        self.needs, self.needs_after = counted.needs, counted.needs_after

    def _goal(self, ways: Sequence[Spelling]) -> Goal:
        """The states after which last words may come, written in the longest of these ways."""
        text = ways[-1].text  # the one with a space, if there is one
        read = [self.tables.units.read(state, text) for state in self.tables.states]
        afters = [after for after, _, _ in read]
        good = [self.settings.may_end(after) for after in afters]
        at = [self.may_lead(text, state) and fine for state, fine in zip(self.tables.states, good, strict=True)]
        words, sentences = (np.array([row[part] for row in read]) for part in (1, 2))
        cost = max(len(way.tokens) for way in ways)
        return Goal(np.array(at), cost, words, sentences, np.array([int(after.open_end) for after in afters]))

    def may_lead(self, text: str, state: UnitState) -> bool:
        """Whether last words may follow in this state."""
        if state.in_word and needs_boundary(text[0]):
            return False
        return self.unit != "sentence" or state.after_sentence or state.phase == EMPTY

    def left(self, text: UnitText) -> tuple[int, int]:
        """How many words and sentences may still come; below 0 where there are too many."""
        words = 0 if self.words is None else self.words[1] - text.words
        return words, 0 if self.sentences is None else self.sentences[1] - text.sentences

    def need(self, text: UnitText) -> int:
        """The least number of tokens to an end; `NEVER` where there is none."""
        to_complete, table = 0, self.needs
        if text.pending:
            # Any token ends an incomplete character, but completing it reads better.
            to_complete, table = characters_behind(text.pending)[2], self.needs_after
            text = self.tables.flushed(text)
        words, sentences = self.left(text)
        if words < 0 or sentences < 0 or text.place >= table.shape[2]:
            return NEVER
        return min(NEVER, to_complete + int(table[words, sentences, text.place]))

    def endings(self, text: UnitText, last: Sequence[Spelling] | None = None) -> Iterator[Sequence[int]]:
        """Tokens that lead to an end from here, numbers aside: the usual ones, or the last words (`last`, or any)."""
        if self.last:
            yield from (way.tokens for ways in ([last] if last is not None else self.last) for way in ways)
            return
        breaks = {"line": "\n", "paragraph": "\n\n"}.get(self.unit, "")
        for mark in ("", *USUAL_MARKS):
            tokens = self.tables.vocabulary.spell(mark + breaks)
            end = text if tokens is None else reduce(self.tables.advance, tokens, text)
            if (
                tokens is not None
                and end.place < len(self.ends)
                and self.settings.may_end(self.tables.states[end.place])
            ):
                yield tokens

    def is_end(self, state: UnitText) -> bool:
        """Whether the text has ended as asked for; a word has ended once another character follows it.

        With last words, whether they may begin here.
        """
        if state.pending or not self.ends[state.place]:
            return False
        return self.need(state) <= self.last_cost if self.last else self.counts_hold(state)

    def may_end(self, text: UnitText) -> bool:
        """Whether the text may end here, its last words aside; unlike for `is_end`, nothing has to follow a word."""
        if text.pending or text.place >= len(self.ends) or not self.counts_hold(text):
            return False
        return self.settings.may_end(self.tables.states[text.place])

    def counts_hold(self, text: UnitText) -> bool:
        """Whether the text has as many words and sentences as asked for, if it ends here."""
        words, sentences = self.settings.words, self.settings.sentences
        if words is not None and not words[0] <= text.words <= words[1]:
            return False
        whole = text.sentences + int(self.open_ends[text.place])
        return sentences is None or sentences[0] <= whole <= sentences[1]

    def needs_behind(self, place: int, left: tuple[int, int]) -> np.ndarray:
        """(groups,) the least number of tokens to an end after a token of each group."""
        effects = self.tables.effects(place)
        words = left[0] - (effects.words if self.words is not None else 0)
        sentences = left[1] - (effects.sentences if self.sentences is not None else 0)
        found = self.needs[np.maximum(words, 0), np.maximum(sentences, 0), effects.after]
        return np.where((words >= 0) & (sentences >= 0), found, NEVER)


class _Distances:
    """Fewest steps to an end by breadth: node by node in the order of the words that may still come."""

    def __init__(
        self,
        tables: UnitTables,
        goals: Sequence[Goal],
        words: tuple[int, int] | None,
        sentences: tuple[int, int] | None,
    ) -> None:
        states = len(tables.states)
        self._steps = _steps(tables, words is not None, sentences is not None)
        most = 0 if words is None else words[1], 0 if sentences is None else sentences[1]
        shape = (most[0] + 1, most[1] + 1, states)
        self.needs, self.needs_after = np.full(shape, NEVER), np.full(shape, NEVER)
        # So many words and sentences may be left out at the end.
        word_slack, sentence_slack = (0 if each is None else each[1] - each[0] for each in (words, sentences))
        counts = np.arange(shape[1])[:, None]
        for left in range(shape[0]):
            for goal in goals:
                others = left - goal.words * (words is not None)
                # The sentence that the text ends with may not be counted yet.
                whole = counts - (goal.sentences + goal.open_ends) * (sentences is not None)
                done = goal.at & (others >= 0) & (others <= word_slack) & (whole >= 0) & (whole <= sentence_slack)
                self.needs[left][done] = np.minimum(self.needs[left][done], goal.cost)
            self._relax(left)

    def _relax(self, left: int) -> None:
        layer = self.needs[left]
        fixed = self._least(left, forward=True)
        while True:
            after = np.minimum(fixed, self._least(left, forward=False))
            better = np.minimum(layer, after)
            if (better == layer).all():
                break
            layer[:] = better
        self.needs_after[left] = after

    def _least(self, left: int, forward: bool) -> np.ndarray:
        """(sentences + 1, states) the fewest steps by a token that begins a word (`forward`) or none."""
        found = np.full(self.needs.shape[1:], NEVER)
        for (words, sentences), leads in self._steps.items():
            if (words > 0) != forward or words > left or sentences >= len(found):
                continue
            source = self.needs[left - words][: len(found) - sentences]
            step = np.where(leads[None], source[:, None, :], NEVER).min(axis=-1)
            found[sentences:] = np.minimum(found[sentences:], np.minimum(step + 1, NEVER))
        return found


def _steps(tables: UnitTables, words: bool, sentences: bool) -> dict[tuple[int, int], np.ndarray]:
    """By the words and sentences that a token adds: (states, states) bool, whether one leads from one to the other."""
    states = len(tables.states)
    found: dict[tuple[int, int], np.ndarray] = {}
    for place in range(states):
        effects = tables.effects(place)
        begun = effects.words if words else np.zeros_like(effects.words)
        over = effects.sentences if sentences else np.zeros_like(effects.sentences)
        for step in set(zip(begun.tolist(), over.tolist(), effects.after.tolist(), strict=True)):
            leads = found.setdefault(step[:2], np.zeros((states, states), dtype=bool))
            leads[place, step[2]] = True
    return found
