"""Shares out texts that are too many for one batch. This file knows nothing of how a batch is written."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice

from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .completion import Completion, likeliest

# Writes all samples of all prompts at once, and keeps the best of each prompt's if the settings say so.
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
