"""Text as it is written: a streamer that decodes token by token, and an iterator that can be stopped.

transformers' own text streamers hold text back until a word is complete, which a character model can do without, and
go on computing when nobody listens any more.
"""

import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from fundamentallm_hf.portable.decoding.stop_strings import find_held, find_stop

Result = TypeVar("Result")
# A token that stands for a byte: what it shows may change with the one behind it.
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class TokenTextStreamer(BaseStreamer):
    """Hands over the text that each new token of a single row completes; the prompt itself is not repeated.

    A token that is only part of a character hands over nothing until the character is whole. What may be the beginning
    of a stop text waits until it is known whether it is one; a stop text and what follows it are never handed over.

    Args:
        tokenizer: the model's.
        take: called with every piece of text.
        stops: texts that end the text.
        min_tokens: a stop text counts behind that many new tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        take: Callable[[str], None],
        stops: Sequence[str] = (),
        min_tokens: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.take = take
        self.stops = stops
        self.free_tokens = min_tokens
        # Tokens from the first of these on are decoded at every step, of which those before the second are known.
        self.context = self.settled = 0
        self.special = frozenset(tokenizer.all_special_ids)
        self.started = False
        self.tokens: list[int] = []
        self.text = ""
        self.prompt_end = self.handed_over = self.stops_from = 0

    def put(self, value: torch.Tensor) -> None:
        """`value`: (1, length) for the prompt, (1,) for each new token, all on the CPU."""
        tokens = value.flatten().tolist()
        if not self.started:
            # The prompt comes first; decoding after it keeps the space that a SentencePiece token begins with.
            self.started = True
            self.tokens = tokens
            self.text = self._decode(self.tokens)
            self.settled = len(tokens)
            self.prompt_end = self.handed_over = len(self.text)
            return
        for token in tokens:
            self.tokens.append(token)
            self.text += self._completed(token)
            if self.free_tokens:
                self.free_tokens -= 1
                self.stops_from = len(self.text)
            end = self._stop()
            self._hand_over(find_held(self.text, self.stops, self.stops_from) if end is None else end)

    def end(self) -> None:
        """Hand over what was held back: the beginning of no stop text, or the bytes of an unfinished character."""
        self.text = self._decode(self.tokens)
        end = self._stop()
        self._hand_over(len(self.text) if end is None else end)

    def _completed(self, token: int) -> str:
        """The text that is known for certain behind one more token, and was not before."""
        name = str(self.tokenizer.convert_ids_to_tokens(token))
        if token in self.special or _BYTE_TOKEN.fullmatch(name):
            return ""  # bytes that are decoded together may follow, also behind what shows nothing
        known = self._decode(self.tokens[self.context : self.settled])
        now = self._decode(self.tokens[self.context :])
        if now.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        # Where the prompt ended amid a character, its text has changed.
        added = now[len(known) :] if now.startswith(known) else self._decode(self.tokens)[len(self.text) :]
        # A decoder may take spaces from the beginning, so what is decoded has to begin with something else.
        if added.strip():
            self.context = self.settled
        self.settled = len(self.tokens)
        return added

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def _stop(self) -> int | None:
        return find_stop(self.text, self.stops, self.prompt_end, self.stops_from)

    def _hand_over(self, end: int) -> None:
        if end > self.handed_over:
            self.take(self.text[self.handed_over : end])
            self.handed_over = end


class StopWhenSet(StoppingCriteria):
    """Ends generation at the next token once `event` is set."""

    ignores_text = True  # so our loop may ask it about rows of any length

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


class TextStream(Generic[Result]):
    """Iterates over pieces of text while another thread writes them; `result` holds the whole at the end.

    Closing the stream, or leaving its `with` block, ends the computation at the next token.

    Args:
        work: writes the text. It is called with the function to hand pieces to and the event that asks it to stop,
            and returns the result.
        interrupt: that event, where somebody else may set it too.
    """

    def __init__(
        self,
        work: Callable[[Callable[[str], None], threading.Event], Result],
        interrupt: threading.Event | None = None,
    ) -> None:
        self._pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        self._stop = interrupt or threading.Event()
        self._result: Result | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work(self._pieces.put, self._stop)
        except BaseException as error:  # handed to whoever iterates
            self._pieces.put(error)
        else:
            self._pieces.put(None)

    def __iter__(self) -> Iterator[str]:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    @property
    def result(self) -> Result:
        """What was written; waits for the end.

        Raises:
            RuntimeError: the work failed.
        """
        self._thread.join()
        if self._result is None:
            raise RuntimeError("the text was not finished")
        return self._result

    def stop(self) -> None:
        """Ask for the end at the next token, and leave what has been written to whoever iterates."""
        self._stop.set()

    def close(self) -> None:
        """Stop writing, and wait until the last token is done."""
        if self._thread.is_alive():  # an event that is shared tells others of a stop
            self.stop()
        self._thread.join()

    def __enter__(self) -> "TextStream[Result]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
