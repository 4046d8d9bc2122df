"""Protocols for what a grammar search may use: knowledge of a grammar beyond llguidance's masks, and other controls."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from .grammar_tokens import GrammarTokens
from .json_position import JsonPositions
from .json_schemas import SchemaReader
from .pattern_position import PatternPositions
from .pattern_words import WordsOfText
from .schema_texts import SchemaTexts


class Guide(Protocol):
    """Knowledge of a grammar beyond llguidance's masks."""

    start: Any

    def advance(self, position: Any, data: bytes) -> Any | None:
        """The position after more bytes; None where it is not known."""

    def worst(self, position: Any) -> float:
        """Most tokens that complete the text, whatever the next token is; infinite if that is not known."""

    def key(self, position: Any) -> Any:
        """What of the position decides how the text can be completed."""

    def settled(self, position: Any) -> bool:
        """Whether a plan that holds in one text at this position holds in all."""

    def closable(self, position: Any) -> bool:
        """Whether the text can be completed in the same way after any further plain characters."""

    def unlimited(self, position: Any) -> bool:
        """Whether the position is in free text that may be of any length."""

    def stages(self, position: Any) -> list[list[bytes]]:
        """Ways to complete the text, level by level, the shortest first."""

    def slots(self, position: Any) -> Iterator[bytes]:
        """Texts after which any other text may be inserted."""

    def lacking(self) -> list[str]:
        """The characters that every text that matches needs and that cannot be written."""

    @property
    def endless(self) -> bool:
        """Whether it is proven that no text that matches has an end."""


class Partner(Protocol):
    """Other controls of the same text that a plan has to satisfy. `start` is the state before any text."""

    start: Any

    def advance(self, state: Any, token: int) -> Any:
        """The state after one more token."""

    def after(self, state: Any, token: int) -> Any | None:
        """The same; None if the token completes what must not appear."""

    def prompt_end(self, state: Any) -> Any:
        """The state where the prompt ends."""

    def allows(self, state: Any, tokens: Iterable[int]) -> bool:
        """Whether the text may continue with these tokens and end after them."""

    def missing(self, state: Any) -> list[int]:
        """Tokens that write what still has to appear."""

    def letters(self, state: Any) -> tuple[WordsOfText, Any] | None:
        """The same controls character by character, and their state; None within a character."""


def find_guide(grammar: str, pattern: str | None, tokens: GrammarTokens) -> Guide | None:
    """The guide for a grammar in llguidance's form, made of `pattern` if that is given; None if there is none."""
    try:
        if pattern:
            return PatternPositions(pattern, tokens)
        whole = json.loads(grammar)["grammars"]
        if len(whole) == 1 and whole[0].get("json_schema") is not None:
            texts = SchemaTexts(SchemaReader(whole[0]["json_schema"]), tokens)
            return JsonPositions(texts, tokens.most_openings)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # a guide is optional; without one the search is used
    return None


def behind_space(grammar: str) -> str:
    """The grammar of the same texts with a space before each."""
    try:
        whole = json.loads(grammar)["grammars"][0]
    except (ValueError, KeyError):
        whole = {"lark_grammar": grammar}
    return json.dumps({"grammars": [{"lark_grammar": 'start: " " @whole'}, whole | {"name": "whole"}]})
