"""The names of texts in a tree: their first words, whole and without punctuation before them."""

import unicodedata
from collections.abc import Iterator

NAME_LENGTH = 40
# Texts whose names start with that many equal letters look alike in a list.
ALIKE = 16
# Where a text is cut, a word is looked for within that many characters on both sides.
_NEAR = 80


def first_words(text: str, length: int = NAME_LENGTH) -> str:
    """The first words of a text on one line, at most `length` characters; empty where it has none.

    Example:

    ```python
    >>> from fundamentallm_hf.generation.text_names import first_words
    >>> first_words("  Once upon\\na time there was", 20)
    'Once upon a time…'
    >>> first_words(", there was")
    'there was'

    ```
    """
    start = next((index for index, char in enumerate(text) if _is_letter(char)), len(text))
    return one_line(text[start:], length)


def words_added(before: str, added: str) -> str:
    """The first words of what was added to a text; a word that was started before is whole.

    Example:

    ```python
    >>> from fundamentallm_hf.generation.text_names import words_added
    >>> words_added("There was a g", "irl.")
    'girl.'

    ```
    """
    start = before[-_NEAR:]
    words = _words_in(start + added[:_NEAR])
    amid = next((begin for begin, end in words if begin < len(start) < end), len(start))
    return first_words(start[amid:] + added)


def _words_in(text: str) -> Iterator[tuple[int, int]]:
    """Where the words of a text begin and end; an apostrophe between letters belongs to its word."""
    begin = None
    for index in range(len(text) + 1):
        inside = index < len(text) and (
            _is_letter(text[index])
            or (
                text[index] in "'\N{RIGHT SINGLE QUOTATION MARK}"
                and begin is not None
                and _is_letter(text[index - 1])
                and _is_letter(text[index + 1 : index + 2])
            )
        )
        if inside and begin is None:
            begin = index
        elif not inside and begin is not None:
            yield begin, index
            begin = None


def _is_letter(char: str) -> bool:
    """Whether a character is a letter, a mark on one, or a digit."""
    return char == "_" or (bool(char) and unicodedata.category(char)[0] in "LNM")


def one_line(text: str, length: int = NAME_LENGTH) -> str:
    """The start of a text on one line, cut after a word, at most `length` characters."""
    line = " ".join(text[: 20 * length].split())
    line = "".join(char for char in line if char.isprintable())
    if len(line) <= length:
        return line
    cut = line[:length].rpartition(" ")[0] or line[: length - 1]
    return f"{cut}…"
