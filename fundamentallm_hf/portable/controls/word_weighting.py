"""Word weights: how much more or less often words, phrases and regular expressions appear.

A weight w multiplies the probability of a word by e^w, relative to the words without a weight that could take its
place. The factor is paid before the word begins, and taken back where the word turns out differently: a token gets log
V(after) - log V(before) and the weights of what it completes, where V is the factor that may be expected of what has
begun, E[e^w]. With the model's own expectation the product over the tokens of a word is e^w, and 1 for all other words,
up to a normalization that they share: this is the backward message of a chain whose potentials are e^w. Whatever V is,
it cancels in the sum over a text, so beams are compared by the model's log-probability plus the weights of their words.

Here is the processor. The other files, from the characters of a text to the words that follow it:

- `weighted_words`, `weighted_regexes` and `weighted_patterns` (in `text/`) read a text character by character, and add
  up the weights of what it completes. They also estimate V by word counts.
- `weight_tables` computes all that for every token of a vocabulary at once. Its results are in `worth_table`.
- `word_values` computes V by the probabilities of whole words. `next_words` (in `decoding/`) predicts these from a
  state of a character model, and `word_forecasts` does so for the texts of a call.
- `word_lookahead` computes V by the model itself, where much depends on it: the model reads the words ahead, all
  candidates in one pass, and V follows backwards from the ends of the words.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation import GenerationMode

from ..decoding.call_processors import CallProcessors
from ..decoding.lookahead import ModelLookahead
from ..decoding.phases import Phase
from ..decoding.row_states import RowStates
from ..decoding.sidecar_files import own_next_words, own_word_counts
from ..decoding.texts import JudgesTexts, Texts
from ..guides.output_states import OutputStates
from ..text.vocabulary import Vocabulary
from ..text.weight_tables import WeightTables
from ..text.weighted_patterns import WeightedPatterns
from ..text.word_counts import WordCounts
from ..text.word_lists import read_weights
from ..text.word_values import WordValues
from ..text.worth_table import WeighedState
from .word_forecasts import WordForecasts
from .word_lookahead import Chosen, WordLookahead, WordOutlook

# The model is asked where weights could change the probability of a token by this much, by word counts or by what is
# predicted, which knows more. With more words than the first number below it is asked less often in proportion, and
# with more than the second never, so that a long list costs what a short one costs.
AT_STAKE, FORECAST_AT_STAKE = 0.001, 0.005
FEW_WORDS, MANY_WORDS = 50, 1000


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
        forecasts: predicts the words instead of the model.
        ranks: texts are compared by their scores, as beams are. Otherwise, a text with one token left is not weighed.

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
        forecasts: WordForecasts | None = None,
        ranks: bool = True,
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
        self._ends = np.array([*end_tokens], dtype=np.int64)
        self.forecasts, self.ranks = forecasts, ranks
        words = weights.weighted.size
        at_stake = (AT_STAKE if forecasts is None else FORECAST_AT_STAKE) * max(1.0, words / FEW_WORDS)
        values = None if forecasts is None else forecasts.values
        self.reader = WordLookahead(
            lookahead, chosen, self._ends, at_stake if words <= MANY_WORDS else math.inf, values
        )
        self.states: RowStates[WeighedState] = RowStates(
            self.tables.beginning,
            self.tables.follow,
            self.tables.forget_complete,
            prompt_columns,
            self.tables.follow_prompt,
            padding,
        )

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. `scores` are logits or log-probabilities after temperature, top-k and top-p."""
        return self._shifted(texts, scores, whole_pass=True)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`."""
        return self._shifted(Texts.of(input_ids), scores, whole_pass=False)

    def _shifted(self, texts: Texts, scores: torch.Tensor, whole_pass: bool) -> torch.Tensor:
        if self.tables.weighted.is_empty:
            return scores
        self.tables = self.tables.of_size(scores.shape[-1])
        states = self.states(texts)
        if self.forecasts is not None:
            self.forecasts.follow(texts, states, whole_pass)
        is_left = (scores > -torch.inf).cpu().numpy()
        left: Sequence[int] = range(len(texts))
        if not self.ranks:  # where one token is left, nothing that is added to its score matters
            left = with_a_choice(is_left)
        if not left:
            return scores
        shift = np.zeros(scores.shape, dtype=np.float32)
        if len(left) < len(texts):
            texts, states, is_left = texts.part(left), [states[index] for index in left], is_left[left]
        shift[left] = self._weighed(texts, states, scores if len(left) == len(scores) else scores[left], is_left)
        return scores + torch.from_numpy(shift).to(scores.device, scores.dtype)

    def _weighed(
        self, texts: Texts, states: Sequence[WeighedState], scores: torch.Tensor, is_left: np.ndarray
    ) -> np.ndarray:
        """(texts, vocabulary) what is added to the scores of some texts.

        Args:
            texts: texts.
            states: their states.
            scores: (texts, vocabulary).
            is_left: (texts, vocabulary) whether tokens are left.
        """
        if self.forecasts is None:
            outlooks = [self._counted(state) for state in states]
        else:
            of_texts = zip(texts.keys, texts.lengths, states, map(np.flatnonzero, is_left), strict=True)
            outlooks = [self.forecasts.outlook(self.tables, *of_text) for of_text in of_texts]
        self.reader.ask(self.tables, texts, states, outlooks, scores)
        shift = np.stack([each.worth for each in outlooks])
        silent, ends = self.tables.silent, self._ends[self._ends < self.tables.size]
        for index, (row, outlook) in enumerate(zip(shift, outlooks, strict=True)):
            read, before = self.reader.known(texts, index)
            if read:
                row[[*read]] = [worth for worth, _ in read.values()]
            paid = outlook.paid if before is None else before
            row -= paid
            row[silent] = 0.0
            row[ends] = outlook.end - paid
        return shift

    def _counted(self, state: WeighedState) -> WordOutlook:
        """What is to be expected after a text by word counts."""
        table = self.tables.worths(state.text)
        return WordOutlook(table.worth.numpy(), table.end, state.paid, table.risky, table.stakes)


def with_a_choice(is_left: np.ndarray) -> list[int]:
    """The indices of the texts in which more than one token is left; `is_left` are (texts, vocabulary)."""
    return np.flatnonzero(is_left.sum(axis=1) > 1).tolist()


def add_word_weights(step: CallProcessors) -> None:
    """Make the words of `word_weights` appear more or less often in the texts of a call. Those of -inf are bad words.

    Raises:
        ValueError: an entry or a weight cannot be read.
    """
    weights = step.word_weights
    if not {0.0, -math.inf}.isdisjoint(weights.values()):
        weights = {entry: weight for entry, weight in weights.items() if weight and weight > -math.inf}
    if not weights:
        return
    call = step.call
    case_sensitive, counts = bool(call.field("case_sensitive")), own_word_counts(call.model)
    tables = call.kept(
        ("word_weights", tuple(weights), tuple(weights.values()), case_sensitive),
        lambda: compile_word_weights(weights, call.reader, call.size, case_sensitive, counts),
        of=counts,
    )

    def chosen(logits: torch.Tensor) -> torch.Tensor:
        for warper in step.warpers:
            logits = warper(None, logits)
        return logits.softmax(dim=-1)

    forecasts = None if case_sensitive else _forecasts(step, tables)
    processor = WordWeightsLogitsProcessor(
        tables,
        prompt_columns=call.prompt_columns,
        padding=call.padding,
        end_tokens=step.end_tokens,
        lookahead=call.lookahead,
        chosen=chosen,
        forecasts=forecasts,
        ranks=not call.is_sequential,
    )
    step.add(Phase.GUIDE, processor)
    if forecasts is not None:
        step.add(Phase.WATCH, forecasts.states)


def _forecasts(step: CallProcessors, tables: WeightTables) -> WordForecasts | None:
    """Predicts the words of the texts of a call; None if there is nothing that can."""
    call = step.call
    head = own_next_words(call.model) if tables.is_single else None
    if head is None or min(call.padding, default=0) < 0:  # a prompt that was given as embeddings cannot be read again
        return None
    values = call.kept(
        ("word values", tables),
        lambda: WordValues(
            tables.weighted, tables.vocabulary, tables.size, head.classes, tables.weighted.size <= MANY_WORDS
        ),
        of=head,
    )
    watch = call.mode != GenerationMode.ASSISTED_GENERATION
    return WordForecasts(head, values, OutputStates(call.model, call.padding, call.in_sight, watch), step.temperature)
