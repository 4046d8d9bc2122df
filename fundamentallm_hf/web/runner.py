"""Runs the computations of the page: texts as they are generated, comparisons, beams, the next token.

All access to the model goes through `Writer`. Its methods take and return plain values, so that a Space with ZeroGPU
can run them in another process. Requests are checked earlier (`limits.py`).
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fundamentallm_hf.generation.beam_tree import Branch
from fundamentallm_hf.generation.completion import Completion
from fundamentallm_hf.generation.generator import Generator
from fundamentallm_hf.generation.probabilities import Prediction
from fundamentallm_hf.portable.decoding.context_window import can_slide, slides
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .limits import LIMITS, Limits

# Seconds between two updates of a text that is being generated.
PACE = 0.1


class Stops:
    """The requests that can be stopped, by their tickets.

    A request is registered here when it is made, even while it waits for its turn.
    """

    def __init__(self) -> None:
        self._events: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def open(self, ticket: str) -> None:
        """Register a request; a running one of the same ticket is stopped."""
        with self._lock:
            before = self._events.get(ticket)
            self._events[ticket] = threading.Event()
        if before is not None:
            before.set()

    def stop(self, ticket: str) -> None:
        """Stop the request."""
        event = self._events.get(ticket)
        if event is not None:
            event.set()

    def find(self, ticket: str) -> threading.Event:
        """The event that is set when the request has to end."""
        with self._lock:
            return self._events.setdefault(ticket, threading.Event())

    def close(self, ticket: str, event: threading.Event) -> None:
        """Forget a finished request, unless another one has replaced it."""
        with self._lock:
            if self._events.get(ticket) is event:
                del self._events[ticket]

    def __len__(self) -> int:
        return len(self._events)


@dataclass(frozen=True)
class Written:
    """A text, finished or not.

    Attributes:
        prompt: the start of the text.
        text: the text added so far.
        completion: the whole completion, once it is finished.
        seconds: from the start of its computation until now.
        slides: how often the model's window has moved; None while it is not finished.
    """

    prompt: str
    text: str = ""
    completion: Completion | None = None
    seconds: float = 0.0
    slides: int | None = None


class Writer:
    """Generates with one model, one request at a time: the page's queue ensures that.

    Args:
        generator: of the model; its settings are the defaults.
        stops: the requests that can be stopped.
        limits: of this demo.
        apart: decorates the functions that compute, so that they run in another process (`spaces.GPU`). None runs them
            here.
    """

    def __init__(
        self,
        generator: Generator,
        stops: Stops | None = None,
        limits: Limits = LIMITS,
        apart: Callable[[Callable], Callable] | None = None,
    ) -> None:
        self.generator = generator
        self.stops = Stops() if stops is None else stops
        self.limits = limits
        self._apart = apart is not None
        if apart is not None:
            self._write, self._compare = apart(self._write), apart(self._compare)  # type: ignore[method-assign]
            self.search, self.next_tokens = apart(self.search), apart(self.next_tokens)  # type: ignore[method-assign]

    def write(self, prompt: str, settings: GenerationSettings, ticket: str = "") -> Iterator[list[Written]]:
        """Generate all samples and show them as they grow.

        One after another where that gives the same texts, so that each can be read as it is generated; together where
        it does not: beams, and the best of several.

        Args:
            prompt: the start of the texts.
            settings: with a seed where one matters.
            ticket: identifies the request, to stop it.

        Yields:
            All texts, as far as they are generated.
        """
        yield from self._until_stopped(self._write(prompt, settings, ticket), ticket)

    def compare(self, prompt: str, columns: list[GenerationSettings], ticket: str = "") -> Iterator[list[Written]]:
        """Generate one text with each of several settings.

        Yields:
            One text for each, as far as they are generated.
        """
        yield from self._until_stopped(self._compare(prompt, columns, ticket), ticket)

    def _until_stopped(self, updates: Iterator[list[Written]], ticket: str) -> Iterator[list[Written]]:
        """The updates up to a stop, where they come from another process, which our event does not reach."""
        if not self._apart or not ticket:
            yield from updates
            return
        stop = self.stops.find(ticket)
        try:
            for texts in updates:
                yield texts
                if stop.is_set():
                    updates.close()  # type: ignore[attr-defined]
                    yield [self._cut_short(each) for each in texts if each.text]
                    return
        finally:
            self.stops.close(ticket, stop)

    def _write(self, prompt: str, settings: GenerationSettings, ticket: str) -> Iterator[list[Written]]:
        with self._working(ticket) as stop:
            if settings.num_samples > 1 and (settings.beam_size > 1 or settings.best is not None):
                yield [Written(prompt)] * (settings.best or settings.num_samples)
                began = time.monotonic()
                found = self._complete(prompt, settings, stop)
                yield [self._finished(each, time.monotonic() - began) for each in found]
                return
            done: list[Written] = []
            waiting = [Written(prompt)] * settings.num_samples
            yield waiting
            for index in range(settings.num_samples):
                if index and stop.is_set():
                    break
                seed = settings.seed if settings.seed is None else settings.seed + index
                for written in self._stream(prompt, settings.replace(num_samples=1, seed=seed), stop):
                    yield [*done, written, *waiting[index + 1 :]]
                done.append(replace(written, completion=replace(_whole(written), sample=index)))
            yield done

    def _compare(self, prompt: str, columns: list[GenerationSettings], ticket: str) -> Iterator[list[Written]]:
        with self._working(ticket) as stop:
            done: list[Written] = []
            for index, settings in enumerate(columns):
                if index and stop.is_set():
                    break
                waiting = [Written(prompt)] * (len(columns) - index - 1)
                for written in self._stream(prompt, settings.replace(num_samples=1, best=None), stop):
                    yield [*done, written, *waiting]
                done.append(written)
            yield done

    def search(self, prompt: str, settings: GenerationSettings, ticket: str = "") -> tuple[Written, list[Branch]]:
        """Search with beams for one text, and report the others."""
        with self._working(ticket) as stop:
            began = time.monotonic()
            options = settings.replace(num_samples=1, best=None).to_dict()
            completion, branches = self.generator.search(prompt, interrupt=stop, **options)
            return self._finished(completion, time.monotonic() - began), branches

    def next_tokens(self, prompt: str, settings: GenerationSettings, top: int) -> list[Prediction]:
        """The most probable next tokens, by the raw model and after settings."""
        with self._working(""):
            return self.generator.next_tokens(prompt, top=top, **settings.to_dict())

    @contextmanager
    def _working(self, ticket: str) -> Iterator[threading.Event]:
        """The event that ends the request: set by its visitor, or when it takes longer than allowed."""
        stop = self.stops.find(ticket) if ticket else threading.Event()
        timer = threading.Timer(self.limits.seconds, stop.set)
        timer.daemon = True
        timer.start()
        try:
            yield stop
        finally:
            timer.cancel()
            if ticket:
                self.stops.close(ticket, stop)

    def _stream(self, prompt: str, settings: GenerationSettings, stop: threading.Event) -> Iterator[Written]:
        began = shown = time.monotonic()
        text = ""
        options: dict[str, Any] = {"scored": True, "probabilities": self.limits.alternatives}
        with self.generator.stream(prompt, interrupt=stop, **options, **settings.to_dict()) as stream:
            for piece in stream:
                text += piece
                if time.monotonic() - shown >= PACE:
                    shown = time.monotonic()
                    yield Written(prompt, text, seconds=shown - began)
            written = time.monotonic() - began
            yield self._finished(stream.result, written)

    def _complete(self, prompt: str, settings: GenerationSettings, stop: threading.Event) -> list[Completion]:
        return self.generator.complete(
            prompt, scored=True, probabilities=self.limits.alternatives, interrupt=stop, **settings.to_dict()
        )

    def _cut_short(self, written: Written) -> Written:
        """A text that was stopped from outside, as far as it was generated."""
        if written.completion is not None:
            return written
        tokens = len(self.generator.tokenizer(written.text, verbose=False).input_ids)
        completion = Completion(written.prompt, written.text, "interrupted", tokens, None)
        return replace(written, completion=completion)

    def _finished(self, completion: Completion, seconds: float) -> Written:
        count = 0
        if can_slide(self.generator.model):
            window = self.generator.model.config.max_position_embeddings
            given = max(1, len(self.generator.tokenizer(completion.prompt, verbose=False).input_ids))
            count = slides(given, given + completion.tokens, window)
        return Written(completion.prompt, completion.completion, completion, seconds, count)


def _whole(written: Written) -> Completion:
    assert written.completion is not None  # the last item of a stream
    return written.completion
