"""How users write lists of words: in one text, or in a file. This file knows nothing of what the entries mean."""

import re
from pathlib import Path

_REGEX = re.compile(r"/(?:\\.|[^\\])+/", re.DOTALL)
_ENTRY = re.compile(r"\s*(?:(/(?:\\.|[^\\])*?/)(?=\s*(?:,|\Z))|((?:\\,|[^,])*))\s*(?:,|\Z)", re.DOTALL)


def split_entries(text: str) -> list[str]:
    r"""The entries of a list written as one text, separated by commas.

    A `/` at the beginning of an entry opens a regular expression, in which commas separate nothing. It ends at the next
    `/` that stands before a comma or the end of the text; `\/` does not end it. Outside of expressions `\,` is a comma
    that belongs to the entry.

    Args:
        text: the entries; white space around them and empty ones do not count.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.word_lists import split_entries
    >>> split_entries(r"dragon, /cats?|dogs{1,2}/, and\, or")
    ['dragon', '/cats?|dogs{1,2}/', 'and, or']

    ```
    """
    entries = [found[1] or found[2].strip().replace(r"\,", ",") for found in _ENTRY.finditer(text)]
    return [entry for entry in entries if entry]


def read_entries(file: str | Path) -> list[str]:
    """The entries of a list file: one a line, in UTF-8. Empty lines and lines that begin with `#` are left out.

    Raises:
        ValueError: the file cannot be read, or is no text.
    """
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read the list {str(file)!r}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the list {str(file)!r} has to be UTF-8 text but is not (byte {error.start})") from error
    lines = (line.strip() for line in text.splitlines())
    return [line.removeprefix("\\") if line.startswith("\\#") else line for line in lines if line and line[0] != "#"]


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
