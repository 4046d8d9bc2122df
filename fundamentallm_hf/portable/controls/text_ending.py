"""Texts that end well: at a word, sentence, line or paragraph, and with as many words or sentences as asked for.

`EndingPlan` knows how many tokens it takes from any state to a proper end; tokens after which an end would not fit into
the token budget are masked. Long before that matters, three things lead to an end that reads well:

- A new word, sentence or paragraph is started only if it is likely to fit into the remaining budget. Otherwise the
  probability of all tokens that would start one goes to those that end the text. So a text ends where the model ends a
  sentence, not where the budget ends.
- Within the last sentence that fits, the probability of a mark is divided by the probability that a mark follows within
  the remaining budget, if sentences ended at a constant rate. That is the distribution of the next token given that the
  end comes in time.
- Where the text must not end, the probability of an end token goes to the marks, if one is possible there.

The first token of last words (`last_text.py`) takes the part of an end token: what comes before them is led to its end,
with so many tokens less. Where the model would end the text, and where nothing else fits, they begin.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property, reduce

import numpy as np
import torch

from ..decoding.endings import CompleteEndCriteria
from ..decoding.row_states import RowStates, row_key
from ..decoding.texts import JudgesTexts, OneByOne, Texts
from ..errors import UserError
from ..text.unit_tables import UnitText
from .ending_pace import EndingPace
from .ending_plan import NEVER, EndingPlan
from .ending_scores import begin_last, give_to, last_way, log_sum, rest_scores
from .ending_words import EndingWords
from .last_text import LastText
from .must_include_plan import Progress, Requirements
from .spelled_text import Spelling

# With budget for this many units nothing is reweighted; an end this many nats below the best token is only masked.
_EARLY, _UNLIKELY = 4.0, 8.0
# With this many tokens left after an end, tokens that are parts of characters need not be examined one by one.
_OTHERS_AMPLE = 8
# Tokens that are examined where required words are missing and the room is short.
_EXAMINED = 48


class TextEndLogitsProcessor(JudgesTexts):
    """Leads every row to an end as asked for.

    Args:
        plan: the number of tokens needed to such an end.
        remaining: called with the token ids `(rows, length)`, returns how many tokens each row may still get.
        end_tokens: ids that end the text.
        closing_token: written to end the text where there are no `end_tokens`.
        complete: records the rows that end so.
        prompt_columns: width of the prompts in tokens; by default that of the first call.
        temperature: the number that scores are divided by later.
        requirements: required words; they are written before the end.
        progress: returns the progress of each row in them.
        spare: tokens that are kept where possible, because other controls may mask the shortest way.
        bad_stops: for the tokens of a row, those that would complete a stop text where the text must not end.
        last: the words that have to come last.

    Attributes:
        is_busy: whether a text, by its key, has to go on in a certain way first.
    """

    def __init__(
        self,
        plan: EndingPlan,
        remaining: Callable[[torch.Tensor], Sequence[int]],
        *,
        end_tokens: Sequence[int] = (),
        closing_token: int | None = None,
        complete: CompleteEndCriteria | None = None,
        prompt_columns: int | None = None,
        temperature: float = 1.0,
        requirements: Requirements | None = None,
        progress: Callable[[torch.Tensor | Texts], Sequence[Progress]] | None = None,
        spare: int = 0,
        bad_stops: Callable[[list[int]], Sequence[int]] | None = None,
        last: LastText | None = None,
    ) -> None:
        self.plan, self.tables, self.settings = plan, plan.tables, plan.settings
        self.remaining = remaining
        self.end_tokens = [end for end in end_tokens if end < self.tables.size]
        self.closing_token = closing_token
        self.complete = complete if complete is not None else CompleteEndCriteria()
        self.complete.judge = self.is_complete
        self.temperature = temperature
        self.requirements, self.progress = requirements, progress
        self.spare = spare
        self.bad_stops = bad_stops
        self.last = last
        self.is_busy: Callable[[bytes], bool] = lambda key: False
        self.pace = EndingPace(plan)
        closing = () if self.end_tokens or closing_token is None else (closing_token,)
        self._over = {end for end in (*self.end_tokens, *closing) if end < self.tables.size}
        start = self.tables.start
        self.states: RowStates[UnitText] = RowStates(
            start, self._advance, prompt_columns=prompt_columns, advance_prompt=lambda state, token: state
        )
        vocabulary = self.tables.vocabulary
        self._group_of = np.where(self.tables.group_of < 0, 0, self.tables.group_of)
        self._others = np.flatnonzero(self.tables.group_of < 0)
        # Special tokens add nothing; those that end the text are dealt with apart.
        beyond = range(len(vocabulary.pieces), self.tables.size)
        self._silent = np.array([*vocabulary.silent, *beyond, *self._over], dtype=np.int64)
        self._others = np.setdiff1d(self._others, self._silent)
        self._blank = np.array([text in (" ", "\n") for text in self.tables.groups], dtype=bool)
        counts = plan.words is not None or plan.sentences is not None
        # No number of tokens is ample where words or sentences are counted.
        ahead = 0 if last is None else last.offers
        self._ample = math.inf if counts else plan.most_needed + ahead + _OTHERS_AMPLE

    def _advance(self, state: UnitText, token: int) -> UnitText:
        if state.over or (token in self._over and not self.tables.vocabulary.piece(token)):
            return state._replace(over=True)
        after = self.tables.advance(state, token)
        if after.place < len(self.plan.ends) and self.plan.ends[after.place] and not self.plan.ends[state.place]:
            after = after._replace(ends=after.ends + 1, ended_at=after.length)
        return after

    def is_complete(self, tokens: Sequence[int]) -> bool:
        """Whether a row of these tokens, its prompt included, has such an end."""
        return self._may_end(self.states.read(list(tokens)), torch.tensor(tokens))

    def _may_end(self, state: UnitText, row: torch.Tensor) -> bool:
        return self.plan.may_end(state) and (self.last is None or self.last.closes(row.tolist()))

    def _lacks(self, unfinished: Progress | None) -> bool:
        """Whether a required word is missing."""
        return unfinished is not None and self.requirements is not None and bool(self.requirements.missing(unfinished))

    def check(self, input_ids: torch.Tensor, rows: Sequence[int] | None = None) -> None:
        """Check that such a text fits into the tokens that may be added.

        Args:
            input_ids: (rows, length) the prompts.
            rows: those to check; all by default.

        Raises:
            UserError: it does not; the message says how many tokens it needs.
        """
        states, rooms, progress = self.states(input_ids), self.remaining(input_ids), self._unfinished(input_ids)
        for row in range(len(states)) if rows is None else rows:
            room, unfinished = rooms[row], progress[row]
            need = self._joint_need(states[row], unfinished)
            if self.plan.last and not any(self.keeps_words(input_ids, row, ways) for ways in self.plan.last):
                need = NEVER
            if need <= room:
                continue
            name = self.settings.named[-1]
            words = "" if unfinished is None else " with the required words"
            what = f"{name}: such a text{words}"
            line = f"{what} needs at least {need} tokens but {room} may be added: allow more, or ask for less"
            if need >= NEVER:
                line = f"{what} cannot be written with the model's alphabet and the other settings: change one"
            raise UserError(line, setting=name)

    def _unfinished(self, texts: torch.Tensor | Texts) -> list[Progress | None]:
        """The progress of each text in which required words are missing, or may yet become other words."""
        if self.requirements is None or self.progress is None:
            return [None] * len(texts)
        found = self.progress(texts)
        return [each if self.requirements.waiting(each) else None for each in found]

    def _joint_need(self, state: UnitText, unfinished: Progress | None) -> int:
        """Tokens that write the missing words and then an end."""
        return self.plan.need(state) if unfinished is None else self._with_words.need(state, unfinished)

    @cached_property
    def _with_words(self) -> EndingWords:
        assert self.requirements is not None
        return EndingWords(self.plan, self._advance, self.requirements)

    def plan_within(self, progress: Progress, room: int, row: torch.Tensor) -> list[int] | None:
        """The plan of required words after which an end fits, or else the one that fits into `room` tokens."""
        assert self.requirements is not None
        state, whole = self.states.read(row.tolist()), self.remaining(row[None])[0]
        ways = self.requirements.plans(progress)
        fitting = (way for way in ways if self._with_words.need_after(state, way) <= whole)
        return next(fitting, self.requirements.plan_within(progress, room))

    def leads_words(self, progress: Progress) -> bool:
        """Whether missing words are written on the way to the end, since they may have to come last."""
        return self._with_words.depends_on_end(progress)

    def keeps_words(self, input_ids: torch.Tensor, row: int, last: Sequence[Spelling]) -> bool:
        """Whether required words are still there at the end of a row, with these ways to write its last words."""
        state, unfinished = self.states(input_ids)[row], self._unfinished(input_ids)[row]
        return unfinished is None or self._with_words.keeps(state, unfinished, last)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns the scores, reweighted and masked."""
        scores, over = self._changed(Texts.of(input_ids), scores)
        self.complete.rows |= {row_key(row) for row in input_ids[over]}
        return scores

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`.

        Raises:
            OneByOne: a text has to end, which is recorded only for one that has been written.
        """
        scores, over = self._changed(texts, scores)
        if over:
            raise OneByOne
        return scores

    def _changed(self, texts: Texts, scores: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """The scores, and which texts have to end."""
        states, rooms, progress = self.states(texts), texts.room(self.remaining), self._unfinished(texts)
        scores, over = scores.clone(), []
        for index, (state, room, unfinished) in enumerate(zip(states, rooms, progress, strict=True)):
            if state.over or self.is_busy(texts.keys[index]):
                continue
            rests = [] if self.last is None else self.last.rests(texts.keys[index])
            if self.last is not None and not rests:
                self.last.begin(texts.keys[index], [])
            row = texts.tokens(index)
            if not rests and unfinished is None and self._is_early(state, room, scores[index], row):
                continue
            given = scores[index].detach().double().cpu().numpy() / self.temperature
            if self.last is not None and rests:
                changed, ends = self._finish(rests, given, self.last.forks(texts, index, rests, given))
            elif self.last is None:
                changed, ends, _ = self._row(state, room, unfinished, given, row, [])
            else:
                begins = [] if self._lacks(unfinished) else self.last.starts(texts, index, state, room)
                if begun := self.last.preferred(texts, index, state, begins, given, room):
                    changed, ends = self._finish(begun, given)
                else:
                    changed, ends, begun = self._row(state, room, unfinished, given, row, begins)
                self.last.begin(texts.keys[index], begun)
            scores[index] = torch.from_numpy(changed * self.temperature).to(scores.device, scores.dtype)
            over += [index] * ends
        return scores, over

    def _is_early(self, state: UnitText, room: int, scores: torch.Tensor, row: torch.Tensor) -> bool:
        """Whether there is so much room that only an end here could be wrong; it is masked **in place**."""
        if self.bad_stops is not None or room < _EARLY * self.pace.unit_length(state) + self._ample:
            return False
        ends = list(self._over)
        if self._may_end(state, row):
            if not self.end_tokens:
                scores[ends] = -torch.inf
            return True
        if ends and float(scores[ends].max()) > float(scores.max()) - _UNLIKELY * self.temperature:
            return False
        scores[ends] = -torch.inf
        return True

    def _row(
        self,
        state: UnitText,
        room: int,
        unfinished: Progress | None,
        scores: np.ndarray,
        row: torch.Tensor,
        begins: list[tuple[int, ...]],
    ) -> tuple[np.ndarray, bool, list[tuple[int, ...]]]:
        """The scores of one row, given and returned before temperature.

        Returns:
            The scores, whether the row has to end, and in which of the ways `begins` its last words have to begin.
        """
        size = self.tables.size
        given = scores[:size].copy()
        needs = self._needs(state, room)
        ends = np.array(sorted(self._over), dtype=np.int64)
        lacks = self._lacks(unfinished)
        can_end = not lacks and self._may_end(state, row) and bool(np.isfinite(given[ends]).any())
        closes = can_end or bool(begins)
        fits = needs <= room - 1
        fits[self._silent] = False
        if self.bad_stops is not None:
            fits[list(self.bad_stops(row.tolist()))] = False
        if unfinished is not None:
            fits &= self._keeps_words(state, unfinished, room, given, np.where(fits, needs, NEVER))
            fits[self._with_words.sure_tokens(state, unfinished, room)] = True
        wanted = fits
        if not lacks:
            fits = self._with_spare(fits, needs, given, room)
            wanted = fits & ~self._unwise(state, room)
            if not (np.isfinite(given) & wanted).any() and not closes:
                wanted = fits
        changed = np.where(wanted, given, -np.inf)
        closers = (needs < self.plan.need(state)) & wanted & np.isfinite(given)
        lost = log_sum(np.where(wanted, -np.inf, given))
        if not lacks and not self.plan.is_end(state):
            self.pace.push(state, room, changed, closers)
            if not closes:
                give_to(changed, closers, lost)
        over, begun = False, list[tuple[int, ...]]()
        if can_end:
            over = self._end(changed, given, ends, lost)
        elif begins:
            begun = begin_last(changed, given, begins, lost)
        if not over and not np.isfinite(changed).any():
            changed = last_way(needs, given)
        scores = np.full_like(scores, -np.inf)
        scores[:size] = changed
        return scores, over, begun

    def _finish(
        self, rests: list[tuple[int, ...]], given: np.ndarray, chances: Sequence[float] = ()
    ) -> tuple[np.ndarray, bool]:
        """The scores of a row whose last words have begun: only their rest is left, or an end; and if it has to end.

        `rests` holds an empty one where one of them is complete; the others are as in `rest_scores`.
        """
        longer = [rest for rest in rests if rest]
        changed, lost = rest_scores(longer, given, chances)
        if len(longer) < len(rests):
            # A longer text begins with a complete one: the end is as probable as all else.
            return changed, self._end(changed, given, np.array(sorted(self._over), dtype=np.int64), lost)
        if not np.isfinite(changed).any():
            # Other controls, such as one against repetition, may mask them.
            changed[[rest[0] for rest in longer]] = 0.0
        return changed, False

    def _with_spare(self, fits: np.ndarray, needs: np.ndarray, given: np.ndarray, room: int) -> np.ndarray:
        """(size,) bool: of the tokens that fit, those that leave spare tokens, as many as possible."""
        open_tokens = fits & np.isfinite(given)
        for spare in range(self.spare, 0, -1):
            kept = fits & (needs <= room - 1 - spare)
            if (kept & open_tokens).any():
                return kept
        if self.spare and self._blank.any():
            # Other controls may mask all words here: after the prompt's last word, for instance.
            blank = fits & self._blank[self._group_of] & (self.tables.group_of >= 0)
            if (blank & open_tokens).any() and (needs[open_tokens] > room - 1 - self.spare).all():
                return blank
        return fits

    def _needs(self, state: UnitText, room: int) -> np.ndarray:
        """(size,) the least number of tokens to an end after each token."""
        base = self.tables.flushed(state)
        found = self.plan.needs_behind(base.place, self.plan.left(base))[self._group_of]
        if room > self._ample:
            found[self._others] = self.plan.most_needed
            return found
        for token in self._others.tolist():
            found[token] = self.plan.need(self._advance(state, token))
        return found

    def _unwise(self, state: UnitText, room: int) -> np.ndarray:
        """(size,) bool: the tokens that begin what is likely not to fit, and those that lead to nothing else."""
        found = self.pace.unwise(self.tables.flushed(state), room)[self._group_of]
        found[self._others] = False
        return found

    def _end(self, changed: np.ndarray, given: np.ndarray, ends: np.ndarray, lost: float) -> bool:
        """Give the end the probability of what would go on, in `changed`. Returns whether nothing else is left."""
        if self.end_tokens:
            own = np.where(np.isfinite(given[ends]), given[ends], -np.inf)
            best = ends[int(own.argmax())]
            changed[ends] = own
            # `lost` holds the end tokens' own share, too.
            changed[best] = max(lost, float(own.max()))
            return bool(np.isfinite(changed).sum() == np.isfinite(own).sum())
        # Without an end token, a text ends by the criterion, which takes any token for its end.
        if lost > log_sum(changed) or not np.isfinite(changed).any():
            changed[:] = -np.inf
            changed[self.closing_token] = 0.0
            return True
        return False

    def _keeps_words(
        self, state: UnitText, unfinished: Progress, room: int, given: np.ndarray, needs: np.ndarray
    ) -> np.ndarray:
        """(size,) bool: the tokens after which the missing words and an end still fit."""
        assert self.requirements is not None
        ways = self.requirements.plans(unfinished)
        after = reduce(self._advance, ways[0] if ways else [], state)
        words, sentences = after.words - state.words, after.sentences - state.sentences
        left = self.plan.left(state)
        need = self.plan.need(state) + self.requirements.most_needed(unfinished)
        need = max(need, self._joint_need(state, unfinished))
        tight = need + self.plan.most_needed + self.pace.word_room + 2 >= room
        tight |= self.plan.words is not None and left[0] - words <= 3
        tight |= self.plan.sentences is not None and left[1] - sentences <= 1
        if not tight:
            return np.ones(len(needs), dtype=bool)
        # The most probable, and among those that an end follows soonest.
        order = np.argsort(-np.where(needs < NEVER, given, -np.inf))[:_EXAMINED].tolist()
        order += np.argsort(-np.where(needs == needs.min(), given, -np.inf))[:_EXAMINED].tolist()
        kept = np.zeros(len(needs), dtype=bool)
        order += self._with_words.first_tokens(state, unfinished)
        for token in dict.fromkeys(order):
            progress = self.requirements.advance(unfinished, token)
            rest = progress if self.requirements.waiting(progress) else None
            kept[token] = self._joint_need(self._advance(state, token), rest) <= room - 1
        return kept
