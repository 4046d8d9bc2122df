"""Searches for tokens that complete a text, using only llguidance's masks.

It is for grammars of which nothing more is known, and for states in which that knowledge did not help. Finding no
completion proves nothing, unless the search reports that it has tried everything.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .grammar_tokens import GrammarTokens

Plan = tuple[int, ...]

# Where more tokens of a kind are allowed than the first number, they count as free text, and the second number is
# tried.
_STRUCTURE, _FREE = 6, 2
# These characters close strings, objects, groups and sentences, and are always tried.
_CLOSING = re.compile(r"""\"?[}\]]{0,3}|[)>'.!?;\n]""")
# Of the texts with the same number of tokens, a search follows the first and the longest of these numbers.
_FIRST, _LONGEST = 8, 4


class Found(NamedTuple):
    """The result of a search.

    Attributes:
        plan: tokens that complete the text; None if no way was found.
        left_out: the search has not tried everything.
        looked: number of states examined.
    """

    plan: Plan | None
    left_out: bool
    looked: int


@dataclass(eq=False)
class _Node:
    """A state in a search, with how often its path made no progress, its rank, and the path's bytes and tokens."""

    still: int
    rank: int
    length: int
    matcher: Any
    plan: Plan
    look: bytes = b""


class GrammarSearch:
    """Searches over copies of llguidance's matcher.

    Args:
        tokens: the model's tokens.
    """

    def __init__(self, tokens: GrammarTokens) -> None:
        self.tokens = tokens

    def __call__(
        self,
        matcher: Any,
        limit: int,
        effort: int,
        *,
        every: bool = False,
        end: Callable[[Any, Plan], Plan | None] | None = None,
    ) -> Found:
        """Look for the fewest tokens that complete the text.

        A beam search by the number of tokens. Of states that look alike after the same number, the one that
        failed to make progress the fewest times is followed: in a long string little changes from token to token.

        Args:
            matcher: llguidance's, in its state after the text so far.
            limit: maximum number of tokens.
            effort: maximum number of states examined.
            every: try every token of one character, even where it looks like free text.
            end: returns a completion for some states, given the matcher there and the tokens of the path.
        """
        layers = {0: [_Node(0, 0, 0, matcher, ())]}
        looked, left_out = 0, False
        while layers:
            length = min(layers)
            nodes = sorted(layers.pop(length), key=lambda node: (node.still, node.rank))
            alike: dict[bytes, _Node] = {}
            if length > limit:  # forced characters may exceed it
                return Found(None, True, looked)
            for node in nodes:
                if node.matcher.is_accepting():
                    return Found(node.plan, left_out, looked)
                if length >= limit or looked >= effort:
                    left_out = True
                    continue
                rest = end(node.matcher, node.plan) if end is not None else None
                if rest is not None and length + len(rest) <= limit:
                    return Found(node.plan + rest, True, looked)
                look = node.look = node.look or self.look(node.matcher)
                looked += 1
                if look not in alike or (alike[look].still, -alike[look].length) > (node.still, -node.length):
                    alike[look] = node
            kept = list(alike.values())
            if len(kept) > _FIRST + _LONGEST:
                left_out = True
                kept = kept[:_FIRST] + sorted(kept[_FIRST:], key=lambda node: -node.length)[:_LONGEST]
            for node in kept:
                for longer in self._branches(node, every):
                    layers.setdefault(len(longer.plan), []).append(longer)
                left_out = left_out or self._leaves_out(node.look, every)
        return Found(None, left_out, looked)

    def look(self, matcher: Any) -> bytes:
        """llguidance's mask, one bit for every token."""
        found = self.tokens.masks([matcher])[0].numpy()
        return np.packbits(found, bitorder="little").tobytes()

    def _branches(self, node: _Node, every: bool) -> list[_Node]:
        """The states that a search continues with from one."""
        forced = node.matcher.compute_ff_bytes()
        if forced:
            tokens = self.tokens.spell(forced)
            if tokens and node.matcher.validate_tokens(tokens) == len(tokens):
                after = self.tokens.consume(node.matcher, tokens)
                return [_Node(node.still, 0, node.length + len(forced), after, (*node.plan, *tokens))]
        completes = self.tokens.completes
        last = next((token for token in self.tokens.single if completes(node.matcher, (token,))), None)
        if last is not None:
            return [_Node(node.still, 0, node.length, self.tokens.consume(node.matcher, [last]), (*node.plan, last))]
        branches: list[_Node] = []
        still: _Node | None = None
        for rank, token in enumerate(self._choices(node.look, every)):
            after = self.tokens.consume(node.matcher, [token])
            done = node.length + len(self.tokens.pieces[token])
            branch = _Node(node.still, rank, done, after, (*node.plan, token))
            branch.look = self.look(after)
            if branch.look != node.look or after.is_accepting():
                branches.append(branch)
            elif still is None or still.length < done:
                still = branch
        if still is not None:
            still.still += 1
            branches.append(still)
        return branches

    # The tokens that it tries.

    def _leaves_out(self, look: bytes, every: bool) -> bool:
        """Whether more tokens are allowed than the choices."""
        return sum(byte.bit_count() for byte in look) > len(self._choices(look, every))

    def _choices(self, look: bytes, every: bool = False) -> list[int]:
        """The tokens to try where `look` is llguidance's mask, the most promising first.

        All tokens that look like structure; of free text a few, unless `every` is set, and the longest.
        """
        chosen: list[int] = []
        for index, kind in enumerate(self._order):
            may = [token for token in kind if look[token >> 3] >> (token & 7) & 1]
            chosen += may if every or index == 0 or len(may) <= _STRUCTURE else may[:_FREE]
        for kind in self._longer:
            chosen += next(([token] for token in kind if look[token >> 3] >> (token & 7) & 1), [])
        if not chosen:  # other scripts, parts of characters
            found = (token for token in _bits(look) if token < self.tokens.end and self.tokens.pieces[token])
            chosen = list(itertools.islice(found, _STRUCTURE))
        return chosen

    @cached_property
    def _texts(self) -> list[tuple[str, int]]:
        pieces = enumerate(self.tokens.vocabulary.pieces)
        texts = sorted((text, token) for token, text in pieces if isinstance(text, str))
        return [(text, token) for text, token in texts if text and token < self.tokens.size]

    @cached_property
    def _order(self) -> list[list[int]]:
        """Tokens of one character by kind; those that close come first."""
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
            # A few of every length are enough: the letters hardly ever matter.
            lengths: dict[int, int] = {}
            kinds.append([])
            for text, token in of_kind:
                lengths[len(text)] = lengths.get(len(text), 0) + 1
                if lengths[len(text)] <= 4:
                    kinds[-1].append(token)
        return kinds


def _bits(look: bytes) -> Iterator[int]:
    for state, byte in enumerate(look):
        if byte:
            yield from (8 * state + bit for bit in range(8) if byte >> bit & 1)
