"""Predicts the words of the texts of a call from the model's states where they began, and what to expect of them."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from ..decoding.next_words import NextWords
from ..decoding.texts import TOKEN_BYTES, Texts
from ..guides.output_states import OutputStates
from ..text.weight_tables import WeightTables
from ..text.weighted_patterns import LEAST_VALUE
from ..text.word_values import Expected, WordValues
from ..text.worth_table import WeighedState
from .word_lookahead import WordOutlook

# Positions where a word begins whose predictions are kept.
_KEPT_PREDICTIONS = 256
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
        # By the length and the tokens of a text after which a word may begin: its state.
        self._begins: dict[int, dict[bytes, torch.Tensor]] = {}
        self._predicted: dict[bytes, Expected] = {}
        self._all = np.arange(values.size)
        self._plain = Expected(
            values, partial(head.letter_logits, np.eye(1, head.width + 1, head.width, np.float32)[0])
        )

    def follow(self, texts: Texts, states: Sequence[WeighedState], whole_pass: bool) -> None:
        """Keep what words are predicted from, after every text of a pass or a step.

        Args:
            texts: texts.
            states: their states.
            whole_pass: they are the texts of a pass; otherwise, all rows of a step.
        """
        for old in texts.far(self._begins):
            del self._begins[old]
        new = [
            index
            for index, state in enumerate(states)
            if not state.begun and texts.keys[index] not in self._begins.get(texts.lengths[index], ())
        ]
        if not new:
            return
        if whole_pass:
            shown, places = self.states.of_texts(texts)
            of_texts = shown[[places[index] for index in new]]
        else:
            of_texts = self.states.of(texts.ids)[new]
        for index, state in zip(new, of_texts.cpu(), strict=True):
            self._begins.setdefault(texts.lengths[index], {})[texts.keys[index]] = state

    def outlook(
        self, tables: WeightTables, key: bytes, length: int, state: WeighedState, tokens: np.ndarray
    ) -> WordOutlook:
        """What is to be expected after a text. `follow` has seen it.

        Args:
            tables: what tokens are worth.
            key: of the text.
            length: of the text, in tokens.
            state: of the text.
            tokens: ids of the tokens that are left. Those of the others may be any.
        """
        table, values, begun = tables.worths(state.text), self.values, state.begun
        letters = values.letters_of(tokens)
        ahead, before, of_letters, expected = None, 1.0, dict[str, float](), None
        if begun or letters:
            expected = self._expected(key, length - state.tokens)
            ahead = values.values(expected, begun, letters)
            before = values.value(expected, begun) if begun else 1.0
            threads = state.text.patterns.literal.threads
            more, of_letters = values.of_phrases(expected, begun, tables.weighted.words, threads)
            before += more
        paid = math.log(max(LEAST_VALUE, before + tables.beyond(state.text.patterns)))
        if ahead is None and not of_letters:
            return WordOutlook(table.without_words, table.end, paid, _NONE, _NONE, expected)
        factors, doubts = (np.ones(values.size), _NONE) if ahead is None else ahead
        if of_letters:
            factors = factors + values.of_letters(of_letters)
        worth = table.due + np.log(np.maximum(LEAST_VALUE, table.beyond + factors))
        return WordOutlook(worth, table.end, paid, self._all[: len(doubts)], doubts, expected)

    def _expected(self, key: bytes, length: int) -> Expected:
        """What to expect of a word that begins after so many tokens of a text."""
        begin = key[: TOKEN_BYTES * length]
        found = self._predicted.get(begin)
        if found is not None:
            return found
        state = self._begins.get(length, {}).get(begin)
        if state is None:  # the word began in the prompt
            return self._plain
        read = np.append(self.head.read(state[None])[0].numpy(), np.float32(1.0)) / np.float32(self.temperature)
        found = self._predicted[begin] = Expected(self.values, partial(self.head.letter_logits, read))
        while len(self._predicted) > _KEPT_PREDICTIONS:
            del self._predicted[next(iter(self._predicted))]
        return found
