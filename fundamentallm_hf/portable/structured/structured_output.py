"""Structured output: the generated text matches a regular expression, a JSON schema or a grammar as a whole.

A mask of the tokens that may come next is not enough: a text that runs out of tokens in the middle of an object is not
    JSON. So the remaining token budget always covers a completion that is known to work. While it covers whatever the
    next token may start, the mask is llguidance's; when it gets short, a token stays allowed only if a known completion
    after it still fits.
"""

from collections.abc import Callable, Sequence

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from ..decoding.drafts import SuggestsTokens
from ..decoding.endings import CompleteEndCriteria
from ..decoding.row_states import RowStates, row_key
from ..decoding.stop_strings import find_stop
from ..errors import UserError
from .grammar_guides import Partner
from .grammar_search import Plan
from .grammar_states import GrammarAutomaton, GrammarState
from .grammars import read_grammar

# Allowed tokens that are examined when the budget is short, the most probable first; fewer where the plain tokens of a
# string are allowed anyway, and where words are missing.
MOST_TRIED, MOST_TRIED_BESIDE, MOST_TRIED_WITH_WORDS = 512, 64, 64
# More allowed tokens than this count as free text, in which banned words are avoided.
FREE_TEXT = 64
# Most tokens that it may take to avoid a word, or to end one.
ROUND = 8
# Most tokens that end an escape of JSON: the rest of one code, and another.
LONGEST_ESCAPE = 12
# Tokens that would complete a stop text and are examined, the most probable first.
STOPS_TRIED = 32


class WholeTextLogitsProcessor(LogitsProcessor, SuggestsTokens):
    """Keeps every row on the way to a text that matches as a whole, and complete when its tokens are used up.

    Args:
        whole: a grammar over the model's tokens, or its source as the `fields` of `read_grammar`.
        tokenizer: the tokenizer of the model; not needed with `GrammarAutomaton`.
        max_new_tokens: how many tokens may be added, as in `generate()`; not needed with `remaining`.
        remaining: called with the token ids `(rows, length)`, returns how many tokens each row may still get.
        end_tokens: ids that end the text, masked until it is complete; by default the tokenizer's.
        closing_token: the token to write after a complete text that cannot continue, where there are no `end_tokens`.
        complete: records the rows that can only end.
        stop_strings: texts that end the text; not completed unless the text matches with and without them.
        prompt_columns: width of the prompts in tokens; by default that of the first call.
        partner: words that must and must not appear; respected if a text that satisfies them is known.

    Raises:
        ValueError: the grammar is not valid.

    Example:

    ```python
    >>> from transformers import LogitsProcessorList
    >>> from fundamentallm_hf import WholeTextLogitsProcessor, load_model
    >>> model = load_model(device="cpu")
    >>> ids = model.tokenizer("It was the ", return_tensors="pt").input_ids
    >>> date = WholeTextLogitsProcessor(
    ...     {"pattern": "[0-9]{1,2}(st|nd|rd|th) of (May|June)"},
    ...     model.tokenizer,
    ...     max_new_tokens=30,
    ... )
    >>> out = model.generate(ids, logits_processor=LogitsProcessorList([date]), max_new_tokens=30, do_sample=False)
    >>> text = model.tokenizer.decode(out[0], skip_special_tokens=True)
    >>> text.endswith(" of May") or text.endswith(" of June")
    True

    ```
    """

    def __init__(
        self,
        whole: GrammarAutomaton | dict,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        max_new_tokens: int | None = None,
        remaining: Callable[[torch.Tensor], Sequence[int]] | None = None,
        end_tokens: Sequence[int] | None = None,
        closing_token: int | None = None,
        complete: CompleteEndCriteria | None = None,
        stop_strings: Sequence[str] = (),
        prompt_columns: int | None = None,
        partner: Partner | None = None,
    ) -> None:
        if not isinstance(whole, GrammarAutomaton):
            grammar = read_grammar(whole)
            if tokenizer is None or grammar is None:
                raise ValueError("a whole text needs one of pattern, json_schema, grammar and the model's tokenizer")
            whole = GrammarAutomaton(grammar, tokenizer, len(tokenizer), whole.get("pattern"))
        if remaining is None and max_new_tokens is None:
            raise ValueError("a whole text has to know how many tokens may be added: pass max_new_tokens=")
        if end_tokens is None:
            end = getattr(tokenizer, "eos_token_id", None)
            end_tokens = () if end is None else (end,)
        self._automaton = self.automaton = whole
        self.max_new_tokens = max_new_tokens or 0
        self.remaining = self._budget if remaining is None else remaining
        self.checked = remaining is not None
        self.end_tokens = list(end_tokens)
        self.closing_token = closing_token
        self.complete = complete if complete is not None else CompleteEndCriteria()
        self.complete.judge = self.is_complete
        self.stop_strings = list(stop_strings)
        self._prompt_columns = prompt_columns
        self.heed(partner)

    def _budget(self, input_ids: torch.Tensor) -> list[int]:
        return self.states.budget(input_ids, self.max_new_tokens)

    def heed(self, partner: Partner | None) -> None:
        """Let plans satisfy this partner from now on."""
        automaton = self._automaton if partner is None else self._automaton.with_partner(partner)
        self.automaton = automaton
        self.states: RowStates[GrammarState] = RowStates(
            automaton.before, automaton.advance, automaton.prompt_end, self._prompt_columns
        )

    def heeds(self, input_ids: torch.Tensor) -> bool:
        """Whether a text that satisfies the partner is known after every prompt, (rows, length)."""
        return all(self.automaton.plan(state) is not None for state in self.states(input_ids))

    def contradicts(self, input_ids: torch.Tensor) -> bool:
        """Whether it is proven that after some prompt, (rows, length), no text satisfies the partner."""
        return any(map(self.automaton.contradicts, self.states(input_ids)))

    def check(self, input_ids: torch.Tensor, name: str = "the text") -> None:
        """Check that a complete text fits into the tokens that may be added after every prompt, `(rows, length)`.

        Raises:
            ValueError: it does not; the message says how many tokens it needs, or which characters the model lacks.
        """
        for state, room in zip(self.states(input_ids), self.remaining(input_ids), strict=True):
            plan = self.automaton.plan(state)
            if plan is None:
                raise UserError(f"{name}: {self._reason(state)}", setting=name)
            if len(plan) > room:
                words = "" if self.automaton.partner is None else " and heeds the lists of words"
                needs = f"a text that matches{words} needs about {len(plan)} tokens"
                raise UserError(f"{name}: {needs} but {room} may be added: allow more", setting=name)

    def _reason(self, state: GrammarState) -> str:
        """Why no matching text was found."""
        lacking = self.automaton.lacking()
        if lacking:
            shown = " ".join(map(repr, lacking))
            return f"no text that matches can be written with the model's alphabet, which lacks {shown}"
        if self.automaton.endless:
            return "no text that matches has an end: some part of it requires itself"
        if self.automaton.impossible(state):
            return "no text that matches can be written with the model's alphabet"
        return "no text that matches was found: write it simpler"

    def is_complete(self, tokens: Sequence[int]) -> bool:
        """Whether a row of these tokens, its prompt included, has a text that matches as a whole."""
        state = self.states.read(list(tokens))
        return state.matcher is not None and bool(state.matcher.is_accepting())

    def forced(self, input_ids: torch.Tensor) -> list[list[int]]:
        """For each row of `input_ids`, (rows, length), the tokens that have to come next; none if several may.

        They are the tokens in which the tokenizer writes text that the grammar forces, so they need no forward pass of
        the model. They leave enough budget for the rest of the text.
        """
        found = []
        for state, room in zip(self.states(input_ids), self.remaining(input_ids), strict=True):
            found.append([] if state.matcher is None or self.stop_strings else self._forced(state, room))
        return found

    def suggested(self, input_ids: torch.Tensor) -> list[list[int]]:
        """See `SuggestsTokens`: what is forced, however long."""
        return self.forced(input_ids)

    def _forced(self, state: GrammarState, room: int) -> list[int]:
        tokens = list(state.matcher.compute_ff_tokens()) if state.matcher is not None else []
        # After fewer of them the text is forced as well, so a plan is known wherever one is known after all of them.
        after = state
        for token in tokens:
            after = self.automaton.advance(after, token)
        if not tokens or after.matcher is None:
            return []
        if self.automaton.partner is None and room - len(tokens) > self.automaton.bound(after):
            return tokens
        plan = self.automaton.plan(after)
        return tokens if plan is not None and len(tokens) + len(plan) <= room else []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`input_ids`: (rows, length); `scores`: (rows, vocabulary). Returns scores with all other tokens masked."""
        if not self.checked:
            self.check(input_ids)
            self.checked = True
        states = self.states(input_ids)
        self.automaton.masks(states)
        everything = None
        rows: list[torch.Tensor] = []
        only_ends: list[int] = []
        for index, (state, room) in enumerate(zip(states, self.remaining(input_ids), strict=True)):
            if state.matcher is None:  # the row has ended
                everything = torch.ones(scores.shape[1], dtype=torch.bool) if everything is None else everything
                rows.append(everything)
                continue
            may = self._open(state, room, scores[index], input_ids[index])
            if len(may) < scores.shape[1]:
                may = torch.nn.functional.pad(may, (0, scores.shape[1] - len(may)))
            if self.automaton.complete(state):
                if not bool(may.any()):
                    only_ends.append(index)
                may = may.clone()
                may[self.end_tokens] = True
            rows.append(may[: scores.shape[1]])
        may = rows[0][None] if len(rows) == 1 else torch.stack(rows)
        scores = torch.where(may.to(scores.device), scores, -torch.inf)
        for index in only_ends:
            self.complete.rows.add(row_key(input_ids[index]))
            if not self.end_tokens and self.closing_token is not None:
                scores[index, self.closing_token] = 0.0
        return scores

    def _open(self, state: GrammarState, room: int, scores: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """(tokens,) bool: the tokens after which a matching text can be completed, without ends."""
        may = self.automaton.open(state)
        bad_stops = self._bad_stops(state, may, scores, row) if self.stop_strings else None
        may = may if bad_stops is None else may & ~bad_stops
        if room > self.automaton.bound(state) and self._words_fit(state, room, may, scores):
            return self._without_last_slots(state, room, may)
        kept = self._with_plans(state, room, may, scores)
        if not bool(kept.any()) and not self.automaton.complete(state):
            plan = self._last_way(state, room)
            if plan and (bad_stops is None or not bool(bad_stops[plan[0]])):
                # It may spell what is certain in other tokens than the tokenizer.
                kept[plan[0]] = True
                state.plans[plan[0]] = plan[1:]
        return kept

    def _with_plans(self, state: GrammarState, room: int, may: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The allowed tokens after which a plan is known that fits."""
        plan = self.automaton.plan(state)
        kept = torch.zeros_like(may)
        spare = ROUND if self.automaton.partner is not None else 0
        # Bytes that end the string here end it after any further token within it, once a character or escape is whole.
        left = room - spare - len(plan) if plan else 0
        if plan and left > 0 and self.automaton.closes_string(plan) and self.automaton.closable(state):
            tokens = self.automaton.tokens
            kept = may & (tokens.inner if left > LONGEST_ESCAPE else tokens.plain)
        with_words = self.automaton.partner is not None and bool(self.automaton.partner.missing(state.beside))
        most = MOST_TRIED_WITH_WORDS if with_words else MOST_TRIED_BESIDE if bool(kept.any()) else MOST_TRIED
        tried = self._likeliest(may & ~kept, scores, plan, most)
        kept[list(self.automaton.plans_behind(state, tried, room - 1))] = True
        return kept

    def _last_way(self, state: GrammarState, room: int) -> Plan | None:
        plan = self.automaton.plan(state)
        if plan is None and self.automaton.partner is not None:
            # The words cannot be satisfied any more; the text has to be complete all the same.
            plan = self._automaton.plan(GrammarState(state.matcher, position=state.position))
        return plan if plan is not None and len(plan) <= room else None

    def _words_fit(self, state: GrammarState, room: int, may: torch.Tensor, scores: torch.Tensor) -> bool:
        """Whether the words leave all allowed tokens open, judged by the most probable and the longest ones."""
        if self.automaton.partner is None:
            return True
        tokens = may.nonzero().flatten()
        if len(tokens) <= FREE_TEXT:
            return False
        missing = self.automaton.partner.missing(state.beside)
        if not missing:
            return True
        plan = self.automaton.plan(state)
        if plan is None or len(plan) + ROUND + len(missing) > room - self.automaton.bound(state):
            return False
        tried = self._likeliest(may, scores, plan, ROUND)
        lengths = self.automaton.tokens.lengths[tokens]
        tried.append(int(tokens[lengths.argmax()]))
        return len(self.automaton.plans_behind(state, tried, room - 1)) == len(set(tried))

    def _without_last_slots(self, state: GrammarState, room: int, may: torch.Tensor) -> torch.Tensor:
        """The allowed tokens but those that end a string and leave no position for what is missing."""
        if self.automaton.partner is None or not self.automaton.partner.missing(state.beside):
            return may
        ending = (may & self.automaton.tokens.quoting).nonzero().flatten()
        if len(ending):
            may = may.clone()
            may[ending] = False
            may[list(self.automaton.plans_behind(state, ending.tolist(), room - 1))] = True
        return may

    def dead_ends(self, input_ids: torch.Tensor, index: int, tokens: Sequence[int]) -> list[int]:
        """Which of some allowed tokens leave no completion that is known, after the row `index`, (rows, length).

        The completions heed the partner, if texts that do are known (see `heeds`).
        """
        state, room = self.states(input_ids)[index], self.remaining(input_ids)[index]
        if self.automaton.partner is None or state.matcher is None:
            return list(tokens)
        left = [token for token in tokens if token not in state.plans or len(state.plans[token]) >= room]
        always = self.always_completed(input_ids, index) if left else None
        left = left if always is None else [token for token in left if not always[token]]
        found = self.automaton.plans_behind(state, left, room - 1, effort=0) if left else {}
        return [token for token in left if token not in found]

    def always_completed(self, input_ids: torch.Tensor, index: int) -> torch.Tensor | None:
        """(size,) bool: the tokens after which a completion is known without looking at them; None if none are."""
        state, room = self.states(input_ids)[index], self.remaining(input_ids)[index]
        if self.automaton.partner is None or state.matcher is None:
            return None
        needed = len(state.plan) if state.plan is not None else self.automaton.bound(state)
        free = self.automaton.unlimited(state) and self.automaton.closable(state) and room > needed + ROUND
        return self.automaton.tokens.plain if free else None

    def has_completion(self, input_ids: torch.Tensor, index: int) -> bool:
        """Whether a completion is known after the row `index` of `input_ids`, (rows, length)."""
        state = self.states(input_ids[index : index + 1])[0]
        if self.automaton.partner is None or state.matcher is None:
            return False
        plan = state.plan if state.plan is not None else self.automaton.make_plan(state, 0)
        return plan is not None and len(plan) <= self.remaining(input_ids)[index]

    def _likeliest(self, may: torch.Tensor, scores: torch.Tensor, plan: Plan | None, most: int) -> list[int]:
        """The allowed tokens that are likely to be chosen, the most probable first, and the first token of the plan."""
        tokens = may[: len(scores)].nonzero().flatten()
        if len(tokens) > most:
            tokens = tokens[scores.detach().float().cpu()[tokens].topk(most).indices]
        likeliest: list[int] = tokens.tolist()
        first = next(iter(plan or ()), None)
        return likeliest if first is None or first in likeliest or not may[first] else [first, *likeliest]

    def _bad_stops(
        self, state: GrammarState, may: torch.Tensor, scores: torch.Tensor, row: torch.Tensor
    ) -> torch.Tensor:
        """(vocabulary,) bool: tokens that complete a stop text where the text must not end, with it or without it."""
        vocabulary = self.automaton.vocabulary
        tokens = row.tolist()
        text, before = vocabulary.text(tokens), len(vocabulary.text(tokens[: self.states.prompt_columns]))
        bad = torch.zeros_like(may)
        completing = {token for stop in self.stop_strings for token in vocabulary.completing(text[-len(stop) :], stop)}
        bad[[token for token in completing if token < len(may)]] = True
        inside = (bad & may).nonzero().flatten()
        for token in inside[scores.cpu()[inside].argsort(descending=True)][:STOPS_TRIED].tolist():
            longer = text + vocabulary.whole(token)
            cut = find_stop(longer, self.stop_strings, len(text))
            ways = (longer[before:], longer[before : max(before, cut if cut is not None else 0)])
            bad[token] = cut is None or not all(map(self.automaton.matches, ways))
        return bad
