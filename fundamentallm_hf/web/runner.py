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

from fundamentallm_hf.generation.batcher import Batcher, Request
from fundamentallm_hf.generation.beam_tree import Branch
from fundamentallm_hf.generation.chat import as_prompt, encode
from fundamentallm_hf.generation.completion import Completion, likeliest
from fundamentallm_hf.generation.generator import Generator
from fundamentallm_hf.generation.probabilities import Prediction, TokenNames
from fundamentallm_hf.model_io.tokenizer import unknown_characters, unknown_notice
from fundamentallm_hf.portable.decoding.context_window import can_slide, slides
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .growing_text import GrowingText, PlacedShift, Pull, find_pulls, find_shifts
from .limits import LIMITS, Limits, read_messages, read_prompt
from .stops import Clock, Stops

# Seconds between two updates of a text that is being generated, and of a place in the queue.
PACE, WAITING_PACE = 0.1, 0.5
# With more texts at a time than this, each is updated less often, so that showing texts leaves time to compute them.
VISITORS = 4
# Texts that are generated at a time; others wait.
ROWS = 24


@dataclass(frozen=True)
class Written:
    """A text, finished or not.

    Attributes:
        prompt: the start of the text.
        text: the text added so far.
        completion: the whole completion, once it is finished.
        seconds: from the start of its computation until now.
        slides: how often the model's window has moved; None while it is not finished.
        ahead: how many requests are before it in the queue; None once it has started.
        settled: how many characters of `text` are certain, during a beam search; None where all are.
        shifts: where controls have shifted the text.
        pulls: the words that guides have pulled.
    """

    prompt: str
    text: str = ""
    completion: Completion | None = None
    seconds: float = 0.0
    slides: int | None = None
    ahead: int | None = None
    settled: int | None = None
    shifts: tuple[PlacedShift, ...] = ()
    pulls: tuple[Pull, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What a request needs besides the finished texts.

    Attributes:
        growing: the texts while they are generated.
        probabilities: those of every token, and what controls did to them.
    """

    growing: bool = True
    probabilities: bool = True


PAGE = Wanted()


class Writer:
    """Generates with one model, the texts of several visitors together.

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
        self._batcher: Batcher | None = None
        self._making = threading.Lock()
        self._apart = apart is not None
        if apart is not None:
            self._write, self._compare = apart(self._write), apart(self._compare)  # type: ignore[method-assign]
            self.search, self.next_tokens = apart(self.search), apart(self.next_tokens)  # type: ignore[method-assign]

    @property
    def batcher(self) -> Batcher:
        """Computes everything. It is created in the process that computes."""
        with self._making:
            if self._batcher is None:
                self._batcher = Batcher(self.generator, ROWS)
            return self._batcher

    @property
    def can_chat(self) -> bool:
        """Whether the model's tokenizer has a chat template."""
        return bool(getattr(self.generator.tokenizer, "chat_template", None))

    def read_prompt(self, prompt: Any, messages: Any = ()) -> str:
        """A prompt, or a chat through the model's template.

        Args:
            prompt: the start of a text, where there are no messages.
            messages: of a chat; none for a text.

        Raises:
            UsageError: it is neither, too long, or the model has no template, or one that refuses the chat.
        """
        if not messages:
            return read_prompt(prompt, self.limits)
        return as_prompt(read_messages(messages, self.limits), self.generator.tokenizer)

    def notice(self, prompt: str) -> str:
        """What visitors are told of the characters that the model has no token for; "" where there are none."""
        unknown = unknown_characters(self.generator.tokenizer, prompt)
        return unknown_notice(self.generator.tokenizer, unknown) if unknown else ""

    def write(
        self, prompt: str, settings: GenerationSettings, ticket: str = "", wanted: Wanted = PAGE
    ) -> Iterator[list[Written]]:
        """Generate all samples and show them as they grow; the best of several once all are finished.

        Of several samples of a beam search, only the best one is shown before the end.

        Args:
            prompt: the start of the texts.
            settings: with a seed where one matters.
            ticket: identifies the request, to stop it.
            wanted: what else to compute than the texts.

        Yields:
            All texts, as far as they are generated.
        """
        yield from self._until_stopped(self._write(prompt, settings, ticket, wanted), ticket)

    def compare(
        self, prompt: str, columns: list[GenerationSettings], ticket: str = "", wanted: Wanted = PAGE
    ) -> Iterator[list[Written]]:
        """Generate one text with each of several settings; otherwise as `write`.

        Yields:
            One text for each, as far as they are generated.
        """
        yield from self._until_stopped(self._compare(prompt, columns, ticket, wanted), ticket)

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

    def _write(self, prompt: str, settings: GenerationSettings, ticket: str, wanted: Wanted) -> Iterator[list[Written]]:
        with self._working(ticket) as clock:
            if settings.beam_size > 1 and settings.num_samples > 1:
                others = [Written(prompt)] * ((settings.best or settings.num_samples) - 1)
                growing = self._growing()
                request = self._take_turns(
                    clock, self.generator.complete, prompt, settings, growing, **self._extras(wanted)
                )
                for _ in self._ticks([request], [growing], clock):
                    yield [self._unfinished(prompt, growing, request), *others]
                yield [self._finished(each, request.seconds) for each in request.future.result()]
                return
            parts = [
                settings.replace(
                    num_samples=1, best=None, seed=None if settings.seed is None else settings.seed + index
                )
                for index in range(settings.num_samples)
            ]
            for texts in self._stream(prompt, parts, clock, wanted):
                if settings.best is None:
                    yield texts
                elif all(each.completion for each in texts):
                    best = likeliest([_whole(each) for each in texts], settings.best)
                    seconds = max(each.seconds for each in texts)
                    yield [self._finished(each, seconds) for each in best]
                else:
                    yield [Written(prompt, ahead=texts[0].ahead)] * settings.best

    def _compare(
        self, prompt: str, columns: list[GenerationSettings], ticket: str, wanted: Wanted
    ) -> Iterator[list[Written]]:
        with self._working(ticket) as clock:
            parts = [each.replace(num_samples=1, best=None) for each in columns]
            yield from self._stream(prompt, parts, clock, wanted)

    def search(
        self, prompt: str, settings: GenerationSettings, ticket: str = ""
    ) -> Iterator[tuple[Written, list[Branch]]]:
        """Search with beams for one text, and show the best one so far.

        Yields:
            The text, and at the end all branches.
        """
        with self._working(ticket) as clock:
            chosen, growing = settings.replace(num_samples=1, best=None), self._growing()
            request = self._take_turns(clock, self.generator.search, prompt, chosen, growing)
            for _ in self._ticks([request], [growing], clock):
                yield self._unfinished(prompt, growing, request), []
            completion, branches = request.future.result()
            yield self._finished(completion, request.seconds), branches

    def next_tokens(self, prompt: str, settings: GenerationSettings, top: int) -> list[Prediction]:
        """The most probable next tokens, by the raw model and after settings."""

        def compute(turn: Callable[[], None] | None) -> list[Prediction]:
            return self.generator.next_tokens(prompt, top=top, **settings.to_dict())

        return self.batcher.add(Request(compute)).future.result()

    @contextmanager
    def _working(self, ticket: str) -> Iterator["Clock"]:
        """What ends the request: its visitor, or a computation that takes longer than allowed."""
        stop = self.stops.find(ticket) if ticket else threading.Event()
        try:
            yield Clock(stop, self.limits.seconds)
        finally:
            if ticket:
                self.stops.close(ticket, stop)

    def _extras(self, wanted: Wanted) -> dict[str, Any]:
        return {"scored": True, "probabilities": self.limits.alternatives if wanted.probabilities else 0}

    def _growing(self) -> GrowingText:
        return GrowingText(TokenNames(self.generator.tokenizer))

    def _stream(
        self, prompt: str, parts: list[GenerationSettings], clock: "Clock", wanted: Wanted
    ) -> Iterator[list[Written]]:
        """Generate a text with each of these settings, together."""
        growing, requests = [self._growing() for _ in parts], list[Request]()
        finished: dict[int, Written] = {}

        def texts() -> list[Written]:
            for index, request in enumerate(requests):
                if index not in finished and request.future.done():
                    finished[index] = self._finished(replace(request.future.result(), sample=index), request.seconds)
            pairs = enumerate(zip(growing, requests, strict=True))
            return [finished.get(index) or self._unfinished(prompt, *pair) for index, pair in pairs]

        try:
            for text, settings in zip(growing, parts, strict=True):
                show = {"take": text.take} if settings.beam_size == 1 else {"progress": text.show_best}
                options = self._extras(wanted) | (show if wanted.growing else {}) | settings.to_dict()
                requests.append(self.batcher.submit(prompt, interrupt=clock.stop, **options))
            for _ in self._ticks(requests, growing, clock):
                yield texts()
            yield texts()
        except BaseException:  # one of the texts has failed
            clock.stop.set()
            raise

    def _ticks(self, requests: list[Request], growing: list[GrowingText], clock: "Clock") -> Iterator[None]:
        """Whenever there may be more to show, until all requests have ended. Whoever leaves before that stops them.

        The first characters are shown at once, further ones at the pace that the number of texts allows.
        """
        changed, ended = threading.Event(), threading.Event()

        def report(_: object) -> None:
            changed.set()
            ended.set()

        for text in growing:
            text.changed = changed
        for request in requests:
            request.future.add_done_callback(report)
        try:
            due = 0.0
            yield
            while not all(each.future.done() for each in requests):
                changed.wait(WAITING_PACE)
                ended.wait(max(0.0, due - time.monotonic()))
                changed.clear()
                ended.clear()
                clock.look(max(each.seconds for each in requests))
                if not all(each.future.done() for each in requests):
                    due = time.monotonic() + PACE * max(1.0, self.batcher.counts.running / VISITORS)
                    yield
        finally:
            if not all(each.future.done() for each in requests):
                clock.stop.set()

    def _unfinished(self, prompt: str, growing: GrowingText, request: Request) -> Written:
        return Written(prompt, seconds=request.seconds, ahead=self.batcher.ahead(request), **growing.fields())

    def _take_turns(
        self,
        clock: "Clock",
        work: Callable,
        prompt: str,
        settings: GenerationSettings,
        growing: GrowingText,
        **more: Any,
    ) -> Request:
        """Ask for a method of the generator that searches with beams, computed in turns with the texts."""

        def compute(turn: Callable[[], None] | None) -> Any:
            def look() -> None:
                clock.look(request.seconds)
                if turn is not None:
                    turn()

            options = more | settings.to_dict()
            return work(prompt, interrupt=clock.stop, turn=look, progress=growing.show_best, **options)

        request = Request(compute, interrupt=clock.stop)
        return self.batcher.add(request)

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
            given = max(1, len(encode([completion.prompt], self.generator.tokenizer)[0]))
            count = slides(given, given + completion.tokens, window)
        tokens = completion.probabilities or ()
        shifts, pulls = find_shifts(tokens, TokenNames(self.generator.tokenizer)), find_pulls(tokens)
        return Written(completion.prompt, completion.completion, completion, seconds, count, shifts=shifts, pulls=pulls)


def _whole(written: Written) -> Completion:
    assert written.completion is not None  # the last item of a stream
    return written.completion
