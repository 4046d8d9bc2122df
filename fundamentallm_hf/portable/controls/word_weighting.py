"""Word weights: how much more or less often words, phrases and regular expressions appear.

A weight w multiplies the probability of a word by e^w, relative to the words without a weight that could take its
place. The factor is paid before the word begins, and taken back where the word turns out differently: a token gets log
V(after) - log V(before) and the weights of what it completes, where V is the factor that may be expected of what has
begun, E[e^w]. With the model's own expectation the product over the tokens of a word is e^w, and 1 for all other words,
up to a normalization that they share: this is the backward message of a chain whose potentials are e^w. Whatever V is,
it cancels in the sum over a text, so beams are compared by the model's log-probability plus the weights of their words.

V is estimated from word counts. Where much depends on it, the model reads the words ahead, all candidates in one pass,
and V is computed backwards from the ends of the words by its probabilities.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..decoding.call_processors import CallProcessors
from ..decoding.lookahead import ModelLookahead
from ..decoding.phases import Phase
from ..decoding.row_states import RowStates
from ..decoding.sidecar_files import own_word_counts
from ..decoding.texts import TOKEN_BYTES, JudgesTexts, Texts
from ..text.token_reader import TextState
from ..text.vocabulary import Vocabulary
from ..text.weight_tables import WeighedState, WeightTables, WorthTable
from ..text.weighted_patterns import LEAST_VALUE, WeightedPatterns
from ..text.word_counts import WordCounts
from ..text.word_lists import read_weights

# The model is asked where weights could change the probability of a token by this much, by word counts. With more words
# than the first number below it is asked less often in proportion, and with more than the second never, so that a long
# list costs what a short one costs.
AT_STAKE = 0.001
FEW_WORDS, MANY_WORDS = 50, 1000
# Continuations that are read ahead for one text in one step, at most.
MOST_READ = 12
# The greatest sum of weights in one token: e to its power is still a finite number.
_HEAVIEST_TOKEN = 300.0

Chosen = Callable[[torch.Tensor], torch.Tensor]
# For a text, by next token: what it is worth, and the logarithm of the factor expected after it.
Read = dict[int, tuple[float, float]]


def compile_word_weights(
    weights: Mapping[str, float],
    tokenizer: PreTrainedTokenizerBase,
    size: int,
    case_sensitive: bool = False,
    counts: WordCounts | None = None,
) -> WeightTables:
    """Compile the tables of a list of word weights, for any number of calls.

    Args:
        weights: of the entries; see `WordWeightsLogitsProcessor`. Entries of weight -inf are left out.
        tokenizer: the model's.
        size: number of scores the model gives.
        case_sensitive: "Will" is not "will".
        counts: word counts; by default estimated from a sub-word tokenizer's vocabulary.

    Raises:
        ValueError: an entry or a weight cannot be read; the message names it.
    """
    vocabulary = Vocabulary.of(tokenizer)
    if counts is None:
        counts = WordCounts.of_vocabulary(vocabulary)
    finite = {entry: weight for entry, weight in read_weights(weights).items() if weight > -math.inf}
    return WeightTables(vocabulary, WeightedPatterns(finite, not case_sensitive, counts), size)


class WordWeightsLogitsProcessor(JudgesTexts):
    """Makes words appear more or less often.

    Entries are those of `BadWordsLogitsProcessor`. An entry counts each time it is complete, and entries that match the
    same text add up.

    Args:
        weights: of the entries, or the result of `compile_word_weights`. e^w is the factor on the probability.
        tokenizer: the model's tokenizer; not needed with compiled entries.
        case_sensitive: match case.
        prompt_columns: width of the prompts in tokens; by default that of the first call.
        padding: (prompt rows,) columns of padding before each prompt.
        end_tokens: ids that end the text.
        lookahead: the model, asked for probabilities.
        chosen: turns the model's logits into the probabilities by which tokens are chosen; softmax by default.

    Raises:
        ValueError: an entry or a weight cannot be read, or is -inf, for which `BadWordsLogitsProcessor` exists.

    Example:

    ```python
    >>> import torch
    >>> from fundamentallm_hf import WordWeightsLogitsProcessor, load_model
    >>> tokenizer = load_model(device="cpu").tokenizer
    >>> processor = WordWeightsLogitsProcessor({"dragon": 2.0}, tokenizer, prompt_columns=1)
    >>> ids = tokenizer("The drago", return_tensors="pt").input_ids
    >>> scores = processor(ids, torch.zeros(1, len(tokenizer)))
    >>> sorted(tokenizer.decode(token) for token in scores[0].topk(2).indices)
    ['N', 'n']

    ```
    """

    def __init__(
        self,
        weights: Mapping[str, float] | Sequence[str] | str | WeightTables,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        case_sensitive: bool = False,
        prompt_columns: int | None = None,
        padding: Sequence[int] = (),
        end_tokens: Sequence[int] = (),
        lookahead: ModelLookahead | None = None,
        chosen: Chosen = lambda logits: logits.softmax(dim=-1),
    ) -> None:
        if not isinstance(weights, WeightTables):
            if tokenizer is None:
                raise ValueError("word weights need the model's tokenizer to read its tokens as text: pass tokenizer=")
            read = read_weights(weights)
            banned = [entry for entry, weight in read.items() if weight == -math.inf]
            if banned:
                raise ValueError(f"the weight of {banned[0]!r} is -inf: ban it with a BadWordsLogitsProcessor instead")
            weights = compile_word_weights(read, tokenizer, len(tokenizer), case_sensitive)
        self.tables = weights
        self.end_tokens = torch.tensor([*end_tokens], dtype=torch.long)
        self.lookahead = lookahead
        self.chosen = chosen
        words = weights.weighted.size
        self.at_stake = AT_STAKE * max(1.0, words / FEW_WORDS) if words <= MANY_WORDS else math.inf
        self.states: RowStates[WeighedState] = RowStates(
            self.tables.beginning,
            self.tables.follow,
            self.tables.forget_complete,
            prompt_columns,
            self.tables.follow_prompt,
            padding,
        )
        # What the model has answered, by the length and the tokens of a text.
        self._read: dict[int, dict[bytes, Read]] = {}

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. `scores` are logits or log-probabilities after temperature, top-k and top-p."""
        if self.tables.weighted.is_empty:
            return scores
        self.tables = self.tables.of_size(scores.shape[-1])
        states = self.states(texts)
        tables = [self.tables.worths(state.text) for state in states]
        if self.lookahead is not None:
            self._ask(texts, states, self._at_stake(scores, tables))
        shift = torch.stack([table.worth for table in tables])
        paid = [state.paid for state in states]
        for index, length in enumerate(texts.lengths):
            for token, (worth, _) in self._read.get(length, {}).get(texts.keys[index], {}).items():
                shift[index, token] = worth
            before = self._read.get(length - 1)
            if before:
                paid[index] = before.get(texts.parents[index], {}).get(texts.last(index), (0.0, paid[index]))[1]
        shift -= torch.tensor(paid)[:, None]
        shift[:, self.tables.silent] = 0.0
        ends = [table.end - before for table, before in zip(tables, paid, strict=True)]
        shift[:, self.end_tokens[self.end_tokens < shift.shape[-1]]] = torch.tensor(ends)[:, None]
        return scores + shift.to(scores.device, scores.dtype)

    def _at_stake(self, scores: torch.Tensor, tables: Sequence[WorthTable]) -> dict[int, dict[int, float]]:
        """The texts in which a word could well be next: the tokens that would begin it, and their probabilities."""
        found: dict[int, dict[int, float]] = {}
        if all(table.greatest < self.at_stake for table in tables):
            return found
        probabilities = scores.float().softmax(dim=-1).cpu().numpy()
        for index, table in enumerate(tables):
            chosen = probabilities[index, table.risky]
            matter = chosen * table.stakes >= self.at_stake
            if matter.any():
                found[index] = dict(zip(table.risky[matter].tolist(), chosen[matter].tolist(), strict=True))
        return found

    def _ask(self, texts: Texts, states: Sequence[WeighedState], stakes: dict[int, dict[int, float]]) -> None:
        """Let the model read ahead what matters, where it has not done so already."""
        for old in texts.far(self._read):
            del self._read[old]
        for group in texts.groups():
            # What was read for a text serves its continuations, too, so the groups are asked one after another.
            self._ask_group(texts, states, {index: stakes[index] for index in group if index in stakes})

    def _ask_group(self, texts: Texts, states: Sequence[WeighedState], stakes: dict[int, dict[int, float]]) -> None:
        asked: dict[bytes, tuple[int, list[list[int]]]] = {}
        for index, tokens in stakes.items():
            key = texts.keys[index]
            known = self._read.get(texts.lengths[index], {}).get(key, {})
            if key not in asked:  # beams start as copies of each other
                paths = self._paths(states[index], {token: p for token, p in tokens.items() if token not in known})
                if paths:
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
                self._keep(key, texts.lengths[index], states[index], logits)

    def _paths(self, state: WeighedState, tokens: Mapping[int, float]) -> list[list[int]]:
        """The continuations that begin with one of `tokens` and complete an entry, those that matter most."""
        vocabulary = self.tables.vocabulary
        found: list[tuple[float, list[int]]] = []
        for token, probability in tokens.items():
            after = self.tables.advance(state.text, token)
            for way in self.tables.weighted.ways(after.patterns):
                at_stake = probability * way.chance * abs(way.gain)
                if at_stake < self.at_stake:
                    break
                rest = vocabulary.spell_rest(vocabulary.piece(token), way.text)
                if rest is not None:
                    found.append((at_stake, [token, *rest]))
        found.sort(key=lambda pair: -pair[0])
        return [path for _, path in found[:MOST_READ]]

    def _keep(self, key: bytes, length: int, state: WeighedState, logits: dict[tuple[int, ...], torch.Tensor]) -> None:
        """Compute expected factors backwards, from the ends of what was read to its first tokens.

        Args:
            key: of the text.
            length: of the text, in tokens.
            state: of the text.
            logits: for every continuation that was read, what follows it, (vocabulary,).
        """
        after: dict[tuple[int, ...], tuple[TextState, float]] = {(): (state.text, 0.0)}
        for path in sorted(logits, key=len):
            after[path] = self.tables.settled(self.tables.advance(after[path[:-1]][0], path[-1]))
        paths = list(logits)
        probabilities = self.chosen(torch.stack([logits[path] for path in paths]).float()).cpu().double().numpy()
        factors = self._factors([after[path][0] for path in paths])
        # Words that begin later are weighed when they begin, so what they share out is divided out here.
        shared = self._factors([self.tables.neutral(after[path][0]) for path in paths])
        shares = np.maximum(LEAST_VALUE, (probabilities * shared).sum(axis=-1))
        values = dict(zip(paths, ((probabilities * factors).sum(axis=-1) / shares).tolist(), strict=True))
        numbers = {path: number for number, path in enumerate(paths)}
        for path in sorted(paths, key=len, reverse=True):
            value = max(LEAST_VALUE, values[path])
            due = after[path][1]
            before, token = path[:-1], path[-1]
            if before:  # the model's value takes the place of that by word counts
                number = numbers[before]
                more = math.exp(due) * value - float(factors[number, token])
                values[before] += float(probabilities[number, token] / shares[number]) * more
            text = key + b"".join(each.to_bytes(TOKEN_BYTES, "little") for each in before)
            of_text = self._read.setdefault(length + len(before), {}).setdefault(text, {})
            of_text[token] = (due + math.log(value), math.log(value))

    def _factors(self, states: Sequence[TextState]) -> np.ndarray:
        """(states, vocabulary) float64: the factor on each token from each state, by word counts."""
        tables = [self.tables.worths(state) for state in states]
        worths = torch.stack([table.worth for table in tables]).double()
        if len(self.end_tokens):
            worths[:, self.end_tokens] = torch.tensor([[table.end] for table in tables], dtype=worths.dtype)
        return worths.clamp(max=_HEAVIEST_TOKEN).exp().numpy()


def add_word_weights(step: CallProcessors) -> None:
    """Make the words of `word_weights` appear more or less often in the texts of a call. Those of -inf are bad words.

    Raises:
        ValueError: an entry or a weight cannot be read.
    """
    weights = {entry: weight for entry, weight in step.word_weights.items() if weight and weight > -math.inf}
    if not weights:
        return
    call = step.call
    case_sensitive, counts = bool(call.field("case_sensitive")), own_word_counts(call.model)
    tables = call.kept(
        ("word_weights", tuple(weights.items()), case_sensitive),
        lambda: compile_word_weights(weights, call.reader, call.size, case_sensitive, counts),
        of=counts,
    )

    def chosen(logits: torch.Tensor) -> torch.Tensor:
        for warper in step.warpers:
            logits = warper(None, logits)
        return logits.softmax(dim=-1)

    processor = WordWeightsLogitsProcessor(
        tables,
        prompt_columns=call.prompt_columns,
        padding=call.padding,
        end_tokens=step.end_tokens,
        lookahead=call.lookahead,
        chosen=chosen,
    )
    step.add(Phase.GUIDE, processor)
