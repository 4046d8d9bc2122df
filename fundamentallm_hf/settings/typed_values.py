"""Settings as typed and displayed in the prompt loop.

A displayed value can be typed again with the same meaning. `generation_settings.py` defines the values that a setting
accepts.
"""

import codecs
import json
import re
from contextlib import suppress
from typing import Any

from fundamentallm_hf.portable.controls.setting import Setting
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.text.word_lists import split_entries

from .generation_settings import SETTINGS, GenerationSettings, find_setting

ASSIGNMENT = re.compile(r"([^\s=+]*[^\s=+-])\s*(\+=|-=|=|\s|$)(.*)", re.DOTALL)

# Half of a surrogate pair is not a character, so its escape stays as it was typed.
_ESCAPE = re.compile(
    r"\\(?:[\\ntr]|x[\da-fA-F]{2}|u(?![dD][89a-fA-F])[\da-fA-F]{4}|U(?:0010|000[1-9a-fA-F])[\da-fA-F]{4})"
)


def unescape(text: str) -> str:
    r"""Convert `\n`, `\t`, `\x41`, `\u00e9` and doubled backslashes to characters; the rest stays as typed."""
    return _ESCAPE.sub(lambda escape: codecs.decode(escape[0], "unicode_escape"), text)


def short_repr(value: Any) -> str:
    """The value as Python writes it, in at most 80 characters, for a line about a value that cannot be used."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"


def show_value(setting: Setting, value: Any) -> str:
    """The value as it can be typed; "not set" if there is none.

    Example:

    ```python
    >>> from fundamentallm_hf.settings.generation_settings import SETTINGS
    >>> show_value(SETTINGS["bad_words"], ("ran", "very happy"))
    'ran, very happy'
    >>> show_value(SETTINGS["stop"], ("The end", "\\n"))
    '["The end", "\\\\n"]'

    ```
    """
    if value is None or value == ():
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    if isinstance(value, tuple):
        plain = ", ".join(value)
        if setting.comma_separated and _is_plain(plain) and split_entries(plain) == list(value):
            return plain
        if len(value) == 1 and not setting.comma_separated and _is_plain(plain) and "\\" not in plain:
            return plain
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return str(value)
    return (
        value
        if _is_plain(value, '"') and not (setting.escaped and "\\" in value)
        else json.dumps(value, ensure_ascii=False)
    )


def _is_plain(text: str, quotes: str = '["') -> bool:
    """Whether `text` is read back unchanged: no white space at its ends, and nothing that looks like JSON."""
    return bool(text) and text == text.strip() and text[0] not in quotes and text.isprintable() and text != "not set"


def list_settings(settings: GenerationSettings) -> list[str]:
    """A line for every setting with its value, under the headings of their groups; changed values are marked."""
    lines, width = [], max(len(setting.label) for setting in SETTINGS.values()) + 2
    for group in dict.fromkeys(setting.group for setting in SETTINGS.values()):
        lines += ["", group]
        for setting in (each for each in SETTINGS.values() if each.group == group):
            value = getattr(settings, setting.name)
            mark, default = " ", ""
            if value != setting.default:
                mark, default = "*", f"  (default: {show_value(setting, setting.default)})"
            lines.append(f"{mark} {setting.label:{width}}{show_value(setting, value)}{default}")
    return lines if settings == GenerationSettings() else [*lines, "", "* differs from the default"]


def read_value(setting: Setting, typed: str, escape: bool = True) -> Any:
    """The value of typed text. Empty text is the default.

    Text in double quotes and lists in square brackets are JSON: so white space at the ends is kept, and a list may hold
    entries with commas.

    Args:
        setting: the setting.
        typed: the typed text.
        escape: read escapes if the setting has them.

    Raises:
        UserError: the setting does not accept it.
    """
    typed = typed.strip()
    if not typed or typed == "not set":
        return setting.default
    quotes = '["' if setting.kind is tuple else '"' if setting.kind is str else ""
    if typed[0] in quotes:
        # Anything but text or a list of texts only looks like JSON: [0-9] in a pattern, a quotation mark.
        with suppress(ValueError, RecursionError):
            read = json.loads(typed)
            entries = [read] if isinstance(read, str) else read
            if all(isinstance(entry, str) for entry in entries):
                return setting.parse(entries if setting.kind is tuple else read)
    return setting.parse(unescape(typed) if escape and setting.escaped else typed)


def read_assignment(
    settings: GenerationSettings, typed: str, escape: bool = True
) -> tuple[Setting, GenerationSettings]:
    """The settings after `name=value`; `name=` restores the default, and `+=` and `-=` change a list.

    Args:
        settings: the settings before.
        typed: the text after `/set`; a blank may replace the `=`.
        escape: read escapes, as in `read_value`.

    Returns:
        The named setting, and the settings.

    Raises:
        UserError: there is no such setting, it does not accept the value, or it contradicts another one.
    """
    found = ASSIGNMENT.fullmatch(typed.strip())
    if not found:
        raise UserError(f"a setting is written name=value but is {typed!r}")
    setting, sign = find_setting(found[1]), found[2]
    value, before = read_value(setting, found[3], escape), getattr(settings, setting.name)
    if sign in ("+=", "-="):
        if setting.kind is not tuple:
            raise UserError(f"{setting.label} is no list: write {setting.label}=value")
        if sign == "-=" and (missing := [entry for entry in value if entry not in before]):
            raise UserError(f"{setting.label} does not hold {missing[0]!r}: it is {show_value(setting, before)}")
        kept = tuple(entry for entry in before if entry not in value)
        value = kept if sign == "-=" else kept + value
    changed = settings.replace(**{setting.name: value})
    changed.check()
    return setting, changed
