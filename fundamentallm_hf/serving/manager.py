"""Computes the requests of `transformers serve` together, in place of its manager that takes them one by one."""

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.cli.serving import utils
from transformers.generation.streamers import BaseStreamer

from fundamentallm_hf.generation.batch import RowReader, torch_seeded
from fundamentallm_hf.generation.batcher import Batcher, Counts, Request
from fundamentallm_hf.generation.generate_arguments import end_tokens, is_fundamentallm, token_budgets
from fundamentallm_hf.generation.generator import Generator
from fundamentallm_hf.generation.probabilities import log_probability
from fundamentallm_hf.generation.streaming import EveryStep, StopWhenSet, TokenTextStreamer
from fundamentallm_hf.portable.controls.control_fields import CONTROL_FIELDS
from fundamentallm_hf.portable.controls.custom_generate import generate as generate_with_controls
from fundamentallm_hf.portable.decoding.deferred import Deferred
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .logprobs import TokenLogProb, TokenLogProbs
from .request_fields import Asked

# Seconds between two pieces of a streamed text.
PACE = 0.03
# One for each model, whichever endpoint it is asked at, until the model is unloaded; and what those before have done.
_BATCHERS: dict[Any, Batcher] = {}
_PAST: list[Counts] = []
_MAKING = threading.Lock()


def batcher_of(model: Any, tokenizer: Any) -> Batcher:
    """The batcher of a model."""
    with _MAKING:
        if model not in _BATCHERS:
            _BATCHERS[model] = Batcher(Generator(model, tokenizer, notice=lambda line: None))
        return _BATCHERS[model]


def release(model: Any) -> None:
    """Keep a model that is unloaded no longer than until the texts that it is generating have ended."""
    with _MAKING:
        batcher = _BATCHERS.pop(model, None)
        if batcher is not None:
            _PAST.append(batcher.counts)
            batcher.end()


def all_counts() -> list[Counts]:
    """What the batchers of all models have done, also of those that are unloaded."""
    with _MAKING:
        return [*_PAST, *(each.counts for each in _BATCHERS.values())]


@dataclass(frozen=True)
class Reading:
    """The text of a call.

    Attributes:
        text: what was added.
        tokens: of the text.
        logprobs: of these tokens; empty unless asked for.
        score: mean raw log-probability of a token, where the best of several texts are kept.
    """

    text: str
    tokens: list[int]
    logprobs: list[TokenLogProb]
    score: float = -math.inf


@dataclass(eq=False)
class Sample:
    """One of the texts that an HTTP request asks for.

    Attributes:
        asked: what it asks for.
        index: of the text.
        shared: the computations of the request; a search has one for all its texts.
        request: the computation, once it has been asked for; stays None for a text of the common batch.
        cancel: ends a text of the common batch; None for others.
        logprobs: collects the log-probabilities of a stream.
        tokenizer: of the model, once it is known.
    """

    asked: Asked
    index: int = 0
    shared: "list[Request]" = field(default_factory=list)
    request: Request | None = None
    cancel: Callable[[], None] | None = None
    logprobs: TokenLogProbs | None = None
    tokenizer: Any = None

    async def read(self) -> Reading:
        """The text, once it is complete."""
        assert self.request is not None
        rows = await asyncio.shield(asyncio.wrap_future(self.request.future))
        return rows[self.index if self.asked.beams > 1 else 0]

    def stop(self) -> None:
        """End the computation at the next token; nothing happens if it has ended."""
        if self.request is not None:
            self.request.interrupt.set()
        if self.cancel is not None:
            self.cancel()


# The sample that the current task answers.
SAMPLE: "ContextVar[Sample]" = ContextVar("SAMPLE")


class Call:
    """One text, or the texts of one search, as a call of `generate()`.

    Args:
        model, tokenizer: that generate.
        inputs: prompt and mask as tensors.
        config: of the request; see `Asked.make_config`.
        asked: what the request asks for.
    """

    def __init__(self, model: Any, tokenizer: Any, inputs: Mapping[str, Any], config: Any, asked: Asked) -> None:
        self.model, self.tokenizer, self.inputs, self.config, self.asked = model, tokenizer, inputs, config, asked
        self.streamer: BaseStreamer | None = None
        self.stop, self.logprobs = threading.Event(), None
        if asked.alternatives is not None:
            self.logprobs = TokenLogProbs(tokenizer, asked.alternatives, asked.beams > 1)
        self.settings: GenerationSettings | None = vars(config).pop("request_settings", None)
        self.processors = vars(config).pop("extra_processors", None)
        self.knows_controls = is_fundamentallm(model)

    def stream(self, streamer: BaseStreamer) -> None:
        """Pass every token to a streamer."""
        self.streamer = streamer
        if self.logprobs is not None:
            self.logprobs.streamer = streamer
            self.streamer = self.logprobs

    def request(self) -> Request:
        """For the batcher."""
        together = self.knows_controls and (self.config.num_beams or 1) == 1
        return Request(self._alone, self._begin if together else None, self.stop)

    def read(self, sequences: torch.Tensor) -> list[Reading]:
        """The text of every row."""
        given = self.inputs["input_ids"][0].tolist()
        rows = sequences[:, len(given) :].tolist()
        if len(rows) > 1:  # those that ended before others were filled up
            ends = set(end_tokens(self.model))
            closed = [next((at for at, token in enumerate(row) if token in ends), len(row)) for row in rows]
            rows = [row[: end + 1] for row, end in zip(rows, closed, strict=True)]
        return [self._read(given, [token for token in row if token >= 0]) for row in rows]

    def _read(self, given: list[int], added: list[int]) -> Reading:
        if self.settings is None:
            text, tokens = self.tokenizer.decode(added, skip_special_tokens=True), added
            written = added[:-1] if added and added[-1] in end_tokens(self.model) else added
        else:  # as the command does: cut at a stop text, without the end
            (budget,) = token_budgets(self.model, [len(given)], self.settings)
            row = RowReader(self.model, self.tokenizer, self.settings).read(given, added, budget)
            text, tokens = row.text, added[: row.tokens]
            written = tokens
        logprobs = [] if self.logprobs is None else self.logprobs.read(given, written)
        score = -math.inf
        if self.asked.settings.best is not None and written:
            score = log_probability(self.model, given + written, len(given)) / len(written)
        return Reading(text, tokens, logprobs, score)

    def _arguments(self, turn: Callable[[], None] | None) -> dict[str, Any]:
        criteria = StoppingCriteriaList([StopWhenSet(self.stop)])
        if turn is not None:
            criteria.append(EveryStep(turn))
        arguments: dict[str, Any] = {"generation_config": self.config, "stopping_criteria": criteria}
        arguments |= dict(self.inputs) | {"tokenizer": self.tokenizer, "streamer": self.streamer}
        processors = [*(self.processors or ()), *([] if self.logprobs is None else [self.logprobs.recorder])]
        return arguments | ({"logits_processor": LogitsProcessorList(processors)} if processors else {})

    def _begin(self, deferred: Deferred) -> Callable[[], list[Reading]]:
        self.model.generate(**self._arguments(None), custom_generate=deferred)

        def read() -> list[Reading]:
            assert deferred.loop is not None
            return self.read(deferred.loop.ids[:, : deferred.loop.length])

        return read

    def _alone(self, turn: Callable[[], None] | None) -> list[Reading]:
        own = self.model.generation_config
        controlled = any(getattr(each, name, None) for each in (self.config, own) for name in CONTROL_FIELDS)
        controlled = controlled or self.logprobs is not None  # which have to see the scores first
        generate = self.model.generate
        if controlled and not self.knows_controls:
            generate = partial(generate_with_controls, self.model)
        # Beams draw from torch's generator.
        beams = (self.config.num_beams or 1) > 1
        with torch_seeded(getattr(self.config, "seed", None) if beams else None, self.model.device):
            if self.settings is not None:  # the pipeline of the command draws a number first, as its loader's seed
                torch.empty((), dtype=torch.int64).random_()
            return self.read(generate(**self._arguments(turn)))


class QueueStreamer(BaseStreamer):
    """Puts the text that a request adds, cut as the command cuts it, into the queue of its answer.

    Waking the server's event loop takes longer than computing a character, so pieces are collected for a moment.
    """

    def __init__(self, call_soon: Callable[[Any], None], tokenizer: Any, settings: GenerationSettings) -> None:
        self._call_soon = call_soon
        self._pieces: list[str] = []
        self._handed_over = 0.0
        self._texts = TokenTextStreamer(tokenizer, self._pieces.append, settings.stop, settings.min_tokens)
        self._prompt_read = False
        self.total_tokens = 0

    def put(self, value: torch.Tensor) -> None:
        """`value`: the prompt at first, then each new token."""
        self.total_tokens += value.numel() if self._prompt_read else 0
        self._prompt_read = True
        self._texts.put(value)
        if self._pieces and time.monotonic() - self._handed_over > PACE:
            self._hand_over()

    def end(self) -> None:
        """Pass on what was held back."""
        self._texts.end()
        self._hand_over()
        self._call_soon(None)

    def _hand_over(self) -> None:
        self._handed_over = time.monotonic()
        if self._pieces:
            self._call_soon("".join(self._pieces))
            self._pieces.clear()


class Streamed:
    """What an endpoint of transformers needs of a stream: the number of tokens, and a way to end it."""

    def __init__(self, streamer: Any, stop: threading.Event) -> None:
        self._streamer, self._stop = streamer, stop

    @property
    def total_tokens(self) -> int:
        """Tokens so far."""
        return self._streamer.total_tokens

    def cancel(self) -> None:
        """End the text at the next token."""
        self._stop.set()


class Together(utils.GenerateManager):
    """Answers requests together, for any causal language model, with the controls requested.

    What the current task asks for is in `SAMPLE`.
    """

    def generate_streaming(
        self,
        model: Any,
        processor: Any,
        inputs: Mapping[str, Any],
        gen_config: Any,
        request_id: str,
        response_parser: Any = None,
    ) -> Any:
        """Like the method of the replaced manager."""
        tokenizer, loop = getattr(processor, "tokenizer", processor), asyncio.get_running_loop()
        queue: asyncio.Queue = asyncio.Queue()

        def call_soon(item: Any) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        sample = SAMPLE.get()
        call = Call(model, tokenizer, inputs, gen_config, sample.asked)
        streamer: Any
        if call.settings is not None and response_parser is None:
            streamer = QueueStreamer(call_soon, tokenizer, call.settings)
        else:
            streamer = utils.DirectStreamer(tokenizer._tokenizer, loop, queue, response_parser=response_parser)
        call.stream(streamer)
        request = batcher_of(model, tokenizer).add(call.request())

        def ended(future: Any) -> None:
            if (error := future.exception()) is not None:
                # The endpoint puts it between quotes.
                call_soon(utils._StreamError(json.dumps(str(error))[1:-1]))

        request.future.add_done_callback(ended)
        sample.request, sample.logprobs, sample.tokenizer = request, call.logprobs, tokenizer
        return queue, Streamed(streamer, call.stop)

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Mapping[str, Any], gen_config: Any, request_id: str
    ) -> Any:
        """Like the method of the replaced manager."""
        tokenizer, sample = getattr(processor, "tokenizer", processor), SAMPLE.get()
        if sample.asked.beams > 1 and sample.shared:
            sample.request = sample.shared[0]
        else:
            call = Call(model, tokenizer, inputs, gen_config, sample.asked)
            sample.request = batcher_of(model, tokenizer).add(call.request())
            sample.shared.append(sample.request)
        sample.tokenizer = tokenizer
        try:
            reading = await sample.read()
        except asyncio.CancelledError:
            sample.stop()
            raise
        return reading.text, inputs["input_ids"].shape[-1], reading.tokens
