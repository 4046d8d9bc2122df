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
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .grammar_guides import Partner, behind_space, find_guide
from .grammar_search import GrammarSearch, Plan
from .grammar_tokens import GrammarTokens

# States that a search examines at most at the start, where it runs once, and in every other state.
FIRST_EFFORT, EFFORT = 4000, 120
# And for a plan that is shorter than the known one.
SHORTER_EFFORT = 200
# A longer completion is not looked for.
LONGEST_PLAN = 8192
# Ways to end a text with a banned part that are tried.
_MOST_ROUND = 24
# Positions at which required words are tried.
_MOST_SLOTS = 12


@dataclass(eq=False)
class GrammarState:
    """A state in the grammar; immutable except for cached results.

    Attributes:
        matcher: llguidance's, after the text so far; None in the prompt and where the text has ended.
        silent: no text at all so far, not even from a prompt.
        position: the guide's position; None where that is not known.
        beside: the partner's state.
        plan: tokens that complete the text, if they are known.
        plans: plans after a next token, by that token.
        hint: the rest of the previous state's plan, which may hold here.
        searched: a search finds nothing more here.
    """

    matcher: Any | None
    silent: bool = False
    position: Any | None = None
    beside: Any | None = None
    plan: Plan | None = None
    plans: dict[int, Plan] = field(default_factory=dict)
    hint: Plan | None = None
    searched: bool = False
    _open: torch.Tensor | None = None


ENDED = GrammarState(None)


class GrammarAutomaton:
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
        joint._starts = {}
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
        hint = state.plans.get(token) or _left_of(state.plan, token) or state.hint
        return GrammarState(after, position=self._follow(state.position, token), beside=beside, hint=hint)

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

    def _follow(self, position: Any | None, token: int) -> Any | None:
        """Positions first record whether a space follows that the decoder will remove."""
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

    def closes_string(self, plan: Plan) -> bool:
        """Whether a plan begins with the end of a JSON string."""
        return bool(plan) and self.tokens.pieces[plan[0]].startswith(b'"')

    # Plans.

    def plan(self, state: GrammarState) -> Plan | None:
        """Tokens that complete the text, none where it is complete; None if no completion is known."""
        if state.plan is None and state.matcher is not None:
            known = [state.hint] if state.hint is not None and self._holds(state, state.hint) else []
            if self.complete(state):
                known.append(())
            else:
                known += [plan for plan in (self._ending(state),) if plan is not None]
            if not known and not state.searched and not self.lacking() and not self.endless:
                state.searched = True
                # A search does not know the required words.
                effort = FIRST_EFFORT if self.partner is None else SHORTER_EFFORT
                found = self._searched(state, LONGEST_PLAN, effort)
                known += [] if found is None else [found]
            elif known and self._rough and state in self._starts.values():
                found = self._searched(state, min(map(len, known)) - 1, SHORTER_EFFORT)
                known += [] if found is None else [found]
            state.plan = min(known, key=len, default=None)
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

    def impossible(self, state: GrammarState) -> bool:
        """Whether no text of the model's tokens completes the text so far; False also where that is not known."""
        found = self.search(state.matcher, LONGEST_PLAN, FIRST_EFFORT, every=True)
        return found.plan is None and not found.left_out

    def plans_behind(self, state: GrammarState, tokens: Iterable[int], limit: int) -> dict[int, Plan]:
        """Plans of at most `limit` tokens after each of some allowed tokens, where one was found."""
        assert state.matcher is not None
        found: dict[int, Plan] = {}
        own = self.plan(state)
        known = [own] if own is not None and len(own) <= limit else []
        effort = EFFORT
        for token in tokens:
            plan = _left_of(own, token)
            if plan is None or len(plan) > limit or not self._holds(state, plan, token):
                plan = None
                for old in known:
                    if self._holds(state, old, token):
                        plan = old
                        break
            if plan is None:
                after = self.advance(state, token)
                if after.matcher is None:
                    continue
                plan = () if self.complete(after) else self._ending(after, own)
                if plan is None and effort > 0:
                    ended = self.search(after.matcher, limit, effort)
                    effort -= ended.looked + 1
                    plan = ended.plan if ended.plan is not None and self._holds(after, ended.plan) else None
                if plan is not None and len(plan) <= limit and plan not in known:
                    known.insert(0, plan)
            if plan is not None and len(plan) <= limit:
                found[token] = plan
        state.plans.update(found)
        return found

    def _holds(self, state: GrammarState, plan: Plan, token: int | None = None) -> bool:
        """Whether a plan completes the text from here, or after one more token."""
        whole = plan if token is None else (token, *plan)
        if state.matcher.validate_tokens([*whole, self.tokens.end]) <= len(whole):  # type: ignore[union-attr]
            return False
        return self.partner is None or self.partner.allows(state.beside, whole)

    def _ending(self, state: GrammarState, old: Plan | None = None) -> Plan | None:
        """A plan from the guide, or the rest of the previous state's plan."""
        missing = self.partner.missing(state.beside) if self.partner is not None else []
        if state.position is not None and self.guide is not None:
            if missing:
                plan = self._with_missing(state)
                if plan is not None:
                    return plan
            lead, inner = state.position
            stages = self.guide.stages(inner)
            if lead:
                stages.insert(0, [b" "])
            plan = self._first_that_holds(state, stages)
            if plan is not None:
                return plan
        for cut in range(len(old or ())):
            rest = (old or ())[cut:]
            if self._holds(state, rest):
                return rest
        return None

    def _first_that_holds(self, state: GrammarState, stages: list[list[bytes]]) -> Plan | None:
        firsts = [ways[0] for ways in stages if ways]
        if len(firsts) == len(stages):
            plan = self._spelled(b"".join(firsts))
            if plan is not None and self._holds(state, plan):
                return plan
            if self.partner is not None:
                for stage, ways in enumerate(stages):
                    for other in ways[1:_MOST_ROUND]:
                        plan = self._spelled(b"".join([*firsts[:stage], other, *firsts[stage + 1 :]]))
                        if plan is not None and self._holds(state, plan):
                            return plan
        plan = self._by_stages(state, stages)
        return plan if plan is not None and self._holds(state, plan) else None

    def _by_stages(self, state: GrammarState, stages: list[list[bytes]]) -> Plan | None:
        """The first ending at each level that llguidance accepts; where one leads nowhere, the next is tried."""
        tries = _MOST_ROUND * len(stages)
        waiting: list[tuple[Any, bytes, int, int]] = [(state.matcher, b"", 0, 0)]
        while waiting and tries:
            matcher, done, stage, way = waiting.pop()
            if stage == len(stages):
                if matcher.is_accepting():
                    return self._spelled(done)
                continue
            if way < len(stages[stage]):
                tries -= 1
                waiting.append((matcher, done, stage, way + 1))
                text = stages[stage][way]
                tokens = self.tokens.spell(text)
                if tokens is not None and matcher.validate_tokens(tokens) == len(tokens):
                    waiting.append((self.tokens.consume(matcher, tokens), done + text, stage + 1, 0))
        return None

    def _with_missing(self, state: GrammarState) -> Plan | None:
        """A plan that also writes the missing words, at the first position that allows any text."""
        assert self.guide is not None
        assert self.partner is not None
        assert state.position is not None
        assert state.matcher is not None
        lead, inner = state.position
        for _, slot in zip(range(_MOST_SLOTS), self.guide.slots(inner), strict=False):
            start = self._spelled(b" " * lead + slot)
            if start is None or state.matcher.validate_tokens(list(start)) != len(start):
                continue
            there = state
            for token in start:
                there = self.advance(there, token)
            words = tuple(self.partner.missing(there.beside))
            if there.matcher is None or there.matcher.validate_tokens(list(words)) != len(words):
                continue
            for token in words:
                there = self.advance(there, token)
            if there.matcher is None or there.position is None or self.partner.missing(there.beside):
                continue
            rest = self._first_that_holds(there, self.guide.stages(there.position[1]))
            if rest is not None:
                plan = (*start, *words, *rest)
                if self._holds(state, plan):
                    return plan
        return None

    def _searched(self, state: GrammarState, limit: int, effort: int) -> Plan | None:
        for every in (False, True):
            found = self.search(state.matcher, limit, effort, every=every)
            if found.plan is not None and self._holds(state, found.plan):
                return found.plan
            if not found.left_out:
                break
        return None

    def _spelled(self, text: bytes) -> Plan | None:
        tokens = self.tokens.spell(text)
        return None if tokens is None else tuple(tokens)


def _left_of(plan: Plan | None, token: int) -> Plan | None:
    """The rest of a plan after its first token."""
    return plan[1:] if plan and plan[0] == token else None
