"""The states of a text in a grammar, and how it can be completed from each.

llguidance returns the tokens that may come next, but not how many are needed to complete the text, which a token budget
requires. A JSON schema or a regular expression provides that (`json_position.py`, `pattern_position.py`): how many
tokens a text may need at most, whatever comes next, and tokens that complete it from its state, called a plan here.
Every plan is checked by llguidance, token by token. Where nothing is known of the grammar, or that knowledge does not
hold, a search looks for a plan; if it finds none, that means that none is known, not that none exists.
"""

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .grammar_guides import Partner, behind_space, find_guide
from .grammar_plans import EFFORT, ENDED, FIRST_EFFORT, LONGEST_PLAN, SHORTER_EFFORT, GrammarState, PlanMaker, left_of
from .grammar_search import GrammarSearch, Plan
from .grammar_tokens import GrammarTokens


class GrammarAutomaton(PlanMaker):
    """A grammar over the tokens of one model, for any number of calls.

    Args:
        grammar: the grammar of the whole text, in llguidance's form (see `read_grammar`).
        tokenizer: the tokenizer of the model.
        size: number of scores the model gives.
        pattern: the regular expression that the grammar was made of, if any.

    Attributes:
        before: the state before any text.
        guide: knowledge of the grammar; None if there is none.
        partner: other controls of the same text.

    Raises:
        ValueError: llguidance cannot use the grammar.
    """

    def __init__(self, grammar: str, tokenizer: PreTrainedTokenizerBase, size: int, pattern: str | None = None) -> None:
        super().__init__()
        self.tokens = GrammarTokens.of(tokenizer, size)
        self.vocabulary = self.tokens.vocabulary
        self.search = GrammarSearch(self.tokens)
        self.guide = find_guide(grammar, pattern, self.tokens)
        self.partner: Partner | None = None
        self._lacking: list[str] | None = None
        # An expression gives the text of the fewest characters, which need not be that of the fewest tokens.
        self._rough = bool(pattern)
        self._matcher = self._behind_nothing = self.tokens.matcher(grammar)
        if self.vocabulary.strips_leading_space:
            # The decoder removes the space that such a text begins with.
            self._behind_nothing = self.tokens.matcher(behind_space(grammar))
        self.before = GrammarState(None, silent=True)
        self._starts: dict[Any, GrammarState] = {}

    def with_partner(self, partner: Partner) -> "GrammarAutomaton":
        """The same grammar, with other controls that a plan has to satisfy."""
        joint = copy.copy(self)
        joint.partner = partner
        joint.before = GrammarState(None, silent=True, beside=partner.start)
        joint._starts, joint._made = {}, {}
        return joint

    def advance(self, state: GrammarState, token: int) -> GrammarState:
        """The state after one more token."""
        beside = self.partner.advance(state.beside, token) if self.partner is not None else None
        if state.matcher is None:
            if state is ENDED:
                return ENDED
            return GrammarState(None, silent=state.silent and not self.vocabulary.piece(token), beside=beside)
        after = state.matcher.deep_copy()
        if not after.consume_token(token):
            return ENDED  # by an end-of-text token, or the row is discarded, as in beam search
        hint = state.plans.get(token) or left_of(state.plan, token) or state.hint
        return GrammarState(after, position=self.follow(state.position, token), beside=beside, hint=hint)

    def prompt_end(self, state: GrammarState) -> GrammarState:
        """The state where the text that has to match begins."""
        beside = self.partner.prompt_end(state.beside) if self.partner is not None else None
        key = (state.silent, beside)
        if key not in self._starts:
            lead = state.silent and self._behind_nothing is not self._matcher
            matcher = (self._behind_nothing if state.silent else self._matcher).deep_copy()
            position = None if self.guide is None else (lead, self.guide.start)
            self._starts[key] = GrammarState(matcher, position=position, beside=beside)
        return self._starts[key]

    def follow(self, position: Any | None, token: int) -> Any | None:
        """The position after one more token. It first records whether a space follows that the decoder will remove."""
        if position is None or self.guide is None:
            return None
        return self._read(position, self.tokens.pieces[token])

    def _read(self, position: Any, data: bytes) -> Any | None:
        assert self.guide is not None
        lead, inner = position
        after = self.guide.advance(inner, data[lead:] if data else data)
        return None if after is None else (lead and not data, after)

    def masks(self, states: Iterable[GrammarState]) -> None:
        """Ask llguidance at once for all masks of these states that are not known yet."""
        asked = list(
            {id(state): state for state in states if state.matcher is not None and state._open is None}.values()
        )
        if asked:
            found = self.tokens.masks([state.matcher for state in asked])
            for row, state in enumerate(asked):
                state._open = found[row]

    def open(self, state: GrammarState) -> torch.Tensor:
        """(size,) bool: the tokens that may come next, without ends."""
        self.masks([state])
        assert state._open is not None
        return state._open

    def complete(self, state: GrammarState) -> bool:
        """Whether the text so far matches and may end."""
        if state.matcher is None or not state.matcher.is_accepting():
            return False
        return self.partner is None or self.partner.allows(state.beside, ())

    def matches(self, text: str) -> bool:
        """Whether a text matches, prompt left out."""
        tokens = self.tokens.spell(text.encode())
        return tokens is not None and self.tokens.completes(self._matcher, tuple(tokens))

    def bound(self, state: GrammarState) -> float:
        """Most tokens that complete the text after any next token; infinite if that is not known."""
        if state.position is None or self.guide is None:
            return math.inf
        return 2 + self.guide.worst(state.position[1])

    def closable(self, state: GrammarState) -> bool:
        """Whether the text can be completed in the same way after any further plain characters."""
        return state.position is not None and self.guide is not None and self.guide.closable(state.position[1])

    def unlimited(self, state: GrammarState) -> bool:
        """Whether the text is in a free string of any length."""
        return state.position is not None and self.guide is not None and self.guide.unlimited(state.position[1])

    def closes_string(self, plan: Plan) -> bool:
        """Whether a plan begins with the end of a JSON string."""
        return bool(plan) and self.tokens.pieces[plan[0]].startswith(b'"')

    # Plans.

    def plan(self, state: GrammarState) -> Plan | None:
        """Tokens that complete the text, none where it is complete; None if no completion is known."""
        if state.plan is None and state.matcher is not None and not state.planned:
            state.planned = True
            plan = self.make_plan(state, 0)
            hint = state.hint
            if hint is not None and (plan is None or len(hint) < len(plan)) and self._holds(state, hint):
                plan = hint
            if plan is None and self.partner is not None:
                plan, _ = self._with_words(state, FIRST_EFFORT if state in self._starts.values() else EFFORT)
            missing = self.partner is not None and bool(self.partner.missing(state.beside))
            # A search does not know the required words.
            if plan is None and not missing and not self.lacking() and not self.endless:
                plan = self.make_plan(state, FIRST_EFFORT if self.partner is None else SHORTER_EFFORT)
            elif plan and self._rough and state in self._starts.values():
                plan = self._searched(state, len(plan) - 1, SHORTER_EFFORT) or plan
            state.plan = plan
        return state.plan

    def lacking(self) -> list[str]:
        """The characters that every matching text needs and the model cannot write, as far as that is known."""
        if self._lacking is None:
            self._lacking = [] if self.guide is None else self.guide.lacking()
        return self._lacking

    @property
    def endless(self) -> bool:
        """Whether it is proven that no text that matches has an end."""
        return self.guide is not None and self.guide.endless

    def contradicts(self, state: GrammarState) -> bool:
        """Whether it is proven that no text both matches and keeps to the partner's words."""
        return self.joint(state, FIRST_EFFORT).proven

    def impossible(self, state: GrammarState) -> bool:
        """Whether no text of the model's tokens completes the text so far; False also where that is not known."""
        found = self.search(state.matcher, LONGEST_PLAN, FIRST_EFFORT, every=True)
        return found.plan is None and not found.left_out
