"""Must include: words and patterns that always appear, where they fit the text.

Forcing a word when the budget runs out is easy and reads badly. So from the start every token is reweighted by how well
the missing entries can still come naturally: with c the probability that the token leads to an entry, and b the
probability that the entry comes anyway at one of the remaining positions, the score of the token gets log((c + (1 − c)
b) / b). That is the distribution of the next token given that the entry appears, if words are independent: with a large
remaining budget only a good position is taken, with a small one any. `must_include_placement.py` estimates c and b. A
plan, the shortest way to write the missing entries (`must_include_plan.py`), guarantees the result: a token after which
the plan would not fit into the budget is masked, so all entries are in the text at the end.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..decoding.call_processors import CallProcessors
from ..decoding.drafts import SuggestsTokens
from ..decoding.lookahead import ModelLookahead
from ..decoding.phases import Phase
from ..decoding.row_states import RowStates
from ..decoding.sidecar_files import own_word_counts
from ..decoding.texts import JudgesTexts, Texts
from ..errors import UserError
from ..text.pieces import MOST_BYTES
from .bad_words import compiled_bad_words
from .must_include_horizon import LEAST_OWED, End, Horizon, repaid
from .must_include_placement import MARGIN, SURE, Outlook, Placement, later_chance
from .must_include_plan import Progress, Requirements
from .must_include_spelling import IN_WORD, Tail

# The least odds against a position in beam search. What has an entry is preferred by their inverse at most, so that
# near the deadline the beams that have none yet are not all lost, and each gets its own.
BEAM_ODDS = 0.01
# With a vocabulary above the first number, only the most probable tokens are tried when the budget is nearly used up.
_ALL_TRIED, _TRIED = 512, 48
# Returns the tokens of a row, (length,), which few rows need.
Row = Callable[[], torch.Tensor]


class MustIncludeLogitsProcessor(JudgesTexts, SuggestsTokens):
    """Brings entries into the text, fluently while there is room and by force when there is none.

    Args:
        must_include: the entries, or `Requirements` made of them.
        tokenizer: the model's tokenizer; not needed with `Requirements`.
        max_new_tokens: how many tokens may be added, as passed to `generate()`; not needed with `remaining`.
        remaining: called with the token ids `(rows, length)`, returns how many tokens each row may still get.
        end_tokens: ids that end the text; masked until all entries are included. Default: the end-of-text token.
        stop_strings: texts that end the text; not completed until all entries are included.
        prompt_columns: width of the prompts in tokens; by default that of the first call.
        padding: (prompt rows,) columns of padding before each prompt.
        temperature: the number that scores are divided by later.
        lookahead: the model, asked for probabilities; without it only word counts are used.
        lengths: lengths of this model's texts in tokens, if known: missing entries come before the text would end
            naturally.

    Attributes:
        has_deadline: missing entries are forced when the budget is nearly used up; False where another control does it.
        least_odds: the least odds against a position: see `later_chance`.
        is_led: called with the progress of a row, whether another control forces what is missing in that row.
        plan_within: called with the progress of a row, its budget and its tokens, chooses the plan that is forced then.

    Raises:
        ValueError: see `Requirements`; or the entries do not fit into the tokens that may be added, which is only found
            at the first step unless `check` has been called.

    Example:

    ```python
    >>> from transformers import LogitsProcessorList
    >>> from fundamentallm_hf import MustIncludeLogitsProcessor, load_model
    >>> model = load_model(device="cpu")
    >>> ids = model.tokenizer("Once upon a time", return_tensors="pt").input_ids
    >>> dragon = MustIncludeLogitsProcessor(["dragon"], model.tokenizer, max_new_tokens=60)
    >>> output = model.generate(ids, logits_processor=LogitsProcessorList([dragon]), max_new_tokens=60, do_sample=False)
    >>> "dragon" in model.tokenizer.decode(output[0])
    True

    ```
    """

    def __init__(
        self,
        must_include: Sequence[str] | Requirements,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        max_new_tokens: int | None = None,
        remaining: Callable[[torch.Tensor], Sequence[int]] | None = None,
        end_tokens: Sequence[int] | None = None,
        stop_strings: Sequence[str] = (),
        prompt_columns: int | None = None,
        padding: Sequence[int] = (),
        temperature: float = 1.0,
        lookahead: ModelLookahead | None = None,
        lengths: Sequence[float] = (),
    ) -> None:
        if not isinstance(must_include, Requirements):
            if tokenizer is None:
                raise ValueError("must_include needs the model's tokenizer to read its tokens as text: pass tokenizer=")
            must_include = Requirements(must_include, tokenizer, len(tokenizer), stops=stop_strings)
        if remaining is None and max_new_tokens is None:
            raise ValueError("must_include has to know how many tokens may be added: pass max_new_tokens=")
        if end_tokens is None:
            end = getattr(tokenizer, "eos_token_id", None)
            end_tokens = () if end is None else (end,)
        self.requirements = must_include
        self.max_new_tokens = max_new_tokens or 0
        self.remaining = self._budget if remaining is None else remaining
        self.checked = remaining is not None
        self.end_tokens = list(end_tokens)
        self.stop_strings = list(stop_strings)
        self.temperature = temperature
        self.least_odds = 0.0
        self.has_deadline = True
        self.is_led: Callable[[Progress], bool] = lambda progress: False
        self.plan_within: Callable[[Progress, int, torch.Tensor], list[int] | None] = lambda progress, room, row: (
            must_include.plan_within(progress, room)
        )
        self.horizon = Horizon(must_include.rate, lengths, prompt_columns)
        self.placement = Placement(must_include, lookahead, temperature)
        self.states: RowStates[Progress] = RowStates(
            must_include.start,
            must_include.follow,
            must_include.prompt_end,
            prompt_columns,
            must_include.advance_prompt,
            padding,
        )

    def _budget(self, input_ids: torch.Tensor) -> list[int]:
        return self.states.budget(input_ids, self.max_new_tokens)

    def check(self, input_ids: torch.Tensor, rows: Sequence[int] | None = None) -> None:
        """Check that the entries fit into the tokens that may be added.

        Args:
            input_ids: (rows, length) the prompts.
            rows: those to check; all by default.

        Raises:
            ValueError: they do not; the message says how many tokens they need.
        """
        states, rooms = self.states(input_ids), self.remaining(input_ids)
        for row in range(len(states)) if rows is None else rows:
            progress, room = states[row], rooms[row]
            plan = self.requirements.plan_within(progress, room)
            if plan is not None and len(plan) <= room:
                continue
            entries = ", ".join(map(repr, self.requirements.sources))
            line = f"must_include: no way to write {entries} in one text was found: leave one out, or make it simpler"
            if plan is not None:
                needed = f"need at least {len(plan)} tokens but {room} may be added: allow more, or ask for fewer"
                line = f"must_include: {entries} {needed}"
            raise UserError(line, setting="must_include")

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`. Returns the scores, reweighted and masked."""
        if not self.checked:
            self.check(texts.ids[:, : min(texts.lengths)])
            self.checked = True
        states = self.states(texts)
        waiting = [self.requirements.waiting(progress) for progress in states]
        scores = self._repay(texts, scores, waiting)
        if not any(waiting):
            return scores
        rooms = texts.room(self.remaining)
        natural = self._natural_ends(texts, scores, states)
        left = [self._places_left(*of_row) for of_row in zip(states, rooms, natural, strict=True)]
        if scores.shape[-1] < self.requirements.size:
            raise ValueError(
                f"must_include was made for {self.requirements.size} scores but the model gives {scores.shape[-1]}: "
                f"make Requirements of that size"
            )
        shift = np.zeros(scores.shape)
        outlooks = self.placement(texts, scores, states, waiting, left)
        for index, progress in enumerate(states):
            if not waiting[index]:
                continue
            ending = natural[index].wanted and self.requirements.missing(progress)
            # Where the text is about to end, no entry is started, but one that was started goes on.
            weighed = [outlook for outlook in outlooks[index] if outlook.begun or not ending]
            self._weigh(weighed, left[index], shift[index])
            self._close(progress, rooms[index], partial(texts.tokens, index), scores[index], shift[index])
        return torch.add(scores, torch.from_numpy(shift).to(scores.device, scores.dtype), alpha=self.temperature)

    def _repay(self, texts: Texts, scores: torch.Tensor, waiting: Sequence[list[int]]) -> torch.Tensor:
        """Scores with more likely ends for the texts that have passed their natural end for the sake of an entry."""
        owed = self.horizon.owed(texts)
        rows = [index for index, each in enumerate(owed) if each >= LEAST_OWED and not waiting[index]]
        ends = [end for end in self.end_tokens if end < scores.shape[-1]]
        if not rows or not ends:
            return scores
        probabilities = (scores[rows].float() / self.temperature).softmax(dim=-1)[:, ends].sum(dim=-1).tolist()
        tails = [self.placement.spellings.tail(texts.tokens(index)).text for index in rows]
        found = [repaid(tail, end, owed[row]) for tail, end, row in zip(tails, probabilities, rows, strict=True)]
        if any(found):
            scores = scores.clone()
            for row, shift in zip(rows, found, strict=True):
                scores[row, ends] += self.temperature * shift
        return scores

    def suggested(self, input_ids: torch.Tensor) -> list[list[int]]:
        """See `SuggestsTokens`: the rest of an entry that is as good as begun, and all that is missing at the end."""
        found = []
        for progress, room in zip(self.states(input_ids), self.remaining(input_ids), strict=True):
            plan = self.requirements.plan(progress) if self.requirements.waiting(progress) else None
            begun = plan and any(self._is_begun(progress, entry) for entry in self.requirements.waiting(progress))
            found.append(plan if plan and (begun or (self.has_deadline and len(plan) + 1 >= room)) else [])
        return found

    def _is_begun(self, progress: Progress, entry: int) -> bool:
        place = progress.places[entry]
        return place is not None and self.requirements.tables[entry].chance(place) >= SURE

    def closed(self, input_ids: torch.Tensor, size: int) -> torch.Tensor:
        """(rows, size) bool: the tokens that are masked after each row of `input_ids`, (rows, length)."""
        shift = np.zeros((len(input_ids), size))
        for index, (progress, room) in enumerate(zip(self.states(input_ids), self.remaining(input_ids), strict=True)):
            if self.requirements.waiting(progress):
                self._close(progress, room, partial(input_ids.select, 0, index), torch.zeros(size), shift[index])
        return torch.from_numpy(shift == -math.inf)

    def _close(self, progress: Progress, room: int, row: Row, scores: torch.Tensor, shift: np.ndarray) -> None:
        """Mask the ends where an entry is missing, and the tokens after which the entries would not fit any more."""
        if self.requirements.missing(progress):
            shift[[end for end in self.end_tokens if end < len(shift)]] = -math.inf
            if self.stop_strings:
                shift[list(self._stopping(row()))] = -math.inf
        self._keep_room(progress, room, row, scores, shift)

    def _natural_ends(self, texts: Texts, scores: torch.Tensor, states: Sequence[Progress]) -> list[End]:
        """The position where each text would end naturally; infinite if only the budget ends it."""
        size, stops = scores.shape[-1], self.stop_strings
        found = [self._stopping(texts.tokens(index)) if stops else () for index in range(len(texts))]
        ending = [[token for token in {*self.end_tokens, *of_row} if token < size] for of_row in found]
        if not any(ending):
            return [End(math.inf, False)] * len(states)
        probabilities = (scores.float() / self.temperature).softmax(dim=-1)
        ends = [float(of_row[tokens].sum()) for of_row, tokens in zip(probabilities, ending, strict=True)]
        return self.horizon(texts, ends, [len(self.requirements.missing(progress)) for progress in states])

    def _places_left(self, progress: Progress, room: int, natural: End) -> float:
        """Positions where an entry could start, after the next token and the tokens of the plan itself."""
        needed = 1 + len(self.requirements.plan(progress) or ())
        rate = self.requirements.rate
        # After the natural end a good position is still better than the next one, as long as the budget lasts.
        soon = max(MARGIN + 1, (natural.room - needed) * rate)
        return max(0.0, min(soon, (room - needed) * rate))

    def _is_odd(self, progress: Progress, after: Progress, tail: Tail, token: int) -> bool:
        """Whether a token starts, continues or completes a missing entry in an unusual spelling."""
        for entry in self.requirements.waiting(progress):
            place = after.places[entry]
            table = self.requirements.tables[entry]
            involved = place is None or place.pending or table.patterns.chance(place.patterns) or table.ends(place)
            if involved and not all(self.placement.spellings.customary(entry, tail, [token])):
                return True
        return False

    def _weigh(self, outlooks: Sequence[Outlook], left: float, shift: np.ndarray) -> None:
        """Prefer the tokens after which the missing entries can still come naturally."""
        for _, begun, tokens, chances, completing, here, better in outlooks:
            ahead = (left, left - self.requirements.rate)
            now, later = (later_chance(here, better, places, self.least_odds) for places in ahead)
            shift += math.log(later / (begun + (1 - begun) * now))
            shift[tokens] += np.log((chances + (1 - chances) * later) / later)
            shift[completing] -= math.log(later)

    def _stopping(self, row: torch.Tensor) -> set[int]:
        """The tokens that complete a text that stops the row."""
        vocabulary = self.requirements.vocabulary
        longest = max(map(len, self.stop_strings))
        tail = row.tolist()[-MOST_BYTES * longest :]
        text = vocabulary.text(tail)
        found: set[int] = set()
        for stop in self.stop_strings:
            found.update(vocabulary.completing(text[-len(stop) :], stop))
            if not stop.isascii():
                parts = vocabulary.parts
                found.update(token for token in parts if vocabulary.text([*tail, token]).endswith(stop))
        return found

    def _keep_room(self, progress: Progress, room: int, row: Row, scores: torch.Tensor, shift: np.ndarray) -> None:
        """Mask the tokens after which the missing entries would not fit any more."""
        requirements = self.requirements
        # Without room, the next token is an end that transformers forces.
        if room < 1 or not self.has_deadline or self.is_led(progress):
            return
        spare = room - requirements.most_needed(progress) - 2
        plan = self.plan_within(progress, room, row()) if spare <= 0 else None
        if plan is None:
            if spare <= MOST_BYTES:
                shift[self._late_parts(progress, spare, len(shift))] = -math.inf
            return
        first = self._first_tokens(plan, progress)
        tried: Iterable[int] = range(len(shift))
        if len(shift) > _ALL_TRIED:
            tried = {*first, *torch.topk(scores.float().cpu() + torch.from_numpy(shift), _TRIED).indices.tolist()}
        kept = np.full_like(shift, -math.inf)
        tail = self.placement.spellings.tail(row())
        for token in tried:
            after = requirements.advance(progress, token)
            # After its own first token a new plan may be longer: it adds the space that a mark there asks for.
            planned = [token] == plan[:1] and len(plan) <= room
            rest = plan[1:] if planned else requirements.plan(after)
            if rest is None or len(rest) > room - 1 or self._bars(progress, token):
                continue
            # A text in which nothing is missing may end the last word in any way.
            if not plan or token in first or not self._is_odd(progress, after, tail, token):
                kept[token] = 0.0
        if plan and not np.isfinite(kept + shift).any():
            shift[plan[0]] = 0.0  # another control has masked the last continuation
            kept[plan[0]] = 0.0
        shift += kept

    def _late_parts(self, progress: Progress, spare: int, size: int) -> list[int]:
        """The tokens that start a character of which the rest would not fit before the plan has to start."""
        begun = any(place is not None and place.pending for place in progress.places)
        parts = () if begun else self.requirements.vocabulary.missing_bytes
        return [token for token, missing in parts if missing > spare and token < size]

    def _first_tokens(self, plan: Sequence[int], progress: Progress) -> set[int]:
        """The first token of a plan, with and without a space before it: which one reads well the model knows."""
        if not plan or progress.edge == IN_WORD:
            return {*plan[:1]}
        spaced = self.requirements.vocabulary.spell(" " + self.requirements.vocabulary.text(plan, continues=True))
        return {plan[0], *(spaced or ())[:1]}

    def _bars(self, progress: Progress, token: int) -> bool:
        barred = self.requirements.barred
        return barred is not None and progress.barred is not None and barred.complete(progress.barred, [token]) == 1


def suppressed_tokens(config: GenerationConfig) -> frozenset[tuple[int, ...]]:
    """Tokens, and sequences of tokens, that transformers masks in every step of a call."""
    biased = config.sequence_bias or ()
    pairs = biased.items() if isinstance(biased, Mapping) else biased
    return frozenset(
        [
            *((token,) for token in config.suppress_tokens or ()),
            *(tuple(tokens) for tokens in config.bad_words_ids or ()),
            *(tuple(tokens) for tokens, bias in pairs if bias == -math.inf),
        ]
    )


def add_must_include(step: CallProcessors) -> None:
    """Make the texts of a call include its required words.

    Raises:
        ValueError: an entry cannot be read or written, or the entries do not fit into the tokens that may be added.
    """
    call, entries, bad_words = step.call, step.texts("must_include"), step.banned
    if not entries:
        return
    case_sensitive, ordered = bool(call.field("case_sensitive")), bool(call.field("must_include_ordered"))
    prompt_counts, counts = bool(call.field("must_include_prompt")), own_word_counts(call.model)
    suppressed = suppressed_tokens(call.config)
    requirements = call.kept(
        ("must_include", entries, bad_words, step.stop_strings, case_sensitive, ordered, prompt_counts, suppressed),
        lambda: Requirements(
            entries,
            call.reader,
            call.size,
            case_sensitive,
            ordered=ordered,
            prompt_counts=prompt_counts,
            counts=counts,
            barred=compiled_bad_words(bad_words, call) if bad_words else None,
            stops=step.stop_strings,
            suppressed=suppressed,
        ),
        of=counts,
    )
    processor = MustIncludeLogitsProcessor(
        requirements,
        remaining=call.remaining,
        end_tokens=step.end_tokens,
        stop_strings=step.stop_strings,
        prompt_columns=call.prompt_columns,
        padding=call.padding,
        temperature=step.temperature,
        lookahead=call.lookahead,
        lengths=getattr(getattr(call.model, "generation_config", None), "text_lengths", None) or (),
    )
    if (call.config.num_beams or 1) > 1:
        processor.least_odds = BEAM_ODDS
    processor.check(call.prompts)
    step.add(Phase.REQUIRE, processor)
