"""Generates the texts of many requests together, each the same as alone.

One thread owns the model. In every round it reads the next tokens of all texts in one pass of the network
(`shared_passes.py`). Apart from that every text has its own loop, with its own settings, controls, seed and drafts. A
text joins at the next round and leaves when it ends. What cannot be combined (beams, models of other architectures)
takes turns with the rounds, one step at a time.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fundamentallm_hf.portable.decoding.deferred import CannotDefer, Deferred
from fundamentallm_hf.portable.decoding.drafts import Draft
from fundamentallm_hf.portable.decoding.lean_loop import LeanLoop
from fundamentallm_hf.portable.decoding.row_drafts import worth
from fundamentallm_hf.settings.chat_messages import Prompt

from .batch import Extras
from .beam_progress import TakeBest
from .chat import as_prompt
from .completion import Completion
from .generate_arguments import is_fundamentallm
from .generator import Generator
from .joint_choice import choose_together
from .shared_passes import SharedPasses, TextStep
from .turns import TurnTaker

# Texts and turns at a time; further ones wait. More rows hardly make a pass cheaper per token.
ROWS, TURNS = 32, 4
# Texts that may join in one round, so that running ones do not stand still while many arrive.
_JOINING = 4


@dataclass(eq=False)
class Request:
    """A computation that was asked for: a text, or anything else that needs the model.

    Attributes:
        alone: computes the result; called with a function that it calls before every step, or None.
        begin: prepares the loop of a text, which joins the others, and returns the function that reads the result after
            it has ended; None for what cannot be combined.
        interrupt: ends the computation at the next token once it is set.
        future: the result.
        accepted: done once the request is known to be possible; has the exception if it is not.
        began: when the computation began, by `time.monotonic`; None before.
    """

    alone: Callable[[Callable[[], None] | None], Any]
    begin: Callable[[Deferred], Callable[[], Any]] | None = None
    interrupt: threading.Event = field(default_factory=threading.Event)
    future: Future = field(default_factory=Future)
    accepted: "Future[None]" = field(default_factory=Future)
    began: float | None = None

    @property
    def seconds(self) -> float:
        """Since the computation began; 0 before."""
        return 0.0 if self.began is None else time.monotonic() - self.began

    def set_accepted(self, error: BaseException | None = None) -> None:
        """Report that the request is possible, or why it is not; the first report counts."""
        if self.accepted.done():
            return
        if error is None:
            self.accepted.set_result(None)
        else:
            self.accepted.set_exception(error)

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        self.set_accepted(error)
        if not self.future.done():
            self.future.set_exception(error)

    def finish(self, result: Any) -> None:
        """End with a result."""
        self.set_accepted()
        if not self.future.done():
            self.future.set_result(result)


@dataclass(eq=False)
class _Text:
    """A text that is being generated."""

    request: Request
    read: Callable[[], Any]
    loop: LeanLoop
    step: TextStep
    draft: Draft = field(default_factory=lambda: Draft([]))
    error: BaseException | None = None


@dataclass
class Counts:
    """What a batcher has done and is doing.

    Attributes:
        requests: number of requests that have ended.
        failed: number of requests that have ended with an error.
        tokens: number of tokens generated in texts that do not take turns.
        running: number of requests that are being computed now.
        waiting: number of requests in the queue now.
        passes: number of passes of the network for those texts together.
        advanced: number of texts in each of these passes, summed over all passes.
    """

    requests: int = 0
    failed: int = 0
    tokens: int = 0
    running: int = 0
    waiting: int = 0
    passes: int = 0
    advanced: int = 0


class Batcher:
    """Generates the texts of many requests together. Its methods may be called from any thread.

    Args:
        generator: of the model, which must not be used in another way meanwhile.
        rows: texts that are generated at a time; others wait.

    Example:

    ```python
    >>> from fundamentallm_hf import Generator, load_model
    >>> from fundamentallm_hf.generation.batcher import Batcher
    >>> batcher = Batcher(Generator(load_model(device="cpu"), temperature=0))
    >>> requests = [batcher.submit(prompt, max_tokens=1) for prompt in ("Once upon a time", "One da")]
    >>> [request.future.result().text for request in requests]
    ['Once upon a time,', 'One day']
    >>> batcher.close()

    ```
    """

    def __init__(self, generator: Generator, rows: int = ROWS) -> None:
        self.generator, self.rows = generator, rows
        self.counts = Counts()
        self._waiting: deque[Request] = deque()
        self._texts: list[_Text] = []
        self._turns: list[TurnTaker] = []
        self._passes: SharedPasses | None = None
        self._changed = threading.Condition()
        self._ending = self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="fundamentallm-batcher")
        self._thread.start()

    def submit(
        self,
        prompt: Prompt,
        *,
        scored: bool = False,
        probabilities: int = 0,
        interrupt: threading.Event | None = None,
        take: Callable[[str], None] | None = None,
        progress: TakeBest | None = None,
        **settings: Any,
    ) -> Request:
        """Ask for one text.

        Args:
            prompt: as in `Generator.generate`.
            scored, probabilities, interrupt: as in `Generator.complete`.
            take: called with every piece of the text, from the thread of the batcher, and must return at once.
            progress: as in `Generator.complete`; called like `take`.
            settings: in place of the generator's; the number of samples is 1.

        Raises:
            UserError: as in `Generator.generate`. Other errors are those of the request's future.
        """
        generator = self.generator
        chosen = generator.settings.replace(**settings).with_files_read().replace(num_samples=1, best=None)
        chosen.check()
        text = as_prompt(prompt, generator.tokenizer)
        stop = interrupt or threading.Event()
        extras = Extras(scored, probabilities, stop, progress=progress)
        if take is not None and chosen.beam_size == 1:
            extras = extras.streamed(text, chosen, generator.tokenizer, take)

        def begin(deferred: Deferred) -> Callable[[], Completion]:
            return generator.begin(text, chosen, replace(extras, deferred=deferred)).finish

        def alone(turn: Callable[[], None] | None) -> Completion:
            completion = generator.run_alone(text, chosen, replace(extras, turn=turn))
            if take is not None and chosen.beam_size > 1:  # which text is the most probable is known at the end
                take(completion.completion)
            return completion

        together = chosen.beam_size == 1 and is_fundamentallm(generator.model)
        return self.add(Request(alone, begin if together else None, stop))

    def add(self, request: Request) -> Request:
        """Queue a request, and return it.

        Raises:
            RuntimeError: the batcher is closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the server is being stopped")
            self._waiting.append(request)
            self._count()
            self._changed.notify()
        return request

    def ahead(self, request: Request) -> int | None:
        """How many requests are before this one in the queue; None once it has started."""
        with self._changed:
            return list(self._waiting).index(request) if request in self._waiting else None

    def close(self) -> None:
        """End all texts at the next token, and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def end(self) -> None:
        """End the thread after the requests that are there. Nothing waits for that here."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def _count(self) -> None:
        self.counts.waiting = len(self._waiting)
        self.counts.running = len(self._texts) + len(self._turns)
        if self._passes is not None:
            self.counts.passes, self.counts.advanced = self._passes.passes, self._passes.advanced

    @torch.no_grad()
    def _work(self) -> None:
        reason: BaseException = RuntimeError("the server is being stopped")
        try:
            while self._wait():
                self._step()
        except BaseException as error:  # nobody may wait for ever
            reason = error
        with self._changed:
            self._closed = True
        running = [*(text.request for text in self._texts), *(turn.request for turn in self._turns)]
        for left in (*self._waiting, *running):
            left.fail(reason)

    def _wait(self) -> bool:
        """Wait until there is something to do. Returns whether there is."""
        with self._changed:
            while not (busy := bool(self._waiting or self._texts or self._turns)) and not self._closed:
                if self._ending:
                    self._closed = True
                else:
                    self._changed.wait()
            return busy and not self._closed

    def _step(self) -> None:
        with self._changed:
            joining = self._joining()
        for each in joining:
            self._join(each)
        self._round()
        for turn in [turn for turn in self._turns if turn.take()]:
            self._turns.remove(turn)
            self._ended(turn.request)
        self._count()

    def _joining(self) -> list[Request]:
        """Take those out of the queue that join in this round."""
        rows, turns = min(_JOINING, self.rows - len(self._texts)), TURNS - len(self._turns)
        joining: list[Request] = []
        for each in list(self._waiting):
            if each.begin is None:
                turns -= 1
                fits = turns >= 0
            else:
                rows -= 1
                fits = rows >= 0
            # One that was stopped while it waited needs no more than a step.
            if fits or each.interrupt.is_set():
                self._waiting.remove(each)
                joining.append(each)
        return joining

    def _join(self, request: Request) -> None:
        if not request.future.set_running_or_notify_cancel():
            return
        request.began = time.monotonic()
        # There may be no row for a request that was interrupted while it waited.
        if request.begin is None or len(self._texts) >= self.rows:
            self._turns.append(TurnTaker(request))
            return
        try:
            self._begin(request, request.begin)
        except CannotDefer:
            self._turns.append(TurnTaker(request))
        except BaseException as error:
            request.fail(error)
            self._ended(request)

    def _begin(self, request: Request, begin: Callable[[Deferred], Callable[[], Any]]) -> None:
        """Prepare the loop of a text."""
        steps: list[TextStep] = []

        def new_step(rows: int, columns: int) -> TextStep:
            if self._passes is None:
                self._passes = SharedPasses(self.generator.model, self.rows)
            steps.append(self._passes.new_step(rows, columns))
            return steps[-1]

        deferred = Deferred(new_step, plain=self._passes is not None)
        try:
            read = begin(deferred)
        except BaseException:
            for step in steps:
                assert self._passes is not None
                self._passes.remove(step)
            raise
        assert deferred.loop is not None
        deferred.loop.open()
        request.set_accepted()
        self._texts.append(_Text(request, read, deferred.loop, steps[0]))

    def _round(self) -> None:
        """Advance every text by at least one token."""
        before = sum(text.loop.length for text in self._texts)
        together, least = [], worth(max(1, len(self._texts)))
        for text in self._texts:
            try:
                if text.loop.drafter is not None:
                    text.loop.drafter.worth = least
                text.draft = text.loop.draft()
                if text.loop.joins(text.draft.tokens):
                    together.append(text)
                else:
                    text.loop.take(text.loop.compute(text.draft.tokens), text.draft)
            except BaseException as error:
                text.error = error
        if together:
            self._advance(together)
        self.counts.tokens += sum(text.loop.length for text in self._texts) - before
        for text in [each for each in self._texts if each.error is not None or not any(each.loop.going)]:
            self._leave(text)

    def _advance(self, texts: list[_Text]) -> None:
        """Compute the next tokens of these texts in one pass."""
        assert self._passes is not None
        texts = sorted(texts, key=lambda text: text.step.row)
        lengths = [text.step.length for text in texts]
        tokens = [[int(text.loop.ids[0, text.loop.length - 1]), *text.draft.tokens] for text in texts]
        try:
            found = self._passes.compute([text.step for text in texts], tokens)
            chosen = choose_together([text.loop for text in texts], [logits for logits, _ in found])
        except BaseException as error:
            for text, length in zip(texts, lengths, strict=True):
                text.step.length = length
            if len(texts) > 1:  # so that the error of one does not touch the others
                for text in texts:
                    self._advance([text])
            else:
                texts[0].error = error
            return
        for text, (logits, states), choice in zip(texts, found, chosen, strict=True):
            try:
                text.loop.count_pass(states[None])
                text.loop.take(logits[None], text.draft, choice)
            except BaseException as error:
                text.error = error

    def _leave(self, text: _Text) -> None:
        """Read a text that has ended."""
        assert self._passes is not None
        self._texts.remove(text)
        try:
            text.loop.close()
            self._passes.remove(text.step)
            if text.error is not None:
                raise text.error
            if text.loop.streamer is not None:
                text.loop.streamer.end()
            text.request.finish(text.read())
        except BaseException as error:
            text.request.fail(error)
        self._ended(text.request)

    def _ended(self, request: Request) -> None:
        self.counts.requests += 1
        self.counts.failed += request.future.exception() is not None
