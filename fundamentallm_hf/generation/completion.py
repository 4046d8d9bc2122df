"""Completions: a generated text with its metadata, its record in JSON, and the batches in which completions come."""

import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from typing import Any

from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .probabilities import Prediction


@dataclass(frozen=True)
class Completion:
    """One generated text.

    Attributes:
        prompt: what was given.
        completion: what the model added.
        finish_reason: why it ended: "eos" (the model ended the text), "stop" (a stop string was generated; it and what
            follows are cut off), "length" (`max_tokens` were generated), "window" (the context window is full and
            `overflow` is "stop"), "complete" (it matches `pattern`, `json_schema` or `grammar` and cannot continue),
            "blocked" (the controls left no continuation) or "interrupted".
        tokens: number of tokens added, without an end-of-text token and those of a stop string.
        seed: reproduces the text with the same settings; None if nothing was sampled. Beams share one random number
            generator, so with them it belongs to all texts of a call and reproduces the whole call.
        log_probability: of the completion's tokens under the model alone, summed up, in nats; None unless asked for.
        probabilities: every token of the completion with its probabilities; None unless asked for.
        sample: its index among the samples of its prompt, from 0; among those of one search where beams are sampled.
        passes: how often the call that wrote it ran the model to choose tokens, the prompt included. Fewer than tokens
            where drafted tokens were kept; the rows of a batch share them.
    """

    prompt: str
    completion: str
    finish_reason: str
    tokens: int
    seed: int | None
    log_probability: float | None = None
    probabilities: tuple[Prediction, ...] | None = None
    sample: int = field(default=0, compare=False)
    passes: int | None = field(default=None, compare=False)

    @property
    def mean_log_probability(self) -> float | None:
        """`log_probability` per token; None where there is none, or no token."""
        return self.log_probability / self.tokens if self.log_probability is not None and self.tokens else None

    @property
    def text(self) -> str:
        """Prompt and completion."""
        return self.prompt + self.completion

    def to_dict(self) -> dict[str, Any]:
        """The text and its metadata, without what was not asked for."""
        fields = {"text": self.text, **asdict(self), "mean_log_probability": self.mean_log_probability}
        del fields["sample"]
        if self.passes is None:
            del fields["passes"]
        if self.log_probability is None:
            del fields["log_probability"], fields["mean_log_probability"]
        if self.probabilities is None:
            del fields["probabilities"]
        else:
            fields["probabilities"] = [each.to_dict() for each in self.probabilities]
        return fields


def likeliest(completions: list[Completion], number: int) -> list[Completion]:
    """The completions with the highest mean log-probability per token; those without a token come last."""

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
    """Everything about a text: the text, its probability, and the settings that reproduce it.

    The settings reproduce this text alone, with its seed. Beams are the exception, since they are only generated
    together: `sample` is the index of the text among them.
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


# Generates all samples of all prompts at once, and keeps the best of each prompt if the settings say so.
Write = Callable[[list[str], GenerationSettings], list[Completion]]


def in_batches(
    write: Write, prompts: Iterable[str], settings: GenerationSettings, rows: int
) -> Iterator[list[Completion]]:
    """Write the samples of all prompts, `rows` texts at a time at most.

    A prompt's beams are never parted. Sampled beams share one stream of random numbers, so that they can be had again
    they have it for a prompt alone.

    Yields:
        The completions of one or several prompts, or of a part of one prompt's samples.
    """
    beams = settings.beam_size > 1
    at_once = 1 if beams and settings.sampled else max(1, rows // max(settings.beam_size, settings.num_samples))
    waiting = iter(prompts)
    while batch := list(islice(waiting, at_once)):
        if beams or settings.num_samples <= rows:
            yield write(batch, settings)
        elif settings.best is None:
            yield from _parts(write, batch[0], settings, rows)
        else:
            yield all_parts(write, batch[0], settings, rows)


def all_parts(write: Write, prompt: str, settings: GenerationSettings, size: int) -> list[Completion]:
    """The samples of a prompt, written in parts of `size` or less, and the best of them all if the settings say so."""
    found = list(chain.from_iterable(_parts(write, prompt, settings, size)))
    return found if settings.best is None else likeliest(found, settings.best)


def _parts(write: Write, prompt: str, settings: GenerationSettings, size: int) -> Iterator[list[Completion]]:
    beams = settings.beam_size > 1
    first = settings.seed if settings.seed is not None else secrets.randbits(32)
    for index, done in enumerate(range(0, settings.num_samples, size)):
        number = min(size, settings.num_samples - done)
        # What is not among the best of its part is not among the best.
        best = None if settings.best is None else min(settings.best, number)
        # A sample has a seed of its own, and a search one for all its beams.
        seed = first + (index if beams else done)
        written = write([prompt], settings.but(num_samples=number, best=best, seed=seed))
        yield written if beams else [replace(each, sample=done + each.sample) for each in written]
