"""Asks the model itself for the expected factors of word weights, where much depends on them.

All continuations that matter are read in one pass, and the factors are computed backwards from the ends of the words by
the model's probabilities.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..decoding.lookahead import ModelLookahead
from ..decoding.texts import Texts, longer_key
from ..text.token_reader import TextState
from ..text.weight_tables import WeightTables
from ..text.weighted_patterns import LEAST_VALUE
from ..text.word_values import Expected, WordValues
from ..text.worth_table import WeighedState

# Continuations that are read ahead for one text in one step, at most.
MOST_READ = 12
# The greatest sum of weights in one token: e to its power is still a finite number.
_HEAVIEST_TOKEN = 300.0

Chosen = Callable[[torch.Tensor], torch.Tensor]
# For a text, by next token: what it is worth, and the logarithm of the factor expected after it.
Read = dict[int, tuple[float, float]]


class WordOutlook(NamedTuple):
    """What tokens are worth after a text, as far as is known without asking the model.

    Attributes:
        worth: (vocabulary,) what is due for each token, and the logarithm of the factor expected after it.
        end: what it is worth to end the text.
        paid: the logarithm of the factor that was expected after the last token.
        risky: ids of the tokens after which the expected factor is uncertain.
        stakes: (risky,) how uncertain.
        expected: of the word that has begun, if it was predicted.
    """

    worth: np.ndarray
    end: float
    paid: float
    risky: np.ndarray
    stakes: np.ndarray
    expected: Expected | None = None


class WordLookahead:
    """Reads words ahead.

    Args:
        lookahead: the model, asked for probabilities; None if it cannot be asked.
        chosen: turns its logits into the probabilities by which tokens are chosen.
        end_tokens: ids that end the text.
        at_stake: the change of a token's probability from which on the model is asked.
        values: what words are worth, if they are predicted.
    """

    def __init__(
        self,
        lookahead: ModelLookahead | None,
        chosen: Chosen,
        end_tokens: np.ndarray,
        at_stake: float,
        values: WordValues | None = None,
    ) -> None:
        self.lookahead, self.chosen, self.end_tokens = lookahead, chosen, end_tokens
        self.at_stake = at_stake
        self.values = values
        # What the model has answered, by the length and the tokens of a text.
        self._read: dict[int, dict[bytes, Read]] = {}

    def ask(
        self,
        tables: WeightTables,
        texts: Texts,
        states: Sequence[WeighedState],
        outlooks: Sequence[WordOutlook],
        scores: torch.Tensor,
    ) -> None:
        """Let the model read ahead what matters, where it has not done so already.

        Args:
            tables: what tokens are worth.
            texts: texts.
            states: their states.
            outlooks: what is known of them.
            scores: (texts, vocabulary).
        """
        if self.lookahead is None or math.isinf(self.at_stake):
            return
        for old in texts.far(self._read):
            del self._read[old]
        stakes = self._stakes(outlooks, scores)
        for group in texts.groups() if stakes else ():
            # What was read for a text serves its continuations, too, so the groups are asked one after another.
            of_group = {index: stakes[index] for index in group if index in stakes}
            self._ask_group(tables, texts, states, outlooks, of_group)

    def known(self, texts: Texts, index: int) -> tuple[Read, float | None]:
        """What was read about the next tokens of a text, and what was paid for its last token; None if nothing was."""
        if not self._read:
            return {}, None
        length = texts.lengths[index]
        found = self._read.get(length, {}).get(texts.keys[index], {})
        before = self._read.get(length - 1)
        paid = before.get(texts.parents[index], {}).get(texts.last(index)) if before else None
        return found, None if paid is None else paid[1]

    def _stakes(self, outlooks: Sequence[WordOutlook], scores: torch.Tensor) -> dict[int, dict[int, float]]:
        """The texts in which a word could well be next: the tokens that would begin it, and their probabilities."""
        open_texts = [index for index, each in enumerate(outlooks) if each.stakes.max(initial=0.0) >= self.at_stake]
        if not open_texts:
            return {}
        found: dict[int, dict[int, float]] = {}
        probabilities = scores[open_texts].float().softmax(dim=-1).cpu().numpy()
        for index, of_text in zip(open_texts, probabilities, strict=True):
            risky = outlooks[index].risky
            chosen = of_text[risky]
            matter = chosen * outlooks[index].stakes >= self.at_stake
            if matter.any():
                found[index] = dict(zip(risky[matter].tolist(), chosen[matter].tolist(), strict=True))
        return found

    def _ask_group(
        self,
        tables: WeightTables,
        texts: Texts,
        states: Sequence[WeighedState],
        outlooks: Sequence[WordOutlook],
        stakes: Mapping[int, dict[int, float]],
    ) -> None:
        asked: dict[bytes, tuple[int, list[list[int]]]] = {}
        for index, tokens in stakes.items():
            key = texts.keys[index]
            known = self._read.get(texts.lengths[index], {}).get(key, {})
            if key not in asked:  # beams start as copies of each other
                new = {token: p for token, p in tokens.items() if token not in known}
                if paths := self._paths(tables, states[index], outlooks[index].expected, new):
                    asked[key] = index, paths
        if not asked:
            return
        assert self.lookahead is not None
        rows = [index for index, paths in asked.values() for _ in paths]
        answers = iter(self.lookahead.logits(texts, rows, [path for _, paths in asked.values() for path in paths]))
        for key, (index, paths) in asked.items():
            logits: dict[tuple[int, ...], torch.Tensor] = {}
            for path in paths:
                answer = next(answers)
                if answer is not None:
                    for cut in range(1, len(path) + 1):
                        logits.setdefault(tuple(path[:cut]), answer[cut - 1])
            if logits:
                self._keep(tables, key, texts.lengths[index], states[index], outlooks[index].expected, logits)

    def _paths(
        self, tables: WeightTables, state: WeighedState, expected: Expected | None, tokens: Mapping[int, float]
    ) -> list[list[int]]:
        """The continuations that begin with one of `tokens` and complete an entry, those that matter most."""
        vocabulary = tables.vocabulary
        found: list[tuple[float, list[int]]] = []
        for token, probability in tokens.items():
            after = tables.follow(state, token)
            if self.values is None or expected is None:
                ways = tables.weighted.ways(after.text.patterns)
            else:
                ways = self.values.ways(expected, after.begun, MOST_READ)
            for way in ways:
                at_stake = probability * way.chance * abs(way.gain)
                if at_stake < self.at_stake:
                    break
                rest = vocabulary.spell_rest(vocabulary.piece(token), way.text)
                if rest is not None:
                    found.append((at_stake, [token, *rest]))
        found.sort(key=lambda pair: -pair[0])
        return [path for _, path in found[:MOST_READ]]

    def _keep(
        self,
        tables: WeightTables,
        key: bytes,
        length: int,
        state: WeighedState,
        expected: Expected | None,
        logits: dict[tuple[int, ...], torch.Tensor],
    ) -> None:
        """Compute expected factors backwards, from the ends of what was read to its first tokens.

        Args:
            tables: what tokens are worth.
            key: of the text.
            length: of the text, in tokens.
            state: of the text.
            expected: of the word that has begun, if it was predicted.
            logits: for every continuation that was read, what follows it, (vocabulary,).
        """
        # After every continuation: the state, and what its last token is due.
        reached: dict[tuple[int, ...], tuple[WeighedState, float]] = {(): (state, 0.0)}
        for path in sorted(logits, key=len):
            reached[path] = tables.follow_due(reached[path[:-1]][0], path[-1])
        paths, after = list(logits), [reached[path][0] for path in logits]
        probabilities = self.chosen(torch.stack([logits[path] for path in paths]).float()).cpu().double().numpy()
        if self.values is None or expected is None:
            factors = self._factors(tables, [each.text for each in after])
        else:
            factors = self._predicted_factors(tables, after, expected)
        # Words that begin later are weighed when they begin, so what they share out is divided out here.
        shared = self._factors(tables, [tables.neutral(each.text) for each in after])
        shares = np.maximum(LEAST_VALUE, (probabilities * shared).sum(axis=-1))
        values = dict(zip(paths, ((probabilities * factors).sum(axis=-1) / shares).tolist(), strict=True))
        numbers = {path: number for number, path in enumerate(paths)}
        for path in sorted(paths, key=len, reverse=True):
            value = max(LEAST_VALUE, values[path])
            due = reached[path][1]
            before, token = path[:-1], path[-1]
            if before:  # the model's value takes the place of the estimate
                number = numbers[before]
                more = math.exp(due) * value - float(factors[number, token])
                values[before] += float(probabilities[number, token] / shares[number]) * more
            of_text = self._read.setdefault(length + len(before), {}).setdefault(longer_key(key, before), {})
            of_text[token] = (due + math.log(value), math.log(value))

    def _factors(self, tables: WeightTables, states: Sequence[TextState]) -> np.ndarray:
        """(states, vocabulary) float64: the factor on each token from each state, by word counts."""
        worths = [tables.worths(state) for state in states]
        found = torch.stack([each.worth for each in worths]).double()
        if len(self.end_tokens):
            found[:, torch.from_numpy(self.end_tokens)] = torch.tensor(
                [[each.end] for each in worths], dtype=found.dtype
            )
        return found.clamp(max=_HEAVIEST_TOKEN).exp().numpy()

    def _predicted_factors(
        self, tables: WeightTables, states: Sequence[WeighedState], expected: Expected
    ) -> np.ndarray:
        """(states, vocabulary) float64: the factor on each token from each state within a word that was predicted."""
        assert self.values is not None
        found = np.ones((len(states), tables.size))
        for row, state in zip(found, states, strict=True):
            table, ahead = tables.worths(state.text), self.values.values(expected, state.begun)
            row *= np.exp(np.minimum(table.due, _HEAVIEST_TOKEN))
            row *= np.maximum(LEAST_VALUE, table.beyond + (1.0 if ahead is None else ahead[0]))
            row[self.end_tokens] = math.exp(min(table.end, _HEAVIEST_TOKEN))
        return found
