"""Words that must and must not appear, as far as a whole text has to heed them.

A text that is to match as a whole and hold a word needs a place for it, and one that must not hold a word may not be
ended behind its last letter. So whatever is planned to complete the text is checked against both.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ..text.token_tables import TextState, TokenTables
from .must_include_plan import Progress, Requirements


class Words(NamedTuple):
    """How far a text has come.

    Attributes:
        progress: with what must appear, if anything.
        barred: with what must not appear, if anything.
    """

    progress: Progress | None
    barred: TextState | None


class WordPartner:
    """The words of one call.

    Args:
        requirements: what must appear.
        barred: what must not appear (see `compile_bad_words`).
    """

    def __init__(self, requirements: Requirements | None, barred: TokenTables | None) -> None:
        self.requirements, self.barred = requirements, barred
        self.start = Words(
            None if requirements is None else requirements.start, None if barred is None else barred.start
        )

    def advance(self, state: Words | None, token: int) -> Words | None:
        """The state behind one more token; None for a text that has left the grammar."""
        if state is None:
            return None
        progress, barred = state
        if self.requirements is not None and progress is not None and self.requirements.missing(progress):
            progress = self.requirements.advance(progress, token)
        return Words(progress, self._past(barred, token))

    def _past(self, barred: TextState | None, token: int) -> TextState | None:
        return None if self.barred is None or barred is None else self.barred.advance(barred, token)

    def prompt_end(self, state: Words | None) -> Words | None:
        """The state where the prompt ends."""
        if state is None:
            return None
        progress, barred = state
        if self.requirements is not None and progress is not None:
            progress = self.requirements.prompt_end(progress)
        return Words(progress, None if self.barred is None or barred is None else self.barred.forget(barred))

    def allows(self, state: Words | None, tokens: Iterable[int]) -> bool:
        """Whether the text may go on with these tokens and end behind them."""
        if state is None:
            return False
        tokens = list(tokens)
        progress, barred = state
        if self.barred is not None and barred is not None:
            if self.barred.complete(barred, tokens) is not None:
                return False
            for token in tokens:
                barred = self.barred.advance(barred, token)
            if self.barred.ends(barred):
                return False
        if self.requirements is None or progress is None:
            return True
        for token in tokens:
            if not self.requirements.missing(progress):
                return True
            progress = self.requirements.advance(progress, token)
        return not self.requirements.missing(progress)

    def missing(self, state: Words | None) -> list[int]:
        """Tokens that write what still has to appear."""
        if state is None:
            return []
        if self.requirements is None or state.progress is None or not self.requirements.missing(state.progress):
            return []
        return self.requirements.plan(state.progress) or []
