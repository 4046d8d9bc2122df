"""What is known of a grammar beyond llguidance's masks, and of the other controls that a text has to heed."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from .grammar_tokens import GrammarTokens
from .json_position import JsonPositions
from .json_schemas import SchemaReader
from .pattern_position import PatternPositions
from .schema_texts import SchemaTexts


class Guide(Protocol):
    """What is known of a grammar."""

    start: Any

    def advance(self, position: Any, data: bytes) -> Any | None:
        """The position behind some bytes more; None where it is not known."""

    def worst(self, position: Any) -> float:
        """Tokens that complete the text at most, whatever the next token is; infinite if that is not known."""

    def closable(self, position: Any) -> bool:
        """Whether the text can be completed in one and the same way behind any plain characters more."""

    def stages(self, position: Any) -> list[list[bytes]]:
        """Ways to complete the text, level by level, the shortest first."""

    def slots(self, position: Any) -> Iterator[bytes]:
        """Texts behind which any other text may be put in."""

    def lacking(self) -> list[str]:
        """The characters that every text that matches needs and that cannot be written."""

    @property
    def endless(self) -> bool:
        """Whether it is proven that no text that matches has an end."""


class Partner(Protocol):
    """Other controls of the same text, as far as a plan has to heed them. `start` is the state before any text."""

    start: Any

    def advance(self, state: Any, token: int) -> Any:
        """The state behind one more token."""

    def prompt_end(self, state: Any) -> Any:
        """The state where the prompt ends."""

    def allows(self, state: Any, tokens: Iterable[int]) -> bool:
        """Whether the text may go on with these tokens and end behind them."""

    def missing(self, state: Any) -> list[int]:
        """Tokens that write what still has to appear."""


def find_guide(grammar: str, pattern: str | None, tokens: GrammarTokens) -> Guide | None:
    """What is known of a grammar in llguidance's form, and the expression it was made of if any; None if nothing."""
    try:
        if pattern:
            return PatternPositions(pattern, tokens)
        whole = json.loads(grammar)["grammars"]
        if len(whole) == 1 and whole[0].get("json_schema") is not None:
            texts = SchemaTexts(SchemaReader(whole[0]["json_schema"]), tokens)
            return JsonPositions(texts, tokens.most_openings)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # a guide is an advice; without one there is the search
    return None


def behind_space(grammar: str) -> str:
    """The grammar of the same texts with a space before each."""
    try:
        whole = json.loads(grammar)["grammars"][0]
    except (ValueError, KeyError):
        whole = {"lark_grammar": grammar}
    return json.dumps({"grammars": [{"lark_grammar": 'start: " " @whole'}, whole | {"name": "whole"}]})
