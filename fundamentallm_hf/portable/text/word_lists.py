"""Parses lists of words written as one text."""

import re
from typing import Any

_REGEX = re.compile(r"/(?:\\.|[^\\])+/", re.DOTALL)
_ENTRY = re.compile(r"\s*(?:(/(?:\\.|[^\\])*?/)(?=\s*(?:,|\Z))|((?:\\,|[^,])*))\s*(?:,|\Z)", re.DOTALL)


def split_entries(text: str) -> list[str]:
    r"""The entries of a list written as one text, separated by commas.

    A `/` at the start of an entry opens a regular expression, in which commas do not separate entries. It ends at the
    next `/` that is followed by a comma or the end of the text; `\/` does not end it. Outside expressions `\,` is a
    comma that belongs to the entry.

    Args:
        text: the entries; white space around them and empty entries are ignored.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.word_lists import split_entries
    >>> split_entries(r"dragon, /cats?|dogs{1,2}/, and\, or")
    ['dragon', '/cats?|dogs{1,2}/', 'and, or']

    ```
    """
    entries = [found[1] or found[2].strip().replace(r"\,", ",") for found in _ENTRY.finditer(text)]
    return [entry for entry in entries if entry]


def is_regex(entry: str) -> bool:
    """Whether an entry is a regular expression: `/…/`."""
    return _REGEX.fullmatch(entry) is not None


def split_alternatives(entry: str) -> list[str]:
    r"""The alternatives of an entry, separated by `|`; a regular expression is one, and `\|` is the character itself.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.word_lists import split_alternatives
    >>> split_alternatives("king|queen")
    ['king', 'queen']

    ```

    Raises:
        ValueError: an alternative is empty.
    """
    if is_regex(entry):
        return [entry]
    parts = [part.strip().replace(r"\|", "|") for part in re.split(r"(?<!\\)\|", entry)]
    if not all(parts):
        raise ValueError(f"an entry has to hold words between its | but is {entry!r}")
    return parts


def read_texts(name: str, value: Any, split: bool = False) -> tuple[str, ...]:
    """Reads a field that holds a list of texts; with `split`, one text is a list with commas, else a single item.

    Raises:
        ValueError: it holds anything else.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(split_entries(value)) if split else (value,)
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError(f"{name} has to be a list of texts but is {value!r}")
    for entry in value:
        if not isinstance(entry, str) or not entry:
            raise ValueError(f"{name} has to be a list of texts but holds {entry!r}")
    return tuple(value)
