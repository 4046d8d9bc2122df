"""Chooses the tokens after all drafts of a pass together, where every processor of a call can process several texts.

Processors that read ahead in the model would need a pass for each question. So they first process the texts without
answers and their questions are noted, and one pass answers those that matter. It also reads what will probably be
written next, so that the texts are processed again together with those after it. Nothing depends on the first time:
what a processor keeps, it keeps by the tokens of a text.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import (
    LogitsProcessor,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
)

from ..text.pieces import common_length
from .drafts import Draft
from .lookahead import Branches, ContinuationKey, Wishes
from .network_step import Chosen
from .recording import Recorder
from .row_drafts import ignores_text
from .texts import JudgesTexts, Texts
from .warpers import MEMORYLESS

# Processors of transformers that keep nothing, and look at nothing but a row and its scores.
_PURE = (
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)


class Ahead(NamedTuple):
    """A pass that was made along with answers, joined to what is not certain yet of the pass before.

    Attributes:
        draft: the tokens to check; the first were chosen without the answers.
        begins: for each pass that is not counted yet, how many tokens are in front of those that it tells.
        logits: (1, drafted + 1, vocabulary).
        states: (1, drafted + 1, hidden size), the input of the output layer.
        columns: columns in the cache after it.
        known: the answers, as in `Wishes`.
    """

    draft: Draft
    begins: list[int]
    logits: torch.Tensor
    states: torch.Tensor
    columns: int
    known: dict[ContinuationKey, torch.Tensor]

    @property
    def chosen(self) -> int:
        """How many tokens of the draft were chosen without the answers."""
        return self.begins[-1]


def judge_all(processors: Sequence[LogitsProcessor], texts: Texts, scores: torch.Tensor) -> torch.Tensor:
    """The scores after all processors; (texts, vocabulary).

    Args:
        processors: processors in their order.
        texts: the texts.
        scores: (texts, vocabulary).
    """
    for each in processors:
        if type(each) in MEMORYLESS:
            scores = each(None, scores)
        elif isinstance(each, JudgesTexts):
            scores = each.judge_texts(texts, scores)
        else:
            rows = zip(range(len(texts)), scores.split(1), strict=True)
            scores = torch.cat([each(texts.tokens(index)[None], row) for index, row in rows])
    return scores


class JudgedRuns:
    """Writes the tokens of a call with one row.

    Args:
        loop: the `LeanLoop` that decodes.

    Attributes:
        guessing: the processors of the call by which the model alone would choose.
        sparing: whether texts that will hardly be written are left out.
    """

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.ahead: Ahead | None = None
        self.taken: Ahead | None = None  # the pass that is written now, if it was made ahead
        self.guessing = [each for each in loop.processors if type(each) is TemperatureLogitsWarper]
        self.drawn_to = torch.zeros(0)
        self.recorders = [each for each in loop.processors if isinstance(each, Recorder)]
        looks = [each.first_look() for each in self.recorders]
        # These observe only the scores of tokens that are written, and change none.
        self.looks = [each for each in loop.processors if any(each is look for look in looks)]
        apart = [*self.recorders, *self.looks]
        self.judging = [each for each in loop.processors if not any(each is other for other in apart)]
        self.sparing = not all(
            each.has_cheap_texts if isinstance(each, JudgesTexts) else type(each) in MEMORYLESS for each in self.judging
        )

    @property
    def suits(self) -> bool:
        """Whether all processors of the call can process several texts at once."""
        return all(
            each.judges if isinstance(each, JudgesTexts) else type(each) in (*MEMORYLESS, *_PURE)
            for each in self.judging
        )

    def take_ahead(self) -> Ahead | None:
        """The next pass, if it has been made already."""
        self.taken, self.ahead = self.ahead, None
        return self.taken

    @property
    def waiting(self) -> int:
        """How many drafted tokens of the last pass are likely to be written with the next one."""
        return 0 if self.ahead is None else self.ahead.chosen

    def write(self, logits: torch.Tensor, drafted: Sequence[int], guessed: Chosen | None = None) -> int:
        """Choose tokens as long as they match the drafted ones, and return their number.

        Where the next pass, which was made ahead, is to decide about all of them, it is 0.

        Args:
            logits: (1, drafted + 1, vocabulary) after the text and after each drafted token.
            drafted: the drafted tokens.
            guessed: what the model alone would choose; None if nobody has computed it.
        """
        written = self._write(logits, drafted, guessed)
        if self.taken is not None:
            for counter in self.loop.counters:
                counter.passes += sum(begin < written for begin in self.taken.begins)
        return written

    def _write(self, logits: torch.Tensor, drafted: Sequence[int], guessed: Chosen | None) -> int:
        loop, cached = self.loop, self.loop.step.length
        loop.enter(drafted)
        count = len(drafted) + 1
        texts = Texts(loop.ids, [0] * count, range(loop.length, loop.length + count))
        for watcher in loop.watchers:
            watcher.show_all(loop.states[0], texts)
        try:
            unlikely = self._unlikely(texts, logits[0], drafted, guessed)
            scores, chosen = self._judge(texts, logits[0], drafted, unlikely)
        except ValueError:  # if it concerns a text that is written, `write_each` raises it again
            return loop.write_each(logits, drafted)
        finally:
            loop.step.length = cached
        if not len(scores):
            return 0
        if chosen and not self.recorders:
            return loop.append_run(chosen, drafted[: len(chosen) - 1])
        for index, (row, raw) in enumerate(zip(scores, logits[0], strict=False)):
            ids = loop.ids[:, : loop.length]
            for look in self.looks:
                look(ids.contiguous(), raw[None])
            for recorder in self.recorders:
                recorder(ids.contiguous(), row[None])
            # Without a seed every choice uses a number from torch's generator, so only the necessary ones are made.
            token = chosen[index] if chosen else loop.choose(row[None])[0]
            loop.append([token])
            if not any(loop.going) or (index < len(drafted) and token != drafted[index]):
                break
        return index + 1

    def _judge(
        self, texts: Texts, logits: torch.Tensor, drafted: Sequence[int], unlikely: Sequence[int]
    ) -> tuple[torch.Tensor, list[int]]:
        """The final scores of the tokens that are certain, and, with a seed, the tokens that are chosen by them.

        Args:
            texts: the text, and the text after each drafted token.
            logits: (texts, vocabulary).
            drafted: the drafted tokens.
            unlikely: the indices of those that the model alone would not choose.
        """
        loop, cached = self.loop, self.loop.step.length - len(drafted)
        lookahead = loop.call.lookahead
        wishes = lookahead.wishes = Wishes()
        if self.taken is not None:
            wishes.known |= self.taken.known
        certain, scores, tokens = 0, list[torch.Tensor](), list[int]()
        try:
            while True:
                # Texts that nobody will write are left out.
                stop = next((index for index in unlikely if index >= certain), len(drafted)) + 1
                part = texts.part(range(certain, stop))
                wishes.wanted.clear()
                found = judge_all(self.judging, part, logits[certain:stop].clone())
                found, chosen = self._chosen(part, found)
                drawn = chosen or self._drawn(found, drafted[certain : stop - 1])
                reached = common_length(drawn, drafted[certain : stop - 1])
                of_texts = ((name, length - loop.length, sight) for name, (length, sight) in wishes.wanted.items())
                asked = {name: (at, sight) for name, at, sight in of_texts if at <= certain + reached}
                kept = min((at for at, _ in asked.values()), default=certain + reached + 1) - certain
                scores.append(found[:kept])
                tokens += chosen[:kept]
                certain += kept
                guess = [*tokens, *chosen[kept : reached + 1]]
                if asked and self._goes_on(guess):
                    # Whatever is answered, the choice will hardly change: the next pass is made at once.
                    self._read_on(asked, cached, logits, guess, certain, wishes.known)
                    return torch.cat(scores), tokens
                if asked:
                    wishes.known |= self._read(asked, cached)
                elif certain > len(drafted) or drawn[reached] != drafted[certain - 1]:
                    if not chosen and certain == kept and self._counts(drawn):
                        torch.set_rng_state(self.drawn_to)
                        tokens = drawn
                    return torch.cat(scores), tokens
        finally:
            lookahead.wishes = None

    def _unlikely(
        self, texts: Texts, logits: torch.Tensor, drafted: Sequence[int], guessed: Chosen | None
    ) -> list[int]:
        """The indices of drafted tokens that the model alone would not choose, but for those chosen with controls."""
        first = 0 if self.taken is None else self.taken.chosen
        if not self.sparing or len(drafted) == first:
            return []
        if guessed is not None:
            tokens = guessed.tokens
        elif self.loop.chooser is None:
            tokens = logits.argmax(dim=-1).tolist()
        else:
            for each in self.guessing:
                logits = each(None, logits)
            _, tokens = self._chosen(texts, logits)
        pairs = enumerate(zip(tokens, drafted, strict=False))
        return [index for index, (token, draft) in pairs if token != draft and index >= first]

    def _chosen(self, texts: Texts, scores: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        if self.loop.greedy:
            return scores, scores.argmax(dim=-1).tolist()
        chooser = self.loop.chooser
        return scores, [] if chooser is None else chooser.choose_run(texts.lengths[0], scores)

    def _drawn(self, scores: torch.Tensor, drafted: Sequence[int]) -> list[int]:
        """The tokens that will be drawn with torch's generator, up to the first that is not the drafted one.

        The generator is left as it was; `drawn_to` is its state after them.
        """
        before, tokens = torch.get_rng_state(), list[int]()
        for row in scores.split(1):
            tokens += self.loop.choose(row)
            if tokens[-1:] != [*drafted[len(tokens) - 1 : len(tokens)]]:
                break
        self.drawn_to = torch.get_rng_state()
        torch.set_rng_state(before)
        return tokens

    def _counts(self, drawn: Sequence[int]) -> bool:
        """Whether exactly these tokens are written next, so that none has to be drawn again."""
        loop = self.loop
        return not self.recorders and loop.end_tokens.isdisjoint(drawn[:-1]) and ignores_text(loop.criteria)

    def _goes_on(self, guess: Sequence[int]) -> bool:
        """Whether the text goes on after these tokens, with nothing in the way of a pass."""
        loop = self.loop
        ends = not loop.end_tokens.isdisjoint(guess)
        return (
            loop.alone
            and bool(guess)
            and not ends
            and loop.mask is None
            and loop.length + len(guess) < min(loop.most, loop.window)
        )

    def _read(self, wanted: dict[ContinuationKey, tuple[int, int]], cached: int) -> dict[ContinuationKey, torch.Tensor]:
        """The logits of continuations, read beside the text.

        Args:
            wanted: by text and continuation, the index of the text and how many of its tokens are in sight.
            cached: columns in the cache that hold the text, without drafts.
        """
        return dict(zip(wanted, self._read_beside(wanted, cached), strict=True))

    def _read_on(
        self,
        wanted: dict[ContinuationKey, tuple[int, int]],
        cached: int,
        logits: torch.Tensor,
        guess: Sequence[int],
        certain: int,
        known: dict[ContinuationKey, torch.Tensor],
    ) -> None:
        """Read continuations, and make the next pass along with them.

        Args:
            wanted: as in `_read`.
            cached: as in `_read`.
            logits: (texts, vocabulary), as in `_judge`.
            guess: tokens that will probably be written.
            certain: how many of them will be written now.
            known: the answers so far.
        """
        loop, waiting = self.loop, guess[certain:]
        loop.step.length = cached + len(guess) - 1
        draft = loop.draft(guess)
        main = [guess[-1], *draft.tokens]
        found = self._read_beside(wanted, cached, main, loop.lengths[0] + len(guess) - 1)
        begins = [] if self.taken is None else self.taken.begins
        states = loop.step.states
        if loop.states is not None:
            states = torch.cat([loop.states[:, certain : len(guess)], states], dim=1)
        self.ahead = Ahead(
            Draft([*waiting, *draft.tokens], len(waiting) + draft.suggested, draft.probabilities),
            [*(each - certain for each in begins if each >= certain), len(waiting)],
            torch.cat([logits[certain : len(guess)], found[0]])[None],
            states,
            loop.step.length,
            known | dict(zip(wanted, found[1:], strict=True)),
        )

    def _read_beside(
        self,
        wanted: dict[ContinuationKey, tuple[int, int]],
        cached: int,
        main: Sequence[int] = (),
        sight: int = 0,
    ) -> list[torch.Tensor]:
        """The logits of tokens that go on with the text, which stay in the cache, if any, and of continuations.

        Args:
            wanted: as in `_read`.
            cached: as in `_read`.
            main: the tokens.
            sight: how many tokens of the text are in sight before them.
        """
        step = self.loop.step
        asked = [list(continuation) for _, continuation in wanted]
        reads, sights = [cached + index for index, _ in wanted.values()], [each for _, each in wanted.values()]
        if main:
            asked, reads, sights = [[*main], *asked], [step.length, *reads], [sight, *sights]
        branches = Branches.of([0] * len(asked), asked, sights, reads, step.length)
        return branches.apart(step.aside(branches.tokens, branches.positions, branches.visible, len(main)))
