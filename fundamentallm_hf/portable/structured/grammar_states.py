"""Where a text stands in a grammar, and how it could be completed from there.

llguidance tells which tokens may come next. It does not tell how many are needed until the text is complete, and a
budget has to know. A JSON schema or a regular expression says it (`json_position.py`, `pattern_position.py`): how much
a text may need at most, whatever comes next, and tokens that complete it from where it stands, which are called a plan
here. Every plan is checked by llguidance, token by token. Where nothing is known of the grammar, or what was known does
not hold, a search looks for a plan; that it finds none means that none is known, not that there is none.
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

# Places that a search looks at most at the beginning, where it is made once, and at every other place.
FIRST_EFFORT, EFFORT = 4000, 120
# And for a plan that is shorter than the one that is known.
SHORTER_EFFORT = 200
# A completion longer than this is not looked for.
LONGEST_PLAN = 8192
# Ways to end a text of which some part is barred that are tried.
_MOST_ROUND = 24
# Places at which words that must appear are tried.
_MOST_SLOTS = 12


@dataclass(eq=False)
class Place:
    """A place in the grammar, never changed but for what is found out about it.

    Attributes:
        matcher: llguidance's, behind the text so far; None in the prompt and where the text has ended.
        silent: no text at all so far, not even a prompt's.
        position: where it is for the guide; None where that is not known.
        beside: where it is for the partner.
        plan: tokens that complete the text, if they are known.
        plans: plans behind a next token, by that token.
        hint: a plan that is left from the place before and may hold here.
        searched: nothing more is found here by a search.
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


ENDED = Place(None)


class GrammarPlaces:
    """A grammar over the tokens of one model, for any number of calls.

    Args:
        grammar: what the whole text has to match, in llguidance's form (see `read_grammar`).
        tokenizer: the model's.
        size: number of scores the model gives.
        pattern: the regular expression that the grammar was made of, if it was made of one.

    Attributes:
        before: the place before any text.
        guide: what is known of the grammar; None if nothing.
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
        # An expression tells the text of the fewest characters, which need not be that of the fewest tokens.
        self._rough = bool(pattern)
        self._matcher = self._behind_nothing = self.tokens.matcher(grammar)
        if self.vocabulary.strips_leading_space:
            # The decoder takes the space that such a text begins with.
            self._behind_nothing = self.tokens.matcher(behind_space(grammar))
        self.before = Place(None, silent=True)
        self._starts: dict[Any, Place] = {}

    def with_partner(self, partner: Partner) -> "GrammarPlaces":
        """The same, with other controls that a plan has to heed."""
        joint = copy.copy(self)
        joint.partner = partner
        joint.before = Place(None, silent=True, beside=partner.start)
        joint._starts = {}
        return joint

    def advance(self, place: Place, token: int) -> Place:
        """The place behind one more token."""
        beside = self.partner.advance(place.beside, token) if self.partner is not None else None
        if place.matcher is None:
            if place is ENDED:
                return ENDED
            return Place(None, silent=place.silent and not self.vocabulary.piece(token), beside=beside)
        after = place.matcher.deep_copy()
        if not after.consume_token(token):
            return ENDED  # by an end-of-text token, or it is a row that goes nowhere, as beam search has
        hint = place.plans.get(token) or _left_of(place.plan, token) or place.hint
        return Place(after, position=self._follow(place.position, token), beside=beside, hint=hint)

    def prompt_end(self, place: Place) -> Place:
        """The place where the text that has to match begins."""
        beside = self.partner.prompt_end(place.beside) if self.partner is not None else None
        key = (place.silent, beside)
        if key not in self._starts:
            lead = place.silent and self._behind_nothing is not self._matcher
            matcher = (self._behind_nothing if place.silent else self._matcher).deep_copy()
            position = None if self.guide is None else (lead, self.guide.start)
            self._starts[key] = Place(matcher, position=position, beside=beside)
        return self._starts[key]

    def _follow(self, position: Any | None, token: int) -> Any | None:
        """Positions say first whether a space is to come that the decoder will take away."""
        if position is None or self.guide is None:
            return None
        return self._read(position, self.tokens.pieces[token])

    def _read(self, position: Any, data: bytes) -> Any | None:
        assert self.guide is not None
        lead, inner = position
        after = self.guide.advance(inner, data[lead:] if data else data)
        return None if after is None else (lead and not data, after)

    def masks(self, places: Iterable[Place]) -> None:
        """Ask llguidance at once for the masks of all places of which they are not known yet."""
        asked = list(
            {id(place): place for place in places if place.matcher is not None and place._open is None}.values()
        )
        if asked:
            found = self.tokens.masks([place.matcher for place in asked])
            for row, place in enumerate(asked):
                place._open = found[row]

    def open(self, place: Place) -> torch.Tensor:
        """(size,) bool: the tokens that may come next, ends not among them."""
        self.masks([place])
        assert place._open is not None
        return place._open

    def complete(self, place: Place) -> bool:
        """Whether the text so far matches, and nothing else has to come."""
        if place.matcher is None or not place.matcher.is_accepting():
            return False
        return self.partner is None or self.partner.allows(place.beside, ())

    def matches(self, text: str) -> bool:
        """Whether a text matches, prompt left out."""
        tokens = self.tokens.spell(text.encode())
        return tokens is not None and self.tokens.completes(self._matcher, tuple(tokens))

    def bound(self, place: Place) -> float:
        """Tokens that complete the text at most behind any next token; infinite if that is not known."""
        if place.position is None or self.guide is None:
            return math.inf
        return 2 + self.guide.worst(place.position[1])

    def closable(self, place: Place) -> bool:
        """Whether the text can be completed in one and the same way behind any plain characters more."""
        return place.position is not None and self.guide is not None and self.guide.closable(place.position[1])

    def closes_string(self, plan: Plan) -> bool:
        """Whether a plan begins with the end of a JSON string."""
        return bool(plan) and self.tokens.pieces[plan[0]].startswith(b'"')

    # Plans.

    def plan(self, place: Place) -> Plan | None:
        """Tokens that complete the text, none where it is complete; None if no way is known."""
        if place.plan is None and place.matcher is not None:
            known = [place.hint] if place.hint is not None and self._holds(place, place.hint) else []
            if self.complete(place):
                known.append(())
            else:
                known += [plan for plan in (self._ending(place),) if plan is not None]
            if not known and not place.searched and not self.lacking() and not self.endless:
                place.searched = True
                # A search knows nothing of words that must appear.
                effort = FIRST_EFFORT if self.partner is None else SHORTER_EFFORT
                found = self._searched(place, LONGEST_PLAN, effort)
                known += [] if found is None else [found]
            elif known and self._rough and place in self._starts.values():
                found = self._searched(place, min(map(len, known)) - 1, SHORTER_EFFORT)
                known += [] if found is None else [found]
            place.plan = min(known, key=len, default=None)
        return place.plan

    def lacking(self) -> list[str]:
        """The characters that every text that matches needs and the model cannot write, as far as that is known."""
        if self._lacking is None:
            self._lacking = [] if self.guide is None else self.guide.lacking()
        return self._lacking

    @property
    def endless(self) -> bool:
        """Whether it is proven that no text that matches has an end."""
        return self.guide is not None and self.guide.endless

    def impossible(self, place: Place) -> bool:
        """Whether no text of the model's tokens completes what was begun; False also where that is not known."""
        found = self.search(place.matcher, LONGEST_PLAN, FIRST_EFFORT, every=True)
        return found.plan is None and not found.left_out

    def plans_behind(self, place: Place, tokens: Iterable[int], limit: int) -> dict[int, Plan]:
        """Plans of at most `limit` tokens behind each of some open tokens, where one was found."""
        assert place.matcher is not None
        found: dict[int, Plan] = {}
        own = self.plan(place)
        known = [own] if own is not None and len(own) <= limit else []
        effort = EFFORT
        for token in tokens:
            plan = _left_of(own, token)
            if plan is None or len(plan) > limit or not self._holds(place, plan, token):
                plan = None
                for old in known:
                    if self._holds(place, old, token):
                        plan = old
                        break
            if plan is None:
                after = self.advance(place, token)
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
        place.plans.update(found)
        return found

    def _holds(self, place: Place, plan: Plan, token: int | None = None) -> bool:
        """Whether a plan completes the text from here, or behind one more token."""
        whole = plan if token is None else (token, *plan)
        if place.matcher.validate_tokens([*whole, self.tokens.end]) <= len(whole):  # type: ignore[union-attr]
            return False
        return self.partner is None or self.partner.allows(place.beside, whole)

    def _ending(self, place: Place, old: Plan | None = None) -> Plan | None:
        """A plan that the guide knows, or what is left of one from the place before."""
        missing = self.partner.missing(place.beside) if self.partner is not None else []
        if place.position is not None and self.guide is not None:
            if missing:
                plan = self._with_missing(place)
                if plan is not None:
                    return plan
            lead, inner = place.position
            stages = self.guide.stages(inner)
            if lead:
                stages.insert(0, [b" "])
            plan = self._first_that_holds(place, stages)
            if plan is not None:
                return plan
        for cut in range(len(old or ())):
            rest = (old or ())[cut:]
            if self._holds(place, rest):
                return rest
        return None

    def _first_that_holds(self, place: Place, stages: list[list[bytes]]) -> Plan | None:
        firsts = [ways[0] for ways in stages if ways]
        if len(firsts) == len(stages):
            plan = self._spelled(b"".join(firsts))
            if plan is not None and self._holds(place, plan):
                return plan
            if self.partner is not None:
                for stage, ways in enumerate(stages):
                    for other in ways[1:_MOST_ROUND]:
                        plan = self._spelled(b"".join([*firsts[:stage], other, *firsts[stage + 1 :]]))
                        if plan is not None and self._holds(place, plan):
                            return plan
        plan = self._by_stages(place, stages)
        return plan if plan is not None and self._holds(place, plan) else None

    def _by_stages(self, place: Place, stages: list[list[bytes]]) -> Plan | None:
        """Level by level the first way to end it that llguidance takes; where one leads nowhere, the next."""
        tries = _MOST_ROUND * len(stages)
        waiting: list[tuple[Any, bytes, int, int]] = [(place.matcher, b"", 0, 0)]
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

    def _with_missing(self, place: Place) -> Plan | None:
        """A plan that also writes what still has to appear, at the first place where there may be any text."""
        assert self.guide is not None
        assert self.partner is not None
        assert place.position is not None
        assert place.matcher is not None
        lead, inner = place.position
        for _, slot in zip(range(_MOST_SLOTS), self.guide.slots(inner), strict=False):
            start = self._spelled(b" " * lead + slot)
            if start is None or place.matcher.validate_tokens(list(start)) != len(start):
                continue
            there = place
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
                if self._holds(place, plan):
                    return plan
        return None

    def _searched(self, place: Place, limit: int, effort: int) -> Plan | None:
        for every in (False, True):
            found = self.search(place.matcher, limit, effort, every=every)
            if found.plan is not None and self._holds(place, found.plan):
                return found.plan
            if not found.left_out:
                break
        return None

    def _spelled(self, text: bytes) -> Plan | None:
        tokens = self.tokens.spell(text)
        return None if tokens is None else tuple(tokens)


def _left_of(plan: Plan | None, token: int) -> Plan | None:
    """What is left of a plan behind its first token."""
    return plan[1:] if plan and plan[0] == token else None
