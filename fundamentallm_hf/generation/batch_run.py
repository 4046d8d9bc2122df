"""Runs one batch, from its prompts to its completions."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from transformers import LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

from fundamentallm_hf.portable.controls.controlled_generate import controlled_generate
from fundamentallm_hf.portable.decoding.context_window import WindowFullCriteria
from fundamentallm_hf.portable.decoding.endings import ClosedEndCriteria, CompleteEndCriteria
from fundamentallm_hf.portable.decoding.lean_loop import PassCounter
from fundamentallm_hf.portable.decoding.recording import ProbabilityRecorder, RawRecorder
from fundamentallm_hf.portable.decoding.tested_versions import UntestedVersionError
from fundamentallm_hf.portable.errors import UsageError, UserError

from .batch import Batch, CompletionPipeline, Extras, Row, RowReader, torch_seeded
from .beam_progress import BeamProgress, TakeBest
from .beam_tree import BeamRecorder
from .completion import Completion, likeliest
from .generate_arguments import end_tokens, generate_arguments, is_fundamentallm
from .probabilities import TokenNames, log_probability, token_predictions
from .streaming import EveryStep, StopWhenSet


class BatchRun:
    """One batch, generated at once by `run`, or by a scheduler: `prepare`, then the loop, then `finish`.

    Args:
        model: that generates.
        tokenizer: the model's.
        pipeline: of both.
        batch: the prompts and their settings.
        extras: what else the call needs.
        tell: called with a line that the user should know.
        names: of the tokens, where probabilities are computed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pipeline: CompletionPipeline,
        batch: Batch,
        extras: Extras,
        tell: Callable[[str], None],
        names: TokenNames | None = None,
    ) -> None:
        self.model, self.tokenizer, self.pipeline, self.batch, self.tell = model, tokenizer, pipeline, batch, tell
        settings = batch.settings
        if extras.probabilities and extras.recorder is None:
            greedy = not settings.sampled and not batch.beams
            recorder = ProbabilityRecorder(extras.probabilities, greedy=greedy, beams=batch.beams)
            extras = replace(extras, recorder=recorder)
        elif extras.scored and extras.deferred is not None and extras.recorder is None:
            extras = replace(extras, recorder=RawRecorder())  # another pass over the text would take longer
        self.extras = replace(extras, scored=extras.scored or settings.best is not None)
        self.blocked, self.complete, self.counter = ClosedEndCriteria(tell=False), CompleteEndCriteria(), PassCounter()
        self.criteria = StoppingCriteriaList([self.blocked, self.complete, self.counter])
        self.names = names if extras.probabilities else None
        self._records: list[list[dict]] = []

    def run(self) -> list[Completion]:
        """Generate and read all texts."""
        return self._read(self._generate_tokens())

    def prepare(self) -> None:
        """Prepare the loop of a single text; `Extras.deferred` holds it afterwards."""
        self._records = self._generate_tokens()

    def finish(self) -> Completion:
        """The text of a prepared loop that has ended."""
        assert self.extras.deferred is not None
        loop, ((record,),) = self.extras.deferred.loop, self._records
        assert loop is not None
        record["added"] = loop.ids[0, len(record["given"]) : loop.length].tolist()
        return self._read(self._records)[0]

    def _read(self, records: list[list[dict]]) -> list[Completion]:
        batch, best = self.batch, self.batch.settings.best
        reader = RowReader(self.model, self.tokenizer, batch.settings, self.extras.interrupted)
        completions = []
        for prompt, budget, length, of_prompt in zip(batch.prompts, batch.budgets, batch.lengths, records, strict=True):
            of_this = []
            for index, record in enumerate(of_prompt):
                given, added = record["given"], record["added"]
                read = reader.read([] if batch.is_chat else given, added, budget)
                of_this.append(self._completion(prompt, length, index, given + added[: read.tokens], len(given), read))
            completions += of_this if best is None else likeliest(of_this, best)
        return completions

    def _completion(self, prompt: str, length: int, index: int, row: list[int], given: int, read: Row) -> Completion:
        """The completion of a row of tokens.

        Args:
            prompt: of the row.
            length: tokens of the prompt.
            index: of the sample.
            row: all tokens.
            given: how many of them are the prompt's, padding included.
            read: the text of the row.
        """
        batch, extras, reason = self.batch, self.extras, read.finish_reason
        if self.blocked.holds(row):
            reason = "blocked"
        elif self.complete.holds(row) or (reason in ("length", "window") and self.complete.judges(row)):
            reason = "complete"
        seed = batch.seed if batch.seed is None or batch.beams else batch.seed + index
        padding, found, score, raw = given - length, None, None, None
        if isinstance(extras.recorder, BeamRecorder):
            extras.recorder.chosen = row
        tokens = torch.tensor(row)
        if isinstance(extras.recorder, RawRecorder):
            raw = extras.recorder.raw(tokens, given)
        if extras.scored and raw is not None:
            score = float(raw.gather(-1, tokens[given:, None]).double().sum())
        elif extras.scored:
            score = log_probability(self.model, row[padding:], length)
        if self.names is not None and isinstance(extras.recorder, ProbabilityRecorder):
            found = token_predictions(self.model, self.names, row, given, padding, extras.recorder, raw)
        is_json, passes = bool(batch.settings.json_schema), self.counter.passes
        return Completion(prompt, read.text, reason, read.tokens, seed, score, found, index, is_json, passes)

    def _progress(self, take: TakeBest) -> BeamProgress:
        settings, ends = self.batch.settings, (self.blocked, self.complete)
        given, stops = self.batch.lengths[0], settings.stop
        return BeamProgress(
            take, self.tokenizer, given, settings.beam_size, end_tokens(self.model), stops, ends, self.batch.is_chat
        )

    def _generate_tokens(self) -> list[list[dict]]:
        """Run the pipeline: for each prompt, a record of `CompletionPipeline` for each sample."""
        batch, extras, criteria = self.batch, self.extras, self.criteria
        arguments = generate_arguments(self.model, batch.settings, self.tell)
        # A row alone can have a seed of its own. Beams take from each other and draw from torch's generator.
        arguments["seed"], torch_seed = (None, batch.seed) if batch.beams else (batch.seed, None)
        if extras.recorder is not None:
            processors = arguments.get("logits_processor") or ()
            arguments["logits_processor"] = LogitsProcessorList([*processors, extras.recorder])
        if extras.interrupt is not None:
            criteria.append(StopWhenSet(extras.interrupt))
        if extras.progress is not None and batch.beams and len(batch.prompts) == 1:
            criteria.append(self._progress(extras.progress))
        if extras.turn is not None:
            criteria.append(EveryStep(extras.turn))
        if is_fundamentallm(self.model):
            overflow = batch.settings.overflow or "slide"
            arguments |= {"overflow": overflow, "tokenizer": self.tokenizer, "streamer": extras.streamer}
            arguments |= {} if batch.settings.speculate else {"speculate": False}
            arguments |= {} if extras.deferred is None else {"custom_generate": extras.deferred}
        else:
            if batch.ends_at_window:
                criteria.append(WindowFullCriteria(batch.budgets, max(batch.lengths)))
            controlled = partial(controlled_generate, tokenizer=self.tokenizer, streamer=extras.streamer)
            arguments["custom_generate"] = controlled
        try:
            with torch_seeded(torch_seed, self.model.device):
                return self.pipeline(
                    batch.prompts,
                    batch_size=len(batch.prompts),
                    # It would warn of prompts longer than the window; and a chat holds its special tokens already.
                    tokenizer_encode_kwargs={"verbose": False, "add_special_tokens": not batch.is_chat},
                    stopping_criteria=criteria,
                    **arguments,
                )
        except ValueError as error:
            raise UsageError.of(error) from error
        except UntestedVersionError as error:
            raise UserError(str(error)) from error
