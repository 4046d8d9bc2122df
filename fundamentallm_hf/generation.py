"""From settings to text: the `Generator`, which Python, the command line and the web demo all use.

A generator turns settings into arguments of transformers' text-generation pipeline and its output into completions.
How the next token is chosen is the business of `generate()` and of the controls; this file only asks for it.
"""

import secrets
import threading
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
    TextGenerationPipeline,
)

from .any_model import controlled_generate
from .batches import all_parts, in_batches
from .beam_tree import BeamRecorder, Branch
from .completion import Completion, likeliest
from .context_window import WindowFullCriteria, check_overflow
from .endings import ClosedEndCriteria, CompleteEndCriteria, LengthPenaltyLogitsProcessor
from .errors import UsageError, UserError
from .loading import tokenizer_of
from .probabilities import (
    Prediction,
    TokenNames,
    log_probability,
    next_predictions,
    own_log_probabilities,
    token_predictions,
)
from .recording import ProbabilityRecorder, Recorder
from .settings import GenerationSettings
from .stop_texts import find_stop, settled
from .streaming import StopWhenSet, TextStream, TokenTextStreamer
from .tested_versions import UntestedVersionError
from .tokenization import unknown_characters

LEAST_TEMPERATURE = 1e-9


class CompletionPipeline(TextGenerationPipeline):
    """The stock text-generation pipeline up to the tokens: its records are pairs of given and added ones."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Write, as the stock pipeline does; but who asks ten times on a GPU is not advised to give a data set."""
        self.call_count = 0
        return super().__call__(*args, **kwargs)

    def postprocess(self, model_outputs: dict[str, Any], *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        given = model_outputs["input_ids"]
        columns = given.shape[-1] if given is not None else 1  # an empty prompt becomes one start token
        rows = model_outputs["generated_sequence"][0].tolist()
        return [{"given": row[:columns], "added": row[columns:]} for row in rows]


@contextmanager
def torch_seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch's own stream of random numbers for a while and leave it as it was; None does nothing.

    The stream belongs to the whole process: a thread that draws from it meanwhile changes what comes.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


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
        return self._run([prompt], self._for_one(settings))[0].text

    def complete(
        self,
        prompts: str | Sequence[str],
        *,
        scored: bool = False,
        probabilities: int = 0,
        interrupt: threading.Event | None = None,
        **settings: Any,
    ) -> list[Completion]:
        """Write `num_samples` texts for each prompt, all in one batch, and keep the `best` of them.

        Args:
            prompts: one or several.
            scored: work out the log-probability of every text.
            probabilities: work out the probabilities of every token, with so many alternatives to each.
            interrupt: ends the computation at the next token once another thread sets it.
            settings: for this call, over the generator's own.

        Returns:
            The completions, those of the first prompt first.

        Raises:
            UserError: as in `generate`.
        """
        chosen = self.settings.but(**settings)
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        return self._run(listed, chosen, interrupt=interrupt, scored=scored, probabilities=probabilities)

    def iterate(
        self,
        prompts: Iterable[str],
        *,
        rows: int = 32,
        scored: bool = False,
        probabilities: int = 0,
        **settings: Any,
    ) -> Iterator[list[Completion]]:
        """Write what `complete` writes, however much it is, in batches.

        Args:
            prompts: any number.
            rows: texts to write at a time, at most. A prompt's beams are never parted, nor are two prompts given one
                stream of random numbers.
            scored, probabilities, settings: as in `complete`.

        Yields:
            The completions of one or several prompts, or of a part of one prompt's samples.

        Raises:
            UserError: as in `generate`.
        """
        chosen = self.settings.but(**settings)
        chosen.check()
        write = partial(self._run, scored=scored, probabilities=probabilities)
        yield from in_batches(write, prompts, chosen, rows)

    def next_tokens(self, prompt: str, *, top: int = 10, **settings: Any) -> list[Prediction]:
        """The likeliest tokens behind a prompt, by the model alone and after the settings and controls.

        Args:
            prompt: what stands before them; may be empty.
            top: how many. A token is among them if it is likely either way, so what a control closes can be seen.
            settings: for this call, over the generator's own. They are those of a whole text, of which only the first
                token is looked at: a word that must be included needs the room of `max_tokens`.

        Raises:
            UserError: as in `generate`.

        Example:

        ```python
        >>> from fundamentallm_hf import Generator, load_model
        >>> [each.label for each in Generator(load_model(device="cpu")).next_tokens("Once upon a tim", top=2)]
        ['"e"', '"m"']

        ```
        """
        chosen = self.settings.but(**settings).but(num_samples=1, best=None)
        recorder = ProbabilityRecorder(0, greedy=not chosen.sampled and chosen.beam_size == 1)
        at_once = threading.Event()
        at_once.set()
        self._run([prompt], chosen, interrupt=at_once, recorder=recorder)
        tokens = self._ids(prompt)
        own = next(own_log_probabilities(self.model, tokens, len(tokens))).exp()[0]
        assert recorder.first is not None
        return next_predictions(TokenNames(self.tokenizer), own, recorder.first, top)

    def search(
        self, prompt: str, *, interrupt: threading.Event | None = None, **settings: Any
    ) -> tuple[Completion, list[Branch]]:
        """Search with beams for one text, and tell which others were kept for a while.

        Args:
            prompt: how it begins; may be empty.
            interrupt: as in `complete`.
            settings: for this call, over the generator's own; `beam_size` has to be at least 2.

        Returns:
            The text that `generate` returns, and the tree of beams; its first branch is that text.

        Raises:
            UserError: as in `generate`, or there is only one beam.
        """
        chosen = self.settings.but(**settings).but(num_samples=1, best=None)
        if chosen.beam_size < 2:
            raise UsageError(f"beam-size has to be at least 2 for a search but is {chosen.beam_size}")
        ends = self.model.generation_config.eos_token_id
        recorder = BeamRecorder([ends] if isinstance(ends, int) else ends or ())
        completion = self._run([prompt], chosen, interrupt=interrupt, recorder=recorder, scored=True)[0]
        return completion, recorder.branches(TokenNames(self.tokenizer).text)

    def _ids(self, prompt: str) -> list[int]:
        """The tokens of a prompt; an empty one becomes the start token that the model begins with."""
        ids = self.tokenizer(prompt, verbose=False).input_ids
        return ids or [self.model.generation_config.bos_token_id]

    def stream(
        self,
        prompt: str,
        *,
        scored: bool = False,
        probabilities: int = 0,
        interrupt: threading.Event | None = None,
        **settings: Any,
    ) -> TextStream[Completion]:
        """Write one text and hand over what is added as it comes.

        Args:
            prompt: how it begins; may be empty.
            scored, probabilities, interrupt, settings: as in `complete`; what they ask for is in the result.

        Returns:
            An iterator over pieces of text. Its `result` is the whole completion; `close()` ends the computation.

        Raises:
            UserError: as in `generate`; what only shows in the work itself is raised when iterating.
        """
        chosen = self._for_one(settings)
        chosen.check()

        options: dict[str, Any] = {"scored": scored, "probabilities": probabilities}

        def work(take: Callable[[str], None], stop: threading.Event) -> Completion:
            if chosen.beam_size > 1 or chosen.best:  # which text is the likeliest shows at the end
                completion = self._run([prompt], chosen, interrupt=stop, **options)[0]
                take(completion.completion)
                return completion
            streamer = TokenTextStreamer(self.tokenizer, take, chosen.stop, chosen.min_tokens)
            return self._run([prompt], chosen, streamer, stop, **options)[0]

        return TextStream(work, interrupt)

    def _for_one(self, settings: dict[str, Any]) -> GenerationSettings:
        """The settings for one text: that of one sample, or the best of several."""
        chosen = self.settings.but(**settings)
        return chosen.but(num_samples=1) if chosen.best is None else chosen.but(best=1)

    def _tell_unknown(self, prompts: Sequence[str]) -> None:
        unknown = [char for char in unknown_characters(self.tokenizer, "".join(prompts)) if char not in self._told]
        if unknown:
            self._told.update(unknown)
            self._tell(
                f"the model has no token for {' '.join(map(repr, unknown))}: "
                f"it reads {self.tokenizer.unk_token} instead, and cannot write {'it' if len(unknown) == 1 else 'them'}"
            )

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._notice(text)

    def _run(
        self,
        prompts: list[str],
        settings: GenerationSettings,
        streamer: TokenTextStreamer | None = None,
        interrupt: threading.Event | None = None,
        recorder: Recorder | None = None,
        scored: bool = False,
        probabilities: int = 0,
    ) -> list[Completion]:
        if not prompts:
            return []
        settings.check()
        write = partial(self._run, interrupt=interrupt, scored=scored, probabilities=probabilities)
        scored = scored or settings.best is not None
        self._tell_unknown([*prompts, *settings.stop])
        seed = (settings.seed if settings.seed is not None else secrets.randbits(32)) if settings.sampled else None
        # A row alone can have a seed of its own; beams take from each other and draw from torch's stream.
        beams = settings.beam_size > 1
        if beams and seed is not None and settings.num_samples > settings.beam_size:
            again = settings.but(seed=seed)
            return [each for prompt in prompts for each in all_parts(write, prompt, again, settings.beam_size)]
        row_seed, torch_seed = (None, seed) if beams else (seed, None)
        if probabilities:
            recorder = ProbabilityRecorder(probabilities, greedy=not settings.sampled and not beams, beams=beams)
        arguments: dict[str, Any] = {
            "max_new_tokens": settings.max_tokens,
            "num_return_sequences": settings.num_samples,
            "num_beams": settings.beam_size,
            "do_sample": settings.sampled,
        }
        if settings.sampled:
            # Logits divided by less are no numbers any more; and no smaller one chooses otherwise.
            temperature = max(1.0 if settings.temperature is None else settings.temperature, LEAST_TEMPERATURE)
            arguments |= {"temperature": temperature, "top_k": settings.top_k or 0, "top_p": settings.top_p or 1.0}
            if settings.min_p is not None or self.model.generation_config.min_p:
                arguments["min_p"] = settings.min_p or 0.0
        arguments |= self._controls(settings) | {"seed": row_seed}
        if recorder is not None:
            given_processors = arguments.get("logits_processor") or ()
            arguments["logits_processor"] = LogitsProcessorList([*given_processors, recorder])
        encoded = self.tokenizer(prompts, verbose=False).input_ids
        lengths = [len(ids) or 1 for ids in encoded]
        rooms = self._rooms(lengths, settings)
        ends_at_window = not self._own and any(room < settings.max_tokens for room in rooms)
        # An empty row cannot be padded. And rows that have ended are computed along with the others, where one at the
        # end of its window would run past its last position.
        if len(prompts) > 1 and (not all(encoded) or (ends_at_window and len(set(lengths)) > 1)):
            return [each for prompt in prompts for each in write([prompt], settings.but(seed=seed))]
        blocked, complete = ClosedEndCriteria(tell=False), CompleteEndCriteria()
        criteria = StoppingCriteriaList([blocked, complete, *([StopWhenSet(interrupt)] if interrupt else [])])
        if self._own:
            arguments |= {"overflow": settings.overflow or "slide", "tokenizer": self.tokenizer, "streamer": streamer}
        else:
            if ends_at_window:
                criteria.append(WindowFullCriteria(rooms, max(lengths)))
            controlled = partial(controlled_generate, tokenizer=self.tokenizer, streamer=streamer)
            arguments["custom_generate"] = controlled
        try:
            with torch_seeded(torch_seed, self.model.device):
                records = self.pipeline(
                    prompts,
                    batch_size=len(prompts),
                    tokenizer_encode_kwargs={"verbose": False},  # it would warn of prompts longer than the window
                    stopping_criteria=criteria,
                    **arguments,
                )
        except ValueError as error:
            raise UsageError(str(error)) from error
        except UntestedVersionError as error:
            raise UserError(str(error)) from error
        interrupted = interrupt is not None and interrupt.is_set()
        names = TokenNames(self.tokenizer) if probabilities else None
        completions = []
        for prompt, room, length, of_prompt in zip(prompts, rooms, lengths, records, strict=True):
            of_this = []
            for index, record in enumerate(of_prompt):
                given, added = record["given"], record["added"]
                text, tokens, reason = self._read(given, added, settings, room, interrupted)
                row, padding = given + added[:tokens], len(given) - length
                if blocked.holds(row):
                    reason = "blocked"
                elif complete.holds(row):
                    reason = "complete"
                own_seed = seed if seed is None or beams else seed + index
                score = log_probability(self.model, row[padding:], length) if scored else None
                found = None
                if isinstance(recorder, BeamRecorder):
                    recorder.chosen = row
                if names is not None and isinstance(recorder, ProbabilityRecorder):
                    found = token_predictions(self.model, names, row, len(given), padding, recorder)
                of_this.append(Completion(prompt, text, reason, tokens, own_seed, score, found, index))
            completions += of_this if settings.best is None else likeliest(of_this, settings.best)
        return completions

    def _read(
        self, given: list[int], added: list[int], settings: GenerationSettings, room: int, interrupted: bool
    ) -> tuple[str, int, str]:
        """The text that a row adds, its number of tokens, and why it ended."""
        ends = self.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        # Behind a row that ended before its neighbours stand end tokens, padding, or -1 from beams without either.
        end = next((place for place, token in enumerate(added) if token in ends or token < 0), None)
        ended = end is not None and added[end] in ends
        if end is None:
            end = len(added)
            while end and added[end - 1] == self.tokenizer.pad_token_id:
                end -= 1

        def text_of(tokens: int) -> str:
            return self.tokenizer.decode(given + added[:tokens], skip_special_tokens=True)

        before, whole, least = len(text_of(0)), text_of(end), min(settings.min_tokens, end)
        cut = find_stop(whole, settings.stop, before, len(settled(text_of(least))) if settings.min_tokens else 0)
        if cut is not None:
            kept = whole[: max(cut, before)]
            tokens = bisect_left(range(end), True, key=lambda tokens: text_of(tokens).startswith(kept))
            return kept[before:], tokens, "stop"
        # Beams fill ended rows with end tokens too. One behind a full window is such a filling: the model had no room
        # left to end the text.
        if end >= settings.max_tokens:
            reason = "length"
        elif end >= room:
            reason = "window"
        else:
            reason = "eos" if ended else "interrupted" if interrupted else "length"
        return whole[before:], end, reason

    def _controls(self, settings: GenerationSettings) -> dict[str, Any]:
        """The fields of the generation config that differ from what `generate()` does by itself."""
        penalty, ends = settings.length_penalty, self.model.generation_config.eos_token_id
        processors = None
        if penalty != 1 and settings.beam_size == 1:
            if ends is None:
                self._tell(f"length-penalty is {penalty:g} but has no effect: the model has no token that ends a text")
            else:
                # As a field of the config, the pipeline would warn that it is ignored where there are no beams.
                ids = [ends] if isinstance(ends, int) else ends
                processors = LogitsProcessorList([LengthPenaltyLogitsProcessor(penalty, ids)])
            penalty = 1.0
        values = {
            "min_new_tokens": settings.min_tokens or None,
            "stop": list(settings.stop) or None,
            "length_penalty": penalty if penalty != 1 else None,
            "logits_processor": processors,
            "repetition_penalty": settings.repetition_penalty if settings.repetition_penalty != 1 else None,
            "no_repeat_ngram_size": settings.no_repeat_ngram or None,
            "repetition_unit": settings.repetition_unit,
            "bad_words": settings.banned() or None,
            "must_include": list(settings.must_include) or None,
            "must_include_ordered": settings.must_include_ordered or None,
            "must_include_prompt": settings.must_include_prompt or None,
            "case_sensitive": settings.case_sensitive or None,
            "guide_attribute": list(settings.guide_attribute) or None,
            "guide_strength": settings.guide_strength if settings.guide_attribute else None,
            "pattern": settings.pattern or None,
            "json_schema": settings.json_schema or None,
            "grammar": settings.grammar or None,
        }
        return {name: value for name, value in values.items() if value is not None}

    @property
    def _own(self) -> bool:
        return self.model.config.model_type == "fundamentallm"

    def _rooms(self, lengths: Sequence[int], settings: GenerationSettings) -> list[int]:
        """For how many tokens the window has room behind prompts of these lengths; `max_tokens` where it ends nothing.

        Models other than FundamentaLLM's end at their window: they cannot be made to read on from its last part.
        """
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if window is None or (self._own and settings.overflow != "stop"):
            return [settings.max_tokens] * len(lengths)
        if not self._own:
            cannot = f"a model of type {self.model.config.model_type} cannot slide"
            try:
                check_overflow(settings.overflow or "stop", lengths, settings.max_tokens, window, cannot)
            except ValueError as error:
                raise UsageError(str(error)) from error
        return [window - length for length in lengths]
