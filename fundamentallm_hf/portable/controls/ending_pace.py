"""Whether another word or sentence should still be started, and how much more probable an end has to become.

`text_ending.py` uses these estimates long before the token budget forces an end.
"""

import math

import numpy as np

from ..text.unit_tables import UnitText
from ..text.vocabulary import Vocabulary
from .ending_plan import EndingPlan

# Tokens of a word on average and of nearly any word, with characters as tokens and with parts of words.
_WORD_RATES, _WORD_ROOMS = (5.3, 1.35), (14, 4)
# Words in a unit, before anything is known of the text.
_USUAL_WORDS = {"word": 1.0, "sentence": 12.0, "line": 15.0, "paragraph": 40.0}
# A unit is started if the remaining budget holds this many average ones.
_AMPLE = 1.1
# The greatest factor, in nats, by which an end is made more probable before it is forced.
_MOST_PUSHED = 6.0
# If an end in the remaining budget is more probable than this, nothing is reweighted.
_SAFE = 0.98
# White space and separators, in the groups of tokens.
_SEPARATORS = " \n*,-"


def word_rate(vocabulary: Vocabulary) -> float:
    """Tokens of a word on average."""
    return _WORD_RATES[vocabulary.longest > 1]


class EndingPace:
    """What fits into the remaining budget, judged by the text so far.

    Args:
        plan: the number of tokens needed to an end.

    Attributes:
        word_room: tokens that hold nearly any word.
    """

    def __init__(self, plan: EndingPlan) -> None:
        self.plan, self.tables, self.unit = plan, plan.tables, plan.unit
        self.word_rate = word_rate(self.tables.vocabulary)
        self.word_room = _WORD_ROOMS[self.tables.vocabulary.longest > 1]
        groups = self.tables.groups
        self._separating = np.array([any(char in _SEPARATORS for char in text) for text in groups], dtype=bool)
        self._after_sentence = np.array([state.after_sentence for state in self.tables.states])
        self._space = next((group for group, text in enumerate(groups) if text == " "), None)

    def unwise(self, state: UnitText, room: int) -> np.ndarray:
        """(groups,) bool: the tokens that begin what is likely not to fit, and those that lead to nothing else."""
        unwise = self._too_long(state, room)
        if not self._goes_on(state, room):
            effects = self.tables.effects(state.place)
            behind = self.plan.needs_behind(state.place, self.plan.left(state))
            here = 0 if self.plan.may_end(state) and not self.plan.last else self.plan.need(state)
            idle = self._separating
            if self.tables.states[state.place].after_sentence:
                idle = idle | ~self._after_sentence[effects.after]
            unwise |= idle & (effects.words == 0) & (behind >= here)
        return unwise

    def _too_long(self, state: UnitText, room: int) -> np.ndarray:
        """(groups,) bool: those that begin a word, a sentence or the like for which there is hardly room."""
        effects = self.tables.effects(state.place)
        reserve = np.where(effects.words > 0, self.word_room, 0).astype(float)
        here = self.tables.states[state.place]
        if self.unit != "word" and bool(self.plan.ends[state.place]):
            leaves = ~self.plan.ends[effects.after]
            reserve[leaves] = np.maximum(reserve[leaves], _AMPLE * self.unit_length(state))
        elif self.plan.settings.follows_sentences and here.after_sentence:
            begins = effects.words > 0
            reserve[begins] = np.maximum(self.word_room, _AMPLE * self._sentence_length(state))
        left = np.full(len(reserve), room - 1.0)
        if self.plan.words is not None:
            in_words = (self.plan.left(state)[0] - effects.words) * self._rate(state)
            left = np.where(reserve > self.word_room, np.minimum(left, in_words), left)
        behind, need = self.plan.needs_behind(state.place, self.plan.left(state)), self.plan.need(state)
        return (reserve > 0) & (left - reserve < behind) & ((behind >= need) | (need == 0))

    def _goes_on(self, state: UnitText, room: int) -> bool:
        """Whether a word could start after white space; if a sentence may end here, one of a new sentence."""
        if self._space is None:
            return True
        effects = self.tables.effects(state.place)
        spaced = state._replace(
            place=int(effects.after[self._space]), sentences=state.sentences + int(effects.sentences[self._space])
        )
        behind = self.tables.effects(spaced.place)
        opens = behind.words > 0
        here = self.tables.states[spaced.place]
        if self.plan.settings.follows_sentences and here.open_end:
            opens &= behind.sentences > 0
        fits = self.plan.needs_behind(spaced.place, self.plan.left(spaced)) <= room - 2
        return bool((opens & fits & ~self._too_long(spaced, room - 1)).any())

    def _rate(self, state: UnitText) -> float:
        """Tokens of a word of this text."""
        return (state.length + 10 * self.word_rate) / (state.words + 10)

    def unit_length(self, state: UnitText) -> float:
        """Tokens of a sentence, line or paragraph of this text: the mean, with two usual ones before them."""
        usual = _USUAL_WORDS[self.unit] * self._rate(state)
        return (2 * usual + state.ended_at) / (2 + state.ends)

    def _sentence_length(self, state: UnitText) -> float:
        """Tokens of a sentence of this text."""
        if self.unit == "sentence":
            return self.unit_length(state)
        return (2 * _USUAL_WORDS["sentence"] * self._rate(state) + state.length) / (2 + state.sentences)

    def push(self, state: UnitText, room: int, changed: np.ndarray, closers: np.ndarray) -> None:
        """Make an end more probable the less room is left, in `changed`.

        Args:
            state: the text.
            room: tokens that may be added.
            changed: (size,) scores, changed **in place**.
            closers: (size,) bool, the tokens that lead to an end.
        """
        if self.unit == "word" or not closers.any():
            return
        in_sentence = self.plan.settings.follows_sentences and not self.tables.states[state.place].after_sentence
        length = self._sentence_length(state) if in_sentence else self.unit_length(state)
        left = float(room - self.plan.last_cost)
        if self.plan.words is not None:
            left = min(left, (self.plan.left(state)[0] - self.plan.last_words) * self._rate(state) + 1)
        chance, later = (1 - (1 - 1 / length) ** max(0.0, tokens) for tokens in (left, left - 1))
        if chance >= _SAFE:
            return
        changed[closers] += min(_MOST_PUSHED, -math.log(max(chance, 1e-9)))
        changed[~closers] += max(-_MOST_PUSHED, math.log(max(later, 1e-9) / max(chance, 1e-9)))
