"""Required and banned words, as constraints on the plans of structured output.

A text that matches as a whole and contains a word needs a position for it, and one that must not contain a word must
not end after its last letter. So every plan that completes the text is checked against both lists.
"""

import operator
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from ..text.character_classes import CharacterClasses
from ..text.text_patterns import PatternState
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


def contradiction(requirements: Requirements | None, barred: bool) -> str:
    """The error message where the other controls allow no text with these words.

    Args:
        requirements: the required words, if there are any.
        barred: whether there are banned words.
    """
    if requirements is None:
        return "bad_words: nothing that the other controls allow can be written without a bad word: change one of them"
    entries = ", ".join(map(repr, requirements.sources))
    bans = " without a bad word" if barred else ""
    return f"must_include: nothing that the other controls allow includes {entries}{bans}: change one of them"


class WordPartner:
    """The words of one call.

    Args:
        requirements: the required words.
        barred: the banned words (see `compile_bad_words`).
    """

    def __init__(self, requirements: Requirements | None, barred: TokenTables | None) -> None:
        self.requirements, self.barred = requirements, barred
        self.as_letters: LettersOfWords | None = None
        self._steps: dict[tuple[Words, int], Words | None] = {}
        self.start = Words(
            None if requirements is None else requirements.start, None if barred is None else barred.start
        )

    def advance(self, state: Words | None, token: int) -> Words | None:
        """The state after one more token; None for a text that has left the grammar."""
        if state is None:
            return None
        progress, barred = state
        # A word at the end of the text is not missing there, but another letter may make it part of a longer one.
        if self.requirements is not None and progress is not None and self.requirements.waiting(progress):
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
            hit = None if self.barred is None or state.barred is None else self.barred.complete(state.barred, [token])
            known = self._steps[state, token] = self.advance(state, token) if hit is None else None
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
        return Words(progress, None if self.barred is None or barred is None else self.barred.prompt_end(barred))

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

    def letters(self, state: Words | None) -> tuple["LettersOfWords", "LetterState"] | None:
        """The words character by character, and their state; None within a character."""
        if state is None:
            return None
        progress, barred = state
        entries = [] if progress is None else list(progress.places)
        alone = None if barred is None else barred.alone
        opening = alone is not None and alone.fresh
        if opening and self.barred is not None and self.barred.vocabulary.openings:
            alone, opening = None, False  # the text by itself cannot be read by characters
        read = [each for each in (*entries, barred) if each is not None]
        read += [] if alone is None else [alone._replace(fresh=False)]
        if any(each.pending or each.fresh or each.unspaced is not None for each in read):
            return None
        if self.as_letters is None:
            self.as_letters = LettersOfWords(self.requirements, self.barred)
        missing = [
            None if entry is None or (progress is not None and index in progress.held) else entry.patterns
            for index, entry in enumerate(entries)
        ]
        bars = tuple(each.patterns for each in (barred, None if opening else alone) if each is not None)
        first = alone.patterns if opening and alone is not None else None
        return self.as_letters, self.as_letters.core(LetterState(tuple(missing), bars, first))


class LetterState(NamedTuple):
    """The state of a text of whole characters.

    Attributes:
        required: for every required entry its state; None where it has appeared.
        barred: the states of the banned words, after the prompt and without it.
        opening: the latter at the start of a text, from which the decoder removes a space.
    """

    required: tuple[PatternState | None, ...]
    barred: tuple[PatternState, ...]
    opening: PatternState | None = None


class LettersOfWords:
    """Required and banned words, character by character: see `WordsOfText`.

    Args:
        requirements: the required words.
        barred: the banned words.

    Attributes:
        classes: the characters as the words group them.
    """

    def __init__(self, requirements: Requirements | None, barred: TokenTables | None) -> None:
        self._entries = [] if requirements is None else [table.patterns for table in requirements.tables]
        self._ordered = requirements is not None and requirements.ordered
        self._barred = None if barred is None else barred.patterns
        self._all = [*self._entries, *([] if self._barred is None else [self._barred])]
        self._made_of = (requirements, barred)

    def __eq__(self, other: object) -> bool:
        """Whether they are the same words: lists are kept between calls."""
        return isinstance(other, LettersOfWords) and all(map(operator.is_, self._made_of, other._made_of))

    def __hash__(self) -> int:
        return hash(tuple(map(id, self._made_of)))

    @property
    def classes(self) -> list[CharacterClasses]:
        """The characters as each list of words groups them."""
        return [patterns.classes for patterns in self._all]

    def key(self, char: str) -> Hashable:
        """See `WordsOfText`."""
        return tuple(patterns.key(char) for patterns in self._all)

    def core(self, state: LetterState) -> LetterState:
        """The same state, without what only serves probabilities."""
        pairs = zip(self._entries, state.required, strict=True)
        required = [entry and patterns.core(entry) for patterns, entry in pairs]
        barred = state.barred if self._barred is None else map(self._barred.core, state.barred)
        return LetterState(tuple(required), tuple(dict.fromkeys(barred)), state.opening)

    def step(self, state: LetterState, char: str) -> LetterState | None:
        """See `WordsOfText`."""
        barred: list[PatternState] = []
        if state.opening is not None and char == " ":
            barred.append(state.opening)
        for bar in (*state.barred, *([state.opening] if state.opening is not None and char != " " else [])):
            assert self._barred is not None
            after, hit = self._barred.step(bar, char)
            if hit:
                return None
            barred.append(after)
        required: list[PatternState | None] = []
        waiting = False
        for patterns, entry in zip(self._entries, state.required, strict=True):
            if entry is None:
                required.append(None)
                continue
            after, hit = patterns.step(entry, char)
            if self._ordered and waiting:
                after, hit = patterns.neutral(after), False
            waiting = waiting or not hit
            required.append(None if hit else after)
        return self.core(LetterState(tuple(required), tuple(barred)))

    def may_end(self, state: LetterState) -> bool:
        """See `WordsOfText`."""
        if any(self._barred is not None and self._barred.ends(bar) for bar in state.barred):
            return False
        pairs = zip(self._entries, state.required, strict=True)
        return all(entry is None or patterns.ends(entry) for patterns, entry in pairs)

    def distance(self, state: LetterState) -> int:
        """See `WordsOfText`."""
        pairs = zip(self._entries, state.required, strict=True)
        return max((patterns.distance(entry) for patterns, entry in pairs if entry is not None), default=0)
