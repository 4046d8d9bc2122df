"""Required and banned words, as constraints on the plans of structured output.

A text that matches as a whole and contains a word needs a position for it, and one that must not contain a word must
not end after its last letter. So every plan that completes the text is checked against both lists.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..text.token_tables import TextState, TokenTables
from .must_include_plan import Progress, Requirements

# Steps that are kept: structure is written in the same tokens again and again.
_MOST_STEPS = 20_000
_NOT_STEPPED: Any = object()


class Words(NamedTuple):
    """The progress of a text.

    Attributes:
        progress: of the required words, if there are any.
        barred: of the banned words, if there are any.
    """

    progress: Progress | None
    barred: TextState | None


class WordPartner:
    """The words of one call.

    Args:
        requirements: the required words.
        barred: the banned words (see `compile_bad_words`).
    """

    def __init__(self, requirements: Requirements | None, barred: TokenTables | None) -> None:
        self.requirements, self.barred = requirements, barred
        self._steps: dict[tuple[Words, int], Words | None] = {}
        self.start = Words(
            None if requirements is None else requirements.start, None if barred is None else barred.start
        )

    def advance(self, state: Words | None, token: int) -> Words | None:
        """The state after one more token; None for a text that has left the grammar."""
        if state is None:
            return None
        progress, barred = state
        if self.requirements is not None and progress is not None and self.requirements.missing(progress):
            progress = self.requirements.advance(progress, token)
        return Words(progress, self._past(barred, token))

    def after(self, state: Words | None, token: int) -> Words | None:
        """The same; None also if the token completes a banned word."""
        if state is None:
            return None
        known = self._steps.get((state, token), _NOT_STEPPED)
        if known is _NOT_STEPPED:
            if len(self._steps) >= _MOST_STEPS:
                self._steps.clear()
            hit = self.barred is not None and state.barred is not None and self.barred.read(state.barred, token)[1]
            known = self._steps[state, token] = None if hit else self.advance(state, token)
        return known

    def _past(self, barred: TextState | None, token: int) -> TextState | None:
        return None if self.barred is None or barred is None else self.barred.advance(barred, token)

    def prompt_end(self, state: Words | None) -> Words | None:
        """The state at the end of the prompt."""
        if state is None:
            return None
        progress, barred = state
        if self.requirements is not None and progress is not None:
            progress = self.requirements.prompt_end(progress)
        return Words(progress, None if self.barred is None or barred is None else self.barred.forget(barred))

    def allows(self, state: Words | None, tokens: Iterable[int]) -> bool:
        """Whether the text may continue with these tokens and end after them."""
        if state is None:
            return False
        after: Words | None = state
        for token in tokens:
            after = None if after is None else self.after(after, token)
        if after is None or (self.barred is not None and after.barred is not None and self.barred.ends(after.barred)):
            return False
        return self.requirements is None or after.progress is None or not self.requirements.missing(after.progress)

    def missing(self, state: Words | None) -> list[int]:
        """Tokens that write the missing words."""
        if state is None:
            return []
        if self.requirements is None or state.progress is None or not self.requirements.missing(state.progress):
            return []
        return self.requirements.plan(state.progress) or []
