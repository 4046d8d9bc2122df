"""Predicts the words of the texts of a call from the model's states where they began, and what to expect of them."""

import math
from collections.abc import Sequence

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
        # By the length and the tokens of a text after which a word may begin: its state.
        self._begins: dict[int, dict[bytes, torch.Tensor]] = {}
        self._sums: dict[bytes, Expected] = {}
        self._all = np.arange(values.size)
        self._plain = values.expect(head.outer_bias.softmax(dim=-1).double().numpy())

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
            if not state.begun and texts.keys[index] not in self._begins.get(texts.lengths[index], {})
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

    def outlooks(
        self, tables: WeightTables, texts: Texts, states: Sequence[WeighedState], scores: torch.Tensor
    ) -> list[WordOutlook]:
        """What is to be expected after each text. `follow` has seen these texts.

        Args:
            tables: what tokens are worth.
            texts: texts.
            states: their states.
            scores: (texts, vocabulary). Where no token that is left begins a word, none is predicted.
        """
        letters = ((scores > -torch.inf) & self.values.letters).any(dim=-1).tolist()
        matter = [index for index, state in enumerate(states) if state.begun or letters[index]]
        expectations = dict(zip(matter, self._expected(texts, states, matter), strict=True))
        found = []
        for index, state in enumerate(states):
            table, expected = tables.worths(state.text), expectations.get(index)
            ahead, before, of_letters = None, 1.0, dict[str, float]()
            if expected is not None:
                ahead = self.values.values(expected, state.begun)
                before = self.values.value(expected, state.begun) if state.begun else 1.0
                threads = state.text.patterns.literal.threads
                more, of_letters = self.values.of_phrases(expected, state.begun, tables.weighted.words, threads)
                before += more
            paid = math.log(max(LEAST_VALUE, before + tables.beyond(state.text.patterns)))
            if ahead is None and not of_letters:
                found.append(WordOutlook(table.without_words, table.end, paid, _NONE, _NONE, expected))
                continue
            factors, doubts = (np.ones(self.values.size), np.zeros(0)) if ahead is None else ahead
            if of_letters:
                factors = factors + self.values.of_letters(of_letters)
            worth = table.due + np.log(np.maximum(LEAST_VALUE, table.beyond + factors))
            found.append(WordOutlook(worth, table.end, paid, self._all[: len(doubts)], doubts, expected))
        return found

    def _expected(self, texts: Texts, states: Sequence[WeighedState], indices: Sequence[int]) -> list[Expected]:
        """What to expect of the words that some texts have begun, or are about to begin."""
        begins = [(texts.lengths[index] - states[index].tokens, texts.keys[index]) for index in indices]
        keys = [key[: TOKEN_BYTES * length] for length, key in begins]
        held = {key: self._begins.get(length, {}).get(key) for (length, _), key in zip(begins, keys, strict=True)}
        known = {key: self._sums[key] for key in held if key in self._sums}
        new = {key: state for key, state in held.items() if state is not None and key not in known}
        if new:
            logits = self.head.logits(torch.stack([*new.values()])) / self.temperature
            for key, chances in zip(new, logits.softmax(dim=-1).double().numpy(), strict=True):
                known[key] = self._sums[key] = self.values.expect(chances)
            while len(self._sums) > _KEPT_SUMS:
                del self._sums[next(iter(self._sums))]
        # Where nothing is held, the word began in the prompt.
        return [known.get(key, self._plain) for key in keys]
