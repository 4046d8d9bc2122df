"""Parses lists of words written as one text."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

# A higher weight would leave a word hardly any alternative, which is what `must_include` is for.
HEAVIEST = 20.0
_WEIGHTED = "a dict of entries and weights, or a list of entries such as 'dragon:2',"
_REGEX = re.compile(r"/(?:\\.|[^\\])+/", re.DOTALL)
# A weight may follow a regular expression; elsewhere it is part of the entry anyway.
_ENTRY = re.compile(
    r"\s*(?:(/(?:\\.|[^\\])*?/(?:\s*:\s*[-+.\w]+)?)(?=\s*(?:,|\Z))|((?:\\,|[^,])*))\s*(?:,|\Z)", re.DOTALL
)


def split_entries(text: str) -> list[str]:
    r"""The entries of a list written as one text, separated by commas.

    A `/` at the start of an entry opens a regular expression, in which commas do not separate entries. It ends at the
    next `/` that is followed by a comma, the end of the text, or a weight such as `:2`; `\/` does not end it. Outside
    expressions `\,` is a comma that belongs to the entry.

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


def read_text_list(name: str, value: Any, split: bool = False) -> tuple[str, ...]:
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


def read_weights(value: Any) -> dict[str, float]:
    r"""Entries with weights.

    Args:
        value: a dict of entries and weights, text such as "dragon:2, said:-1.5", or a list of such entries. The weight
            is what follows the last colon.

    Returns:
        The weight of each entry. The weights of one that is given several times are added up.

    Raises:
        ValueError: something is no entry with a weight; says what.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.word_lists import read_weights
    >>> read_weights(r"dragon:2, said:-1.5, /[0-9]{1,4}/:-inf")
    {'dragon': 2.0, 'said': -1.5, '/[0-9]{1,4}/': -inf}

    ```
    """
    if isinstance(value, Mapping):
        entries, weights = tuple(value), tuple(value.values())
        if not {*map(type, weights)} <= {int, float}:
            # Some equal others that are valid, and some are no keys of a cache.
            return _weights_of.__wrapped__(entries, weights)
        return dict(_weights_of(entries, weights))
    parts = split_entries(value) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(entry, str) for entry in parts):
        raise ValueError(f"the value has to be {_WEIGHTED} but is {value!r}")
    return dict(_weights_of(tuple(parts), None))


@lru_cache(maxsize=8)
def _weights_of(entries: tuple[Any, ...], weights: tuple[Any, ...] | None) -> dict[str, float]:
    """The weight of each entry, which is part of the entry if `weights` is None."""
    found: dict[str, float] = {}
    for item in map(_split_weight, entries) if weights is None else zip(entries, weights, strict=True):
        entry, weight = item
        if not isinstance(entry, str) or not entry.strip():
            raise ValueError(f"the value has to be {_WEIGHTED} but holds {entry!r}")
        word = entry.strip()
        found[word] = found.get(word, 0.0) + _weight(word, weight)
    return {word: _weight(word, total) for word, total in found.items()}


def join_weights(weights: Mapping[Any, Any]) -> list[str]:
    """A dict of entries and weights as a list of entries that `read_weights` takes.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.word_lists import join_weights
    >>> join_weights({"dragon": 2.0, "said": -1.5})
    ['dragon:2', 'said:-1.5']

    ```

    Raises:
        ValueError: something is no entry or no weight; says what.
    """
    return [
        f"{entry}:{f'{weight:g}' if float(f'{weight:g}') == weight else repr(weight)}"
        for entry, weight in read_weights(weights).items()
    ]


def _split_weight(entry: str) -> tuple[str, str]:
    word, colon, weight = entry.rpartition(":")
    if not colon:
        raise ValueError(f"every entry has to have a weight, as in 'dragon:2', but there is {entry!r}")
    return word, weight


def _weight(entry: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not number <= HEAVIEST:
        raise ValueError(
            f"the weight of {entry!r} has to be a number of at most {HEAVIEST:g}, or -inf, but is {value!r}"
        )
    return number
