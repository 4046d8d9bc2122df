"""Plans of a text in a grammar: tokens that complete it from where it is.

A plan is read off the schema or the regular expression, level by level, and checked by llguidance token by token. In
equal positions equal plans hold, so they are made once for each position.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from .grammar_guides import Guide, Partner
from .grammar_search import GrammarSearch, Plan
from .grammar_tokens import GrammarTokens
from .pattern_position import PatternPositions
from .pattern_words import JointMatch

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
# Positions whose plans are kept, and plans of a search that are tried after other tokens.
_MOST_KEPT, _MOST_OTHERS = 20_000, 8


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
        planned: `plan` is what could be found.
    """

    matcher: Any | None
    silent: bool = False
    position: Any | None = None
    beside: Any | None = None
    plan: Plan | None = None
    plans: dict[int, Plan] = field(default_factory=dict)
    hint: Plan | None = None
    planned: bool = False
    _open: torch.Tensor | None = None


ENDED = GrammarState(None)


class PlanMaker:
    """Makes plans, and keeps them by position.

    Attributes:
        tokens: the model's tokens.
        search: looks for plans where nothing else helps.
        guide: knowledge of the grammar; None if there is none.
        partner: other controls of the same text.
    """

    tokens: GrammarTokens
    search: GrammarSearch
    guide: Guide | None
    partner: Partner | None

    def __init__(self) -> None:
        # By position: the plan, and the effort of the search for it if there was none.
        self._made: dict[Any, tuple[Plan | None, int]] = {}

    def advance(self, state: GrammarState, token: int) -> GrammarState:
        """The state after one more token."""
        raise NotImplementedError

    def complete(self, state: GrammarState) -> bool:
        """Whether the text so far matches and may end."""
        raise NotImplementedError

    def follow(self, position: Any | None, token: int) -> Any | None:
        """The position after one more token."""
        raise NotImplementedError

    def made(self, position: Any | None, beside: Any, effort: int = 0) -> tuple[bool, Plan | None]:
        """Whether it is known which plan there is at a position, and that plan; None if there is none."""
        key = self._key(position, beside)
        plan, spent = self._made.get(key, (None, -1)) if key is not None else (None, -1)
        return plan is not None or spent >= effort, plan

    def make_plan(self, state: GrammarState, effort: int, old: Plan | None = None) -> Plan | None:
        """A plan for a state, found with at most this effort of a search; None if there is none.

        Args:
            state: where the text is.
            effort: states that a search examines at most; 0 for no search.
            old: the plan of the state before, whose rest may hold.
        """
        known, plan = self.made(state.position, state.beside, effort)
        if known and (plan is None or self.settled(state.position) or self.tokens.completes(state.matcher, plan)):
            return plan
        plan = () if self.complete(state) else self._ending(state, old)
        if plan is None and effort:
            plan = self._searched(state, LONGEST_PLAN, effort)
        key = self._key(state.position, state.beside)
        if key is not None:
            if len(self._made) >= _MOST_KEPT:
                self._made.clear()
            self._made[key] = (plan, effort)
        return plan

    def settled(self, position: Any | None) -> bool:
        """Whether all texts at this position can be completed alike."""
        return position is not None and self.guide is not None and self.guide.settled(position[1])

    def _key(self, position: Any | None, beside: Any) -> Any | None:
        if position is None or self.guide is None:
            return None
        return position[0], self.guide.key(position[1]), beside

    def plans_behind(
        self, state: GrammarState, tokens: Iterable[int], limit: int, effort: int = EFFORT
    ) -> dict[int, Plan]:
        """Plans of at most `limit` tokens after each of some allowed tokens, where one was found."""
        found: dict[int, Plan] = {}
        own = state.plan
        others: list[Plan] = [] if own is None else [own]
        for token in tokens:
            plan = left_of(own, token)
            if plan is None or len(plan) > limit:
                plan, effort = self._plan_behind(state, token, limit, effort, others)
            if plan is not None:
                found[token] = plan
        state.plans.update(found)
        return found

    def _plan_behind(
        self, state: GrammarState, token: int, limit: int, effort: int, others: list[Plan]
    ) -> tuple[Plan | None, int]:
        """A plan after a token, and the effort that is left."""
        assert state.matcher is not None
        beside = None
        if self.partner is not None:
            beside = self.partner.after(state.beside, token)
            if beside is None:
                return None, effort
        position = self.follow(state.position, token)
        known, plan = self.made(position, beside)
        if known and self.settled(position) and plan is not None and len(plan) <= limit:
            return plan, effort
        for old in others:
            if len(old) <= limit and self._holds(state, old, token):
                return old, effort
        after = self.advance(state, token)
        if after.matcher is None:
            return None, effort
        plan = self.make_plan(after, 0, state.plan)
        if plan is not None and len(plan) <= limit:
            return plan, effort
        if effort > 0 and isinstance(self.guide, PatternPositions) and beside is not None:
            plan, looked = self._with_words(after, effort)
            return (plan if plan is not None and len(plan) <= limit else None), effort - looked - 1
        # Where all of the schema is known, a search finds nothing that is shorter.
        if effort > 0 and not self.settled(position):
            ended = self.search(after.matcher, limit, effort)
            effort -= ended.looked + 1
            plan = ended.plan
            if plan is not None and len(plan) <= limit and self._holds(after, plan):
                others[:0] = [plan]
                del others[_MOST_OTHERS:]
                return plan, effort
        return None, effort

    def _holds(self, state: GrammarState, plan: Plan, token: int | None = None) -> bool:
        """Whether a plan completes the text from here, or after one more token."""
        whole = plan if token is None else (token, *plan)
        if not self.tokens.completes(state.matcher, whole):
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

    def joint(self, state: GrammarState, effort: int) -> JointMatch:
        """What is known of the texts that complete an expression and keep to the partner's words."""
        unknown = JointMatch(None, False, 0)
        if not isinstance(self.guide, PatternPositions) or self.partner is None or state.position is None:
            return unknown
        found, (lead, inner) = self.partner.letters(state.beside), state.position
        if found is None or lead:
            return unknown
        words, there = found
        return self.guide.with_words(inner, self.guide.joined(words, self.tokens.vocabulary), there, effort)

    def _with_words(self, state: GrammarState, effort: int) -> tuple[Plan | None, int]:
        """A plan by the letters of an expression and of the words, and the states that were looked at for it."""
        found = self.joint(state, effort)
        plan = None if found.text is None else self._spelled(found.text.encode())
        return (plan if plan is not None and self._holds(state, plan) else None), found.looked

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


def left_of(plan: Plan | None, token: int) -> Plan | None:
    """The rest of a plan after its first token."""
    return plan[1:] if plan and plan[0] == token else None
