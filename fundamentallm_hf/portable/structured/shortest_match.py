"""A short text that a regular expression matches as a whole, read off the expression itself.

llguidance's mask looks the same throughout `.*the end`, so a search by the mask cannot see how such a text is to be
completed; the expression says it. This file knows nothing of tokens, and needs the standard library only.
"""

import re
from collections.abc import Callable, Iterable

# The parser of `re` itself: its nodes are what is wanted. Neither has a public name.
from re import _compiler, _parser  # type: ignore[attr-defined]
from typing import Any

# A longer one helps nobody.
LONGEST = 20_000


def shortest_match(pattern: str, letters: Iterable[str], can: Callable[[str], bool] = lambda text: True) -> str | None:
    r"""A short text, hardly ever not the shortest, that `pattern` matches as a whole.

    Args:
        pattern: a regular expression in Python's syntax.
        letters: the characters to choose from where any of several will do, the best first.
        can: tells whether a text can be written at all.

    Returns:
        The text; None where none is found, or the expression is none of Python's.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.structured.shortest_match import shortest_match
    >>> shortest_match(r"[A-Z][a-z]{3,}( and .+)?\.|.{20}", "abcABC")
    'Aaaa.'

    ```
    """
    try:
        parsed = _parser.parse(pattern)
        text = _of_sequence(parsed, list(letters), can)
        return text if text is not None and re.fullmatch(pattern, text) else None
    except (re.error, OverflowError, RecursionError, MemoryError):
        return None


def _of_sequence(nodes: Any, letters: list[str], can: Callable[[str], bool]) -> str | None:
    parts = []
    for node in nodes:
        part = _of_node(node, nodes, letters, can)
        if part is None:
            return None
        parts.append(part)
        if sum(map(len, parts)) > LONGEST:
            return None
    return "".join(parts)


def _of_node(node: Any, nodes: Any, letters: list[str], can: Callable[[str], bool]) -> str | None:
    kind, what = str(node[0]), node[1]
    if kind == "LITERAL":
        return chr(what) if can(chr(what)) else None
    if kind in ("IN", "ANY", "NOT_LITERAL"):
        test = _compiler.compile(_parser.SubPattern(nodes.state, [node]))
        members = [chr(value) for name, value in what if str(name) == "LITERAL"] if kind == "IN" else []
        return next((letter for letter in (*letters, *members) if test.fullmatch(letter) and can(letter)), None)
    if kind == "SUBPATTERN":
        return _of_sequence(what[-1], letters, can)
    if kind == "BRANCH":
        found = [text for way in what[1] if (text := _of_sequence(way, letters, can)) is not None]
        return min(found, key=len, default=None)
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, _, of = what
        if not least:
            return ""
        text = _of_sequence(of, letters, can)
        return None if text is None or least * len(text) > LONGEST else least * text
    return "" if kind == "AT" else None
