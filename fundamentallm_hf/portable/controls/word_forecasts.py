"""What is to be expected of the words of texts: predicted from the model's states where they began."""

import math
from collections.abc import Sequence

import numpy as np

from ..decoding.next_words import NextWords
from ..decoding.texts import TOKEN_BYTES, Texts
from ..guides.output_states import OutputStates
from ..text.weight_tables import WeightTables
from ..text.weighted_patterns import LEAST_VALUE
from ..text.word_values import Expected, WordValues
from ..text.worth_table import WeighedState
from .word_lookahead import WordOutlook

# Sums over all words that are kept.
_KEPT_SUMS = 256
_NONE = np.zeros(0, dtype=np.int64)


class WordForecasts:
    """Predicts the words of texts.

    Args:
        head: predicts the next word.
        values: what words are worth.
        states: the states of a call's texts.
        temperature: the number that scores are divided by.
    """

    def __init__(self, head: NextWords, values: WordValues, states: OutputStates, temperature: float = 1.0) -> None:
        self.head, self.values, self.states = head, values, states
        self.temperature = temperature
        # By the length and the tokens of a text after which a word begins.
        self._chances: dict[int, dict[bytes, np.ndarray]] = {}
        self._sums: dict[bytes, Expected] = {}
        self._all = np.arange(values.size)
        self._plain = values.expect(head.outer_bias.softmax(dim=-1).double().numpy())

    def outlooks(
        self, tables: WeightTables, texts: Texts, states: Sequence[WeighedState], whole_pass: bool
    ) -> list[WordOutlook]:
        """What is to be expected after each text.

        Args:
            tables: what tokens are worth.
            texts: texts.
            states: their states.
            whole_pass: they are the texts of a pass; otherwise, all rows of a step.
        """
        self._predict(texts, states, whole_pass)
        found = []
        for index, state in enumerate(states):
            table, expected = tables.worths(state.text), self._expected(texts, index, state)
            ahead = self.values.values(expected, state.begun)
            before = self.values.value(expected, state.begun) if state.begun else 1.0
            before += tables.beyond(state.text.patterns)
            threads = state.text.patterns.literal.threads
            more, of_letters = self.values.of_phrases(expected, state.begun, tables.weighted.words, threads)
            before += more
            paid = 0.0 if before == 1.0 else math.log(max(LEAST_VALUE, before))
            if ahead is None and not of_letters:
                found.append(WordOutlook(table.without_words, table.end, paid, _NONE, _NONE, expected))
                continue
            factors, doubts = (1.0, np.zeros(0)) if ahead is None else ahead
            if of_letters:
                factors = factors + self.values.of_letters(of_letters)
            worth = table.due + np.log(np.maximum(LEAST_VALUE, table.beyond + factors))
            found.append(WordOutlook(worth, table.end, paid, self._all[: len(doubts)], doubts, expected))
        return found

    def _predict(self, texts: Texts, states: Sequence[WeighedState], whole_pass: bool) -> None:
        """Predict the words that are about to begin."""
        for old in texts.far(self._chances):
            del self._chances[old]
        new = [
            index
            for index, state in enumerate(states)
            if not state.begun and texts.keys[index] not in self._chances.get(texts.lengths[index], {})
        ]
        if not new:
            return
        if whole_pass:
            shown, places = self.states.of_texts(texts)
            of_texts = shown[[places[index] for index in new]]
        else:
            of_texts = self.states.of(texts.ids)[new]
        logits = self.head.logits(of_texts.cpu()) / self.temperature
        for index, chances in zip(new, logits.softmax(dim=-1).numpy(), strict=True):
            self._chances.setdefault(texts.lengths[index], {})[texts.keys[index]] = chances

    def _expected(self, texts: Texts, index: int, state: WeighedState) -> Expected:
        length = texts.lengths[index] - state.tokens
        key = texts.keys[index][: TOKEN_BYTES * length]
        chances = self._chances.get(length, {}).get(key)
        if chances is None:
            return self._plain  # the word began in the prompt
        if key not in self._sums:
            while len(self._sums) >= _KEPT_SUMS:
                del self._sums[next(iter(self._sums))]
            self._sums[key] = self.values.expect(chances.astype(np.float64))
        return self._sums[key]
