"""Where a text stands in a grammar, and how it could be completed from there.

llguidance tells which tokens may come next. It does not tell how many are needed until the text is complete, and a
budget has to know. So every place carries a plan: tokens that complete the text, found by a search over copies of
llguidance's matcher and handed on from place to place as long as it holds. A plan need not be the shortest there is,
but it is always one that works: it is checked token by token.

This file knows nothing of scores, rows or budgets.
"""

import builtins
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .grammar_tokens import GrammarTokens
from .shortest_match import shortest_match

Plan = tuple[int, ...]

# Tokens that a search looks at most at the beginning, where it is made once, and at every other place.
FIRST_EFFORT, EFFORT = 4000, 120
# A completion longer than this is not looked for.
LONGEST_PLAN = 8192
# Of the texts with the same number of tokens, a search follows the first so many and the longest so many.
_FIRST, _LONGEST = 8, 4


@dataclass(eq=False)
class Place:
    """A place in the grammar, never changed but for what is found out about it.

    Attributes:
        matcher: llguidance's, behind the text so far; None in the prompt and where the text has ended.
        silent: no text at all so far, not even a prompt's.
        plan: tokens that complete the text, if they are known.
        plans: plans behind a next token, by that token.
    """

    matcher: Any | None
    silent: bool = False
    plan: Plan | None = None
    plans: dict[int, Plan] = field(default_factory=dict)
    _open: torch.Tensor | None = None


ENDED = Place(None)


@dataclass(eq=False)
class _Node:
    """A place in a search: how often the way there stood still, its turn, bytes and tokens on the way."""

    still: int
    rank: int
    bytes: int
    matcher: Any
    plan: Plan
    look: builtins.bytes = b""


class GrammarPlaces:
    """The places of one grammar, over the tokens of one model.

    Args:
        grammar: in llguidance's form (see `read_grammar`).
        tokenizer: the model's.
        size: number of scores the model gives.
        pattern: the regular expression that the grammar was read from, if it was.

    Raises:
        ValueError: llguidance cannot use the grammar.
    """

    def __init__(self, grammar: str, tokenizer: PreTrainedTokenizerBase, size: int, pattern: str | None = None) -> None:
        self._pattern = pattern
        self.tokens = GrammarTokens.of(tokenizer, size)
        self.vocabulary = self.tokens.vocabulary
        self._matcher = self._behind_nothing = self.tokens.matcher(grammar)
        if self.vocabulary.strips_leading_space:
            # The decoder takes the space that such a text begins with.
            self._behind_nothing = self.tokens.matcher(_behind_space(grammar))
        self.before = Place(None, silent=True)
        self._in_prompt = Place(None)
        self._starts: dict[bool, Place] = {}

    def advance(self, place: Place, token: int) -> Place:
        """The place behind one more token."""
        if place is self.before or place is self._in_prompt:
            return place if not self.vocabulary.piece(token) else self._in_prompt
        if place.matcher is None or place.matcher.validate_tokens([token]) != 1 or token == self.tokens.end:
            return ENDED  # by an end-of-text token, or it is a row that goes nowhere, as beam search has
        after = self.tokens.consume(place.matcher, [token])
        return Place(after, plan=self._inherit(after, place.plans.get(token, place.plan), shorten=True))

    def prompt_end(self, place: Place) -> Place:
        """The place where the text that has to match begins."""
        silent = place.silent
        if silent not in self._starts:
            matcher = (self._behind_nothing if silent else self._matcher).deep_copy()
            self._starts[silent] = Place(matcher)
        return self._starts[silent]

    def open(self, place: Place) -> torch.Tensor:
        """(size,) bool: the tokens that may come next, ends not among them."""
        if place._open is None:
            assert place.matcher is not None
            found = self.tokens.open(place.matcher)
            if place.plan and place.matcher.validate_tokens([place.plan[0]]):
                found[place.plan[0]] = True  # the plan may spell what is certain in another way
            place._open = found
        return place._open

    def complete(self, place: Place) -> bool:
        """Whether the text so far matches."""
        return place.matcher is not None and bool(place.matcher.is_accepting())

    def matches(self, text: str) -> bool:
        """Whether a text matches, prompt left out."""
        tokens = self.tokens.spell(text.encode())
        return tokens is not None and self.tokens.completes(self._matcher, tuple(tokens))

    def plan(self, place: Place) -> Plan | None:
        """Tokens that complete the text, none where it is complete; None if no way was found."""
        if place.plan is None and place.matcher is not None:
            written = self._written_plan(place)
            if written is not None:
                shorter = self._search(place.matcher, len(written) - 1, FIRST_EFFORT // 4)[0]
                place.plan = written if shorter is None else shorter
                return place.plan
            for every in (False, True):
                place.plan, left_out, _ = self._search(place.matcher, LONGEST_PLAN, FIRST_EFFORT, every=every)
                if place.plan is not None or not left_out:
                    break
        return place.plan

    def _written_plan(self, start: Place) -> Plan | None:
        """The plan that the regular expression itself tells."""
        if self._pattern is None:
            return None
        singles = [str(self.vocabulary.pieces[token]) for token in self.tokens.single]
        letters = sorted(singles, key=lambda letter: (not letter.islower(), not letter.isalnum(), letter.isspace()))
        text = shortest_match(self._pattern, letters, lambda text: self.tokens.spell(text.encode()) is not None)
        for lead in ("", " ") if text is not None else ():
            plan = self.tokens.spell(f"{lead}{text}".encode())
            if plan is not None and self.tokens.completes(start.matcher, plan):
                return tuple(plan)
        return None

    def impossible(self, place: Place) -> bool:
        """Whether no text of the model's tokens completes what was begun; False also where the search gave up."""
        plan, left_out, _ = self._search(place.matcher, LONGEST_PLAN, FIRST_EFFORT, every=True)
        return plan is None and not left_out

    def plans_behind(self, place: Place, tokens: Iterable[int], limit: int) -> dict[int, Plan]:
        """Plans of at most `limit` tokens behind each of some open tokens, where one was found."""
        assert place.matcher is not None
        found: dict[int, Plan] = {}
        known = [] if place.plan is None else [place.plan[1:], place.plan]
        known = [plan for plan in known if len(plan) <= limit]
        hopeless: set[bytes] = set()
        effort = EFFORT
        for token in tokens:
            # Asking llguidance about a token and a plan in one is many times faster than going there.
            plan = next((old for old in known if self.tokens.completes(place.matcher, (token, *old))), None)
            if plan is None:
                after = self.tokens.consume(place.matcher, [token])
                plan = self._inherit(after, place.plan, limit=limit)
                if plan is None and effort > 0 and (look := self.tokens.look(after)) not in hopeless:
                    plan, _, used = self._search(after, limit, effort, place.plan)
                    effort -= used + 1
                    if plan is None:
                        hopeless.add(look)
                    else:
                        known.insert(0, plan)
            if plan is not None:
                found[token] = plan
        place.plans.update(found)
        return found

    @cached_property
    def worst(self) -> int | None:
        """The longest plan behind any branch off the plan from the start; None if a branch has none that was found.

        It tells how many tokens more a text may need when one token goes another way.
        """
        place = self.prompt_end(self._in_prompt)
        plan = self.plan(place)
        longest, effort = len(plan or ()), FIRST_EFFORT
        seen: set[bytes] = set()
        for token in (*(plan or ()), None):
            assert place.matcher is not None
            look = self.tokens.look(place.matcher)
            if look not in seen and not place.matcher.compute_ff_bytes():
                seen.add(look)
                for branch in self.tokens.choices(look, every=True):
                    after = self.tokens.consume(place.matcher, [branch])
                    found = self._inherit(after, place.plan)
                    if found is None and (look := self.tokens.look(after)) not in seen:
                        seen.add(look)
                        found, _, used = self._search(after, LONGEST_PLAN, effort)
                        effort -= used + 1
                        if found is None:
                            return None
                    longest = max(longest, len(found or ()))
            if token is not None:
                place = self.advance(place, token)
        return longest

    # What the search is made of.

    def _inherit(
        self, matcher: Any, plan: Plan | None, limit: int = LONGEST_PLAN, shorten: bool = False
    ) -> Plan | None:
        """What is left of the plan of the place before, if some of it completes the text from here."""
        if matcher.is_accepting():
            return ()
        if plan is None:
            return None
        for cut in (1, 0, *range(2, len(plan))):
            rest = plan[cut:]
            if len(rest) <= limit and self.tokens.completes(matcher, rest):
                while shorten and rest and self.tokens.completes(matcher, rest[1:]):
                    rest = rest[1:]
                return rest
        return None

    def _search(
        self, matcher: Any, limit: int, effort: int, known: Plan | None = None, every: bool = False
    ) -> tuple[Plan | None, bool, int]:
        """A plan of at most `limit` tokens, whether anything was left out, and how many places were looked at.

        A beam search by the number of tokens. Of places that look alike behind equally many, the one that stood still
        least is followed: inside a long string little changes from token to token.

        Args:
            known: a plan that may hold again further on.
            every: try every token of one character, also where it looks like free text.
        """
        layers = {0: [_Node(0, 0, 0, matcher, ())]}
        looked, left_out = 0, False
        while layers:
            length = min(layers)
            nodes = sorted(layers.pop(length), key=lambda node: (node.still, node.rank))
            alike: dict[bytes, _Node] = {}
            if length > limit:  # certain characters may take it past
                return None, True, looked
            for node in nodes:
                if node.matcher.is_accepting():
                    return node.plan, left_out, looked
                if length >= limit or looked >= effort:
                    left_out = True
                    continue
                rest = self._inherit(node.matcher, known, limit=limit - length)
                if rest is not None:
                    return node.plan + rest, True, looked
                look = node.look = node.look or self.tokens.look(node.matcher)
                looked += 1
                if look not in alike or (alike[look].still, -alike[look].bytes) > (node.still, -node.bytes):
                    alike[look] = node
            kept = list(alike.values())
            if len(kept) > _FIRST + _LONGEST:
                left_out = True
                kept = kept[:_FIRST] + sorted(kept[_FIRST:], key=lambda node: -node.bytes)[:_LONGEST]
            for node in kept:
                for longer in self._branches(node, every):
                    layers.setdefault(len(longer.plan), []).append(longer)
                left_out = left_out or self.tokens.leaves_out(node.look, every)
        return None, left_out, looked

    def _branches(self, node: "_Node", every: bool) -> list["_Node"]:
        """The places that a search goes on with from one."""
        forced = node.matcher.compute_ff_bytes()
        if forced:
            tokens = self.tokens.spell(forced)
            if tokens and node.matcher.validate_tokens(tokens) == len(tokens):
                after = self.tokens.consume(node.matcher, tokens)
                return [_Node(node.still, 0, node.bytes + len(forced), after, (*node.plan, *tokens))]
        last = next((token for token in self.tokens.single if self.tokens.completes(node.matcher, (token,))), None)
        if last is not None:
            return [_Node(node.still, 0, node.bytes, self.tokens.consume(node.matcher, [last]), (*node.plan, last))]
        branches: list[_Node] = []
        still: _Node | None = None
        for rank, token in enumerate(self.tokens.choices(node.look, every)):
            after = self.tokens.consume(node.matcher, [token])
            done = node.bytes + len(self.tokens.pieces[token])
            branch = _Node(node.still, rank, done, after, (*node.plan, token))
            branch.look = self.tokens.look(after)
            if branch.look != node.look or after.is_accepting():
                branches.append(branch)
            elif still is None or still.bytes < done:
                still = branch
        if still is not None:
            still.still += 1
            branches.append(still)
        return branches


def _behind_space(grammar: str) -> str:
    """The grammar of the same texts with a space before each."""
    try:
        whole = json.loads(grammar)["grammars"][0]
    except (ValueError, KeyError):
        whole = {"lark_grammar": grammar}
    return json.dumps({"grammars": [{"lark_grammar": 'start: " " @whole'}, whole | {"name": "whole"}]})
