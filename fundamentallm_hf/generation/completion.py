"""A written text and what is told of it. This file knows nothing of how it was written."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .probabilities import Prediction


@dataclass(frozen=True)
class Completion:
    """One written text.

    Attributes:
        prompt: what was given.
        completion: what was added.
        finish_reason: why it ended: "eos" (the model ended the text), "stop" (a stop text came; it and what follows it
            are cut off), "length" (`max_tokens` were written), "window" (the context window is full and `overflow` is
            "stop"), "complete" (it matches `pattern`, `json_schema` or `grammar` and could not go on), "blocked" (the
            controls left no continuation) or "interrupted".
        tokens: tokens that were added, an end-of-text token and those of a stop text not counted.
        seed: writes the same text again with the same settings; None if nothing was sampled. Beams share one stream of
            random numbers, so with them it belongs to all texts of a call and repeats the whole call.
        log_probability: of the completion's tokens under the model alone, summed up, in nats; None unless asked for.
        probabilities: every token of the completion with its probabilities; None unless asked for.
        sample: its place among the samples of its prompt, from 0; among those of one search where beams are sampled.
    """

    prompt: str
    completion: str
    finish_reason: str
    tokens: int
    seed: int | None
    log_probability: float | None = None
    probabilities: tuple[Prediction, ...] | None = None
    sample: int = field(default=0, compare=False)

    @property
    def mean_log_probability(self) -> float | None:
        """`log_probability` per token; None where there is none, or no token."""
        return self.log_probability / self.tokens if self.log_probability is not None and self.tokens else None

    @property
    def text(self) -> str:
        """Prompt and completion."""
        return self.prompt + self.completion

    def to_dict(self) -> dict[str, Any]:
        """The whole text and what is told of it, without what was not asked for."""
        fields = {"text": self.text, **asdict(self), "mean_log_probability": self.mean_log_probability}
        del fields["sample"]
        if self.log_probability is None:
            del fields["log_probability"], fields["mean_log_probability"]
        if self.probabilities is None:
            del fields["probabilities"]
        else:
            fields["probabilities"] = [each.to_dict() for each in self.probabilities]
        return fields


def likeliest(completions: list[Completion], number: int) -> list[Completion]:
    """The completions whose tokens the model finds likeliest on average; those without a token come last."""

    def mean(completion: Completion) -> float:
        found = completion.mean_log_probability
        return -math.inf if found is None else found

    return sorted(completions, key=mean, reverse=True)[:number]


def make_record(
    completion: Completion,
    origin: dict[str, Any],
    settings: GenerationSettings,
    next_tokens: Sequence[Prediction] = (),
) -> dict[str, Any]:
    """Everything about a text: what it is, how likely it is, and what writes it again.

    The settings are those that write this text alone: with its own seed and no others beside it. Beams are the
    exception, which only come together: `sample` tells which of them it is.
    """
    fields = completion.to_dict()
    again = settings.but(best=None, seed=completion.seed, bad_words=settings.banned(), bad_words_file=None)
    sample = completion.sample if settings.beam_size > 1 else None
    again = again.but(num_samples=1 + (sample or 0))
    probabilities = fields.pop("probabilities", None)
    record = origin | fields
    if sample is not None:
        record["sample"] = sample
    record["settings"] = again.to_dict()
    if next_tokens:
        record["next_tokens"] = [each.to_dict() for each in next_tokens]
    if probabilities is not None:
        record["probabilities"] = probabilities
    return record
