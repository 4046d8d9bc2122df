"""Chooses the tokens after all drafts of a pass together, where every processor of a call can process several texts.

Processors that read ahead in the model would need a pass for each question. So they first process the texts without
answers and their questions are noted, one pass answers those that matter, and they process the texts again. Nothing
depends on the first time: what a processor keeps, it keeps by the tokens of a text.
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
    """A pass that was made before the tokens in front of it were certain.

    Attributes:
        draft: the tokens to check.
        logits: (1, drafted + 1, vocabulary).
        states: (1, drafted + 1, hidden size), the input of the output layer.
        columns: columns in the cache after it.
    """

    draft: Draft
    logits: torch.Tensor
    states: torch.Tensor | None
    columns: int


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
    """

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.ahead: Ahead | None = None
        self.guessing = [each for each in loop.processors if type(each) is TemperatureLogitsWarper]
        self.most = 0  # drafted tokens whose keys and values are still in the cache
        self.drawn_to = torch.zeros(0)
        self.recorders = [each for each in loop.processors if isinstance(each, Recorder)]
        looks = [each.first_look() for each in self.recorders]
        # These observe only the scores of tokens that are written, and change none.
        self.looks = [each for each in loop.processors if any(each is look for look in looks)]
        apart = [*self.recorders, *self.looks]
        self.judging = [each for each in loop.processors if not any(each is other for other in apart)]

    @property
    def suits(self) -> bool:
        """Whether all processors of the call can process several texts at once."""
        return all(
            each.judges if isinstance(each, JudgesTexts) else type(each) in (*MEMORYLESS, *_PURE)
            for each in self.judging
        )

    def take_ahead(self) -> Ahead | None:
        """The next pass, if it has been made already."""
        ahead, self.ahead = self.ahead, None
        return ahead

    def write(self, logits: torch.Tensor, drafted: Sequence[int], guessed: Chosen | None = None) -> int:
        """Choose tokens as long as they match the drafted ones, and return their number.

        Args:
            logits: (1, drafted + 1, vocabulary) after the text and after each drafted token.
            drafted: the drafted tokens.
            guessed: what the model alone would choose; None if nobody has computed it.
        """
        loop, cached = self.loop, self.loop.step.length
        loop.enter(drafted)
        count = len(drafted) + 1
        texts = Texts(loop.ids, [0] * count, range(loop.length, loop.length + count))
        for watcher in loop.watchers:
            watcher.show_all(loop.states[0], texts)
        self.most = len(drafted)
        try:
            unlikely = self._unlikely(texts, logits[0], drafted, guessed)
            scores, chosen = self._judge(texts, logits[0], drafted, unlikely)
        except ValueError:  # if it concerns a text that is written, `write_each` raises it again
            self.ahead = None
            loop.step.length = cached - (len(drafted) - self.most)
            return loop.write_each(logits, drafted[: self.most])
        finally:
            loop.step.length = cached
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
        lookahead, guess = loop.call.lookahead, list[int]()
        wishes = lookahead.wishes = Wishes()
        certain, scores, tokens = 0, list[torch.Tensor](), list[int]()
        try:
            while True:
                # Texts that nobody will write are left out.
                stop = next((index for index in unlikely if index >= certain), len(drafted)) + 1
                stop = min(stop, self.most + 1)
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
                if guess and [*tokens, *chosen[kept : reached + 1]][: len(guess)] != guess:
                    self.ahead, guess = None, []
                if asked:
                    so_far = [*tokens, *chosen[kept : reached + 1]]
                    if not guess and self._goes_on(so_far):
                        # Whatever is answered, the choice will hardly change: the next pass is made at once.
                        guess, self.most = so_far, len(so_far) - 1
                    wishes.known |= self._read(asked, cached, guess)
                elif certain > self.most or drawn[reached] != drafted[certain - 1]:
                    if not chosen and certain == kept and self._counts(drawn):
                        torch.set_rng_state(self.drawn_to)
                        tokens = drawn
                    return torch.cat(scores), tokens
        finally:
            lookahead.wishes = None

    def _unlikely(
        self, texts: Texts, logits: torch.Tensor, drafted: Sequence[int], guessed: Chosen | None
    ) -> list[int]:
        """The indices of drafted tokens that the model alone would not choose."""
        if not drafted:
            return []
        if guessed is not None:
            tokens = guessed.tokens
        elif self.loop.chooser is None:
            tokens = logits.argmax(dim=-1).tolist()
        else:
            for each in self.guessing:
                logits = each(None, logits)
            _, tokens = self._chosen(texts, logits)
        return [index for index, (token, draft) in enumerate(zip(tokens, drafted, strict=False)) if token != draft]

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

    def _read(
        self, wanted: dict[ContinuationKey, tuple[int, int]], cached: int, guess: Sequence[int] = ()
    ) -> dict[ContinuationKey, Any]:
        """The logits of continuations, read beside the text.

        Args:
            wanted: by text and continuation, the index of the text and how many of its tokens are in sight.
            cached: columns in the cache that hold the text, without drafts.
            guess: tokens that will probably be chosen; the pass after them is made along with the answers.
        """
        loop, step = self.loop, self.loop.step
        asked, main = [list(continuation) for _, continuation in wanted], 0
        reads = [cached + index for index, _ in wanted.values()]
        sights = [sight for _, sight in wanted.values()]
        first = bool(guess) and self.ahead is None
        step.length = cached + self.most if self.ahead is None else self.ahead.columns
        if first:
            draft = loop.draft(guess)
            main = len(draft.tokens) + 1
            asked = [[guess[-1], *draft.tokens], *asked]
            reads = [step.length, *reads]
            sights = [loop.lengths[0] + len(guess) - 1, *sights]
        branches = Branches.of([0] * len(asked), asked, sights, reads, step.length)
        logits = branches.apart(step.aside(branches.tokens, branches.positions, branches.visible, main))
        if first:
            self.ahead = Ahead(draft, logits.pop(0)[None].clone(), step.states, step.length)
        return dict(zip(wanted, logits, strict=True))
