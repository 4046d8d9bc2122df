"""Strings and numbers of a JSON schema: the shortest ones, and the shortest completion of one that has started."""

import codecs
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation, localcontext
from fractions import Fraction
from functools import cached_property
from string import digits
from typing import Any, Protocol

from .json_schemas import Way, dumped, types_of
from .pattern_product import Intersection
from .schema_formats import FORMATS, LONGEST_OF_FORMAT
from .shortest_match import Expression

# Tokens that complete a started character or escape: the last three bytes of the former, the last five of the latter.
_BEGUN_CHARACTER = 6
# Most digits that a number may need.
_MOST_DIGITS = 24
# Numbers of one kind that are told.
_MOST_NUMBERS = 8
# Letters that are tried after a string that must not end there.
_MOST_LETTERS = 6
# Largest minimum length of a string that is compared with the strings that its expressions allow.
_MOST_LEAST = 200
# Beginnings of a number that are tried where the model lacks some digits.
_MOST_BEGINNINGS = 3000
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

    @cached_property
    def _together(self) -> list[Any]:
        """One automaton for all of the expressions; the expressions themselves if it would be too large."""
        found = self._expressions
        if len(found) == 1:
            return found
        try:
            return [Intersection(found, self._spelling.letters, self._can)]
        except ValueError:
            return found

    def completions(self, content: str) -> Iterator[str]:
        """Texts that complete a string that starts with `content`, the shortest first."""
        if self.listed is not None:
            yield from sorted((each[len(content) :] for each in self.listed if each.startswith(content)), key=len)
            return
        missing = max(0, self.least - len(content))
        room = None if self.most is None else self.most - len(content)
        if self.most is not None and self.most < self.least:
            return
        if self.free:
            filled = self._spelling.fill(missing)
            yield filled
            # One more letter, where a word must not end here.
            longer = self._spelling.letters[:_MOST_LETTERS] if room is None or room > missing else ()
            yield from (filled + letter for letter in longer)
            return
        try:
            expressions = self._expressions
        except ValueError:
            self.unread = True
            return
        for one in self._together:
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
        if self._formats:  # the expression of a format may allow more than the format does
            return math.inf
        try:
            together = self._together
        except ValueError:
            return math.inf
        if len(together) != 1 or together[0].worst is None:
            return math.inf
        dearest = max((self._cost(letter) for letter in together[0].chosen), default=1)
        return together[0].worst * dearest + beside

    @property
    def none(self) -> bool:
        """Whether it is proven that there is no such string, in whatever characters."""
        if self.listed is not None or (self.most is not None and self.most < self.least):
            return not self.listed
        try:
            alone = [one.least for one in self._together]
        except ValueError:
            return False
        shortest = [least for least in alone if least is not None and (self.most is None or least <= self.most)]
        if len(shortest) < len(alone):
            return True
        return 0 < self.least <= _MOST_LEAST and max(shortest, default=self.least) < self.least and self._misses_length

    @cached_property
    def _misses_length(self) -> bool:
        """Whether it is proven that no string has an allowed length."""
        letters, can, pieces = self._spelling.letters, self._can, self._spelling.pieces_to_fill
        most = self.most if self.most is not None and self.most <= _MOST_LEAST else ""
        long = Expression(rf"[\s\S]{{{self.least},{most}}}", letters, can, pieces=pieces)
        try:
            return Intersection([*self._expressions, long], letters, can).least is None
        except ValueError:  # they are too large together
            return False

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
        spelling: the model's tokens. Character models may lack some digits.

    Attributes:
        unread: a number may be allowed that is not found, since it has too many digits or is one of too many.
    """

    def __init__(self, way: Way, spelling: Spelling) -> None:
        self._digits = [digit for digit in digits if spelling.cost(digit.encode()) < math.inf]
        self.whole = "number" not in way.types
        self.listed = None
        if way.values is not None:
            self.listed = [dumped(value) for value in way.values if types_of(value) & {"integer", "number"}]
        self._low, self._above = _limit(way, "minimum", "exclusiveMinimum", max)
        self._high, self._below = _limit(way, "maximum", "exclusiveMaximum", min)
        self._factors = [Decimal(str(abs(each))) for each in way.all_of("multipleOf") if each]
        self.unread = len(self._digits) < 10 and bool(self._factors)

    def completions(self, begun: str) -> Iterator[str]:
        """Texts that complete a number that starts with `begun`, the shortest first."""
        if self.listed is not None:
            yield from sorted((each[len(begun) :] for each in self.listed if each.startswith(begun)), key=len)
            return
        if not _BEGUN.fullmatch(begun):
            yield from ("", *self._digits[:2]) if "e" in begun.lower() else ()
            return
        if self._low is None and self._high is None and not self._factors:
            yield from ["", *self._digits[:2]] if begun[-1:].isdigit() else self._digits[:2]
            return
        with localcontext() as context:
            # These lose no digit.
            context.prec = 3 * _MOST_DIGITS + 2 * len(begun)
            found = self._shortest(begun)
            first = next(found, None)
        yield from [] if first is None else [first]
        # llguidance may want the last digit of a fraction to be another than 0.
        yield from (digit for digit in ("1", "5") if "." in begun and digit in self._digits)
        with localcontext() as context:
            context.prec = 3 * _MOST_DIGITS + 2 * len(begun)
            rest = list(itertools.islice(found, _MOST_NUMBERS))
        yield from rest
        if begun == "":
            yield from (f"-{rest}" for rest in self.completions("-"))

    @cached_property
    def none(self) -> bool:
        """Whether it is proven that there is no such number, in whatever digits."""
        if self.listed is not None:
            return not self.listed
        steps = [Fraction(each) for each in self._factors] + ([Fraction(1)] if self.whole else [])
        if self._low is None or self._high is None:
            return False
        low, high = Fraction(self._low), Fraction(self._high)
        if not steps:
            return low > high or (low == high and (self._above or self._below))
        step = Fraction(math.lcm(*(each.numerator for each in steps)), math.gcd(*(each.denominator for each in steps)))
        first = math.ceil(low / step) * step
        first += step if self._above and first == low else 0
        return first > high or (self._below and first == high)

    def _shortest(self, begun: str) -> Iterator[str]:
        """Digits and points behind which a number is complete, the shortest first."""
        point = "." in begun
        left_out = int(begun in ("", "-"))  # there has to be a digit before the point
        for length in range(_MOST_DIGITS):
            for fraction in range(1 if point or self.whole else max(1, length - left_out)):
                number = self._of_digits(begun, length - bool(fraction), fraction)
                if number is not None:
                    yield number[len(begun) :]

    @cached_property
    def worst(self) -> float:
        """Most tokens that complete any started number."""
        if self.listed is not None:
            return max(map(len, self.listed), default=0)
        if self._low is None and self._high is None and not self._factors:
            return 3 if self._digits else math.inf
        # llguidance does not know which digits are lacking: what it allows may lead nowhere.
        return _MOST_DIGITS + 4 if len(self._digits) == 10 else math.inf

    def _of_digits(self, begun: str, more: int, fraction: int) -> str | None:
        """A number that begins so and has so many digits more: the one nearest to 0.

        Where there is no point yet, so many digits of a fraction are among them.
        """
        sign, written = ("-", begun[1:]) if begun.startswith("-") else ("", begun)
        whole = written.replace(".", "")
        digits_before = len(whole) + more if "." in written else len(whole) + more - fraction
        scale = len(written.partition(".")[2]) + more if "." in written else fraction
        if not digits_before or (written == "0" and more > fraction) or (written.endswith(".") and not more):
            return None
        unit = Decimal(1).scaleb(-scale)
        low, high = Decimal(whole + "0" * more) * unit, Decimal(whole + "9" * more) * unit
        if not whole and digits_before > 1:
            low = Decimal("1" + "0" * (digits_before - 1))
        # As limits of what stands behind the sign.
        least, above, most, below = self._low, self._above, self._high, self._below
        if sign:
            least, above, most, below = most, below, least, above
            least, most = (None if each is None else -each for each in (least, most))
        if least is not None:
            low = max(low, least + unit if above and least >= low else least)
        if most is not None:
            high = min(high, most - unit if below and most <= high else most)
        try:
            nearest: Decimal | None
            if len(self._digits) < 10:
                nearest = self._of_some_digits(int(whole or 0), more, low, high, unit)
            else:
                nearest = self._nearest(low, high, unit)
        except InvalidOperation:  # more digits than are calculated with
            return None
        return None if nearest is None else f"{sign}{nearest:.{scale}f}"

    def _nearest(self, low: Decimal, high: Decimal, unit: Decimal) -> Decimal | None:
        """The smallest number between two others that is a multiple of a unit and holds all factors."""
        for factor in self._factors:
            low = (low / factor).to_integral_value("ROUND_CEILING") * factor
        nearest = (low / unit).to_integral_value("ROUND_CEILING") * unit
        return None if nearest > high or any(nearest % factor for factor in self._factors) else nearest

    def _of_some_digits(self, whole: int, more: int, low: Decimal, high: Decimal, unit: Decimal) -> Decimal | None:
        """The same by a search, digit by digit, of the numbers that begin with `whole` and go on with what there is."""
        least = int((low / unit).to_integral_value("ROUND_CEILING"))
        most = int((high / unit).to_integral_value("ROUND_FLOOR"))
        units = [(factor / unit).as_integer_ratio()[0] for factor in self._factors]  # in lowest terms
        multiple = math.lcm(*units)
        lost: set[tuple[int, int, bool, bool]] = set()  # beginnings that lead nowhere, as far as it matters
        waiting = [(whole, more)]
        for _ in range(_MOST_BEGINNINGS):
            if not waiting:
                break
            begun, left = waiting.pop()
            first, last = begun * 10**left, (begun + 1) * 10**left - 1
            look = (left, begun % multiple, first >= least, last <= most)
            if last < least or first > most or look in lost:
                continue
            if not left and not begun % multiple:
                return begun * unit
            lost.add(look)
            waiting += [(10 * begun + int(digit), left - 1) for digit in reversed(self._digits)] if left else []
        return None


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
