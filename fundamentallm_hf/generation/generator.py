"""Generates text from settings: the `Generator`, which Python, the command line and the web demo use."""

import secrets
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fundamentallm_hf.model_io.loading import tokenizer_of
from fundamentallm_hf.model_io.tokenizer import unknown_characters, unknown_notice
from fundamentallm_hf.portable.decoding.recording import ProbabilityRecorder
from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.settings.chat_messages import Prompt
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .batch import Batch, CompletionPipeline, Extras
from .batch_run import BatchRun
from .beam_progress import TakeBest
from .beam_tree import BeamRecorder, Branch
from .chat import as_prompt, as_prompts, encode
from .completion import Completion, all_parts, in_batches
from .file_run import FileOptions, FileSummary, run_file
from .generate_arguments import end_tokens
from .probabilities import (
    Prediction,
    TokenNames,
    next_predictions,
    raw_log_probabilities,
)
from .prompt_files import PromptsFile
from .resumable_output import ResumableFile
from .streaming import TextStream, pieces_of


class Generator:
    """Generates text with one model.

    Args:
        model: any causal language model of transformers, as `load_model` returns it.
        tokenizer: its tokenizer; by default the one the model carries or came with.
        notice: called with a line that a user should know, such as characters that the model has no token for. By
            default it becomes a Python warning. Nothing is reported twice.
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
        self.settings = GenerationSettings().replace(**settings)
        self.model = model
        self.tokenizer = tokenizer or tokenizer_of(model)
        # A model that is spread over devices stays where it is.
        device = None if getattr(model, "hf_device_map", None) else model.device
        self.pipeline = CompletionPipeline(model=model, tokenizer=self.tokenizer, device=device)
        self._notice = notice or (lambda text: warnings.warn(text, stacklevel=4))
        self._told: set[str] = set()
        self._names: TokenNames | None = None

    def generate(self, prompt: Prompt, **settings: Any) -> str:
        """Generate one text.

        Args:
            prompt: the start of the text, which may be empty; or a chat to be answered, a list of messages such as
                `{"role": "user", "content": "Hello"}`. A chat goes through the tokenizer's template. If its last
                message is the assistant's, that is the start of the reply.
            settings: for this call, in place of the generator's.

        Returns:
            The prompt and what the model added to it; of a chat the reply alone.

        Raises:
            UserError: a setting or a chat cannot be used, or the text does not fit into the context window where it
                has to.
        """
        return self._run([self._text(prompt)], self._for_one(settings), Extras())[0].text

    def complete(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        scored: bool = False,
        probabilities: int = 0,
        interrupt: threading.Event | None = None,
        turn: Callable[[], None] | None = None,
        progress: TakeBest | None = None,
        **settings: Any,
    ) -> list[Completion]:
        """Generate `num_samples` texts for each prompt, all in one batch, and keep the `best` of them.

        Args:
            prompts: one or several, each as in `generate`.
            scored: compute the log-probability of every text.
            probabilities: compute the probabilities of every token, with this many alternatives to each; 0 is off.
            interrupt: ends the computation at the next token once another thread sets it.
            turn: called before every step.
            progress: called during a beam search over one prompt, with what the best beam adds so far and how many of
                these characters are certain.
            settings: for this call, in place of the generator's.

        Returns:
            The completions, those of the first prompt first.

        Raises:
            UserError: as in `generate`.
        """
        extras = Extras(scored, probabilities, interrupt, turn=turn, progress=progress)
        return self._run(list(as_prompts(prompts, self.tokenizer)), self._for_call(settings), extras)

    def iterate(
        self,
        prompts: Iterable[Prompt],
        *,
        rows: int = 32,
        scored: bool = False,
        probabilities: int = 0,
        **settings: Any,
    ) -> Iterator[list[Completion]]:
        """Generate what `complete` generates, for any number of prompts, in batches.

        Args:
            prompts: any number, each as in `generate`.
            rows: texts to generate at a time, at most. The beams of a prompt stay in one batch, and sampled beams of
                two prompts never do.
            scored, probabilities, settings: as in `complete`.

        Yields:
            The completions of one or several prompts, or of a part of one prompt's samples.

        Raises:
            UserError: as in `generate`.
        """
        chosen = self._for_call(settings)
        chosen.check()
        write = partial(self._run, extras=Extras(scored, probabilities))
        yield from in_batches(write, as_prompts(prompts, self.tokenizer), chosen, rows)

    def complete_file(
        self,
        prompts: PromptsFile | str,
        output: str,
        *,
        options: FileOptions | None = None,
        force: bool = False,
        append: bool = False,
        **settings: Any,
    ) -> FileSummary:
        """Generate the texts of a file of prompts into a file of JSON lines; a run that was ended continues.

        Args:
            prompts: path of text lines, JSON lines, CSV or Parquet, or a `PromptsFile` that says how it is read.
            output: the file of records; next to it comes a record of the run.
            options: how; none of it changes a text.
            force, append: replace the file, or add to it, if it holds something else.
            settings: for this call, in place of the generator's; a prompt can have some of its own.

        Raises:
            UserError: as in `generate`, or the output belongs to another run. A prompt that fails is a record.
        """
        file = prompts if isinstance(prompts, PromptsFile) else PromptsFile(str(prompts))
        target = ResumableFile(output, force=force, append=append)
        return run_file(self, file, target, self._for_call(settings), options or FileOptions())

    def next_tokens(self, prompt: Prompt, *, top: int = 10, **settings: Any) -> list[Prediction]:
        """The most probable tokens after a prompt, by the model alone and after the settings and controls.

        Args:
            prompt: the text before them, which may be empty, or a chat.
            top: how many. A token is among them if it is probable either way, so what a control masks can be seen.
            settings: for this call, in place of the generator's. They are those of a whole text, of which only the
                first token is looked at: a word that must be included has to fit into `max_tokens`.

        Raises:
            UserError: as in `generate`.

        Example:

        ```python
        >>> from fundamentallm_hf import Generator, load_model
        >>> [each.label for each in Generator(load_model(device="cpu")).next_tokens("Once upon a tim", top=1)]
        ['"e"']

        ```
        """
        chosen = self._for_call(settings).replace(num_samples=1, best=None)
        recorder = ProbabilityRecorder(0, greedy=not chosen.sampled and chosen.beam_size == 1)
        at_once = threading.Event()
        at_once.set()
        text = self._text(prompt)
        self._run([text], chosen, Extras(interrupt=at_once, recorder=recorder))
        tokens = self._ids(text)
        raw = next(raw_log_probabilities(self.model, tokens, len(tokens))).exp()[0]
        assert recorder.first is not None
        return next_predictions(TokenNames(self.tokenizer), raw, recorder.first, top)

    def search(
        self,
        prompt: Prompt,
        *,
        interrupt: threading.Event | None = None,
        turn: Callable[[], None] | None = None,
        progress: TakeBest | None = None,
        **settings: Any,
    ) -> tuple[Completion, list[Branch]]:
        """Search with beams for one text, and return the other beams too.

        Args:
            prompt: as in `generate`.
            interrupt, turn, progress: as in `complete`.
            settings: for this call, in place of the generator's; `beam_size` has to be at least 2.

        Returns:
            The text that `generate` returns, and the tree of beams; its first branch is that text.

        Raises:
            UserError: as in `generate`, or there is only one beam.
        """
        chosen = self._for_call(settings).replace(num_samples=1, best=None)
        if chosen.beam_size < 2:
            line = f"beam-size has to be at least 2 for a search but is {chosen.beam_size}"
            raise UsageError(line, setting="beam_size", value=chosen.beam_size, expected="at least 2")
        recorder = BeamRecorder(end_tokens(self.model))
        extras = Extras(scored=True, interrupt=interrupt, recorder=recorder, turn=turn, progress=progress)
        completion = self._run([self._text(prompt)], chosen, extras)[0]
        return completion, recorder.branches(TokenNames(self.tokenizer).text)

    def _text(self, prompt: Prompt) -> str:
        return as_prompt(prompt, self.tokenizer)

    def _ids(self, prompt: str) -> list[int]:
        """The tokens of a prompt; an empty one becomes the start token that the model begins with."""
        (ids,) = encode([prompt], self.tokenizer)
        return ids or [self.model.generation_config.bos_token_id]

    def stream(
        self,
        prompt: Prompt,
        *,
        scored: bool = False,
        probabilities: int = 0,
        interrupt: threading.Event | None = None,
        **settings: Any,
    ) -> TextStream[Completion]:
        """Generate one text, and return its pieces as they are generated.

        Args:
            prompt: as in `generate`.
            scored, probabilities, interrupt, settings: as in `complete`.

        Returns:
            An iterator over pieces of text. Its `result` is the whole completion; `close()` ends the computation. With
            `probabilities`, a piece is a `TextPiece` that knows its own.

        Raises:
            UserError: as in `generate`; errors of the generation itself are raised when iterating.
        """
        chosen = self._for_one(settings)
        chosen.check()
        text = self._text(prompt)

        def work(take: Callable[[str], None], stop: threading.Event) -> Completion:
            extras = Extras(scored, probabilities, stop)
            if chosen.beam_size > 1 or chosen.best:  # which text is the most probable is known at the end
                completion = self._run([text], chosen, extras)[0]
                for piece in pieces_of(completion):
                    take(piece)
                return completion
            return self._run([text], chosen, extras.streamed(text, chosen, self.tokenizer, take))[0]

        return TextStream(work, interrupt)

    def _for_call(self, settings: dict[str, Any]) -> GenerationSettings:
        """The settings of a call. A file of words is read here, once, however many batches follow."""
        return self.settings.replace(**settings).with_files_read()

    def _for_one(self, settings: dict[str, Any]) -> GenerationSettings:
        """The settings for one text: that of one sample, or the best of several."""
        chosen = self._for_call(settings)
        return chosen.replace(num_samples=1) if chosen.best is None else chosen.replace(best=1)

    def _tell_unknown(self, prompts: Sequence[str]) -> None:
        unknown = [char for char in unknown_characters(self.tokenizer, "".join(prompts)) if char not in self._told]
        if unknown:
            self._told.update(unknown)
            self._tell(unknown_notice(self.tokenizer, unknown))

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._notice(text)

    def _run(self, prompts: list[str], settings: GenerationSettings, extras: Extras) -> list[Completion]:
        """Generate all samples of all prompts: in one batch, where they can be parts of one."""
        if not prompts:
            return []
        seed = self._checked_seed(prompts, settings)
        if settings.beam_size > 1 and seed is not None and settings.num_samples > settings.beam_size:
            write, again = partial(self._run, extras=extras), settings.replace(seed=seed)
            return [each for prompt in prompts for each in all_parts(write, prompt, again, settings.beam_size)]
        batch = Batch.of(prompts, settings, seed, self.model, self.tokenizer)
        if not batch.fits_together:
            return [each for prompt in prompts for each in self._run([prompt], settings.replace(seed=seed), extras)]
        return self._batch_run(batch, extras).run()

    def begin(self, prompt: str, settings: GenerationSettings, extras: Extras) -> BatchRun:
        """Prepare one text, whose loop a scheduler runs together with others.

        Args:
            prompt: the start of the text, or a chat through the template.
            settings: with one sample, one beam and the words of a file read already.
            extras: with `deferred`, which holds the loop afterwards.

        Raises:
            UserError: as in `generate`.
            CannotDefer: the text needs a loop of transformers.
        """
        seed = self._checked_seed([prompt], settings)
        batch = Batch.of([prompt], settings, seed, self.model, self.tokenizer)
        run = self._batch_run(batch, extras)
        run.prepare()
        return run

    def _checked_seed(self, prompts: Sequence[str], settings: GenerationSettings) -> int | None:
        """Check settings and prompts. Returns the seed, drawn if none is set; None if nothing is sampled."""
        settings.check()
        self._tell_unknown([*prompts, *settings.stop])
        if not settings.sampled:
            return None
        return secrets.randbits(32) if settings.seed is None else settings.seed

    def _batch_run(self, batch: Batch, extras: Extras) -> BatchRun:
        if extras.probabilities and self._names is None:
            self._names = TokenNames(self.tokenizer)
        return BatchRun(self.model, self.tokenizer, self.pipeline, batch, extras, self._tell, self._names)

    def run_alone(self, prompt: str, settings: GenerationSettings, extras: Extras) -> Completion:
        """One text, as `begin` would prepare it."""
        return self._run([prompt], settings, extras)[0]
