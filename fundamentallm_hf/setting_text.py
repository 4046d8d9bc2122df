"""A setting's value as it is typed and shown in the prompt loop, and settings as a JSON file.

What is shown can be typed again and means the same. This file knows nothing of models or terminals; which values a
setting takes is written in `settings.py`.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .entries import split_entries
from .errors import UserError
from .settings import GenerationSettings, Setting, find_setting

ASSIGNMENT = re.compile(r"([^\s=+]*[^\s=+-])\s*(\+=|-=|=|\s|$)(.*)", re.DOTALL)


def show_value(setting: Setting, value: Any) -> str:
    """The value as it can be typed; "not set" for what has none.

    Example:

    ```python
    >>> from fundamentallm_hf.settings import SETTINGS
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
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and not _is_plain(value) else str(value)


def _is_plain(text: str) -> bool:
    """Whether `text` is read back as it is: nothing at its ends that is taken away, nothing that looks like JSON."""
    return bool(text) and text == text.strip() and text[0] not in '["' and text.isprintable() and text != "not set"


def read_value(setting: Setting, typed: str, unescape: Callable[[str], str]) -> Any:
    """The value that `typed` stands for. Nothing is the default.

    Text in double quotes and lists in square brackets are JSON: so white space at the ends is kept, and a list may hold
    entries with commas.

    Raises:
        UserError: the setting does not take it.
    """
    typed = typed.strip()
    if not typed or typed == "not set":
        return setting.default
    value: Any = typed
    if typed[0] in '["' and setting.kind in (str, tuple):
        try:
            value = json.loads(typed)
        except ValueError:
            pass  # it only looks like JSON: [0-9] in a pattern, a quotation mark
        else:
            return setting.parse([value] if setting.kind is tuple and isinstance(value, str) else value)
    # The same setting has its escapes read by the command's option.
    return setting.parse(unescape(value) if setting.name == "stop" else value)


def read_assignment(
    settings: GenerationSettings, typed: str, unescape: Callable[[str], str] = str
) -> tuple[Setting, GenerationSettings]:
    """The settings after `name=value`; `name=` is the default again, and `+=` and `-=` change a list.

    Args:
        settings: those before.
        typed: what stands behind `/set`; a blank does for the `=`.
        unescape: reads escapes in stop texts.

    Returns:
        The setting that was named, and the settings.

    Raises:
        UserError: there is no such setting, it does not take the value, or it contradicts another one.
    """
    found = ASSIGNMENT.fullmatch(typed.strip())
    if not found:
        raise UserError(f"a setting is written name=value but is {typed!r}")
    setting, sign = find_setting(found[1]), found[2]
    value, before = read_value(setting, found[3], unescape), getattr(settings, setting.name)
    if sign in ("+=", "-="):
        if setting.kind is not tuple:
            raise UserError(f"{setting.label} is no list: write {setting.label}=value")
        if sign == "-=" and (missing := [entry for entry in value if entry not in before]):
            raise UserError(f"{setting.label} does not hold {missing[0]!r}: it is {show_value(setting, before)}")
        kept = tuple(entry for entry in before if entry not in value)
        value = kept if sign == "-=" else kept + value
    changed = settings.but(**{setting.name: value})
    changed.check()
    return setting, changed


def save_settings(settings: GenerationSettings, file: str, replace: bool = False) -> Path:
    """Write all settings as JSON.

    Raises:
        UserError: the file is there already and is not to be replaced, or cannot be written.
    """
    path = Path(file).expanduser()
    try:
        with path.open("w" if replace else "x", encoding="utf-8") as target:
            target.write(json.dumps(settings.to_dict(), indent=2, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise UserError(f"{file} exists: choose another name, or replace it with /save --force {file}") from None
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from error
    return path


def load_settings(file: str) -> GenerationSettings:
    """Read settings as JSON; what the file does not name has its default.

    Raises:
        UserError: the file cannot be read, holds something else, or a value that cannot be.
    """
    try:
        values = json.loads(Path(file).expanduser().read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} has to hold settings as JSON but does not: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f'{file} has to hold settings as JSON, {{"temperature": 0.8}}, but holds {values!r:.40}')
    settings = GenerationSettings().but(**values)
    settings.check()
    return settings
