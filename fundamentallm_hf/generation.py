"""From settings to text: the `Generator`, which Python, the command line and the web demo all use.

A generator turns settings into arguments of transformers' text-generation pipeline and its output into completions.
How the next token is chosen is the business of `generate()` and of the controls; this file only asks for it.
"""

import secrets
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TextGenerationPipeline,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from .context_window import WindowFullCriteria, check_overflow
from .errors import UserError
from .loading import tokenizer_of
from .seeded_sampling import SeededSampling
from .settings import GenerationSettings
from .streaming import StopWhenSet, TextStream, TokenTextStreamer
from .tokenization import unknown_characters


@dataclass(frozen=True)
class Completion:
    """One written text.

    Attributes:
        prompt: what was given.
        completion: what was added.
        finish_reason: why it ended: "eos" (the model ended the text), "length" (`max_tokens` were written), "window"
            (the context window is full and `overflow` is "stop") or "interrupted".
        tokens: tokens that were added, an end-of-text token not counted.
        seed: writes the same text again with the same settings; None if nothing was sampled.
    """

    prompt: str
    completion: str
    finish_reason: str
    tokens: int
    seed: int | None

    @property
    def text(self) -> str:
        """Prompt and completion."""
        return self.prompt + self.completion

    def to_dict(self) -> dict[str, Any]:
        """All fields, and the whole text."""
        return {"text": self.text, **asdict(self)}


class CompletionPipeline(TextGenerationPipeline):
    """The stock text-generation pipeline, whose records say how each text ended as well."""

    def postprocess(self, model_outputs: dict[str, Any], *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        ends = self.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        given = model_outputs["input_ids"]
        columns = given.shape[-1] if given is not None else 1  # an empty prompt becomes one start token
        records = []
        for sequence in model_outputs["generated_sequence"][0].tolist():
            added = sequence[columns:]
            end = next((place for place, token in enumerate(added) if token in ends), None)
            if end is None:
                end = len(added)
                while end and added[end - 1] == self.tokenizer.pad_token_id:
                    end -= 1
            before = self.tokenizer.decode(sequence[:columns], skip_special_tokens=True)
            whole = self.tokenizer.decode(sequence[: columns + end], skip_special_tokens=True)
            records.append(
                {"completion": whole[len(before) :], "tokens": end, "ended": end < len(added) and added[end] in ends}
            )
        return records


class Generator:
    """Writes text with one model.

    Args:
        model: any causal language model of transformers, as `load_model` returns it.
        tokenizer: its tokenizer; by default the one the model carries or came with.
        notice: called with what a user should know beforehand, in one line: characters that the model has no token
            for. By default it becomes a Python warning. Nothing is said twice.
        settings: defaults for every call, by the names of `GenerationSettings`.

    Raises:
        UserError: a setting is unknown or has a value it cannot have.

    Example:

    ```python
    >>> from fundamentallm_hf import Generator, load_model
    >>> generator = Generator(load_model(), temperature=0)
    >>> generator.generate("Once upon a time", max_tokens=1)
    'Once upon a time,'

    ```
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        notice: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> None:
        self.settings = GenerationSettings().but(**settings)
        self.model = model
        self.tokenizer = tokenizer or tokenizer_of(model)
        self.pipeline = CompletionPipeline(model=model, tokenizer=self.tokenizer, device=model.device)
        self._notice = notice or (lambda text: warnings.warn(text, stacklevel=4))
        self._told: set[str] = set()

    def generate(self, prompt: str, **settings: Any) -> str:
        """Write one text.

        Args:
            prompt: how it begins; may be empty.
            settings: for this call, over the generator's own.

        Returns:
            The prompt and what the model added to it.

        Raises:
            UserError: a setting cannot be used, or the text does not fit where it has to.
        """
        return self.complete(prompt, **settings, num_samples=1)[0].text

    def complete(self, prompts: str | Sequence[str], **settings: Any) -> list[Completion]:
        """Write `num_samples` texts for each prompt, all in one batch.

        Returns:
            The completions, those of the first prompt first.

        Raises:
            UserError: as in `generate`.
        """
        chosen = self.settings.but(**settings)
        return self._run([prompts] if isinstance(prompts, str) else list(prompts), chosen)

    def stream(self, prompt: str, **settings: Any) -> TextStream[Completion]:
        """Write one text and hand over what is added as it comes.

        Returns:
            An iterator over pieces of text. Its `result` is the whole completion; `close()` ends the computation.

        Raises:
            UserError: as in `generate`; what only shows in the work itself is raised when iterating.
        """
        chosen = self.settings.but(**settings, num_samples=1)
        self._check(chosen)

        def work(take: Callable[[str], None], stop: threading.Event) -> Completion:
            streamer = TokenTextStreamer(self.tokenizer, take)
            return self._run([prompt], chosen, streamer=streamer, stop=stop)[0]

        return TextStream(work)

    def _check(self, settings: GenerationSettings) -> None:
        if settings.num_samples > 1 and settings.temperature == 0:
            raise UserError(
                f"num-samples is {settings.num_samples}, but at temperature 0 all samples are the same: "
                "raise the temperature or ask for one"
            )

    def _tell_unknown(self, prompts: Sequence[str]) -> None:
        unknown = [char for char in unknown_characters(self.tokenizer, "".join(prompts)) if char not in self._told]
        if unknown:
            self._told.update(unknown)
            self._notice(
                f"the model has no token for {' '.join(map(repr, unknown))}: "
                f"it reads {self.tokenizer.unk_token} instead, and cannot write {'it' if len(unknown) == 1 else 'them'}"
            )

    def _run(
        self,
        prompts: list[str],
        settings: GenerationSettings,
        streamer: TokenTextStreamer | None = None,
        stop: threading.Event | None = None,
    ) -> list[Completion]:
        if not prompts:
            return []
        self._check(settings)
        self._tell_unknown(prompts)
        sampled = settings.temperature > 0
        seed = (settings.seed if settings.seed is not None else secrets.randbits(32)) if sampled else None
        arguments: dict[str, Any] = {
            "max_new_tokens": settings.max_tokens,
            "num_return_sequences": settings.num_samples,
            "do_sample": sampled,
        }
        criteria = StoppingCriteriaList([StopWhenSet(stop)] if stop else [])
        own = self.model.config.model_type == "fundamentallm"
        if own:
            arguments |= {"overflow": settings.overflow or "slide", "seed": seed}
        else:
            criteria.extend(self._window_criteria(prompts, settings))
        if sampled:
            arguments |= self._sampling_arguments(settings, None if own else seed)
        try:
            records = self.pipeline(
                prompts,
                batch_size=len(prompts),
                tokenizer_encode_kwargs={"verbose": False},  # it would warn of prompts longer than the window
                stopping_criteria=criteria,
                streamer=streamer,
                **arguments,
            )
        except ValueError as error:
            raise UserError(str(error)) from error
        stopped = stop is not None and stop.is_set()
        completions = []
        for prompt, of_prompt in zip(prompts, records, strict=True):
            for index, record in enumerate(of_prompt):
                reason = "eos" if record["ended"] else "length"
                if reason == "length" and record["tokens"] < settings.max_tokens:
                    reason = "interrupted" if stopped else "window"
                row_seed = None if seed is None else seed + index
                completions.append(Completion(prompt, record["completion"], reason, record["tokens"], row_seed))
        return completions

    def _sampling_arguments(self, settings: GenerationSettings, seed: int | None) -> dict[str, Any]:
        """Temperature, top-k and top-p; with a seed in processors of our own, so that the seeded choice comes last."""
        if seed is None:
            return {
                "temperature": settings.temperature,
                "top_k": settings.top_k or 0,
                "top_p": settings.top_p or 1.0,
            }
        processors = LogitsProcessorList([TemperatureLogitsWarper(settings.temperature)])
        if settings.top_k:
            processors.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p:
            processors.append(TopPLogitsWarper(settings.top_p))
        processors.append(SeededSampling(seed, settings.num_samples))
        return {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "logits_processor": processors}

    def _window_criteria(self, prompts: Sequence[str], settings: GenerationSettings) -> Iterator[WindowFullCriteria]:
        """Models other than FundamentaLLM's end at their window: they cannot be made to read on from its last part."""
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if window is None:
            return
        lengths = [len(ids) or 1 for ids in self.tokenizer(list(prompts), verbose=False).input_ids]
        cannot = f"a model of type {self.model.config.model_type} cannot slide"
        try:
            check_overflow(settings.overflow or "stop", lengths, settings.max_tokens, window, cannot)
        except ValueError as error:
            raise UserError(str(error)) from error
        if max(lengths) + settings.max_tokens > window:
            room = [window - length for length in lengths for _ in range(settings.num_samples)]
            yield WindowFullCriteria(room, max(lengths))
