"""One batch of prompts: runs the pipeline on it, and reads the rows of tokens that come back."""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextGenerationPipeline

from fundamentallm_hf.portable.decoding.deferred import Deferred
from fundamentallm_hf.portable.decoding.recording import ProbabilityRecorder, Recorder
from fundamentallm_hf.portable.decoding.stop_strings import find_stop, settled
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .beam_progress import TakeBest
from .chat import ChatPrompt, encode
from .generate_arguments import end_tokens, is_fundamentallm, token_budgets
from .streaming import TokenTextStreamer


class CompletionPipeline(TextGenerationPipeline):
    """The stock text-generation pipeline up to the tokens: its records are pairs of prompt tokens and new ones."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Generate as the stock pipeline does, without its advice to use a data set after ten calls on a GPU."""
        self.call_count = 0
        return super().__call__(*args, **kwargs)

    def postprocess(self, model_outputs: dict[str, Any], *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        given = model_outputs["input_ids"]
        columns = given.shape[-1] if given is not None else 1  # an empty prompt becomes one start token
        rows = model_outputs["generated_sequence"][0].tolist()
        return [{"given": row[:columns], "added": row[columns:]} for row in rows]


@contextmanager
def torch_seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch's global random number generator for a while and restore it afterwards; None does nothing.

    The generator belongs to the whole process: another thread that draws from it meanwhile changes the result.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Extras:
    """Objects that a call needs besides the settings; see `Generator.complete`.

    Attributes:
        streamer: gets the tokens of a single text as they are chosen.
        recorder: sees the scores of every step.
        turn: called before every step, for computations that take turns.
        deferred: takes the loop, which others run.
        progress: receives the best text of a beam search over one prompt while it runs.
    """

    scored: bool = False
    probabilities: int = 0
    interrupt: threading.Event | None = None
    streamer: TokenTextStreamer | None = None
    recorder: Recorder | None = None
    turn: Callable[[], None] | None = None
    deferred: Deferred | None = None
    progress: TakeBest | None = None

    @property
    def interrupted(self) -> bool:
        return self.interrupt is not None and self.interrupt.is_set()

    def streamed(
        self,
        prompt: str,
        settings: GenerationSettings,
        tokenizer: PreTrainedTokenizerBase,
        take: Callable[[str], None],
    ) -> "Extras":
        """With a streamer that passes on the pieces of a single text without beams; see `Generator.stream`."""
        alone, recorder = isinstance(prompt, ChatPrompt), None
        if self.probabilities:
            recorder = ProbabilityRecorder(self.probabilities, greedy=not settings.sampled)
        streamer = TokenTextStreamer(tokenizer, take, settings.stop, settings.min_tokens, alone, recorder)
        return replace(self, streamer=streamer, recorder=recorder)


@dataclass(frozen=True)
class Batch:
    """Prompts that are generated together.

    Attributes:
        prompts: at least one.
        settings: of all of them.
        seed: None if nothing is sampled. Sample i of a prompt has the seed plus i; beams share one.
        lengths: tokens of each prompt; an empty one has a start token.
        budgets: new tokens that fit into the context window, for each prompt.
        ends_at_window: whether the full window may end a text.
        fits_together: whether the prompts can be rows of one tensor.
    """

    prompts: list[str]
    settings: GenerationSettings
    seed: int | None
    lengths: list[int]
    budgets: list[int]
    ends_at_window: bool
    fits_together: bool

    @classmethod
    def of(
        cls,
        prompts: list[str],
        settings: GenerationSettings,
        seed: int | None,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
    ) -> "Batch":
        """Measure the prompts.

        Raises:
            UsageError: a prompt does not fit into the context window.
        """
        encoded = encode(prompts, tokenizer)
        lengths = [len(ids) or 1 for ids in encoded]
        budgets = token_budgets(model, lengths, settings)
        ends_at_window = not is_fundamentallm(model) and any(budget < settings.max_tokens for budget in budgets)
        # An empty row cannot be padded. And rows that have ended are computed along with the others, where one at the
        # end of its window would run past its last position.
        apart = not all(encoded) or (ends_at_window and len(set(lengths)) > 1)
        apart = apart or len({isinstance(prompt, ChatPrompt) for prompt in prompts}) > 1
        return cls(
            prompts, settings, seed, lengths, budgets, ends_at_window, fits_together=len(prompts) == 1 or not apart
        )

    @property
    def is_chat(self) -> bool:
        """Whether the prompts are chats, whose replies are texts by themselves."""
        return isinstance(self.prompts[0], ChatPrompt)

    @property
    def beams(self) -> bool:
        """Whether it is searched with beams."""
        return self.settings.beam_size > 1


@dataclass(frozen=True)
class Row:
    """The text of a row of tokens.

    Attributes:
        text: what the row adds to its prompt.
        tokens: how many new tokens that takes.
        finish_reason: why it ended, as `Completion` names it, as far as the tokens show.
    """

    text: str
    tokens: int
    finish_reason: str


class RowReader:
    """Reads rows of generated tokens: finds their end, decodes them, and cuts them at a stop string.

    Args:
        model: that generated them.
        tokenizer: the model's tokenizer.
        settings: `stop`, `min_tokens` and `max_tokens` of them.
        interrupted: whether the generation was interrupted.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: GenerationSettings,
        interrupted: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.interrupted = interrupted
        self.ends = set(end_tokens(model))

    def read(self, given: list[int], added: list[int], budget: int) -> Row:
        """Read one row.

        Args:
            given: the tokens of the prompt, padding included; none where what follows is a text by itself.
            added: the tokens after them.
            budget: new tokens that fit into the context window.
        """
        settings = self.settings
        end, ended = self._end(added)

        def text_of(tokens: int) -> str:
            return self.tokenizer.decode(given + added[:tokens], skip_special_tokens=True)

        before, whole, least = len(text_of(0)), text_of(end), min(settings.min_tokens, end)
        cut = find_stop(whole, settings.stop, before, len(settled(text_of(least))) if settings.min_tokens else 0)
        if cut is not None:
            kept = whole[: max(cut, before)]
            tokens = bisect_left(range(end), True, key=lambda tokens: text_of(tokens).startswith(kept))
            return Row(kept[before:], tokens, "stop")
        # Beams fill ended rows with end tokens too. One after a full window is such a filling: the model had no room
        # left to end the text.
        if end >= settings.max_tokens:
            reason = "length"
        elif end >= budget:
            reason = "window"
        else:
            reason = "eos" if ended else "interrupted" if self.interrupted else "length"
        return Row(whole[before:], end, reason)

    def _end(self, added: list[int]) -> tuple[int, bool]:
        """How many of the tokens belong to the text, and whether an end token follows them."""
        # A row that ended before its neighbours continues with end tokens, padding, or -1 from beams without either.
        end = next((index for index, token in enumerate(added) if token in self.ends or token < 0), None)
        if end is not None:
            return end, added[end] in self.ends
        end = len(added)
        while end and added[end - 1] == self.tokenizer.pad_token_id:
            end -= 1
        return end, False
