"""The processors and stopping criteria of one call, while controls add to them."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
)

from ..text.word_lists import read_text_list, read_weights
from .control_effects import OBSERVED
from .endings import CompleteEndCriteria, EndCriteria
from .generate_call import Call
from .phases import Phase
from .recording import Recorder
from .warpers import is_warper

Criterion = TypeVar("Criterion", bound=EndCriteria)
Kind = TypeVar("Kind", bound=LogitsProcessor)


class CallProcessors:
    """The processors that act in every step of a call, by phase, and what the controls of the call share.

    Args:
        processors: those that transformers has prepared.
        criteria: the call's stopping criteria; controls add to them **in place**.
        call: the call.

    Attributes:
        call: the call.
        criteria: the call's stopping criteria.
        warpers: the processors that shape the final distribution (temperature, top-k, top-p and the like).
    """

    def __init__(self, processors: LogitsProcessorList, criteria: StoppingCriteriaList, call: Call) -> None:
        self.call = call
        self.criteria = criteria
        self.warpers = [each for each in processors if is_warper(each, call.size)]
        self._by_phase: dict[Phase, list[LogitsProcessor]] = {phase: [] for phase in Phase}
        recorders = [each for each in processors if isinstance(each, Recorder)]
        self._by_phase[Phase.RECORD] = recorders
        self._by_phase[Phase.WATCH] = [look for each in recorders if (look := each.first_look()) is not None]
        phase, left = Phase.STOCK, len(self.warpers)
        for each in processors:
            if isinstance(each, Recorder):
                continue
            if each in self.warpers:
                phase, left = Phase.WARP, left - 1
            elif phase == Phase.WARP and not left:
                phase = Phase.FINISH
            self._by_phase[phase].append(each)

    def add(self, phase: Phase, processor: LogitsProcessor) -> None:
        """Add a processor to this phase, after those already in it."""
        self._by_phase[phase].append(processor)

    def remove(self, kinds: tuple[type[LogitsProcessor], ...]) -> None:
        """Remove transformers' processors of these kinds, because others replace them."""
        stock = self._by_phase[Phase.STOCK]
        stock[:] = [each for each in stock if not isinstance(each, kinds)]

    def acting(self, kind: type[Kind]) -> list[Kind]:
        """The processors of this kind, in the order in which they act."""
        return [each for each in self.in_order() if isinstance(each, kind)]

    def any_in(self, phases: tuple[Phase, ...]) -> bool:
        """Whether anything acts in one of these phases."""
        return any(self._by_phase[phase] for phase in phases)

    def in_order(self) -> list[LogitsProcessor]:
        """All processors in the order in which they act."""
        return [each for phase in Phase for each in self._by_phase[phase]]

    def observed(self) -> list[LogitsProcessor]:
        """All processors in their order, with those of the recorders around the controls."""
        found: list[LogitsProcessor] = []
        recorders = self.acting(Recorder)
        for phase in Phase:
            inside, warp = self._by_phase[phase], self._warped if phase < Phase.WARP else _unchanged
            for recorder in recorders if inside and phase in OBSERVED else ():
                if (pair := recorder.around(phase, warp)) is not None:
                    inside = [pair[0], *inside, pair[1]]
            found += inside
        return found

    def criterion(self, kind: type[Criterion]) -> Criterion:
        """The criterion of this kind that the caller has passed, or else a new one, which is added."""
        for found in self.criteria:
            if isinstance(found, kind):
                return found
        self.criteria.append(made := kind())
        return made

    def texts(self, name: str) -> tuple[str, ...]:
        """The items of a field that holds a list: a list of texts, or one text with commas between its items.

        Raises:
            ValueError: it is neither.
        """
        return read_text_list(name, self.call.field(name), split=True)

    @cached_property
    def word_weights(self) -> dict[str, float]:
        """The entries of the field `word_weights`, and their weights.

        Raises:
            ValueError: it holds something else.
        """
        value = self.call.field("word_weights")
        if value is None:
            return {}
        try:
            return read_weights(value)
        except ValueError as error:
            raise ValueError(f"word_weights: {error}") from None

    @cached_property
    def banned(self) -> tuple[str, ...]:
        """The bad words, and the entries whose weight is -inf.

        Raises:
            ValueError: a field holds something else.
        """
        weights = self.word_weights
        barred = (
            [entry for entry, weight in weights.items() if weight == -math.inf] if -math.inf in weights.values() else []
        )
        return (*self.texts("bad_words"), *barred)

    @cached_property
    def stops(self) -> tuple[str, ...]:
        """The texts of the field `stop`."""
        return read_text_list("stop", self.call.field("stop"))

    @cached_property
    def stop_strings(self) -> tuple[str, ...]:
        """All texts that end the completion, transformers' `stop_strings` included."""
        return (*self.stops, *read_text_list("stop_strings", self.call.field("stop_strings")))

    @cached_property
    def complete(self) -> CompleteEndCriteria:
        """Ends the rows whose text is complete; for a control over the whole text."""
        return self.criterion(CompleteEndCriteria)

    @property
    def end_tokens(self) -> list[int]:
        """Ids that end the text. With a control over the whole text, which ends by itself, there is always one."""
        closing = self.call.closing_token
        if self.call.end_tokens or closing is None or not self.call.has_structure:
            return self.call.end_tokens
        return [closing]

    @property
    def temperature(self) -> float:
        """The number that scores are divided by before the choice."""
        return math.prod(getattr(warper, "temperature", 1.0) for warper in self.warpers)

    @property
    def trims(self) -> bool:
        """Whether a warper masks tokens, as top-k and top-p do."""
        return any(not isinstance(warper, TemperatureLogitsWarper) for warper in self.warpers)

    @property
    def policy(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The probabilities by which this call chooses tokens, given the model's logits, (tokens, vocabulary)."""

        def chosen(logits: torch.Tensor) -> torch.Tensor:
            if self.call.is_greedy:
                return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
            return self._warped(logits).softmax(dim=-1)

        return chosen

    def _warped(self, logits: torch.Tensor) -> torch.Tensor:
        for warper in self.warpers:
            logits = warper(None, logits)
        return logits


def _unchanged(logits: torch.Tensor) -> torch.Tensor:
    return logits
