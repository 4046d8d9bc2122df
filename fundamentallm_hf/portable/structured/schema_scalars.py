"""Strings and numbers of a JSON schema: the shortest ones, and the shortest completion of one that has started."""

import codecs
import json
import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation, localcontext
from functools import cached_property
from typing import Any, Protocol

from .json_schemas import Way, dumped, types_of
from .schema_formats import FORMATS, LONGEST_OF_FORMAT
from .shortest_match import Expression

# Tokens that complete a started character or escape: the last three bytes of the former, the last five of the latter.
_BEGUN_CHARACTER = 6
# Most digits that a number may need.
_MOST_DIGITS = 24
_BEGUN = re.compile(r"-?[0-9]*(\.[0-9]*)?")


class Spelling(Protocol):
    """The methods of a model's tokens that are used here."""

    @property
    def letters(self) -> list[str]:
        """The characters to choose from, the best first."""

    def cost(self, text: bytes) -> float:
        """How many tokens a text takes at least; infinite where it cannot be written."""

    @property
    def pieces_to_fill(self) -> list[str]:
        """Longer texts that are tokens, the longest first."""

    def fill(self, length: int) -> str:
        """A text of this many characters that takes few tokens."""


class Strings:
    """The strings that one alternative of a value allows.

    Args:
        way: the alternative.
        spelling: the model's tokens.

    Attributes:
        least, most: limits of the length in characters.
        free: any string of that length is allowed.
        unread: a regular expression or a format was found that this module does not know.
    """

    def __init__(self, way: Way, spelling: Spelling) -> None:
        self._spelling = spelling
        self.least = int(way.least("minLength") or 0)
        most = way.most("maxLength")
        self.most = None if most is None else int(most)
        self.listed = None if way.values is None else [value for value in way.values if isinstance(value, str)]
        self._patterns = [str(pattern) for pattern in way.all_of("pattern")]
        self._formats = [str(name) for name in way.all_of("format")]
        self.free = self.listed is None and not self._patterns and not self._formats
        self.unread = False

    @cached_property
    def _expressions(self) -> list[Expression]:
        """The regular expressions that all have to match.

        Raises:
            ValueError: a regular expression or a format is not known.
        """
        letters, can, pieces = self._spelling.letters, self._can, self._spelling.pieces_to_fill
        found = [
            Expression(each, letters, can, pieces=pieces, search=True, ascii_only=True)
            for each in dict.fromkeys(self._patterns)
        ]
        for name in dict.fromkeys(self._formats):
            if name not in FORMATS:
                raise ValueError(f"the format {name!r} is not known")
            found.append(Expression(FORMATS[name], letters, can, pieces=pieces))
        return found

    def completions(self, content: str) -> Iterator[str]:
        """Texts that complete a string that starts with `content`, the shortest first."""
        if self.listed is not None:
            yield from sorted((each[len(content) :] for each in self.listed if each.startswith(content)), key=len)
            return
        missing = max(0, self.least - len(content))
        room = None if self.most is None else self.most - len(content)
        if self.free:
            yield self._spelling.fill(missing)
            return
        try:
            expressions = self._expressions
        except ValueError:
            self.unread = True
            return
        for one in expressions:
            text = one.completion(one.read(content), missing, room)
            if text is not None and all(each.accepts(each.read(content + text)) for each in expressions):
                yield text

    @cached_property
    def worst(self) -> float:
        """Most tokens that complete any started string, with its last quotation mark; infinite if not known."""
        if self.listed is not None:
            return max((len(dumped(each).encode()) for each in self.listed), default=0)
        beside = self.least + 1 + _BEGUN_CHARACTER
        if self.free:
            return beside
        if self._formats and not self._patterns and len(self._formats) == 1:
            return LONGEST_OF_FORMAT + beside
        try:
            expressions = self._expressions
        except ValueError:
            return math.inf
        if len(expressions) != 1 or expressions[0].worst is None:
            return math.inf
        dearest = max((self._cost(letter) for letter in expressions[0].chosen), default=1)
        return expressions[0].worst * dearest + beside

    def lacking(self) -> list[str]:
        """Characters that the model lacks and every such string needs."""
        if self.listed is not None:
            lists = [[char for char in dict.fromkeys(each) if not self._can(char)] for each in self.listed]
            return min(lists, key=len, default=[])
        try:
            return [char for one in self._expressions for char in one.lacking(one.start)]
        except ValueError:
            return []

    def _cost(self, letter: str) -> float:
        return self._spelling.cost(escaped(letter))

    def _can(self, letter: str) -> bool:
        return self._cost(letter) < math.inf


def escaped(text: str) -> bytes:
    """A text as written within a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


def rests_of_character(raw: bytes) -> list[bytes]:
    """Bytes that complete the cut-off character at the end of a text; empty where none is cut off."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(raw[-4:])
    begun = decoder.getstate()[0]
    if not begun:
        return [b""]
    missing = (2 if begun[0] < 0xE0 else 3 if begun[0] < 0xF0 else 4) - len(begun)
    # The bytes that may follow depend on the first byte.
    first = {0xE0: 0xA0, 0xF0: 0x90}.get(begun[0], 0x80) if len(begun) == 1 else 0x80
    return [bytes([first + more]) + bytes([0x80 + more]) * (missing - 1) for more in (0, 2, 15)]


class Numbers:
    """The numbers that one alternative of a value allows.

    Args:
        way: the alternative.
    """

    def __init__(self, way: Way) -> None:
        self.whole = "number" not in way.types
        self.listed = None
        if way.values is not None:
            self.listed = [dumped(value) for value in way.values if types_of(value) & {"integer", "number"}]
        self._low, self._above = _limit(way, "minimum", "exclusiveMinimum", max)
        self._high, self._below = _limit(way, "maximum", "exclusiveMaximum", min)
        self._factors = [Decimal(str(abs(each))) for each in way.all_of("multipleOf") if each]

    def completions(self, begun: str) -> Iterator[str]:
        """Texts that complete a number that starts with `begun`, the shortest first."""
        if self.listed is not None:
            yield from sorted((each[len(begun) :] for each in self.listed if each.startswith(begun)), key=len)
            return
        if not _BEGUN.fullmatch(begun):
            yield from ("", "0", "1") if "e" in begun.lower() else ()
            return
        if self._low is None and self._high is None and not self._factors:
            yield from (("", "0", "1") if begun[-1:].isdigit() else ("0", "1"))
            return
        with localcontext() as context:
            # These lose no digit.
            context.prec = 3 * _MOST_DIGITS + 2 * len(begun)
            found = [self._of_digits(begun, digits) for digits in range(_MOST_DIGITS)]
        known = [number[len(begun) :] for number in found if number is not None and number.startswith(begun)]
        # llguidance may require a last digit of a fraction other than 0.
        yield from [*known[:1], "1", "5", *known[1:]] if "." in begun and known else known
        if not self.whole and "." not in begun and begun not in ("", "-"):
            yield from (f".{rest}" for rest in self.completions(f"{begun}."))
        elif begun == "":
            yield from (f"-{rest}" for rest in self.completions("-"))
        if not self.whole and begun in ("", "-"):
            edge = self._high if begun else self._low
            whole = str(abs(int(edge))) if edge is not None else "0"
            for start in dict.fromkeys(("0.", f"{whole}.")):
                yield from (start + rest for rest in self.completions(begun + start))

    @cached_property
    def worst(self) -> float:
        """Most tokens that complete any started number."""
        if self.listed is not None:
            return max(map(len, self.listed), default=0)
        if self._low is None and self._high is None and not self._factors:
            return 3
        return _MOST_DIGITS + 4

    def _of_digits(self, begun: str, more: int) -> str | None:
        """A number that starts with `begun` and has this many more digits: the one nearest to 0."""
        sign, digits = ("-", begun[1:]) if begun.startswith("-") else ("", begun)
        fraction = digits.partition(".")[2]
        scale = len(fraction) + more if "." in digits else 0
        whole = digits.replace(".", "")
        if not whole + "0" * more or (digits == "0" and more) or (digits.endswith(".") and not more):
            return None
        unit = Decimal(1).scaleb(-scale)
        low, high = Decimal(whole + "0" * more) * unit, Decimal(whole + "9" * more) * unit
        if not whole and more > 1:
            low = Decimal("1" + "0" * (more - 1))
        # As limits of the absolute value.
        least, above, most, below = self._low, self._above, self._high, self._below
        if sign:
            least, above, most, below = most, below, least, above
            least, most = (None if each is None else -each for each in (least, most))
        if least is not None:
            low = max(low, least + unit if above and least >= low else least)
        if most is not None:
            high = min(high, most - unit if below and most <= high else most)
        try:
            for factor in self._factors:
                low = (low / factor).to_integral_value("ROUND_CEILING") * factor
            nearest = (low / unit).to_integral_value("ROUND_CEILING") * unit
            if nearest > high or any(nearest % factor for factor in self._factors):
                return None
        except InvalidOperation:  # more digits than the precision of the calculation
            return None
        return f"{sign}{nearest:.{scale}f}"


def _limit(way: Way, keyword: str, exclusive: str, choose: Any) -> tuple[Decimal | None, bool]:
    """A limit of numbers and whether it is exclusive."""
    limits: list[tuple[Decimal, bool]] = []
    for part in way.parts:
        here, strict = part.get(keyword), part.get(exclusive)
        try:
            if here is not None and not isinstance(here, bool):
                limits.append((Decimal(str(here)), strict is True))
            if strict is not None and not isinstance(strict, bool):
                limits.append((Decimal(str(strict)), True))
        except InvalidOperation:
            continue
    if not limits:
        return None, False
    best = choose(limit for limit, _ in limits)
    return best, any(strict for limit, strict in limits if limit == best)


def shortest_string(rules: Sequence[Strings], content: str = "") -> str | None:
    """The first completion that any of some rules finds; None where none does."""
    found = [text for rule in rules if (text := next(rule.completions(content), None)) is not None]
    return min(found, key=len, default=None)
