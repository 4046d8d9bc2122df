"""Finds entries in finished text independently of the package: with one regular expression for each entry.

It imports nothing of the package, so that tests and benchmarks can compare the two. `word_matcher.py` defines what
an entry means.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import regex

WORD = r"[\p{L}\p{N}\p{M}_]"
SPACE = r"[\s\x1c-\x1f]"
# Thai, Lao, Myanmar, Khmer, kana and ideographs are written without spaces.
UNSPACED = regex.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)
INVISIBLE = regex.compile(r"[\p{Cf}\p{Default_Ignorable_Code_Point}]")


def violations(
    text: str, prompt_length: int, entries: Iterable[str], ignore_case: bool = True
) -> list[tuple[str, int, int]]:
    """Every place where an entry is found that the prompt does not hold already.

    Args:
        text: the prompt and what was written behind it.
        prompt_length: characters of the prompt.
        entries: words and phrases, or regular expressions in slashes.
        ignore_case: compare without case.

    Returns:
        The entry, and where in `text` it begins and ends.
    """
    folded, places = [], []
    shown = [index for index, char in enumerate(text) if _fold(char, ignore_case)]
    for index in shown:
        part = _fold(text[index], ignore_case)
        folded.append(part)
        places += [index] * len(part)
    found = []
    for entry in entries:
        if regex.fullmatch(r"(?s)/(?:\\.|[^\\])+/", entry):
            raw = "".join(text[index] for index in shown)
            prompt = sum(index < prompt_length for index in shown)
            spans = [(shown[i], shown[j - 1] + 1) for i, j in _search(entry[1:-1], raw, prompt, ignore_case)]
        else:
            matches = _pattern(entry, ignore_case).finditer("".join(folded), overlapped=True)
            spans = [(places[match.start()], places[match.end() - 1] + 1) for match in matches]
        found += [(entry, i, j) for i, j in spans if j > prompt_length]
    return found


def first_missing(
    text: str, prompt_length: int, entries: Iterable[str], ignore_case: bool = True, ordered: bool = False
) -> str | None:
    """The first required entry that does not appear behind the prompt, if any.

    Args:
        text: the prompt and what was written behind it.
        prompt_length: characters of the prompt.
        entries: as for `violations`; words may be alternatives separated by `|`.
        ignore_case: compare without case.
        ordered: each entry has to begin where the one before is complete.
    """
    at = 0
    for entry in entries:
        parts = [entry] if entry.startswith("/") else entry.split("|")
        spans = [(i, j) for _, i, j in violations(text, prompt_length, parts, ignore_case) if i >= at]
        if not spans:
            return entry
        if ordered:  # a stem is there before its word has ended
            at = min(i + len(entry) - 1 if entry.endswith("*") else j for i, j in spans)
    return None


@lru_cache(1 << 16)
def _fold(char: str, ignore_case: bool) -> str:
    text = unicodedata.normalize("NFKD", char)
    if ignore_case:
        text = unicodedata.normalize("NFKD", text.casefold())
    return INVISIBLE.sub("", text)


@lru_cache(1 << 16)
def _pattern(entry: str, ignore_case: bool) -> regex.Pattern:
    parts: list[str] = []
    literal = ""
    visible = INVISIBLE.sub("", entry).strip()
    for escaped, stars, spaces, char in regex.findall(r"(?s)\\([\\*/])|(\*+)|(\s+)|(.)", visible):
        if stars:
            parts.append(f"{WORD}*")
        elif spaces:
            parts.append(f"{SPACE}+")
        else:
            text = _fold(escaped or char, ignore_case)
            literal += text
            parts.append("".join(SPACE if part.isspace() else regex.escape(part) for part in text))
    before, after = "", ""
    if parts[0] == f"{WORD}*":
        parts[0] = ""
    elif _needs_boundary(literal[0]):
        before = f"(?<!{WORD})"
    if parts[-1] == f"{WORD}*":
        parts[-1] += "+"
    elif _needs_boundary(literal[-1]):
        after = f"(?!{WORD})"
    return regex.compile(before + "".join(parts) + after)


def _needs_boundary(char: str) -> bool:
    return regex.match(WORD, char) is not None and not UNSPACED.match(char)


def _search(pattern: str, text: str, prompt: int, ignore_case: bool) -> list[tuple[int, int]]:
    """One match for each place where a match begins that ends behind the prompt."""
    after = len(text) - prompt - 1
    if after < 0:
        return []
    flags = re.match(r"(?:\(\?[aimsux]+\))?", pattern)[0]
    ending = f"{flags}(?:{pattern[len(flags) :]})(?=(?s:.){{0,{after}}}\\Z)"
    compiled = re.compile(ending, re.IGNORECASE if ignore_case else 0)
    spans = []
    found = compiled.search(text)
    while found:
        spans.append(found.span())
        found = compiled.search(text, found.start() + 1)
    return spans
