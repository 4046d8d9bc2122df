"""Finds the words of a list in a text: required words, and the word that a text was about to write.

The matchers of the controls find them, so the page shows exactly what the controls match.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fundamentallm_hf.portable.text.characters import fold_text, is_word
from fundamentallm_hf.portable.text.text_patterns import TextPatterns
from fundamentallm_hf.portable.text.word_counts import WordCounts
from fundamentallm_hf.portable.text.word_lists import is_regex
from fundamentallm_hf.portable.text.word_matcher import SPACE, STAR, Entry

from .limits import split_parts

# Longer matches are not searched for.
_LONGEST = 80


@dataclass(frozen=True)
class Mark:
    """A span of a text.

    Attributes:
        start, end: in characters.
        entry: its entry of the list.
    """

    start: int
    end: int
    entry: str


def find_required(text: str, begin: int, entries: Sequence[str], case_sensitive: bool = False) -> list[Mark]:
    """The matches of required entries after the first `begin` characters.

    Args:
        text: prompt and completion.
        begin: index where the completion starts.
        entries: in the form of `must_include`.
        case_sensitive: whether case matters.

    Example:

    ```python
    >>> from fundamentallm_hf.web.highlights import find_required
    >>> find_required("Once, dragons came.", 4, ["dragon*"])
    [Mark(start=6, end=13, entry='dragon*')]

    ```
    """
    found: list[Mark] = []
    for entry in entries:
        patterns = _patterns(tuple(split_parts(entry)), case_sensitive)
        for end in _ends(text, patterns):
            if end <= begin:
                continue
            start = _start(text, end, patterns)
            if start is not None and start >= begin:
                # A stem matches at once, and is marked as the whole word that it became.
                if not is_regex(entry) and "*" in entry:
                    start, end = _whole_words(text, start, end)
                if found and found[-1].entry == entry and found[-1].end >= start:
                    found[-1] = Mark(found[-1].start, max(end, found[-1].end), entry)
                else:
                    found.append(Mark(start, end, entry))
    return sorted(found, key=lambda mark: (mark.start, mark.end))


def _ends(text: str, patterns: TextPatterns) -> list[int]:
    """The positions after which an entry is complete."""
    state, found = patterns.start, []
    for index, char in enumerate(text):
        pending = patterns.ends(state)
        state, hit = patterns.step(state, char)
        if hit:
            # A whole word is known to be complete one character later.
            found.append(index if pending else index + 1)
    if patterns.ends(state):
        found.append(len(text))
    return found


def _start(text: str, end: int, patterns: TextPatterns) -> int | None:
    """The start of the shortest match that ends at `end`."""
    for start in range(end - 1, max(-1, end - _LONGEST), -1):
        state = patterns.start
        if start:
            state = patterns.forget(patterns.read(state, text[start - 1])[0])
            state = patterns.neutral(state)
        state, hit = patterns.read(state, text[start:end])
        if hit or patterns.ends(state):
            return start
    return None


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    while start and is_word(text[start - 1]) and is_word(text[start]):
        start -= 1
    while end < len(text) and is_word(text[end]) and is_word(text[end - 1]):
        end += 1
    return start, end


def find_entry(text: str, entries: Sequence[str], case_sensitive: bool = False) -> str | None:
    """The entry that the end of a text starts or completes: of several the one with the longest part of it.

    Args:
        text: up to the end in question.
        entries: in the form of `bad_words` or `must_include`.
        case_sensitive: whether case matters.

    Example:

    ```python
    >>> from fundamentallm_hf.web.highlights import find_entry
    >>> find_entry("The dog was very ha", ["hat", "very happy", "*ing"])
    'very happy'

    ```
    """
    return _find_entry(text[-_LONGEST:], tuple(entries), case_sensitive)


@lru_cache(maxsize=4096)
def _find_entry(text: str, entries: tuple[str, ...], case_sensitive: bool) -> str | None:
    folded = "".join(_one(char, case_sensitive) for char in text)
    best, longest = None, 0
    for entry in entries:
        for part in split_parts(entry):
            if is_regex(part):
                patterns = _patterns((part,), case_sensitive)
                length = 1 if patterns.read(patterns.start, text)[1] else 0
            else:
                found = _start_of(part, case_sensitive).search(folded)
                length = len(found[0]) if found else 0
            if length > longest:
                best, longest = entry, length
    return best


@lru_cache(maxsize=1024)
def _start_of(entry: str, case_sensitive: bool) -> re.Pattern[str]:
    """Matches a started entry at the end of a text, and a complete one with a character after it."""
    try:
        items = list(Entry.parse(entry).items)
    except ValueError:
        return re.compile(r"(?!)")
    anywhere = bool(items) and items[0] == STAR
    while items and items[0] == STAR:
        items.pop(0)
    if not items:
        return re.compile(r"(?!)")
    kinds = {STAR: r"\w*", SPACE: r"\s+"}
    parts = [kinds.get(each) or re.escape(_one(each, case_sensitive)) for each in items]
    nested = ""
    for part in reversed(parts[1:]):
        nested = f"(?:{part}{nested})?"
    begin = "" if anywhere or not is_word(items[0]) else r"(?<!\w)"
    return re.compile(rf"{begin}(?:{parts[0]}{nested}|{''.join(parts)}\W)\Z")


@lru_cache(maxsize=256)
def _patterns(parts: tuple[str, ...], case_sensitive: bool) -> TextPatterns:
    return TextPatterns(parts, not case_sensitive, WordCounts({}))


def _one(char: str, case_sensitive: bool) -> str:
    """A character as it is compared; itself where folding gives several, so that positions stay the same."""
    folded = fold_text(char, not case_sensitive)
    return folded if len(folded) == 1 else char
