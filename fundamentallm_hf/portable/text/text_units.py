"""Words, sentences, lines and paragraphs: a finite automaton that counts them character by character.

A **word** is a run of letters and digits (with the marks on them); one apostrophe, hyphen or full stop between two such
characters, and a comma between two digits, belong to it: "don't", "well-known", "e.g.", "3.14", "3,000". In scripts
without spaces every letter is a word.

A **sentence** holds a word and ends at a mark (`. ! ? …` and those of other scripts, the Greek question mark included),
with the quotation marks and brackets that follow it at once. An ideographic mark (`。！？`) always ends one. After any
other mark, white space has to follow, and the next letter decides: a small letter continues the sentence (`"Stop!" he
said`). A full stop ends none after a single letter ("J.", "e.g.", "p.m.") and after the titles in `TITLES`.

A **line** ends at a line break, a **paragraph** at two, with nothing but white space between them.

The rules follow Unicode Standard Annex 29 in what they count as the parts of a sentence, with fewer classes.
"""

import unicodedata
from functools import lru_cache
from typing import NamedTuple

from .characters import is_invisible, is_word, needs_boundary

# After these a full stop ends no sentence.
TITLES = frozenset(
    ("mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "lt", "col", "gen", "capt", "sgt", "rev", "mt", "mme", "mlle")
) | {"vs"}
_PREFIXES = frozenset(title[:length] for title in TITLES for length in range(1, len(title) + 1))
_PARTS = frozenset(
    title[start:end] for title in TITLES for start in range(len(title)) for end in range(start + 1, len(title) + 1)
)
SOFT_MARKS = "!?\u2026\u203c\u203d\u2047\u2048\u2049\u037e\u0589\u061f\u06d4"
HARD_MARKS = "\u3002\uff01\uff1f\uff0e\uff61\u0964\u0965\u1362"
CLOSERS = '")]}\u201d\u00bb\u203a\uff02\uff09\uff3d\uff5d\uff63\u300d\u300f\u3011\u3009\u300b\u3015'
# Quotation marks that close in some languages and open in others: they belong to a sentence only right after its mark.
EITHER = "\u201c\u00ab\u2039\u2018"
APOSTROPHES, HYPHENS = "'\u2019\u02bc", "-\u2010\u2011"
BREAKS = "\n\x0b\x0c\x85\u2028\u2029"
# One character for each kind that the automaton distinguishes; letters of titles stand for themselves.
_LOWER, _UPPER, _GREEK_LOWER, _GREEK_UPPER, _UNCASED, _UNSPACED_LETTER = "qQ\u03bb\u039b\u05d0\u3042"
_OTHER, _DIGIT = "*", "0"

# Phases of a sentence: no word yet; within; after a mark, white space or something else behind it; the same after an
# ideographic mark.
EMPTY, INSIDE, MARK, GAP, OPEN_GAP, HARD, HARD_GAP = "empty", "inside", "mark", "gap", "open gap", "hard", "hard gap"
# What a word may become: outside; a joint that needs another character; a full stop behind a word; a number, and its
# comma; one letter, several; the same in Greek. The start of a title is "~" and its letters.
_NONE, _JOINT, _DOT, _NUMBER, _COMMA, _ONE, _SEVERAL, _GREEK_ONE, _GREEK = "", "-", ".", "0", "0,", "a", "ab", "g", "gg"


class UnitState(NamedTuple):
    """The state of a text.

    Attributes:
        phase: of its last sentence.
        word: what its last word may become.
        breaks: -1 before any text; then how many line breaks end the text, at most 2.
    """

    phase: str = EMPTY
    word: str = _NONE
    breaks: int = -1

    @property
    def in_word(self) -> bool:
        """Whether the last character belongs to a word, or joins one to what follows."""
        return self.word not in (_NONE, _DOT, _COMMA)

    @property
    def has_word(self) -> bool:
        """Whether the text holds a word, if it holds one sentence at most."""
        return self.phase != EMPTY

    @property
    def after_sentence(self) -> bool:
        """Whether the text ends with a sentence."""
        return self.phase in (MARK, GAP, HARD, HARD_GAP)

    @property
    def open_end(self) -> bool:
        """Whether the last sentence counts only if the text ends here or the next letter starts another one."""
        return self.phase in (MARK, GAP, OPEN_GAP)


class TextUnits:
    """The automaton.

    Args:
        sentences: follow sentences; otherwise only whether there is a word.
        lines: follow line breaks.

    Attributes:
        start: the state before any text.
    """

    def __init__(self, sentences: bool, lines: bool) -> None:
        self.sentences, self.lines = sentences, lines
        self.start = UnitState(breaks=-1 if lines else 0)
        self._steps: dict[tuple[UnitState, str], tuple[UnitState, int, int]] = {}

    def step(self, state: UnitState, char: str) -> tuple[UnitState, int, int]:
        """The state after one more character, the words that it begins, and the sentences that are over for certain."""
        kind = kind_in_text(char)
        if not kind:
            return state, 0, 0
        word, begins = _next_word(state.word, kind, char)
        phase, over = self._next_phase(state, kind)
        return UnitState(phase, word, self._next_breaks(state.breaks, kind)), begins, over

    def read(self, state: UnitState, text: str) -> tuple[UnitState, int, int]:
        """The same for a text."""
        words = sentences = 0
        for char in text:
            step = self._steps.get((state, char))
            if step is None:
                step = self._steps[state, char] = self.step(state, char)
            state, begins, over = step
            words += begins
            sentences += over
        return state, words, sentences

    def _next_breaks(self, breaks: int, kind: str) -> int:
        if not self.lines or kind == " ":
            return breaks
        if kind != "\n":
            return 0
        return breaks if breaks < 0 else min(2, breaks + 1)

    def _next_phase(self, state: UnitState, kind: str) -> tuple[str, int]:
        phase = state.phase
        is_letter = kind in "aAuc0"
        if not self.sentences or phase in (EMPTY, INSIDE):
            if is_letter:
                return INSIDE, 0
            return self._marked(state, kind) if self.sentences and phase == INSIDE else (phase, 0)
        if phase in (HARD, HARD_GAP):
            return _after_hard(phase, kind), 0
        if kind == "。":
            return HARD, 1
        if phase == MARK:
            return _after_mark(state, kind)
        if is_letter:
            return INSIDE, int(kind != "a")
        if kind in ".!":
            return MARK, 0
        return (GAP if phase == GAP and kind in " \n" else OPEN_GAP), 0

    def _marked(self, state: UnitState, kind: str) -> tuple[str, int]:
        """The phase after a mark within a sentence."""
        if kind == "。":
            return HARD, 1
        greek_question = kind == ";" and state.word in (_GREEK_ONE, _GREEK)
        if kind == "!" or greek_question or (kind == "." and not _is_abbreviation(state.word)):
            return MARK, 0
        return INSIDE, 0


def _after_hard(phase: str, kind: str) -> str:
    """The phase after a sentence that is over; the next one begins with anything but what may close this one."""
    if kind in "aAuc0":
        return INSIDE
    if kind in " \n":
        return HARD_GAP
    return HARD if phase == HARD and kind in ".!。)'" else EMPTY


def _after_mark(state: UnitState, kind: str) -> tuple[str, int]:
    if kind in ".!)\u201c'":
        return MARK, 0
    if kind in " \n":
        return GAP, 0
    # A letter of a script without spaces needs none before it.
    return INSIDE, int(kind == "c")


def _next_word(word: str, kind: str, char: str) -> tuple[str, int]:
    """What the word has become after a character of this kind, and whether the character begins a word."""
    if kind == "c":
        return _NONE, 1
    if kind in "aAu":
        return _next_letter(word, char), int(word in (_NONE, _COMMA))
    if kind == "0":
        return _NUMBER, int(word == _NONE)
    if word in (_NONE, _JOINT, _DOT, _COMMA):
        return _NONE, 0
    if kind in "'-":
        return _JOINT, 0
    if kind == ".":
        return _DOT, 0
    return (_COMMA if word == _NUMBER and kind == "," else _NONE), 0


def _next_letter(word: str, char: str) -> str:
    greek = is_greek(char)
    if word in (_NONE, _COMMA, _DOT):
        first = char.casefold()
        if word != _DOT and first in _PREFIXES:
            return "~" + first
        return _GREEK_ONE if greek else _ONE
    if word.startswith("~") and word[1:] + char.casefold() in _PREFIXES:
        return word + char.casefold()
    return _GREEK if greek else _SEVERAL


def _is_abbreviation(word: str) -> bool:
    """Whether a full stop after this word ends no sentence."""
    if word.startswith("~"):
        return len(word) == 2 or word[1:] in TITLES
    return word in (_ONE, _GREEK_ONE)


def is_greek(char: str) -> bool:
    """Whether it is a letter of the Greek alphabet."""
    return "\u0370" <= char <= "\u03ff" or "\u1f00" <= char <= "\u1fff"


@lru_cache(maxsize=1 << 16)
def kind_in_text(char: str) -> str:
    """The kind of a character: a letter (`a` small, `A` capital, `u` without case, `c` of a script without spaces), a
    digit `0`, white space, a mark, something that closes, joins or separates, `*` for others; nothing if it is
    invisible or a mark on another character.
    """
    for kind, chars in _KINDS:
        if char in chars:
            return kind
    category = unicodedata.category(char)
    if is_invisible(char) or category[0] == "M":
        return ""
    if category[0] == "L":
        if not needs_boundary(char):
            return "c"
        return {"Ll": "a", "Lu": "A", "Lt": "A"}.get(category, "u")
    if is_word(char):
        return "0"
    return " " if char.isspace() else _OTHER


_KINDS = (
    ("\n", BREAKS),
    (".", "."),
    ("!", SOFT_MARKS),
    ("。", HARD_MARKS),
    (")", CLOSERS),
    ("\u201c", EITHER),
    ("'", APOSTROPHES),
    ("-", HYPHENS),
    (";", ";"),
    (",", ","),
)
# A character of each kind.
ONE_OF_EACH = (
    *(_LOWER, _UPPER, _GREEK_LOWER, _GREEK_UPPER, _UNCASED, _UNSPACED_LETTER, _OTHER, _DIGIT, " "),
    *(chars[0] for _, chars in _KINDS),
    *sorted(set("".join(TITLES))),
)
# How many of a kind in a row the automaton distinguishes.
_MOST_ALIKE = {"\n": 2, ".": 2, "'": 2, "-": 2, ";": 3, ",": 2}


def reduced_text(text: str) -> str:
    """A short text on which the automaton does the same from every state.

    Nearly all tokens of a large vocabulary differ only in letters that no rule looks at.
    """
    parts: list[str] = []
    run = ""
    for char in text:
        kind = kind_in_text(char)
        if not kind:
            continue
        if kind in "aAu":
            run += char
            continue
        if run:
            parts.append(_reduced_letters(run))
            run = ""
        if kind == " " and parts and parts[-1] in (" ", "\n"):
            continue
        if kind == "\n" and parts and parts[-1] == " ":
            parts.pop()
        shown, most = (_UNSPACED_LETTER, 0) if kind == "c" else (kind, _MOST_ALIKE.get(kind, 1))
        if not most or parts[-most:] != [shown] * most:
            parts.append(shown)
    if run:
        parts.append(_reduced_letters(run))
    return "".join(parts)


def _reduced_letters(run: str) -> str:
    """Letters within a token: kept where they may be part of a title, otherwise one or two that stand for them."""
    if run.casefold() in _PARTS and len(run.casefold()) == len(run):
        return run
    first = kind_in_text(run[0])
    if first == "u":
        shown = _UNCASED
    elif is_greek(run[0]):
        shown = _GREEK_LOWER if first == "a" else _GREEK_UPPER
    else:
        shown = _LOWER if first == "a" else _UPPER
    if len(run) == 1:
        return shown
    return shown + (_GREEK_LOWER if is_greek(run[-1]) else _LOWER)
