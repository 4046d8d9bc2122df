"""A decoding loop for greedy search and sampling with little overhead per token; it checks drafted tokens in one pass.

The loop generates the same tokens as transformers' loop. It calls processors and stopping criteria in the same way,
once for every generated token. They never see a drafted token that was rejected. The loop uses the network only through
a `Step`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation import EosTokenCriteria, MaxLengthCriteria

from ..text.pieces import common_length
from .context_window import view, window_start
from .drafts import Draft, Drafter, NgramTable, SuggestsTokens, first_suggestion
from .endings import EndCriteria
from .free_runs import FreeRuns
from .generate_call import Call
from .judged_runs import JudgedRuns
from .lookahead import Branches
from .network_step import Chosen, Step
from .recording import FirstLook, ProbabilityRecorder, RawRecorder
from .row_drafts import RowDrafts, ignores_text, is_over
from .seeded_sampling import SeededSampling
from .texts import Texts
from .warpers import MEMORYLESS
from .watched_states import StatesWatcher


class PassCounter(StoppingCriteria):
    """Counts the passes of the network in one call of `generate()`; it never stops a row.

    Attributes:
        passes: passes so far, including the one over the prompt.
    """

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        self.passes += 1  # transformers' loops call this once per pass; `LeanLoop` counts directly
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class LeanLoop:
    """One call of `generate()`.

    Args:
        make_step: creates the network's step for a number of rows and a number of columns.
        call: the call; its mode is greedy search or sampling.
        processors: the processors of the scores, applied in every step.
        criteria: the stopping criteria; one of them is the maximum length.
        mask: (rows, prompt columns) 0 for padding; None if there is no padding.
        streamer: receives every token; may be None.
        drafted: whether to draft tokens.
        table: an n-gram table to draft from; may be None.

    Attributes:
        few: finished rows are removed from the passes once at most this share of the computed rows is unfinished.
    """

    few = 0.75

    def __init__(
        self,
        make_step: Callable[[int, int], Step],
        call: Call,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        mask: torch.Tensor | None = None,
        streamer: Any = None,
        drafted: bool = False,
        table: NgramTable | None = None,
    ) -> None:
        assert call.window is not None
        self.call, self.window, self.streamer = call, call.window, streamer
        self.mask = mask if mask is None or not bool(mask.all()) else None
        self.drafted, self.table = drafted, table
        self.rows, self.length = call.prompts.shape
        limits = [each.max_length for each in criteria if type(each) is MaxLengthCriteria]
        self.most = min([call.config.max_length, *limits])
        self.step = make_step(self.rows, min(self.window, max(self.most, self.length)))
        self.drafter = Drafter(table) if drafted and self.rows == 1 else None
        self.processors = list(processors)
        self.chooser = self.processors.pop() if processors and type(processors[-1]) is SeededSampling else None
        self.recorder: RawRecorder | None = None
        if self.rows == 1:
            self._set_recorder_aside()
        # All depend only on the scores, so several steps can be computed at once.
        self.memoryless = all(type(each) in MEMORYLESS for each in self.processors)
        self.at_once = self.memoryless and self.rows == 1
        self.free = FreeRuns(self)
        self.suggesting = [each for each in self.processors if isinstance(each, SuggestsTokens)]
        runs = JudgedRuns(self)
        self.runs = runs if self.drafter is not None and not self.at_once and runs.suits else None
        self.alone = False  # whether `run` decides when passes are made
        self.states: torch.Tensor | None = None
        self.watchers = [each for each in self.processors if isinstance(each, StatesWatcher)]
        self.greedy = not call.config.do_sample
        self.counters = [each for each in criteria if type(each) is PassCounter]
        self._read_criteria(criteria)
        self.ids = call.prompts.long()
        self.make_room(self.length + 1)
        self.lengths = [self.length - padding for padding in call.padding]
        self.unread = self.length  # columns without cached keys and values
        self.going = [True] * self.rows
        self.held: list[int] | None = None  # the rows of the step; None for all
        self.countdown = torch.arange(self.window)
        self.read = 0  # columns of the step that hold the text so far, without drafts

    def _set_recorder_aside(self) -> None:
        """Let a recorder read the scores of several steps at once, where all other processors can."""
        kinds = (RawRecorder, ProbabilityRecorder)
        others = [each for each in self.processors if type(each) not in (*kinds, FirstLook)]
        recorders = [each for each in self.processors if type(each) in kinds]
        if len(recorders) == 1 and all(type(each) in MEMORYLESS for each in others):
            (self.recorder,), self.processors = recorders, others

    def _read_criteria(self, criteria: StoppingCriteriaList) -> None:
        kinds = (MaxLengthCriteria, EosTokenCriteria, PassCounter)
        self.criteria = StoppingCriteriaList(each for each in criteria if type(each) not in kinds)
        ends = [each.eos_token_id for each in criteria if type(each) is EosTokenCriteria]
        self.end_tokens = {token for each in ends for token in each.tolist()}
        self.pads = any(hasattr(each, "eos_token_id") for each in criteria)
        pad = self.call.config.pad_token_id
        self.pad = self.call.closing_token if pad is None else pad

    def make_room(self, columns: int) -> None:
        """Extend `ids` to at least this many columns. It grows with the text, whose final length is unknown."""
        if columns > self.ids.shape[1]:
            more = max(columns, min(self.most, 2 * columns)) - self.ids.shape[1]
            self.ids = torch.nn.functional.pad(self.ids, (0, more))

    @torch.no_grad()
    def run(self) -> torch.Tensor:
        """Decode. Returns (rows, length) token ids."""
        self.alone = True
        self.open()
        try:
            self._decode()
        finally:
            self.close()
        if self.streamer is not None:
            self.streamer.end()
        return self.ids[:, : self.length].clone()

    def open(self) -> None:
        """Let the lookahead of the call use this loop's step; `close` ends that."""
        if not self.memoryless:
            self.call.lookahead.reader = self._read_ahead

    def close(self) -> None:
        """Break the reference cycle that `open` made."""
        if not self.memoryless:
            self.call.lookahead.reader = None

    def _decode(self) -> None:
        limit = min(self.most, self.window)
        apart = self.drafted and self.length + 1 < limit and RowDrafts.suits(self)
        while True:
            ahead = self.runs.take_ahead() if self.runs is not None else None
            if ahead is not None:
                self.step.length = ahead.columns
                self.count_pass(ahead.states, passes=0)  # counted where it is used
                self.take(ahead.logits, ahead.draft)
            else:
                draft = self.draft()
                self.take(self.compute(draft.tokens), draft)
            if apart and any(self.going):
                apart = False
                RowDrafts(self, self.table, limit).run()
            if not any(self.going):
                break
            self._leave_out()

    def draft(self, guessed: Sequence[int] = ()) -> Draft:
        """Draft the next tokens, at most as many as fit into the context window before it moves.

        Args:
            guessed: tokens that will probably be written before those. All but the last are in the cache already.
        """
        cached = self.step.length
        if self.drafter is None or not cached or (self.unread != 1 and not guessed):  # nothing is computed yet
            return Draft([])
        length, of_row = self.length + len(guessed), self.lengths[0] + len(guessed)
        # Part of the cache may stay unused: the window moves according to the length of the text.
        in_window = self.window - max(cached + 1, of_row - window_start(of_row, self.window))
        most = min(self.most - length - 1, in_window)
        if most <= 0:
            return Draft([])
        ids = self.ids[:, : self.length]
        ids = torch.cat([ids, torch.tensor([guessed])], dim=1) if guessed else ids
        return self.drafter(ids[0].tolist(), most, first_suggestion(self.suggesting, ids), self.length)

    def enter(self, drafted: Sequence[int]) -> None:
        """Put drafted tokens behind the text in `ids`."""
        self.make_room(self.length + len(drafted))
        self.ids[0, self.length : self.length + len(drafted)] = torch.tensor(drafted)

    def joins(self, drafted: Sequence[int]) -> bool:
        """Whether the next pass reads only tokens after the cached ones, in adjacent columns of a single row."""
        new = self.unread + len(drafted)
        return self.rows == 1 and self.mask is None and 0 < self.step.length <= self.window - new and self.unread == 1

    def compute(self, drafted: Sequence[int]) -> torch.Tensor:
        """Logits after the current text and after each drafted token, (rows, drafted + 1, vocabulary) in float32."""
        new, mask, copies = self.unread + len(drafted), None, 1
        if drafted:
            self.enter(drafted)
        end = self.length + len(drafted)
        lengths = [length + len(drafted) for length in self.lengths]
        if end > self.window:
            now = view(lengths, self.step.length, new, self.window, self.ids.device)
            if now.restart:
                self.step.length = 0
            new, mask, positions = now.columns, now.attention_mask, now.position_ids
        else:
            mask = None if self.mask is None else self._padded(end)
            if self.step.length == 0:
                positions = self._prompt_positions()
            else:
                positions = self.countdown[: len(drafted) + 1] + torch.tensor(self.lengths)[:, None] - 1
        tokens = self.ids[:, end - new : end]
        if self.step.length == 0 and self.unread == self.length:
            copies = self._copies()
        picked = self.held if self.held is not None else slice(None, None, copies)
        if self.held is not None or copies > 1:
            tokens = tokens[picked]
            mask = mask if mask is None or len(mask) == 1 else mask[picked]
            positions = positions if len(positions) == 1 else positions[picked]
        logits = self.step(tokens, positions, mask, kept=len(drafted) + 1).to(torch.float32, copy=True)
        self.count_pass(self.step.states)
        if copies > 1:
            self.step.spread(copies)
            self.states = None if self.states is None else self.states.repeat_interleave(copies, dim=0)
            return logits.repeat_interleave(copies, dim=0)
        if self.held is None:
            return logits
        whole = torch.zeros(self.rows, *logits.shape[1:])
        whole[self.held] = logits
        return whole

    def count_pass(self, states: torch.Tensor | None, passes: int = 1) -> None:
        """Count a pass of the network. `states`: (rows, kept, hidden size) the input of its output layer."""
        for counter in self.counters:
            counter.passes += passes
        self.states = states if self.watchers else None

    def _padded(self, columns: int) -> torch.Tensor:
        assert self.mask is not None
        return torch.nn.functional.pad(self.mask, (0, columns - self.mask.shape[1]), value=1)

    def _prompt_positions(self) -> torch.Tensor:
        if self.mask is None:
            return self.countdown[None, : self.length]
        return (self.mask.long().cumsum(dim=-1) - 1).clamp(min=0)

    def _copies(self) -> int:
        """The number of adjacent rows that share a prompt."""
        copies = self.call.config.num_return_sequences or 1
        if copies == 1 or self.rows % copies:
            return 1
        prompts = self.call.prompts.view(-1, copies, self.length)
        same = bool((prompts == prompts[:, :1]).all())
        if same and self.mask is not None:
            masks = self.mask.view(-1, copies, self.length)
            same = bool((masks == masks[:, :1]).all())
        return copies if same else 1

    def write_each(self, logits: torch.Tensor, drafted: Sequence[int]) -> int:
        """Choose tokens one by one, as long as they match the drafted ones. Returns their number."""
        for index in range(len(drafted) + 1):
            self.read = self.step.length - len(drafted) + index
            for watcher in self.watchers:
                assert self.states is not None
                watcher.show(self.states, index)
            ids = self.ids[:, : self.length].contiguous()
            scores = logits[:, index].contiguous()
            for processor in self.processors:
                scores = processor(ids, scores)
            tokens = self.choose(scores)
            self.append(tokens)
            if not any(self.going) or (index < len(drafted) and tokens[0] != drafted[index]):
                return index + 1
        return len(drafted) + 1

    def take(self, logits: torch.Tensor, draft: Draft, chosen: Chosen | None = None) -> None:
        """Choose the next tokens, as long as they match the drafted ones.

        Args:
            logits: (rows, drafted + 1, vocabulary), as `compute` returns them.
            draft: the drafted tokens.
            chosen: what others have chosen from these logits by the processors that look at nothing else.
        """
        drafted = draft.tokens
        if self.at_once:
            written = self.free.write(logits[0], drafted, chosen)
        elif self.runs is not None:
            written = self.runs.write(logits, drafted, chosen)
        else:
            written = self.write_each(logits, drafted)
        if self.drafter is not None:
            waiting = 0 if self.runs is None else self.runs.waiting
            self.drafter.learn(draft, min(written + waiting - 1, len(drafted)))
        self.step.length -= len(drafted) + 1 - written
        self.unread = 1

    def choose(self, scores: torch.Tensor) -> list[int]:
        """Choose the next token of every row by its scores, (rows, vocabulary)."""
        if self.greedy:
            return scores.argmax(dim=-1).tolist()
        if self.chooser is not None:
            return self.chooser.choose(self.ids[:, : self.length], scores).tolist()
        return torch.multinomial(scores.softmax(dim=-1), num_samples=1)[:, 0].tolist()

    def append(self, tokens: list[int]) -> None:
        """Append one token to every row, and find out which rows end."""
        if self.pads and not all(self.going):
            assert self.pad is not None
            tokens = [token if going else self.pad for token, going in zip(tokens, self.going, strict=True)]
        column = torch.tensor(tokens)
        self.make_room(self.length + 1)
        self.ids[:, self.length] = column
        self.length += 1
        self.lengths = [length + 1 for length in self.lengths]
        if self.streamer is not None:
            self.streamer.put(column)
        if self.length >= self.most:
            self.going = [False] * self.rows
        elif self.end_tokens:
            self.going = [
                going and token not in self.end_tokens for going, token in zip(self.going, tokens, strict=True)
            ]
        if any(not isinstance(each, EndCriteria) or each.rows for each in self.criteria):
            ended = self.criteria(self.ids[:, : self.length].contiguous(), None).tolist()
            self.going = [going and not over for going, over in zip(self.going, ended, strict=True)]

    def append_run(self, tokens: Sequence[int], drafted: Sequence[int]) -> int:
        """Append the tokens chosen for a single row as long as they match the drafted ones, and return their number.

        Args:
            tokens: one more than drafted, each chosen as if those before it were the drafted ones.
            drafted: the drafted tokens.
        """
        count = common_length(tokens, drafted) + 1
        in_runs = self.streamer is None or getattr(self.streamer, "takes_runs", False)
        if not in_runs or not ignores_text(self.criteria):
            for index in range(count):
                self.append([tokens[index]])
                if not any(self.going):
                    return index + 1
            return count
        over = is_over(self.criteria, self.ids[:, : self.length])
        count = 1 if over else min(count, self.most - self.length)
        count = next((index for index in range(count) if tokens[index] in self.end_tokens), count - 1) + 1
        self.enter(tokens[:count])
        if self.streamer is not None:
            self.streamer.put(self.ids[0, self.length : self.length + count].clone())
        self.length += count
        self.lengths[0] += count
        self.going = [not over and self.length < self.most and tokens[count - 1] not in self.end_tokens]
        return count

    def _read_ahead(
        self, texts: Texts, rows: list[int], asked: list[list[int]], sights: list[int]
    ) -> list[torch.Tensor] | None:
        """Lookahead for `ModelLookahead`: one pass of the step, where a row has one text."""
        if texts.ids.shape != (self.rows, self.length) or self.held is not None:
            self._show_cache(self.read)
            return None
        distinct = sorted(set(rows))
        of_rows, reads = [distinct.index(row) for row in rows], [self.read] * len(rows)
        branches = Branches.of(of_rows, asked, sights, reads, self.step.length)
        runs = branches.runs(distinct)
        return branches.apart(self.step.packed(runs).split([len(run.tokens) for run in runs]))

    def _show_cache(self, columns: int) -> None:
        """Set the call's cache to the contents that it would have in transformers' loop."""
        cache = self.call.cache
        if not isinstance(cache, DynamicCache):
            return
        if len(cache.layers) != len(self.step.cache) or not cache.layers[0].is_initialized:
            cache.layers = [DynamicLayer() for _ in self.step.cache]
            for layer, held in zip(cache.layers, self.step.cache, strict=True):
                layer.lazy_initialization(held[0], held[1])
        for layer, held in zip(cache.layers, self.step.cache, strict=True):
            layer.keys, layer.values = held[:, :, :, :columns].unbind(0)

    def _leave_out(self) -> None:
        """Remove finished rows from the passes, unless something needs the whole cache."""
        if not (self.memoryless and self.pads) or all(self.going):
            return
        held = self.held if self.held is not None else list(range(self.rows))
        going = [index for index, row in enumerate(held) if self.going[row]]
        if len(going) <= self.few * len(held):
            self.step.keep_rows(going)
            self.held = [held[index] for index in going]
