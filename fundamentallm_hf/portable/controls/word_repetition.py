"""Repetition of words and of sequences of words, which a penalty on single characters cannot prevent.

On a character model every letter has been seen, so the stock penalty leaves their order as it is and cannot break loops
such as "the the the". Here the penalty of a word depends on how much of the preceding text has preceded the same word
before, as DRY does with tokens (p-e-w, 2024, text-generation-webui #5677): a word merely seen before is penalised by
`penalty`, one that would continue a repeated sequence by a power of it that doubles with every word of the sequence.
The penalty is applied where a word starts, by the probability that it becomes the word in question, so that the model
chooses another word and none is cut short.
"""

import math
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from transformers import (
    NoRepeatNGramLogitsProcessor,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
)

from ..decoding.call_processors import CallProcessors
from ..decoding.phases import Phase
from ..decoding.row_states import RowStates
from ..decoding.sidecar_files import own_word_counts
from ..decoding.texts import JudgesTexts, Texts
from ..errors import UserError
from ..text.characters import fold, is_word
from ..text.vocabulary import Vocabulary, add_piece
from ..text.word_counts import WordCounts

REPETITION_UNITS = ("words", "tokens")
# Longest repeated sequence that still raises the penalty, in words.
_LONGEST = 12
# Upper bound of a penalty (natural logarithm), so that it cannot drive the model into junk.
_MOST = 6.0


class WordUnits(NamedTuple):
    """A text as words and punctuation marks.

    Attributes:
        done: the complete units, folded: words, and every mark and line break separately.
        word: the unfinished word, folded.
        shown: the unfinished word as it was written.
        spaced: the last character was white space.
        pending: the first bytes of an incomplete character.
    """

    done: tuple[str, ...] = ()
    word: str = ""
    shown: str = ""
    spaced: bool = True
    pending: bytes = b""

    def read(self, text: str, pending: bytes = b"") -> "WordUnits":
        """The units after some more text."""
        done, word, shown, spaced = list(self.done), self.word, self.shown, self.spaced
        for char in text:
            if is_word(char):
                word += fold(char)
                shown += char
                spaced = False
                continue
            if word:
                done.append(word)
                word = shown = ""
            spaced = char.isspace()
            if not spaced or char == "\n":
                done.append(char)
        return WordUnits(tuple(done), word, shown, spaced, pending)


@lru_cache(maxsize=4096)
def repeats(units: tuple[str, ...]) -> dict[str, int]:
    """For every unit of a text, the longest sequence at the text's end that has preceded that unit before.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.controls.word_repetition import repeats
    >>> repeats(("the", "cat", "and", "the"))
    {'the': 0, 'cat': 1, 'and': 0}

    ```
    """
    lengths: dict[str, int] = {}
    for place, unit in enumerate(units):
        length = 0
        while length < min(place, _LONGEST) and units[place - 1 - length] == units[-1 - length]:
            length += 1
        lengths[unit] = max(length, lengths.get(unit, 0))
    return lengths


class WordRepetitionLogitsProcessor(JudgesTexts):
    """Penalises repeated words, and forbids repeated sequences of words.

    Args:
        penalty: above 1 discourages repetition and below 1 encourages it, by this factor for a word seen before.
        tokenizer: the model's tokenizer.
        ngram_size: no sequence of this many words occurs twice; 0 turns the rule off.
        counts: word counts; by default estimated from a sub-word tokenizer's vocabulary.
        end_tokens: ids that end the text.
        prompt_columns: width of the prompts in tokens; by default that of the first call.
        padding: (prompt rows,) columns of padding before each prompt.

    Raises:
        ValueError: the penalty is not above 0.
    """

    def __init__(
        self,
        penalty: float,
        tokenizer: PreTrainedTokenizerBase,
        *,
        ngram_size: int = 0,
        counts: WordCounts | None = None,
        end_tokens: Sequence[int] = (),
        prompt_columns: int | None = None,
        padding: Sequence[int] = (),
    ) -> None:
        if not penalty > 0:
            raise ValueError(f"repetition_penalty has to be a number above 0 but is {penalty!r}")
        self.weight = math.log(penalty)
        self.ngram_size = ngram_size
        self.vocabulary = Vocabulary.of(tokenizer)
        self.counts = counts or WordCounts.of_vocabulary(self.vocabulary)
        self.end_tokens = list(end_tokens)
        self.states: RowStates[WordUnits] = RowStates(
            WordUnits(), self._advance, prompt_columns=prompt_columns, padding=padding
        )
        self._shifts: dict[WordUnits, torch.Tensor] = {}

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. Returns the scores with repetition penalised."""
        shifts = []
        for state in self.states(texts):
            if state not in self._shifts:
                if len(self._shifts) > 4096:
                    self._shifts.clear()
                self._shifts[state] = self._shift(state, scores.shape[-1])
            shifts.append(self._shifts[state])
        return scores + torch.stack(shifts).to(scores.device, scores.dtype)

    def _advance(self, state: WordUnits, token: int) -> WordUnits:
        return state.read(*add_piece(state.pending, self.vocabulary.piece(token), self.vocabulary.errors))

    def _shift(self, state: WordUnits, size: int) -> torch.Tensor:
        # A model may have fewer scores than its tokenizer has tokens.
        shift = torch.zeros(max(size, len(self.vocabulary.pieces)))
        remains: dict[int, float] = {}
        # The current word, and, for tokens that start a word with a space, the next one.
        for token, chance, kept in self._continuations(state):
            remains[token] = remains.get(token, 1.0) - chance * (1.0 - kept)
        begun = self._kept_so_far(state)
        for token, rest in remains.items():
            shift[token] = math.log(max(rest, 1e-6)) - begun
        if self.ngram_size:
            shift[list(self._repeating(state))] = -torch.inf
        return shift[:size]

    def _repeating(self, state: WordUnits) -> Iterator[int]:
        """The tokens that complete a word, and with it a sequence of words for the second time."""
        if state.word in self._forbidden(state):
            yield from self.end_tokens
            for token, piece in enumerate(self.vocabulary.pieces):
                after = self._advance(state, token)
                # A started character may turn out to be no letter.
                if after.done != state.done or (after.pending and isinstance(piece, bytes)):
                    yield token
        for token in self._with_words:
            if self._completes_repeated(state, token):
                yield token

    @cached_property
    def _with_words(self) -> list[int]:
        """The tokens that contain a whole word, or the end of one word and the start of the next."""
        ends = re.compile(r"\W\w+\W", re.DOTALL)
        whole = [str(piece) if isinstance(piece, str) else "" for piece in self.vocabulary.pieces]
        return [token for token, piece in enumerate(whole) if ends.search(f"{piece[:1]}{piece}") or " " in piece[1:]]

    def _completes_repeated(self, state: WordUnits, token: int) -> bool:
        text, _ = add_piece(state.pending, self.vocabulary.piece(token), self.vocabulary.errors)
        for char in text:
            after = state.read(char)
            if state.word and not after.word and state.word in self._forbidden(state):
                return True
            state = after
        return False

    def _kept(self, length: int, mark: bool) -> float:
        """The factor left of the probability of a unit that would continue a repeated sequence of this length."""
        if mark and length < 2:
            return 1.0  # marks recur in any text
        return math.exp(-max(-_MOST, min(_MOST, self.weight * 2.0**length)))

    def _continuations(self, state: WordUnits) -> Iterator[tuple[int, float, float]]:
        """Tokens that lead to a penalised unit, the probability that they do, and the factor that is left."""
        hard = self._forbidden(state)
        for unit, length in repeats(state.done).items():
            mark = not is_word(unit[0])
            kept = 0.0 if unit in hard else self._kept(length, mark)
            if mark:
                if kept != 1.0 and not state.word and (token := self.vocabulary.token(unit)) is not None:
                    yield token, 1.0, kept
            elif unit.startswith(state.word) and len(unit) > len(state.word):
                yield from self._spelled(state, unit, length, kept, "" if state.word or state.spaced else " ")
        if state.word and self.vocabulary.longest > 1:
            following = WordUnits(done=(*state.done, state.word), spaced=False)
            hard = self._forbidden(following)
            for unit, length in repeats(following.done).items():
                mark = not is_word(unit[0])
                kept = 0.0 if unit in hard else self._kept(length, mark)
                if mark and kept != 1.0 and (token := self.vocabulary.token(unit)) is not None:
                    yield token, 1.0, kept
                elif not mark:
                    yield from self._spelled(following, unit, length, kept, " ")

    def _spelled(
        self, state: WordUnits, unit: str, length: int, kept: float, lead: str
    ) -> Iterator[tuple[int, float, float]]:
        if kept == 1.0:
            return
        done = len(state.word)
        forms = {unit, unit.capitalize(), unit.upper()} if not done else {unit, unit.upper()}
        for end in range(done + 1, min(len(unit), done + self.vocabulary.longest) + 1):
            # The longer the repeated sequence, the more certain the model is of the word.
            chance = max(self.counts.chance(unit[:end], unit), 1.0 - 0.5**length)
            for text in {lead + form[done:end] for form in forms}:
                token = self.vocabulary.token(text)
                if token is not None:
                    yield token, chance, kept

    def _kept_so_far(self, state: WordUnits) -> float:
        """Logarithm of the penalty already paid for the start of the word; beams add up scores over a word."""
        if not state.word:
            return 0.0
        rest = 1.0
        hard = self._forbidden(state)
        for unit, length in repeats(state.done).items():
            if unit.startswith(state.word):
                kept = 0.0 if unit in hard else self._kept(length, mark=False)
                chance = max(self.counts.chance(state.word, unit), 1.0 - 0.5**length)
                rest -= chance * (1.0 - kept)
        return math.log(max(rest, 1e-6))

    def _forbidden(self, state: WordUnits) -> frozenset[str]:
        """The words that would complete a sequence of `ngram_size` words for the second time."""
        if not self.ngram_size:
            return frozenset()
        words = [unit for unit in state.done if is_word(unit[0])]
        size = self.ngram_size - 1
        if len(words) < size:
            return frozenset()
        tail = words[len(words) - size :]
        return frozenset(words[i + size] for i in range(len(words) - size) if words[i : i + size] == tail)


def add_word_repetition(step: CallProcessors) -> None:
    """Replace transformers' penalties by penalties over words, where the call asks for words.

    Raises:
        UserError: `repetition_unit` is neither words nor tokens.
    """
    call = step.call
    penalty, ngram = call.field("repetition_penalty") or 1.0, call.field("no_repeat_ngram_size") or 0
    unit = call.field("repetition_unit")
    if unit not in (None, *REPETITION_UNITS):
        raise UserError(
            f"repetition_unit has to be one of {', '.join(REPETITION_UNITS)} but is {unit!r}", setting="repetition_unit"
        )
    if (penalty == 1.0 and not ngram) or call.tokenizer is None:
        return
    characters = Vocabulary.of(call.tokenizer).longest <= 1
    if unit == "tokens" or (unit is None and not characters):
        return
    step.remove((RepetitionPenaltyLogitsProcessor, NoRepeatNGramLogitsProcessor))
    processor = WordRepetitionLogitsProcessor(
        penalty,
        call.tokenizer,
        ngram_size=ngram,
        counts=own_word_counts(call.model),
        end_tokens=call.end_tokens,
        prompt_columns=call.prompt_columns,
        padding=call.padding,
    )
    step.add(Phase.REPETITION, processor)
