"""Finds the words of a list in a finished text: required words, and near-misses of banned ones.

The matchers of the controls find them, so the page shows exactly what the controls match.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fundamentallm_hf.portable.text.characters import fold_text, is_word
from fundamentallm_hf.portable.text.text_patterns import TextPatterns
from fundamentallm_hf.portable.text.word_counts import WordCounts
from fundamentallm_hf.portable.text.word_lists import is_regex
from fundamentallm_hf.portable.text.word_matcher import SPACE, STAR, Entry

from .limits import split_parts

# The start of a banned entry is a near-miss if it has at least this share of it, and this many characters.
NEAR_SHARE, NEAR_LEAST = 2 / 3, 2
# Longer matches are not searched for.
_LONGEST = 80
_WORD = re.compile(r"\w+")


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
        patterns = TextPatterns(split_parts(entry), not case_sensitive, WordCounts({}))
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


def find_near_misses(text: str, begin: int, entries: Sequence[str], case_sensitive: bool = False) -> list[Mark]:
    """Where the text started a banned entry and continued differently, or has one inside a longer word.

    Args:
        text: prompt and completion.
        begin: index where the completion starts.
        entries: in the form of `bad_words`; regular expressions have no near-misses.
        case_sensitive: whether case matters.

    Example:

    ```python
    >>> from fundamentallm_hf.web.highlights import find_near_misses
    >>> [mark.end for mark in find_near_misses("The rat, very sad, ran a class", 0, ["rag", "very happy", "ass"])]
    [7, 17, 22, 30]

    ```
    """
    folded = "".join(_one(char, case_sensitive) for char in text)
    found = []
    for source in entries:
        if is_regex(source):
            continue
        try:
            items = Entry.parse(source).items
        except ValueError:
            continue
        core = "".join(_one(item, case_sensitive) for item in items if item != STAR)
        if not core:
            continue
        for word in _WORD.finditer(folded):
            mark = _near(folded, word.start(), word.end(), core, items[0] == STAR, items[-1] == STAR)
            if mark is not None and mark[1] > begin:
                found.append(Mark(max(begin, mark[0]), mark[1], source))
    return sorted(set(found), key=lambda mark: (mark.start, mark.end, mark.entry))


def _near(text: str, start: int, end: int, core: str, before: bool, after: bool) -> tuple[int, int] | None:
    """The near-miss in the word from `start` to `end`, if there is one."""
    word = text[start:end]
    same = 0
    while same < len(core) and start + same < len(text) and text[start + same] == core[same]:
        same += 1
    last = start + same
    if same == len(core):
        # The whole entry: banned where the word ends here, but allowed inside a longer word.
        return (start, end) if last < end and not after else None
    # Of a phrase, the first word is enough.
    if same >= max(NEAR_LEAST, NEAR_SHARE * len(core)) or SPACE in core[:same]:
        within = _WORD.search(text, last)
        return start, max(end, last if within is None or within.start() > last else within.end())
    if not before and len(core) < len(word) and core in word:
        return start, end
    return None


def _one(char: str, case_sensitive: bool) -> str:
    """A character as it is compared; itself where folding gives several, so that positions stay the same."""
    folded = fold_text(char, not case_sensitive)
    return folded if len(folded) == 1 else char
