"""Computes the requests of `transformers serve` together, in place of its manager that takes them one by one."""

import asyncio
import json
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from transformers import StoppingCriteriaList
from transformers.cli.serving import utils
from transformers.generation.streamers import BaseStreamer

from fundamentallm_hf.generation.batch import RowReader, torch_seeded
from fundamentallm_hf.generation.batcher import Batcher, Request
from fundamentallm_hf.generation.generate_arguments import is_fundamentallm, token_budgets
from fundamentallm_hf.generation.generator import Generator
from fundamentallm_hf.generation.streaming import EveryStep, StopWhenSet, TokenTextStreamer
from fundamentallm_hf.portable.controls.control_fields import CONTROL_FIELDS
from fundamentallm_hf.portable.controls.custom_generate import generate as generate_with_controls
from fundamentallm_hf.portable.decoding.deferred import Deferred
from fundamentallm_hf.settings.generation_settings import GenerationSettings

# Seconds between two pieces of a streamed text.
PACE = 0.03
# One for each model, whichever endpoint it is asked at.
_BATCHERS: "weakref.WeakKeyDictionary[Any, Batcher]" = weakref.WeakKeyDictionary()
_MAKING = threading.Lock()


def batcher_of(model: Any, tokenizer: Any) -> Batcher:
    """The batcher of a model."""
    with _MAKING:
        if model not in _BATCHERS:
            _BATCHERS[model] = Batcher(Generator(model, tokenizer, notice=lambda line: None))
        return _BATCHERS[model]


def batchers() -> list[Batcher]:
    """Those of all models."""
    with _MAKING:
        return list(_BATCHERS.values())


class Call:
    """One request as a call of `generate()`.

    Args:
        model, tokenizer: that generate.
        inputs: prompt and mask as tensors.
        config: of the request; see `Asked.make_config`.
        streamer: receives the tokens; may be None.
    """

    def __init__(
        self, model: Any, tokenizer: Any, inputs: Mapping[str, Any], config: Any, streamer: BaseStreamer | None = None
    ) -> None:
        self.model, self.tokenizer, self.inputs, self.config = model, tokenizer, inputs, config
        self.streamer, self.stop = streamer, threading.Event()
        self.settings: GenerationSettings | None = vars(config).pop("request_settings", None)
        self.processors = vars(config).pop("extra_processors", None)
        self.knows_controls = is_fundamentallm(model)

    def request(self) -> Request:
        """For the batcher."""
        together = self.knows_controls and (self.config.num_beams or 1) == 1
        return Request(self._alone, self._begin if together else None, self.stop)

    def read(self, sequences: torch.Tensor) -> tuple[str, int, list[int]]:
        """The text, the number of tokens of the prompt, and the tokens of the text."""
        given = self.inputs["input_ids"][0].tolist()
        added = sequences[0, len(given) :].tolist()
        if self.settings is None:
            return self.tokenizer.decode(added, skip_special_tokens=True), len(given), added
        # As the command does: cut at a stop text, without the end.
        (budget,) = token_budgets(self.model, [len(given)], self.settings)
        row = RowReader(self.model, self.tokenizer, self.settings).read(given, added, budget)
        return row.text, len(given), added[: row.tokens]

    def _arguments(self, turn: Callable[[], None] | None) -> dict[str, Any]:
        criteria = StoppingCriteriaList([StopWhenSet(self.stop)])
        if turn is not None:
            criteria.append(EveryStep(turn))
        arguments: dict[str, Any] = {"generation_config": self.config, "stopping_criteria": criteria}
        arguments |= dict(self.inputs) | {"tokenizer": self.tokenizer, "streamer": self.streamer}
        return arguments | ({} if self.processors is None else {"logits_processor": self.processors})

    def _begin(self, deferred: Deferred) -> Callable[[], tuple[str, int, list[int]]]:
        self.model.generate(**self._arguments(None), custom_generate=deferred)

        def read() -> tuple[str, int, list[int]]:
            assert deferred.loop is not None
            return self.read(deferred.loop.ids[:, : deferred.loop.length])

        return read

    def _alone(self, turn: Callable[[], None] | None) -> tuple[str, int, list[int]]:
        own = self.model.generation_config
        controlled = any(getattr(each, name, None) for each in (self.config, own) for name in CONTROL_FIELDS)
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
    """Answers requests together, for any causal language model, with the controls requested."""

    # Streamed requests by their ids, until it is known whether they are possible.
    pending: "dict[str, Request]" = {}

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

        call = Call(model, tokenizer, inputs, gen_config)
        if call.settings is not None and response_parser is None:
            call.streamer = QueueStreamer(call_soon, tokenizer, call.settings)
        else:
            call.streamer = utils.DirectStreamer(tokenizer._tokenizer, loop, queue, response_parser=response_parser)
        request = batcher_of(model, tokenizer).add(call.request())

        def ended(future: Any) -> None:
            if (error := future.exception()) is not None:
                # The endpoint puts it between quotes.
                call_soon(utils._StreamError(json.dumps(str(error))[1:-1]))

        request.future.add_done_callback(ended)
        self.pending[request_id] = request
        return queue, Streamed(call.streamer, call.stop)

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Mapping[str, Any], gen_config: Any, request_id: str
    ) -> Any:
        """Like the method of the replaced manager."""
        tokenizer = getattr(processor, "tokenizer", processor)
        call = Call(model, tokenizer, inputs, gen_config)
        request = batcher_of(model, tokenizer).add(call.request())
        try:
            return await asyncio.wrap_future(request.future)
        except asyncio.CancelledError:
            call.stop.set()
            raise
