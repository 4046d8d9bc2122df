"""The text that every token of a tokenizer adds.

Controls over text must know which characters a token would add before it is chosen. `token_texts.py` reads that from
the tokenizer.
"""

import weakref
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from .character_classes import characters_behind, coarse_keys, is_surrogate
from .pieces import MOST_BYTES, PiecesInOrder, add_piece, as_bytes, decode_run
from .prefix_tree import CodedTexts, Letters, PrefixTree
from .tokenizer_cache import token_texts

_CACHES = ("_spelling", "_holders", "_limited", "derived")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer as text.

    Attributes:
        pieces: for every token id, the text that it adds, or bytes if it is only part of a character. Special tokens,
            and ids that the tokenizer does not use, add nothing.
        strips_leading_space: the decoder removes one space from the start of the text.
        strips_trailing_space: the decoder removes one space from the end of the text.
        fallback: ids of tokens for single bytes, which a tokenizer uses only for characters without a token.
        errors: how the decoder handles invalid bytes, as in `bytes.decode`: "replace" or "ignore".
        openings: for ids of tokens that add another text at the start of a text, that text. A space that is removed
            there is not in it: see `opening`.
        suppressed: ids of tokens that are read but never used to spell a text.
        derived: a cache for other values computed from these tokens.
    """

    pieces: tuple[str | bytes, ...]
    strips_leading_space: bool = False
    strips_trailing_space: bool = False
    fallback: frozenset[int] = frozenset()
    errors: str = "replace"
    openings: Mapping[int, str] = field(default_factory=dict)
    suppressed: frozenset[int] = frozenset()
    _spelling: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    _holders: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    _limited: dict[int, "Vocabulary"] = field(default_factory=dict, repr=False, compare=False)
    derived: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for token in sorted(range(len(self.pieces)), key=self.fallback.__contains__):
            piece = self.pieces[token]
            if isinstance(piece, str) and piece and token not in self.suppressed:
                self._spelling.setdefault(piece, token)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Vocabulary":
        """The vocabulary of `tokenizer`, cached; created again when tokens were added since.

        Example:

        ```python
        >>> from fundamentallm_hf import load_model
        >>> from fundamentallm_hf.portable.text.vocabulary import Vocabulary
        >>> vocabulary = Vocabulary.of(load_model(device="cpu").tokenizer)
        >>> vocabulary.pieces[vocabulary.token("a")]
        'a'

        ```
        """
        version = (len(tokenizer), *tokenizer.all_special_ids)
        known = _VIEWS.get(tokenizer)
        if known is None or known[0] != version:
            known = _VIEWS[tokenizer] = (version, cls(**token_texts(tokenizer)._asdict()))
        return known[1]

    def limited(self, size: int) -> "Vocabulary":
        """Only the tokens with ids below `size`: a model may have fewer scores than its tokenizer has tokens."""
        if size >= len(self.pieces):
            return self
        if size not in self._limited:
            self._limited[size] = self._changed(
                pieces=self.pieces[:size],
                fallback=frozenset(token for token in self.fallback if token < size),
                openings={token: text for token, text in self.openings.items() if token < size},
            )
        return self._limited[size]

    def without(self, suppressed: frozenset[int]) -> "Vocabulary":
        """The same, but no text is spelled in the `suppressed` tokens either: a call may mask them."""
        suppressed = suppressed | self.suppressed
        if suppressed == self.suppressed:
            return self
        if suppressed not in self.derived:
            self.derived[suppressed] = self._changed(suppressed=suppressed)
        found: Vocabulary = self.derived[suppressed]
        return found

    def _changed(self, **fields: Any) -> "Vocabulary":
        """A copy with other fields, and caches of its own."""
        empty: dict[str, Any] = {name: {} for name in _CACHES}
        return replace(self, **fields, **empty)

    def token(self, text: str) -> int | None:
        """The token that adds exactly `text`, if there is one."""
        return self._spelling.get(text)

    def spell(self, text: str) -> list[int] | None:
        """Tokens that add `text`, each the longest that fits; None if some character cannot be spelled.

        A character without a token is spelled in bytes, if the vocabulary has them.
        """
        tokens: list[int] = []
        start = 0
        while start < len(text):
            most = self._reach.get(text[start : start + 2], 1)
            for end in range(min(len(text), start + most), start, -1):
                token = self._spelling.get(text[start:end])
                if token is not None:
                    tokens.append(token)
                    start = end
                    break
            else:
                raw = self.spell_bytes(text[start].encode("utf-8", "surrogatepass"), bool(self.fallback))
                if raw is None:
                    return None
                tokens += raw
                start += 1
        return tokens

    def spell_bytes(self, raw: bytes, fallback: bool) -> list[int] | None:
        """Tokens that add these bytes, each the longest that fits: byte-fallback tokens, or parts of characters."""
        tokens = []
        known = self._byte_tokens[fallback]
        while raw:
            found = next((cut for cut in range(min(len(raw), MOST_BYTES), 0, -1) if raw[:cut] in known), None)
            if found is None:
                return None
            tokens.append(known[raw[:found]])
            raw = raw[found:]
        return tokens

    @cached_property
    def _byte_tokens(self) -> tuple[dict[bytes, int], dict[bytes, int]]:
        """The tokens for parts of a character: those of byte-level words, and those of byte fallback."""
        found: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        for token in self.parts:
            piece = as_bytes(self.pieces[token])
            if token not in self.suppressed and (token in self.fallback or len(piece) < MOST_BYTES):
                found[token in self.fallback].setdefault(piece, token)
        return found

    @cached_property
    def _reach(self) -> dict[str, int]:
        """The length of the longest token for each pair of first characters."""
        # Of pieces by their length, the last one with a key is the longest.
        return {piece[:2]: len(piece) for piece in sorted(self._spelling, key=len)}

    @cached_property
    def characters(self) -> frozenset[str]:
        """Every character that appears in a whole-character token."""
        return frozenset("".join(self._spelling))

    @cached_property
    def _first_characters(self) -> frozenset[str]:
        return frozenset(piece[0] for piece in self._spelling)

    def can_begin(self, char: str) -> bool:
        """Whether a token starts with this character, or tokens spell it, alone or after a space."""
        if char in self._first_characters:
            return True
        return not is_surrogate(char) and (self.spell(char) is not None or self.spell(" " + char) is not None)

    def can_write(self, char: str) -> bool:
        """Whether some tokens add this character, in bytes or along with others."""
        return char in self.characters or (not is_surrogate(char) and self.spell(char) is not None)

    def spell_rest(self, piece: str | bytes, rest: str) -> list[int] | None:
        """Tokens that add `rest` to a word that starts with `piece`; in capitals if `piece` is."""
        return self.spell(rest.upper() if _shouted(piece) else rest)

    def begins_with(self, token: int, rest: str) -> bool:
        """Whether the usual spelling of `token` and `rest` together starts with `token`."""
        piece = self.piece(token)
        if isinstance(piece, bytes):
            return True
        whole = piece + (rest.upper() if _shouted(piece) else rest)
        # The usual spelling starts with the longest token that fits.
        most = min(len(whole), self._reach.get(whole[:2], 1))
        prefixes = (whole[:end] for end in range(most, 0, -1))
        first = next((self._spelling[text] for text in prefixes if text in self._spelling), -1)
        return first == token and (self._single.issuperset(whole) or self.spell(whole) is not None)

    @cached_property
    def _single(self) -> frozenset[str]:
        """The characters that are tokens: a text of them alone can be spelled."""
        return frozenset(piece for piece in self._spelling if len(piece) == 1)

    def completing(self, tail: str, text: str) -> Iterator[int]:
        """The tokens that complete `text`, partly or wholly, after a text that ends in `tail`."""
        yield from self._holding(text)
        for done in range(1, len(text)):
            if tail.endswith(text[:done]):
                missing = text[done:]
                first = bisect_left(self._sorted, missing)
                last = bisect_left(self._sorted, missing + "\U0010ffff", lo=first)
                for piece in self._sorted[first:last]:
                    yield from self._alike[piece]

    def _holding(self, text: str) -> tuple[int, ...]:
        if text not in self._holders:
            holding = (tokens for piece, tokens in self._alike.items() if text in piece)
            self._holders[text] = tuple(token for tokens in holding for token in tokens)
        return self._holders[text]

    @cached_property
    def _alike(self) -> dict[str, list[int]]:
        alike: dict[str, list[int]] = {}
        for token in range(len(self.pieces)):
            if text := self.whole(token):
                alike.setdefault(text, []).append(token)
        return alike

    def whole(self, token: int) -> str:
        """The whole characters that a token adds after other whole characters."""
        return add_piece(b"", self.pieces[token], self.errors)[0]

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._alike)

    @cached_property
    def parts(self) -> list[int]:
        """The tokens that are not, or may not be, whole characters."""
        return [token for token, piece in enumerate(self.pieces) if isinstance(piece, bytes) or token in self.fallback]

    @cached_property
    def missing_bytes(self) -> list[tuple[int, int]]:
        """The tokens that end in the first bytes of a character, and how many bytes of it are missing then."""
        found = []
        for token in self.parts:
            started = add_piece(b"", as_bytes(self.pieces[token]), self.errors)[1]
            if started:
                found.append((token, characters_behind(started)[2]))
        return found

    @cached_property
    def coded(self) -> tuple[np.ndarray, CodedTexts]:
        """The ids of the tokens that are whole characters, (tokens,), and their texts."""
        whole = [token for token, piece in enumerate(self.pieces) if piece and isinstance(piece, str)]
        if self.fallback:
            whole = [token for token in whole if token not in self.fallback]
        return np.array(whole, dtype=np.int64), CodedTexts.of([str(self.pieces[token]) for token in whole])

    @cached_property
    def in_order(self) -> PiecesInOrder:
        """The pieces that are whole characters, sorted by text."""
        tokens = self.coded[0].tolist()
        return PiecesInOrder.of([str(self.pieces[token]) for token in tokens], tokens)

    def folded_tree(self, ignore_case: bool) -> PrefixTree:
        """The prefixes of `coded`, merging characters that words of ASCII letters do not distinguish; cached."""
        key = ("tree", ignore_case)
        if key not in self.derived:
            self.derived[key] = PrefixTree(self.coded[1], Letters(self._coarse_keys(ignore_case)))
        found: PrefixTree = self.derived[key]
        return found

    def _coarse_keys(self, ignore_case: bool) -> dict[str, Hashable]:
        key = ("keys", ignore_case)
        if key not in self.derived:
            chars = self.characters.union(self.coded[1].characters())
            self.derived[key] = coarse_keys(chars, ignore_case)
        found: dict[str, Hashable] = self.derived[key]
        return found

    def usual_letters(self, ignore_case: bool | None) -> list[str]:
        """The characters that tokens add: the space first, then lower case.

        Args:
            ignore_case: None for all characters. Otherwise one of each group that words of ASCII letters do not
                distinguish; true also merges upper and lower case.
        """
        key = ("letters", ignore_case)
        if key not in self.derived:
            # Without tuples as keys, which would keep the garbage collector busy.
            ordered = sorted(self.characters - {" "})
            lower = list(filter(str.islower, ordered))
            other = [letter for letter in ordered if not letter.islower()]
            letters = [*({" "} & self.characters), *lower, *other]
            if ignore_case is not None:
                keys, alike = self._coarse_keys(ignore_case), dict[Hashable, str]()
                for letter in letters:
                    alike.setdefault(keys[letter], letter)
                letters = list(alike.values())
            self.derived[key] = letters
        found: list[str] = self.derived[key]
        return found

    @cached_property
    def longest(self) -> int:
        """Number of characters in the longest token."""
        return max(map(len, self._spelling), default=0)

    @cached_property
    def silent(self) -> tuple[int, ...]:
        """The tokens that add no text."""
        return tuple(token for token, piece in enumerate(self.pieces) if not piece)

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """Every character that has a token."""
        return tuple(piece for piece in self._spelling if len(piece) == 1)

    @cached_property
    def spaced_letters(self) -> tuple[str, ...]:
        """The characters that have a token only after a space, with it."""
        found = (piece for piece in self._spelling if len(piece) == 2 and piece[0] == " ")
        return tuple(piece for piece in found if piece[1] not in self._spelling)

    def all_continuations(self, fallback: bool) -> bool:
        """Whether every continuation byte of a character has a token, so that every character can be completed."""
        return self._continuations[fallback]

    @cached_property
    def _continuations(self) -> tuple[bool, bool]:
        found: tuple[set[bytes], set[bytes]] = (set(), set())
        for token in self.parts:
            piece = self.pieces[token]
            if isinstance(piece, bytes) and len(piece) == 1:
                found[token in self.fallback].add(piece)
        wanted = {bytes([byte]) for byte in range(0x80, 0xC0)}
        return wanted <= found[0], wanted <= found[1]

    def text(self, tokens: Iterable[int], continues: bool = False) -> str:
        """The text of `tokens`, without special tokens; with `continues`, what they add to a text before them."""
        parts = []
        pending = run = b""
        begun = continues
        for token in tokens:
            piece = self.piece(token)
            if token in self.fallback:
                run += as_bytes(piece)
                begun = True
            elif piece:
                if not begun and token in self.openings:
                    piece = self.openings[token]
                begun = True
                added, pending = add_piece(pending, piece, self.errors)
                parts += [decode_run(run), added]
                run = b""
        text = "".join(parts) + decode_run(run) + pending.decode("utf-8", self.errors)
        text = self.as_opening(text)
        return text.removesuffix(" ") if self.strips_trailing_space else text

    @property
    def opens_differently(self) -> bool:
        """Whether a token may add another text at the start of a text than elsewhere."""
        return self.strips_leading_space or bool(self.openings)

    def opening(self, token: int) -> str | bytes:
        """What `token` adds at the start of a text."""
        piece = self.openings.get(token, self.piece(token))
        return self.as_opening(piece) if isinstance(piece, str) else piece

    def as_opening(self, text: str) -> str:
        """A text without the space that the decoder removes from its start."""
        return text.removeprefix(" ") if self.strips_leading_space else text

    def is_border(self, token: int) -> bool:
        """Whether `token` adds no text: a special token, or an id without a token."""
        return not self.piece(token)

    def piece(self, token: int) -> str | bytes:
        """The text of `token`; empty for an id beyond the tokenizer's, as in padded vocabularies."""
        return self.pieces[token] if token < len(self.pieces) else ""


def _shouted(piece: str | bytes) -> bool:
    return isinstance(piece, str) and piece.isupper() and len(piece.strip()) > 1


_VIEWS: "weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[tuple[int, ...], Vocabulary]]" = (
    weakref.WeakKeyDictionary()
)
