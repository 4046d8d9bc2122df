"""A model's tokens for llguidance: its masks as tensors, and text spelled in the fewest tokens.

The vocabulary has one token more than the tokenizer; that token represents any end of the text. So a model without an
end-of-text token, or with several, works like any other.
"""

import json
import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..text.vocabulary import Vocabulary, as_bytes
from .grammars import import_llguidance

# No token of the known tokenizers is longer than this in bytes; a longer one is not used to spell.
_LONGEST_SPELLED = 64
# Number of texts whose token count is remembered.
_MOST_REMEMBERED = 50_000
UNWRITABLE = float("inf")


class GrammarTokens:
    """The tokens of one model.

    Args:
        tokenizer: the tokenizer of the model.
        size: number of scores the model gives.

    Attributes:
        vocabulary: what each token adds.
        end: the token that represents an end.
        pieces: the bytes that each token adds, by id.
        most_openings: the most brackets and braces that one token opens.
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
        self._longest = min(_LONGEST_SPELLED, max(map(len, self._of_bytes), default=1))
        self.most_openings = max((piece.count(b"{") + piece.count(b"[") for piece in self._of_bytes), default=1)
        package = import_llguidance("a grammar")
        self._machine = _stock_machine(package, tokenizer, self) or package.LLTokenizer(_Wrapper(self))
        self._words = (self.end + 1 + 31) // 32
        self._costs: dict[bytes, float] = {}

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, size: int) -> "GrammarTokens":
        """The tokens of `tokenizer`, cached; created again when tokens were added since."""
        known = _VIEWS.get(tokenizer)
        if known is None or known.size != size or known.vocabulary is not Vocabulary.of(tokenizer):
            known = _VIEWS[tokenizer] = cls(tokenizer, size)
        return known

    def matcher(self, grammar: str) -> Any:
        """llguidance's matcher for a grammar, before any text.

        Raises:
            ValueError: llguidance cannot use the grammar.
        """
        matcher = import_llguidance("a grammar").LLMatcher(self._machine, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(f"llguidance cannot use the grammar: {matcher.get_error().splitlines()[0]}")
        return matcher

    def consume(self, matcher: Any, tokens: Sequence[int]) -> Any:
        """A copy of the matcher after some more tokens."""
        after = matcher.deep_copy()
        after.consume_tokens(list(tokens))
        return after

    def masks(self, matchers: Sequence[Any]) -> torch.Tensor:
        """(matchers, size) bool: the tokens that may come next, without ends.

        Every matcher may occur only once; the masks are computed in parallel.
        """
        words = np.zeros((len(matchers), self._words), dtype=np.int32)
        asked = [self._askable(matcher) for matcher in matchers]
        jobs = [(matcher, row) for row, matcher in enumerate(asked) if matcher is not None]
        if len(jobs) == 1:
            ((matcher, row),) = jobs
            matcher.unsafe_compute_mask_ptr(words[row].ctypes.data, 4 * self._words)
        elif jobs:
            self._executor.unsafe_compute_mask_ptr(jobs, words.ctypes.data, 4 * self._words, len(matchers))
        words &= self._not_silent
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=self.end, bitorder="little")
        found = torch.from_numpy(bits.view(np.bool_))[:, : self.size]
        if self.size > self.end:
            found = torch.nn.functional.pad(found, (0, self.size - self.end))
        if not self.writes_all_ascii:
            for row, matcher in enumerate(matchers):
                self._respell(matcher, found[row])
        return found

    def _askable(self, matcher: Any) -> Any | None:
        if matcher.is_error():
            return None
        # Where the next characters are forced and the model lacks one of them, llguidance fails and never recovers.
        return matcher if self.writes_all_ascii or not matcher.compute_ff_bytes() else matcher.deep_copy()

    def _respell(self, matcher: Any, found: torch.Tensor) -> None:
        """Correct masks of forced characters: llguidance may allow tokens for them that do not exist."""
        forced = b"" if matcher.is_error() else matcher.compute_ff_bytes()
        if forced and not any(matcher.validate_tokens([token]) for token in found.nonzero().flatten().tolist()):
            found[:] = False
            for cut in range(1, 1 + min(len(forced), self._longest)):
                token = self._of_bytes.get(forced[:cut])
                if token is not None and matcher.validate_tokens([token]):
                    found[token] = True

    def completes(self, matcher: Any, plan: Sequence[int]) -> bool:
        """Whether the tokens of a plan may follow, and the text is complete after them."""
        return bool(matcher.validate_tokens([*plan, self.end]) == len(plan) + 1)

    def spell(self, text: bytes) -> list[int] | None:
        """The fewest tokens that add `text`; None where some byte has none."""
        beginnings, known = self._beginnings, self._of_bytes
        # For every prefix of the text the fewest tokens, and the last of them.
        fewest = [0] + [len(text) + 1] * len(text)
        last = [0] * (len(text) + 1)
        for start in range(len(text)):
            count = fewest[start] + 1
            if count > len(text):
                continue
            for end in range(start + 1, len(text) + 1):
                piece = text[start:end]
                if count < fewest[end] and (token := known.get(piece)) is not None:
                    fewest[end], last[end] = count, token
                if piece not in beginnings:
                    break
        if fewest[-1] > len(text):
            return None
        spelled, end = [], len(text)
        while end:
            spelled.append(last[end])
            end -= len(self.pieces[last[end]])
        return spelled[::-1]

    @cached_property
    def _beginnings(self) -> set[bytes]:
        """All prefixes of longer tokens."""
        return {piece[:cut] for piece in self._of_bytes for cut in range(1, min(len(piece), _LONGEST_SPELLED))}

    def cost(self, text: bytes) -> float:
        """How many tokens `text` takes at least; infinite where some byte has none."""
        known = self._costs.get(text)
        if known is None:
            if len(self._costs) > _MOST_REMEMBERED:
                self._costs.clear()
            spelled = self.spell(text)
            known = self._costs[text] = UNWRITABLE if spelled is None else len(spelled)
        return known

    def fill(self, length: int) -> str:
        """A text of this many characters that takes few tokens."""
        text = ""
        while len(text) < length:
            text += next((piece for piece in self._long if len(piece) <= length - len(text)), "?")
        return text

    @cached_property
    def pieces_to_fill(self) -> list[str]:
        """Some single-token texts of several characters, of each kind and length, the longest first."""
        kinds = (
            lambda text: text.islower() and text.isalpha(),
            lambda text: text.isupper() and text.isalpha(),
            str.isdecimal,
            lambda text: text[0] == " " and text[1:].islower() and text[1:].isalpha(),
            str.isalpha,
        )
        texts = [piece for piece in self.vocabulary.pieces if isinstance(piece, str) and len(piece) > 1]
        texts = sorted((text for text in set(texts) if text.isascii() and len(text) <= _LONGEST_SPELLED), key=len)
        found: dict[tuple[int, int], list[str]] = {}
        for text in texts:
            kind = next((index for index, test in enumerate(kinds) if test(text)), None)
            if kind is not None and len(of_kind := found.setdefault((kind, len(text)), [])) < 3:
                of_kind.append(text)
        return sorted((text for of_kind in found.values() for text in of_kind), key=lambda text: (-len(text), text))

    @cached_property
    def _long(self) -> list[str]:
        """Words of letters, the longest first, and a letter: one of each length."""
        words = {len(text): text for text in reversed(self.pieces_to_fill) if text.isalpha()}
        return [words[length] for length in sorted(words, reverse=True)] + self.letters[:1]

    def writes(self, text: str) -> bool:
        """Whether the tokens can write a text."""
        return self.cost(text.encode()) < UNWRITABLE

    @cached_property
    def _executor(self) -> Any:
        return import_llguidance("a grammar").LLExecutor()

    @cached_property
    def writes_all_ascii(self) -> bool:
        """Whether every printable character of ASCII has a token of its own: what structure is made of."""
        return all(bytes([byte]) in self._of_bytes for byte in range(0x20, 0x7F))

    @cached_property
    def single(self) -> list[int]:
        """Tokens of one character."""
        texts = enumerate(self.vocabulary.pieces)
        return [token for token, text in texts if isinstance(text, str) and len(text) == 1 and token < self.size]

    @cached_property
    def letters(self) -> list[str]:
        """The characters to write where any of several will do, the plainest first."""
        singles = {str(self.vocabulary.pieces[token]) for token in self.single}
        return sorted(
            singles,
            key=lambda letter: (
                not letter.isascii(),
                not letter.islower(),
                not letter.isalnum(),
                letter.isspace(),
                letter,
            ),
        )

    @cached_property
    def plain(self) -> torch.Tensor:
        """(size,) bool: the tokens that add whole characters none of which means anything within a JSON string."""
        found = torch.zeros(self.size, dtype=torch.bool)
        for token, piece in enumerate(self.vocabulary.pieces[: self.size]):
            if isinstance(piece, str) and token not in self.vocabulary.fallback:
                found[token] = bool(piece) and piece.isprintable() and '"' not in piece and "\\" not in piece
        return found

    @cached_property
    def quoting(self) -> torch.Tensor:
        """(size,) bool: the tokens with a quotation mark, which may end a JSON string."""
        found = torch.zeros(self.size, dtype=torch.bool)
        found[[token for token, piece in enumerate(self.pieces[: self.size]) if b'"' in piece]] = True
        return found

    @cached_property
    def inner(self) -> torch.Tensor:
        """(size,) bool: the tokens that do not end a JSON string, and after which whatever they start can be ended."""
        found = ~self.quoting
        if not all(bytes([byte]) in self._of_bytes for byte in range(0x80, 0xC0)):
            parts = [token for token, piece in enumerate(self.vocabulary.pieces) if not isinstance(piece, str)]
            parts += list(self.vocabulary.fallback)
            found[[token for token in parts if token < self.size]] = False
        if not self.writes_all_ascii:
            found[[token for token, piece in enumerate(self.pieces[: self.size]) if b"\\" in piece]] = False
        return found

    @cached_property
    def lengths(self) -> torch.Tensor:
        """(size,) int: the bytes that each token adds."""
        lengths = torch.zeros(self.size, dtype=torch.long)
        found = torch.tensor([len(piece) for piece in self.pieces[: self.size]])
        lengths[: len(found)] = found
        return lengths

    @cached_property
    def _not_silent(self) -> np.ndarray:
        """(words,) int32: bits of the tokens that add text."""
        bits = np.zeros(32 * self._words, dtype=np.uint8)
        bits[: self.end] = 1
        bits[list(self.vocabulary.silent)] = 0
        return np.packbits(bits, bitorder="little").view(np.int32)


def _stock_machine(package: Any, tokenizer: PreTrainedTokenizerBase, tokens: GrammarTokens) -> Any | None:
    """llguidance's reading of a tokenizer, by which it spells forced text as the tokenizer would.

    None where it cannot read this kind, or reads it differently from this module.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    try:
        description = json.loads(backend.to_str())
        description["padding"] = description["truncation"] = None
        end = {"id": tokens.end, "content": "<|any end|>", "special": True, "normalized": False}
        end |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        description["added_tokens"] = [*(description.get("added_tokens") or ()), end]
        machine = package.LLTokenizer(json.dumps(description), eos_token=tokens.end)
    except (ValueError, TypeError, AttributeError):
        return None
    if machine.vocab_size != tokens.end + 1:
        return None
    for token, piece in enumerate(tokens.pieces):
        # A byte that no text contains marks special tokens there.
        if piece and piece != b"\xff" and (machine.is_special_token(token) or machine.decode_bytes([token]) != piece):
            return None
    return machine


class _Wrapper:
    """Tokens in the form that llguidance needs."""

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
