"""Where a text stands in a grammar, and how it could be completed from there.

llguidance tells which tokens may come next. It does not tell how many are needed until the text is complete, and a
budget has to know. So every place carries a plan: tokens that complete the text, found by a search over copies of
llguidance's matcher and handed on from place to place as long as it holds. A plan need not be the shortest there is,
but it is always one that works: it is checked token by token.

This file knows nothing of scores, rows or budgets.
"""

import builtins
import itertools
import json
import re
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .grammars import import_llguidance
from .vocabulary import Vocabulary, as_bytes

Plan = tuple[int, ...]

# Tokens that a search looks at most at the beginning, where it is made once, and at every other place.
FIRST_EFFORT, EFFORT = 4000, 120
# A completion longer than this is not looked for.
LONGEST_PLAN = 8192
# Of the texts with the same number of tokens, a search follows the first so many and the longest so many.
_FIRST, _LONGEST = 8, 4
# Where more tokens of a kind may come than the first number, they are taken for free text, and the second number tried.
_STRUCTURE, _FREE = 6, 2
# They close strings, objects, groups and sentences, and are always tried.
_CLOSING = re.compile(r"""\"?[}\]]{0,3}|[)>'.!?;\n]""")


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
_PLACES_OF_BITS = torch.arange(8, dtype=torch.uint8)


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

    Raises:
        ValueError: llguidance cannot use the grammar.
    """

    def __init__(self, grammar: str, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
        self.vocabulary = Vocabulary.of(tokenizer)
        self.size = size
        self.end = len(self.vocabulary.pieces)  # a token beyond the tokenizer's own stands for any end
        self._machine, self._tokens = _machine_of(tokenizer, self.vocabulary)
        self._matcher = self._match(grammar)
        self._behind_nothing = self._matcher
        if self.vocabulary.strips_leading_space:
            # The decoder takes the space that such a text begins with.
            self._behind_nothing = self._match(_behind_space(grammar))
        self.before = Place(None, silent=True)
        self._in_prompt = Place(None)
        self._starts: dict[bool, Place] = {}

    def _match(self, grammar: str) -> Any:
        matcher = import_llguidance("a grammar").LLMatcher(self._machine, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(f"llguidance cannot use the grammar: {matcher.get_error().splitlines()[0]}")
        return matcher

    def advance(self, place: Place, token: int) -> Place:
        """The place behind one more token."""
        if place is self.before or place is self._in_prompt:
            return place if not self.vocabulary.piece(token) else self._in_prompt
        if place.matcher is None or place.matcher.validate_tokens([token]) != 1 or token == self.end:
            return ENDED  # by an end-of-text token, or it is a row that goes nowhere, as beam search has
        after = self._consume(place.matcher, [token])
        plan = place.plans.get(token)
        return Place(after, plan=plan if plan is not None else self._inherit(after, place.plan, shorten=True))

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
            words = torch.frombuffer(bytearray(self._look(place.matcher)), dtype=torch.uint8)
            bits = (words[:, None] >> _PLACES_OF_BITS) & 1
            found = torch.zeros(self.size, dtype=torch.bool)
            width = min(self.size, self.end)
            found[:width] = bits.flatten()[:width].bool()
            found[self._silent] = False
            if place.plan and place.plan[0] < self.size and place.matcher.validate_tokens([place.plan[0]]):
                found[place.plan[0]] = True  # the plan may spell what is certain in another way
            place._open = found
        return place._open

    def complete(self, place: Place) -> bool:
        """Whether the text so far matches."""
        return place.matcher is not None and bool(place.matcher.is_accepting())

    def matches(self, text: str) -> bool:
        """Whether a text matches, prompt left out."""
        tokens = self._spell(text.encode())
        return tokens is not None and self._completes(self._matcher, tuple(tokens))

    def plan(self, place: Place) -> Plan | None:
        """Tokens that complete the text, none where it is complete; None if no way was found."""
        if place.plan is None and place.matcher is not None:
            for every in (False, True):
                place.plan, left_out, _ = self._search(place.matcher, LONGEST_PLAN, FIRST_EFFORT, every=every)
                if place.plan is not None or not left_out:
                    break
        return place.plan

    def impossible(self, place: Place) -> bool:
        """Whether no text of the model's tokens completes what was begun; False also where the search gave up."""
        plan, left_out, _ = self._search(place.matcher, LONGEST_PLAN, FIRST_EFFORT, every=True)
        return plan is None and not left_out

    def plans_behind(self, place: Place, tokens: Iterable[int], limit: int) -> dict[int, Plan]:
        """Plans of at most `limit` tokens behind each of some open tokens, where one was found."""
        assert place.matcher is not None
        found: dict[int, Plan] = {}
        fresh: list[Plan] = []
        hopeless: set[bytes] = set()
        effort = EFFORT
        for token in tokens:
            after = self._consume(place.matcher, [token])
            plan = self._inherit(after, place.plan, limit=limit)
            if plan is None:
                plan = next((old for old in fresh if len(old) <= limit and self._completes(after, old)), None)
            if plan is None and effort > 0:
                look = self._look(after)
                effort -= 1
                if look not in hopeless:
                    plan, _, used = self._search(after, limit, effort, place.plan)
                    effort -= used
                    if plan is None:
                        hopeless.add(look)
                    else:
                        fresh.insert(0, plan)
            if plan is not None:
                found[token] = plan
        place.plans.update(found)
        return found

    @cached_property
    def all_spelled(self) -> bool:
        """Whether any text can be written, byte by byte if need be."""
        return all(bytes([byte]) in self._tokens for byte in (*range(0x80), *range(0xC2, 0xF5), *range(0x80, 0xC0)))

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
            look = self._look(place.matcher)
            if look not in seen and not place.matcher.compute_ff_bytes():
                seen.add(look)
                for branch in self._choices(look, every=True):
                    after = self._consume(place.matcher, [branch])
                    found = self._inherit(after, place.plan)
                    if found is None and (look := self._look(after)) not in seen:
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

    def _consume(self, matcher: Any, tokens: Sequence[int]) -> Any:
        after = matcher.deep_copy()
        after.consume_tokens(list(tokens))
        return after

    def _look(self, matcher: Any) -> bytes:
        """llguidance's mask, a bit for every token; empty where nothing can come or llguidance gives up."""
        if matcher.is_error():
            return bytes(self._width)
        forced = matcher.compute_ff_bytes()
        if not forced:
            look = bytes(matcher.compute_bitmask())
            return look if not matcher.is_error() else bytes(self._width)
        # Where the next characters are certain it wants the tokens that a tokenizer would choose for them. It offers
        # some even if there are none, or fails amid a character, and then never recovers: so a copy is asked.
        asked = matcher.deep_copy()
        look = bytes(asked.compute_bitmask())
        if not asked.is_error() and any(matcher.validate_tokens([token]) for token in _bits(look)):
            return look
        own = bytearray(self._width)
        for cut in range(1, 1 + min(len(forced), self._longest)):
            token = self._tokens.get(forced[:cut])
            if token is not None and matcher.validate_tokens([token]):
                own[token >> 3] |= 1 << (token & 7)
        return bytes(own)

    @cached_property
    def _width(self) -> int:
        return len(self._matcher.deep_copy().compute_bitmask())

    def _completes(self, matcher: Any, plan: Plan) -> bool:
        return bool(matcher.validate_tokens([*plan, self.end]) == len(plan) + 1)

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
            if len(rest) <= limit and self._completes(matcher, rest):
                while shorten and rest and self._completes(matcher, rest[1:]):
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
                look = node.look = node.look or self._look(node.matcher)
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
                left_out = left_out or self._leaves_out(node.look, every)
        return None, left_out, looked

    def _branches(self, node: "_Node", every: bool) -> list["_Node"]:
        """The places that a search goes on with from one."""
        forced = node.matcher.compute_ff_bytes()
        if forced:
            tokens = self._spell(forced)
            if tokens and node.matcher.validate_tokens(tokens) == len(tokens):
                after = self._consume(node.matcher, tokens)
                return [_Node(node.still, 0, node.bytes + len(forced), after, (*node.plan, *tokens))]
        last = next((token for token in self._single if self._completes(node.matcher, (token,))), None)
        if last is not None:
            return [_Node(node.still, 0, node.bytes, self._consume(node.matcher, [last]), (*node.plan, last))]
        branches: list[_Node] = []
        still: _Node | None = None
        for rank, token in enumerate(self._choices(node.look, every)):
            after = self._consume(node.matcher, [token])
            done = node.bytes + len(self._pieces[token])
            branch = _Node(node.still, rank, done, after, (*node.plan, token))
            branch.look = self._look(after)
            if branch.look != node.look or after.is_accepting():
                branches.append(branch)
            elif still is None or still.bytes < done:
                still = branch
        if still is not None:
            still.still += 1
            branches.append(still)
        return branches

    def _leaves_out(self, look: bytes, every: bool) -> bool:
        return sum(byte.bit_count() for byte in look) > len(self._choices(look, every))

    def _choices(self, look: bytes, every: bool = False) -> list[int]:
        """The tokens that a search tries where `look` is llguidance's mask, the most promising first.

        Of what looks like structure all, of free text a few unless `every` is set, and the longest.
        """
        chosen: list[int] = []
        for index, kind in enumerate(self._order):
            may = [token for token in kind if look[token >> 3] >> (token & 7) & 1]
            chosen += may if every or index == 0 or len(may) <= _STRUCTURE else may[:_FREE]
        for kind in self._longer:
            chosen += next(([token] for token in kind if look[token >> 3] >> (token & 7) & 1), [])
        if not chosen:  # other scripts, parts of characters
            found = (token for token in _bits(look) if token < self.end and self._pieces[token])
            chosen = list(itertools.islice(found, _STRUCTURE))
        return chosen

    @cached_property
    def _pieces(self) -> list[bytes]:
        return [as_bytes(piece) for piece in self.vocabulary.pieces]

    @cached_property
    def _silent(self) -> torch.Tensor:
        return torch.tensor([token for token in self.vocabulary.silent if token < self.size], dtype=torch.long)

    @cached_property
    def _texts(self) -> list[tuple[str, int]]:
        texts = sorted((text, token) for token, text in enumerate(self.vocabulary.pieces) if isinstance(text, str))
        return [(text, token) for text, token in texts if text and token < self.size]

    @cached_property
    def _order(self) -> list[list[int]]:
        """Tokens of one character by kind, in front of them those that close."""
        closing = [(text, token) for text, token in self._texts if _CLOSING.fullmatch(text)]
        closing.sort(key=lambda item: (-len(item[0]), item[0]))
        single = [(text, token) for text, token in self._texts if len(text) == 1 and not _CLOSING.fullmatch(text)]
        tests = (
            lambda text: not text.isalnum() and not text.isspace(),
            str.isdecimal,
            str.islower,
            str.isupper,
            str.isspace,
            lambda text: text.isalpha() and text.lower() == text.upper(),
        )
        return [[token for _, token in closing]] + [[token for text, token in single if test(text)] for test in tests]

    @cached_property
    def _single(self) -> list[int]:
        return [token for text, token in self._texts if len(text) == 1]

    @cached_property
    def _longer(self) -> list[list[int]]:
        """Tokens of several characters by kind, the longest first."""
        longer = sorted((item for item in self._texts if len(item[0]) > 1), key=lambda item: -len(item[0]))
        tests = (
            lambda text: text.islower() and text.isalpha(),
            lambda text: text[0] == " " and text[1:].islower() and text[1:].isalpha(),
            lambda text: text.isalpha(),
            str.isdecimal,
        )
        kinds: list[list[int]] = []
        for test in tests:
            of_kind = [(text, token) for text, token in longer if test(text)]
            # A few of every length are enough: which letters they are hardly ever matters.
            lengths: dict[int, int] = {}
            kinds.append([])
            for text, token in of_kind:
                lengths[len(text)] = lengths.get(len(text), 0) + 1
                if lengths[len(text)] <= 4:
                    kinds[-1].append(token)
        return kinds

    def _spell(self, text: bytes) -> list[int] | None:
        return _spell(text, self._tokens, self._longest)

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._tokens), default=1)


def _bits(look: bytes) -> Iterator[int]:
    for place, byte in enumerate(look):
        if byte:
            yield from (8 * place + bit for bit in range(8) if byte >> bit & 1)


class _Tokens:
    """A vocabulary as llguidance wants to see it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, tokens: dict[bytes, int]) -> None:
        self.eos_token_id = len(vocabulary.pieces)
        self.tokens = [as_bytes(piece) or b"<silent>" for piece in vocabulary.pieces] + [b"<end>"]
        self.special_token_ids = [*vocabulary.silent, self.eos_token_id]
        self._spelling = tokens
        self._longest = max(map(len, tokens), default=1)

    def __call__(self, text: str | bytes) -> list[int]:
        return _spell(text.encode() if isinstance(text, str) else text, self._spelling, self._longest) or []


def _spell(text: bytes, tokens: dict[bytes, int], longest: int) -> list[int] | None:
    """Tokens that add `text`, each the longest that fits; None where some byte has none."""
    spelled, place = [], 0
    while place < len(text):
        for end in range(min(len(text), place + longest), place, -1):
            token = tokens.get(text[place:end])
            if token is not None:
                break
        else:
            return None
        spelled.append(token)
        place = end
    return spelled


def _behind_space(grammar: str) -> str:
    """The grammar of the same texts with a space before each."""
    try:
        whole = json.loads(grammar)["grammars"][0]
    except (ValueError, KeyError):
        whole = {"lark_grammar": grammar}
    return json.dumps({"grammars": [{"lark_grammar": 'start: " " @whole'}, whole | {"name": "whole"}]})


_MACHINES: "weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Vocabulary, Any, dict[bytes, int]]]" = (
    weakref.WeakKeyDictionary()
)


def _machine_of(tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> tuple[Any, dict[bytes, int]]:
    """llguidance's view of a vocabulary, made once, and its tokens by their bytes."""
    known = _MACHINES.get(tokenizer)
    if known is None or known[0] is not vocabulary:
        tokens: dict[bytes, int] = {}
        for token in sorted(range(len(vocabulary.pieces)), key=vocabulary.fallback.__contains__):
            if piece := as_bytes(vocabulary.pieces[token]):
                tokens.setdefault(piece, token)
        machine = import_llguidance("a grammar").LLTokenizer(_Tokens(vocabulary, tokens))
        known = _MACHINES[tokenizer] = (vocabulary, machine, tokens)
    return known[1], known[2]
