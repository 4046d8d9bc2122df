"""Follows patterns through a text of tokens, as its decoder will write it.

A token need not be whole characters, and a decoder may treat the start, the end and broken characters of a text in its
own way. This file knows that, so that its callers see one state after each token.
"""

import codecs
from functools import lru_cache
from typing import NamedTuple

from .character_classes import continues
from .pieces import REPLACEMENT, add_piece, as_bytes, decode_run
from .text_patterns import PatternState, TextPatterns
from .vocabulary import Vocabulary

_BROKEN = b"\xff"
# Steps from one state to another that are kept.
MOST_STEPS = 1 << 14


class TextState(NamedTuple):
    """The state of a text of tokens: in the patterns, and within a character.

    Attributes:
        patterns: the state after the last whole character.
        pending: the first bytes of the next character.
        run: the byte-fallback tokens at the end of the text.
        before: the state before them, which is restored if one of them is invalid; None if one was.
        unspaced: the state before the space that ends the text, if the decoder removes that space.
        fresh: nothing has been read, and the decoder treats the first token of a text differently.
        given: the prompt ends in `pending`, so what the decoder shows for a broken character is the prompt's own.
        alone: the state of the generated text without the prompt, as long as it differs.
    """

    patterns: PatternState
    pending: bytes = b""
    run: bytes = b""
    before: PatternState | None = None
    unspaced: PatternState | None = None
    fresh: bool = False
    given: bool = False
    alone: "TextState | None" = None


class TokenReader:
    """Reads tokens, and tells which of them complete an entry.

    Args:
        vocabulary: the text that every token adds.
        patterns: the patterns to look for.

    Attributes:
        follow_text: `advance`, where it is called for the tokens of texts, which repeat themselves.
    """

    def __init__(self, vocabulary: Vocabulary, patterns: TextPatterns) -> None:
        self.vocabulary = vocabulary
        self.patterns = patterns
        self.start = TextState(patterns.start, fresh=vocabulary.opens_differently)
        # Most letters of most texts lead from one of a few states to another.
        self.follow_text = lru_cache(MOST_STEPS)(self.advance)

    def advance(self, state: TextState, token: int) -> TextState:
        """The state after `token`."""
        after = self.read(state, token)[0]
        if state.alone is None:
            return after
        after = after._replace(alone=None)
        alone = self.read(state.alone, token)[0]
        return after if alone == after else after._replace(alone=alone)

    def advance_prompt(self, state: TextState, token: int) -> TextState:
        """The state after `token` of a prompt, where a special token starts a new text."""
        return self.restarted(state) if self.vocabulary.is_border(token) else self.advance(state, token)

    def restarted(self, state: TextState) -> TextState:
        """The state after a special token of a prompt: a new text, but the decoder goes on in the old one."""
        return self.start._replace(fresh=state.fresh)

    def forget(self, state: TextState) -> TextState:
        """The state at the end of a prompt: entries that are complete are discarded."""
        kept = (each and self.patterns.forget(each) for each in (state.before, state.unspaced))
        before, unspaced = kept
        patterns = self.patterns.forget(state.patterns)
        return state._replace(patterns=patterns, before=before, unspaced=unspaced, given=bool(state.pending))

    def prompt_end(self, state: TextState) -> TextState:
        """Like `forget`; the text after the prompt is also read separately from it."""
        state = self.forget(state)
        return state if state == self.start else state._replace(alone=self.start)

    def flushed(self, state: TextState) -> PatternState:
        """The state of the patterns if the current character is never completed."""
        return self._flush(state)[0] if state.pending else state.patterns

    def in_run(self, state: TextState) -> bool:
        """Whether the text ends in byte-fallback tokens that the decoder may still discard."""
        return bool(state.run) and state.before is not None

    def keeps_run(self, state: TextState, token: int) -> bool:
        """Whether the byte-fallback tokens at the end of the text form the same characters after `token`."""
        if token in self.vocabulary.fallback:
            return self.in_run(self.advance(state, token))
        return not state.pending or self.vocabulary.is_border(token)

    def ends(self, state: TextState) -> bool:
        """Whether an entry is complete if the text ends here."""
        if state.alone is not None and self.ends(state.alone):
            return True
        if state.unspaced is not None:
            return self.patterns.ends(state.unspaced)
        patterns, hit = self._flush(state)
        return hit or self.patterns.ends(patterns)

    def complete(self, state: TextState, tokens: list[int]) -> int | None:
        """How many of `tokens` it takes to complete an entry from here; None if none is completed."""
        for count, token in enumerate(tokens, 1):
            if self.read(state, token)[1] or (state.alone is not None and self.read(state.alone, token)[1]):
                return count
            state = self.advance(state, token)
        return None

    def read(self, state: TextState, token: int) -> tuple[TextState, bool]:
        """The state after `token`, and whether it completes an entry."""
        piece = self.vocabulary.piece(token)
        if not piece:
            return state, False
        if token in self.vocabulary.fallback:
            return self._read_fallback(state, as_bytes(piece))
        if state.fresh:
            piece = self.vocabulary.opening(token)
        start, late, begun = state.patterns, False, state.pending
        if state.run or (state.given and not continues(begun, as_bytes(piece))):
            (start, late), begun = self._flush(state), b""
        text, pending = add_piece(begun, piece, self.vocabulary.errors)
        if text.endswith(" ") and not pending and self.vocabulary.strips_trailing_space:
            unspaced, hit = self.patterns.read(start, text[:-1])
            patterns, hit_by_space = self.patterns.step(unspaced, " ")
            return TextState(patterns, unspaced=unspaced), late or hit or hit_by_space
        patterns, hit = self.patterns.read(start, text)
        return TextState(patterns, pending, given=state.given and bool(begun and pending and not text)), late or hit

    def rest_after(self, state: TextState, token: int, rest: str | None = None) -> str | None:
        """What is left of a token after the first entry that it completes, for entries that come after that one.

        Args:
            state: the state before the token.
            token: its id.
            rest: the part of the token that counts, as in `read_rest`; None for all of it.

        Returns:
            The end of its text; None where the entry was complete before the token, which only made that certain.
        """
        if rest is None and self.ends(state):
            return None
        piece = self.vocabulary.piece(token)
        if not isinstance(piece, str) or token in self.vocabulary.fallback or state.pending:
            return ""  # an entry ends with the character that was completed
        text = piece if rest is None else rest
        patterns = self.patterns.read(state.patterns, piece.removesuffix(text))[0]
        for index, char in enumerate(text):
            ended = self.patterns.ends(patterns)
            patterns, hit = self.patterns.step(patterns, char)
            if hit:
                return text[index if ended else index + 1 :]
        return ""

    def read_rest(self, state: TextState, token: int, rest: str) -> tuple[TextState, bool]:
        """Like `read`, but entries count only if they start in the last part of the token, `rest`."""
        after, _ = self.read(state, token)
        before, hit = self.patterns.neutral(after.patterns), False
        if rest:
            head = self.patterns.read(state.patterns, str(self.vocabulary.piece(token)).removesuffix(rest))[0]
            before, hit = self.patterns.read(self.patterns.neutral(head), rest)
        unspaced = after.unspaced and self.patterns.neutral(after.unspaced)
        return after._replace(patterns=before, unspaced=unspaced), hit

    def _read_fallback(self, state: TextState, byte: bytes) -> tuple[TextState, bool]:
        before = state.before if state.run else state.patterns
        if before is None:
            patterns, hit = self.patterns.read(state.patterns, REPLACEMENT)
            return state._replace(patterns=patterns), hit
        run = state.run + byte
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            text = decoder.decode(state.pending + byte)
        except UnicodeDecodeError:
            patterns, hit = self.patterns.read(before, decode_run(run))
            return TextState(patterns, run=_BROKEN), hit
        if state.fresh:
            text = self.vocabulary.as_opening(text)
        patterns, hit = self.patterns.read(state.patterns, text)
        return TextState(patterns, decoder.getstate()[0], run, before), hit

    def _flush(self, state: TextState) -> tuple[PatternState, bool]:
        """The state after an invalid character, where one has started."""
        if state.pending and state.before is not None:
            patterns, hit = self.patterns.read(state.before, decode_run(state.run))
        else:
            patterns, hit = self.patterns.read(state.patterns, state.pending.decode("utf-8", self.vocabulary.errors))
        return (self.patterns.forget(patterns), False) if state.given else (patterns, hit)
