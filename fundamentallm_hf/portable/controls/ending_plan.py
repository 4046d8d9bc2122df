"""How many tokens a text needs until it may end: at a word, sentence, line or paragraph, and with so many of them.

The automaton of `text_units.py` with the words and sentences that may still come is a graph of a few thousand nodes,
and a token is one of a few hundred kinds of steps in it. The least number of steps to an end, from every node, is
computed once for a setting.
"""

import numpy as np

from ..text.character_classes import characters_behind
from ..text.unit_tables import UnitTables, UnitText
from .end_settings import EndSettings

# More tokens than any text may have.
NEVER = 1 << 30


class EndingPlan:
    """The least number of tokens to an end, for one vocabulary and one setting.

    Args:
        tables: what every token does.
        settings: what the end has to be.
        room: the most tokens that any text may get; counts beyond it are out of reach.

    Attributes:
        ends: (states,) bool, whether a text in a state has such an end.
        open_ends: (states,) 1 where the last sentence counts only if the text ends here, else 0.
        words, sentences: the ranges in `settings`, None for any. Numbers of words that `room` tokens cannot reach are
            all replaced by the least of them.
        needs: (words + 1, sentences + 1, states) tokens to an end, by how many words and sentences may still come.
        needs_after: the same where at least one token has to come.
        most_needed: the most tokens that an end takes from any state, its numbers aside.
    """

    def __init__(self, tables: UnitTables, settings: EndSettings, room: int) -> None:
        self.tables, self.settings = tables, settings
        tables.explore()
        self.ends = np.array([settings.ends(state) for state in tables.states])
        self.open_ends = np.array([int(state.open_end) for state in tables.states])
        free = _Distances(tables, self.ends, self.open_ends, None, None)
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
            counted = _Distances(tables, self.ends, self.open_ends, words, sentences)
        self.needs, self.needs_after = counted.needs, counted.needs_after

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

    def is_end(self, state: UnitText) -> bool:
        """Whether the text has ended as asked for; a word has ended once another character follows it."""
        return not state.pending and bool(self.ends[state.place]) and self.counts_hold(state)

    def may_end(self, text: UnitText) -> bool:
        """Whether the text may end here; unlike for `is_end`, nothing has to follow a word."""
        if text.pending or not self.counts_hold(text):
            return False
        if self.settings.unit == "word":
            return self.tables.states[text.place].has_word
        return bool(self.ends[text.place])

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
        ends: np.ndarray,
        open_ends: np.ndarray,
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
        good = np.zeros(shape[1:], dtype=bool)
        for left in range(shape[1]):
            # The sentence that the text ends with may not be counted yet.
            whole = left - (open_ends if sentences is not None else 0)
            good[left] = ends & (whole >= 0) & (whole <= sentence_slack)
        for left in range(shape[0]):
            done = good if left <= word_slack else np.zeros_like(good)
            self.needs[left][done] = 0
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
