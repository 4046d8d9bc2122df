"""Settings as they are typed and shown in the prompt loop.

What is shown can be typed again and means the same. This file knows nothing of models or terminals; which values a
setting takes is written in `generation_settings.py`.
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

# Half a surrogate pair is no character, so its escape stays as it was typed.
_ESCAPE = re.compile(
    r"\\(?:[\\ntr]|x[\da-fA-F]{2}|u(?![dD][89a-fA-F])[\da-fA-F]{4}|U(?:0010|000[1-9a-fA-F])[\da-fA-F]{4})"
)


def unescape(text: str) -> str:
    r"""`\n`, `\t`, `\x41`, `\u00e9` and a doubled backslash as characters, the rest as it was typed."""
    return _ESCAPE.sub(lambda escape: codecs.decode(escape[0], "unicode_escape"), text)


def show_value(setting: Setting, value: Any) -> str:
    """The value as it can be typed; "not set" for what has none.

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
    """Whether `text` is read back as it is: nothing at its ends that is taken away, nothing that looks like JSON."""
    return bool(text) and text == text.strip() and text[0] not in quotes and text.isprintable() and text != "not set"


def list_settings(settings: GenerationSettings) -> list[str]:
    """A line for every setting with its value, under the headings of their groups; what differs is marked."""
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
    """The value that `typed` stands for. Nothing is the default.

    Text in double quotes and lists in square brackets are JSON: so white space at the ends is kept, and a list may hold
    entries with commas.

    Args:
        setting: to which it belongs.
        typed: what was typed.
        escape: read escapes where the setting has some.

    Raises:
        UserError: the setting does not take it.
    """
    typed = typed.strip()
    if not typed or typed == "not set":
        return setting.default
    quotes = '["' if setting.kind is tuple else '"' if setting.kind is str else ""
    if typed[0] in quotes:
        # What is no text and no list of texts only looks like JSON: [0-9] in a pattern, a quotation mark.
        with suppress(ValueError, RecursionError):
            read = json.loads(typed)
            entries = [read] if isinstance(read, str) else read
            if all(isinstance(entry, str) for entry in entries):
                return setting.parse(entries if setting.kind is tuple else read)
    return setting.parse(unescape(typed) if escape and setting.escaped else typed)


def read_assignment(
    settings: GenerationSettings, typed: str, escape: bool = True
) -> tuple[Setting, GenerationSettings]:
    """The settings after `name=value`; `name=` is the default again, and `+=` and `-=` change a list.

    Args:
        settings: those before.
        typed: what stands behind `/set`; a blank does for the `=`.
        escape: read escapes, as in `read_value`.

    Returns:
        The setting that was named, and the settings.

    Raises:
        UserError: there is no such setting, it does not take the value, or it contradicts another one.
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
