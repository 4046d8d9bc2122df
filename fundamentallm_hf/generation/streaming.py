"""Streams text as it is generated: a streamer that decodes token by token, and an iterator that can be stopped.

transformers' text streamers hold text back until a word is complete, which a character model does not need, and
continue to compute when nobody reads any more.
"""

import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from fundamentallm_hf.portable.decoding.control_effects import Shift
from fundamentallm_hf.portable.decoding.recording import ProbabilityRecorder
from fundamentallm_hf.portable.decoding.row_states import row_key
from fundamentallm_hf.portable.decoding.stop_strings import find_held, find_stop
from fundamentallm_hf.portable.decoding.texts import longer_key

from .probabilities import led_to

if TYPE_CHECKING:
    from .completion import Completion

Result = TypeVar("Result")
# A token for one byte: its text may change with the next token.
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class TextPiece(str):
    """A piece of a text that knows how probable it was, and what controls have done to it.

    Attributes:
        probability: of its token when it was chosen, after settings and controls; of several tokens the lowest.
        shifts: each with the index in the piece of the first character of its token, and whether that token was chosen
            because of it.
        effects: of its tokens that controls have made more or less likely: the index in the piece of the first
            character that is no white space, and by what acted the factor.
    """

    __slots__ = ("effects", "probability", "shifts")
    probability: float
    shifts: tuple[tuple[int, Shift, bool], ...]
    effects: tuple[tuple[int, Mapping[str, float]], ...]

    def __new__(
        cls,
        text: str,
        probability: float,
        shifts: tuple[tuple[int, Shift, bool], ...] = (),
        effects: tuple[tuple[int, Mapping[str, float]], ...] = (),
    ) -> "TextPiece":
        piece = super().__new__(cls, text)
        piece.probability, piece.shifts, piece.effects = probability, shifts, effects
        return piece


def visible_from(text: str) -> int:
    """The index of the first character of a token that is no white space; 0 where there is none.

    Example:

    ```python
    >>> from fundamentallm_hf.generation.streaming import visible_from
    >>> [visible_from(token) for token in (" sad", "sad", " ")]
    [1, 0, 0]

    ```
    """
    visible = text.lstrip()
    return len(text) - len(visible) if visible else 0


def pieces_of(completion: "Completion") -> list[str]:
    """What a completion adds, as pieces: one for each token where the probabilities are known, otherwise one."""
    pieces: list[str] = [
        TextPiece(
            each.text,
            each.probability,
            tuple((0, shift, led_to(shift, each.token, each.effects)) for shift in each.shifts),
            ((visible_from(each.text), each.effects),) if each.effects else (),
        )
        for each in completion.probabilities or ()
    ]
    # The bytes of one character are several tokens, whose texts do not make up the whole.
    return pieces if "".join(pieces) == completion.completion else [completion.completion]


class TokenTextStreamer(BaseStreamer):
    """Passes on the text that each new token of a single row completes; the prompt itself is not repeated.

    A token that is only part of a character adds nothing until the character is complete. The possible start of a stop
    text is held back until it is known to be one or not; a stop text and the text after it are never passed on.

    Args:
        tokenizer: the tokenizer of the model.
        take: called with every piece of text.
        stops: texts that end the text.
        min_tokens: a stop text counts only after that many new tokens.
        alone: what is added is a text by itself, as the reply in a chat.
        recorder: records the probabilities of the call; with it, pieces are `TextPiece`s.
    """

    takes_runs = True  # `FreeRuns` may pass on several new tokens in one call

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        take: Callable[[str], None],
        stops: Sequence[str] = (),
        min_tokens: int = 0,
        alone: bool = False,
        recorder: ProbabilityRecorder | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.take = take
        self.alone = alone
        self.recorder = recorder
        # Of each token that has not been passed on as a whole: where its text starts and ends, and its probability.
        self.held: list[tuple[int, int, float]] = []
        # Those not passed on, each with the start of its token, otherwise as in `TextPiece`.
        self.shifts: list[tuple[int, Shift, bool]] = []
        self.effects: list[tuple[int, Mapping[str, float]]] = []
        self.stops = stops
        self.free_tokens = min_tokens
        # Tokens from the first of these on are decoded at every step; the text of those before the second is known.
        self.context = self.settled = 0
        self.special = frozenset(tokenizer.all_special_ids)
        self.started = False
        self.tokens: list[int] = []
        self.key = b""  # of all tokens, those of the prompt included
        self.text = ""
        self.prompt_end = self.handed_over = self.stops_from = 0

    def put(self, value: torch.Tensor) -> None:
        """`value`: (1, length) for the prompt, (n,) for n new tokens, all on the CPU."""
        tokens = value.flatten().tolist()
        if not self.started:
            # The prompt comes first; decoding after it keeps the space that a SentencePiece token starts with.
            self.started, self.key = True, row_key(value.flatten().long())
            self.tokens = [] if self.alone else tokens
            self.text = self._decode(self.tokens)
            self.settled = len(self.tokens)
            self.prompt_end = self.handed_over = len(self.text)
            return
        for token in tokens:
            self.tokens.append(token)
            start = len(self.text)
            self.text += self._completed(token)
            if self.recorder is not None:
                self._note(self.recorder, token, start)
            if self.free_tokens:
                self.free_tokens -= 1
                self.stops_from = len(self.text)
            end = self._stop()
            self._hand_over(find_held(self.text, self.stops, self.stops_from) if end is None else end)

    def end(self) -> None:
        """Pass on held-back text: the start of no stop text, or the bytes of an unfinished character."""
        self.text = self._decode(self.tokens)
        end = self._stop()
        self._hand_over(len(self.text) if end is None else end)

    def _note(self, recorder: ProbabilityRecorder, token: int, start: int) -> None:
        """Note how the last token came about; its text starts at `start`."""
        before, self.key = self.key, longer_key(self.key, [token])
        self.held.append((start, len(self.text), recorder.chosen(self.key)))
        effects, shifts = recorder.effects.of_token(before, token), recorder.effects.after(before).shifts
        self.shifts += [(start, shift, led_to(shift, token, effects)) for shift in shifts]
        if effects:
            self.effects.append((start + visible_from(self.text[start:]), effects))

    def _completed(self, token: int) -> str:
        """The text that is now certain after one more token, and was not before."""
        name = str(self.tokenizer.convert_ids_to_tokens(token))
        if token in self.special or _BYTE_TOKEN.fullmatch(name):
            return ""  # bytes that are decoded together may follow, even after tokens without text
        known = self._decode(self.tokens[self.context : self.settled])
        now = self._decode(self.tokens[self.context :])
        if now.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        # If the prompt ended within a character, its text has changed.
        added = now[len(known) :] if now.startswith(known) else self._decode(self.tokens)[len(self.text) :]
        # A decoder may remove spaces at the start, so the decoded tokens have to start with another one.
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
            piece = self.text[self.handed_over : end]
            if self.recorder is not None:
                chance = min((chance for start, _, chance in self.held if start < end), default=1.0)
                before = self.handed_over
                shifts = tuple((max(0, at - before), shift, led) for at, shift, led in self.shifts if at < end)
                effects = tuple((max(0, at - before), each) for at, each in self.effects if at < end)
                piece = TextPiece(piece, chance, shifts, effects)
                self.shifts = [each for each in self.shifts if each[0] >= end]
                self.effects = [each for each in self.effects if each[0] >= end]
                self.held = [each for each in self.held if each[1] > end or each[0] >= end]
            self.take(piece)
            self.handed_over = end


class StopWhenSet(StoppingCriteria):
    """Ends generation at the next token once `event` is set."""

    ignores_text = True  # so our loop may ask it about rows of any length

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


class EveryStep(StoppingCriteria):
    """Calls a function before every step, and never ends a text."""

    ignores_text = True

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.function()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class TextStream(Generic[Result]):
    """Iterates over pieces of text while another thread generates them; `result` is the whole at the end.

    Closing the stream, or leaving its `with` block, ends the computation at the next token.

    Args:
        work: generates the text. It is called with the function that receives pieces and the event that stops it, and
            returns the result.
        interrupt: that event, if other code may set it too.
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
        except BaseException as error:  # re-raised in the iterating thread
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
        """The result; waits for the end.

        Raises:
            RuntimeError: the work failed.
        """
        self._thread.join()
        if self._result is None:
            raise RuntimeError("the text was not finished")
        return self._result

    def stop(self) -> None:
        """Stop at the next token; the text so far can still be read."""
        self._stop.set()

    def close(self) -> None:
        """Stop generating, and wait until the last token is done."""
        if self._thread.is_alive():  # a shared event would stop others, too
            self.stop()
        self._thread.join()

    def __enter__(self) -> "TextStream[Result]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
