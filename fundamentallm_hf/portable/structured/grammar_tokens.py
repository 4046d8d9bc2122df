"""A model's tokens as llguidance sees them, and which of them a search for a completion should try.

The vocabulary has one token more than the tokenizer, which stands for any end of the text: so a model without an
end-of-text token, or with several, is like any other. This file knows nothing of plans, rows or budgets.
"""

import itertools
import re
import weakref
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..text.vocabulary import Vocabulary, as_bytes
from .grammars import import_llguidance

# Where more tokens of a kind may come than the first number, they are taken for free text, and the second number tried.
_STRUCTURE, _FREE = 6, 2
# They close strings, objects, groups and sentences, and are always tried.
_CLOSING = re.compile(r"""\"?[}\]]{0,3}|[)>'.!?;\n]""")
_PLACES_OF_BITS = torch.arange(8, dtype=torch.uint8)


class GrammarTokens:
    """The tokens of one model.

    Args:
        tokenizer: the model's.
        size: number of scores the model gives.

    Attributes:
        vocabulary: what each token adds.
        end: the token that stands for an end.
        pieces: the bytes that each token adds, by id.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
        self.vocabulary = Vocabulary.of(tokenizer)
        self.size = size
        self.end = len(self.vocabulary.pieces)
        self.pieces = [as_bytes(piece) for piece in self.vocabulary.pieces]
        self._of_bytes: dict[bytes, int] = {}
        for token in sorted(range(len(self.pieces)), key=self.vocabulary.fallback.__contains__):
            if self.pieces[token] and token < size:
                self._of_bytes.setdefault(self.pieces[token], token)
        self._longest = max(map(len, self._of_bytes), default=1)
        self._machine = import_llguidance("a grammar").LLTokenizer(_Wrapper(self))

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, size: int) -> "GrammarTokens":
        """The tokens of `tokenizer`: made at first use, and again when tokens were added since."""
        known = _VIEWS.get(tokenizer)
        if known is None or known.size != size or known.vocabulary is not Vocabulary.of(tokenizer):
            known = _VIEWS[tokenizer] = cls(tokenizer, size)
        return known

    def matcher(self, grammar: str) -> Any:
        """llguidance's matcher for a grammar, before any text.

        Raises:
            ValueError: it cannot use the grammar.
        """
        matcher = import_llguidance("a grammar").LLMatcher(self._machine, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(f"llguidance cannot use the grammar: {matcher.get_error().splitlines()[0]}")
        return matcher

    def consume(self, matcher: Any, tokens: Sequence[int]) -> Any:
        """A copy of the matcher behind some tokens more."""
        after = matcher.deep_copy()
        after.consume_tokens(list(tokens))
        return after

    def look(self, matcher: Any) -> bytes:
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
            token = self._of_bytes.get(forced[:cut])
            if token is not None and matcher.validate_tokens([token]):
                own[token >> 3] |= 1 << (token & 7)
        return bytes(own)

    @cached_property
    def _width(self) -> int:
        return 4 * -(-(self.end + 1) // 32)

    def completes(self, matcher: Any, plan: Sequence[int]) -> bool:
        """Whether the tokens of a plan may follow, and the text is complete behind them."""
        return bool(matcher.validate_tokens([*plan, self.end]) == len(plan) + 1)

    def open(self, matcher: Any) -> torch.Tensor:
        """(size,) bool: the tokens that may come next, ends not among them."""
        words = torch.frombuffer(bytearray(self.look(matcher)), dtype=torch.uint8)
        bits = (words[:, None] >> _PLACES_OF_BITS) & 1
        found = torch.zeros(self.size, dtype=torch.bool)
        width = min(self.size, self.end)
        found[:width] = bits.flatten()[:width].bool()
        found[self._silent] = False
        return found

    def spell(self, text: bytes) -> list[int] | None:
        """Tokens that add `text`, each the longest that fits; None where some byte has none."""
        spelled, place = [], 0
        while place < len(text):
            for end in range(min(len(text), place + self._longest), place, -1):
                token = self._of_bytes.get(text[place:end])
                if token is not None:
                    break
            else:
                return None
            spelled.append(token)
            place = end
        return spelled

    @cached_property
    def all_spelled(self) -> bool:
        """Whether any text can be written, byte by byte if need be."""
        return all(bytes([byte]) in self._of_bytes for byte in (*range(0x80), *range(0xC2, 0xF5), *range(0x80, 0xC0)))

    def leaves_out(self, look: bytes, every: bool) -> bool:
        """Whether more tokens may come than the choices."""
        return sum(byte.bit_count() for byte in look) > len(self.choices(look, every))

    def choices(self, look: bytes, every: bool = False) -> list[int]:
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
            found = (token for token in _bits(look) if token < self.end and self.pieces[token])
            chosen = list(itertools.islice(found, _STRUCTURE))
        return chosen

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
    def single(self) -> list[int]:
        """Tokens of one character."""
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


def _bits(look: bytes) -> Iterator[int]:
    for place, byte in enumerate(look):
        if byte:
            yield from (8 * place + bit for bit in range(8) if byte >> bit & 1)


class _Wrapper:
    """Tokens in the form that llguidance wants."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: GrammarTokens) -> None:
        self.eos_token_id = tokens.end
        self.tokens = [piece or b"<silent>" for piece in tokens.pieces] + [b"<end>"]
        self.special_token_ids = [*tokens.vocabulary.silent, tokens.end]
        self._spell = tokens.spell

    def __call__(self, text: str | bytes) -> list[int]:
        return self._spell(text.encode() if isinstance(text, str) else text) or []


_VIEWS: "weakref.WeakKeyDictionary[PreTrainedTokenizerBase, GrammarTokens]" = weakref.WeakKeyDictionary()
