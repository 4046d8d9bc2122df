"""Defines a setting: a name, a type, a default, a range and a help text, written once for all interfaces."""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..text.word_lists import join_weights, split_entries

NOUNS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    tuple: "text, or a list of texts, none empty,",
}
SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: half a surrogate pair, from an invalid argument, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_range(value: object, low: float, high: float) -> tuple[int, int] | None:
    """The least and the greatest number of a value such as 50, "50" or "40-60"; an en dash is a hyphen, too.

    Args:
        value: as it was given.
        low, high: the numbers that it may hold.

    Returns:
        None where it is neither a number nor a range of growing ones.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:[-\u2013]\s*([0-9]{1,9})\s*)?", str(value))
    if found is None:
        return None
    least, most = int(found[1]), int(found[2] or found[1])
    return (least, most) if low <= least <= most <= high else None


@dataclass(frozen=True)
class Setting:
    """One setting: its name, its values and its effect.

    Attributes:
        name: the name in Python; the option is the same with dashes.
        kind: `int`, `float`, `bool`, `str`, or `tuple` for a list of texts.
        default: its value when it is not given; None is "not set".
        help: its effect, for `--help` and the documentation.
        group: the heading it is listed under.
        low, high: the range, both ends included, or open at `low` where `above` is set.
        choices: the values a `str` may have.
        comma_separated: one text given for a list is split at its commas (see `split_entries`), not one entry.
        from_file: the command's option takes a file that holds the value; every other interface takes the value itself.
        is_json: a dict may be given too, and is converted to JSON text.
        is_weighted: every entry has a weight, as in `dragon:2`; a dict of entries and weights may be given too.
        is_range: its text is a whole number from `low` to `high`, or a range of two; a number may be given too.
        follows: the setting of the same group that it is listed after, if not in the order of the table.
        escaped: where it is typed, `\\n` and the like are read as escapes unless escapes are turned off.
    """

    name: str
    kind: type
    default: Any
    help: str
    group: str
    low: float | None = None
    high: float | None = None
    above: bool = False
    choices: tuple[str, ...] = ()
    comma_separated: bool = False
    from_file: bool = False
    is_json: bool = False
    is_weighted: bool = False
    escaped: bool = False
    is_range: bool = False
    follows: str = ""

    @property
    def label(self) -> str:
        """The name as users write it, for instance `max-tokens`."""
        return self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """The values it takes, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.is_range:
            return f"a whole number from {self.low} to {self.high}, or a range such as 40-60"
        if self.is_weighted:
            return "a dict of entries and weights, or text such as 'dragon:2, said:-1.5',"
        noun = "a dict or JSON text" if self.is_json else NOUNS[self.kind]
        if self.low is None:
            return noun
        low, high = (str(limit) if isinstance(limit, int) else f"{limit:g}" for limit in (self.low, self.high or 0))
        if self.high is None:
            return f"{noun} above {low}" if self.above else f"{noun} of at least {low}"
        if self.above:
            return f"{noun} above {low} and at most {high}"
        return f"{noun} from {low} to {high}"

    def parse(self, value: Any) -> Any:
        """`value` converted to its type, from any source: Python, the command line, a file.

        Raises:
            UsageError: the value is not valid.
        """
        if value is None and self.default is None:
            return None
        refusal = self.refusal(value)
        if self.kind is tuple:
            if self.is_weighted and isinstance(value, dict):
                try:
                    value = join_weights(value)
                except ValueError:
                    raise refusal from None
            if isinstance(value, str):  # items of a list are never split: their commas are part of them
                value = split_entries(value) if self.comma_separated else [value]
            if not isinstance(value, list | tuple) or not all(isinstance(entry, str) and entry for entry in value):
                raise refusal
            if not all(map(is_text, value)):
                raise refusal
            return tuple(value)
        if self.is_json and isinstance(value, dict):
            try:
                return json.dumps(value)
            except (TypeError, ValueError):
                raise refusal from None
        if self.is_range:
            numbers = read_range(value, self.low or 0, self.high or math.inf)
            if numbers is None:
                raise refusal
            return "-".join(map(str, dict.fromkeys(numbers)))
        if self.kind is bool:
            switch = value if isinstance(value, bool) else SWITCH.get(str(value).lower())
            if switch is None:
                raise refusal
            return switch
        if isinstance(value, bool) or (self.kind is str and not (isinstance(value, str) and is_text(value))):
            raise refusal
        try:
            parsed = self.kind(value)
        except (TypeError, ValueError, OverflowError):
            raise refusal from None
        if self.choices and parsed not in self.choices:
            raise refusal
        if self.kind is not str:
            if isinstance(value, float) and parsed != value:  # 2.5 tokens, or not a number
                raise refusal
            if not self._holds(parsed):
                raise refusal
        return parsed

    def refusal(self, value: Any) -> UsageError:
        """The error for a value that the setting does not accept."""
        line = f"{self.label} has to be {self.expected} but is {value!r}"
        return UsageError(line, setting=self.name, value=value, expected=self.expected)

    def _holds(self, number: float) -> bool:
        above_low = self.low is None or (number > self.low if self.above else number >= self.low)
        return math.isfinite(number) and above_low and (self.high is None or number <= self.high)
