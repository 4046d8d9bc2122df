r"""Translates regular expressions from Rust's syntax, which llguidance uses, to that of Python's `re`.

Python's `re` rejects some of Rust's syntax (`\p{L}`, `\x{41}`, `(?i)` inside an expression) and reads some differently
(`[[:alpha:]]`, `\z`). See https://docs.rs/regex/latest/regex/#syntax.
"""

import re
import unicodedata
from collections.abc import Callable

# Private-use characters represent classes that `re` does not have.
_FIRST_MARK = 0xF0000
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_CATEGORIES = {
    "letter": "L",
    "uppercaseletter": "Lu",
    "lowercaseletter": "Ll",
    "titlecaseletter": "Lt",
    "mark": "M",
    "number": "N",
    "decimalnumber": "Nd",
    "punctuation": "P",
    "symbol": "S",
    "separator": "Z",
    "spaceseparator": "Zs",
    "other": "C",
    "control": "Cc",
}
_FLAGS = re.compile(r"\(\?([a-zA-Z]*)(?:-([a-zA-Z]+))?([:)])")
_GROUP = re.compile(r"\((\?P?<[^=!>][^>]*>|\?)?")
_PROPERTY = re.compile(r"\\([pP])(?:\{(\^?)([^{}]*)\}|([A-Za-z]))")
_CODE = re.compile(r"\\[xuU]\{([0-9a-fA-F]+)\}")
_NAMED_CLASS = re.compile(r"\[:([a-z]+):\]")


def python_pattern(pattern: str) -> tuple[str, dict[str, Callable[[str], bool]]]:
    r"""Translate a pattern from Rust's syntax to Python's.

    Returns:
        The pattern, and a membership test for each character in it that represents a class.

    Raises:
        ValueError: the pattern has no equivalent in Python's syntax.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.structured.rust_patterns import python_pattern
    >>> python_pattern(r"[[:digit:]]{2}(?i)x|y\z")[0]
    '[0-9]{2}(?i:x)|(?i:y\\Z)'

    ```
    """
    return _Translation(pattern).done()


class _Translation:
    """The translation of one pattern; `index` is the position of the next character to read."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.index = pattern, 0
        self.tests: dict[str, Callable[[str], bool]] = {}
        # For each open group, the groups that flags opened inside it.
        self.flags: list[list[str]] = [[]]

    def done(self) -> tuple[str, dict[str, Callable[[str], bool]]]:
        written = []
        while self.index < len(self.pattern):
            char = self.pattern[self.index]
            if char == "\\":
                written.append(self._escape())
            elif char == "[":
                written.append(self._class())
            elif char == "(":
                written.append(self._group())
            else:
                self.index += 1
                opened = self.flags[-1]
                if char == ")" and len(self.flags) > 1:
                    written.append(")" * len(self.flags.pop()))
                elif char == "|":
                    written.append(")" * len(opened))
                    char = "".join(["|", *opened])
                written.append(char)
        return "".join([*written, ")" * len(self.flags[0])]), self.tests

    def _take(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        found = expression.match(self.pattern, self.index)
        self.index = found.end() if found is not None else self.index
        return found

    def _group(self) -> str:
        flags = self._take(_FLAGS)
        if flags is not None:
            on, off = ("".join(flag for flag in flags[part] or "" if flag in "imsx") for part in (1, 2))
            opened = f"(?{on}{'-' + off if off else ''}:"
            if flags[3] == ":":
                self.flags.append([])
            else:  # the flags apply to the rest of the group
                self.flags[-1].append(opened)
            return opened
        group = self._take(_GROUP)
        assert group is not None
        self.flags.append([])
        return "(?" if group[1] == "?" else "(?:" if group[1] else "("

    def _escape(self) -> str:
        found = self._take(_PROPERTY)
        if found is not None:
            return self._property(found[3] or found[4], (found[1] == "P") != bool(found[2]))
        found = self._take(_CODE)
        if found is not None:
            return f"\\U{int(found[1], 16):08x}"
        taken = self.pattern[self.index : self.index + 2]
        self.index += 2
        return r"\Z" if taken == r"\z" else taken

    def _property(self, name: str, negated: bool) -> str:
        plain = re.sub("[ _-]", "", name.lower()).removeprefix("gc=").removeprefix("generalcategory=")
        category = _CATEGORIES.get(plain, plain.capitalize())
        if not re.fullmatch(r"L[ultmo]?|M[nce]?|N[dlo]?|P[cdseifo]?|S[mcko]?|Z[slp]?|C[cfson]?", category):
            raise ValueError(f"the property {name!r} is not known")
        mark = chr(_FIRST_MARK + len(self.tests))
        self.tests[mark] = lambda char: unicodedata.category(char).startswith(category) != negated
        return mark

    def _class(self) -> str:
        begin = self.index
        self.index += 1 + (self.pattern[begin + 1 : begin + 2] == "^")
        written = [self.pattern[begin : self.index]]
        while self.index < len(self.pattern):
            char = self.pattern[self.index]
            if char == "]" and len(written) > 1:
                self.index += 1
                return "".join([*written, "]"])
            if char == "[":
                named = self._take(_NAMED_CLASS)
                if named is None or named[1] not in _POSIX:
                    raise ValueError("a class within a class is not known")
                written.append(_POSIX[named[1]])
            elif self.pattern[self.index : self.index + 2] in ("&&", "--", "~~"):
                raise ValueError("an operation on classes is not known")
            elif char == "\\":
                single = self.pattern[self.index + 1 : self.index + 2] not in "dDwWsSpP"
                written.append(self._escape())
                if not single and self.pattern[self.index : self.index + 1] == "-":
                    self.index += 1
                    written.append(r"\-")
            else:
                self.index += 1
                written.append(r"\]" if char == "]" else char)
        raise ValueError("a class has no end")
