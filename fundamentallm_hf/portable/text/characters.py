"""Case folding for comparison, and the characters that words are made of.

Two spellings that a reader takes for the same word have to match, so characters are compared in Unicode's compatibility
decomposition with case folded (The Unicode Standard, section 3.13, D145 and D147): "STRASSE" equals "straße", and a
soft hyphen, a zero-width space or a full-width letter cannot hide a word.
"""

import unicodedata
from functools import lru_cache

# Invisible characters that are not format characters (Default_Ignorable_Code_Point): the combining grapheme joiner,
# Hangul fillers, inherent Khmer vowels, variation selectors, and code points reserved for such.
_INVISIBLE = (
    range(0x034F, 0x0350),
    range(0x115F, 0x1161),
    range(0x17B4, 0x17B6),
    range(0x180B, 0x1810),
    range(0x2065, 0x2066),
    range(0x3164, 0x3165),
    range(0xFE00, 0xFE10),
    range(0xFFA0, 0xFFA1),
    range(0xFFF0, 0xFFF9),
    range(0xE0000, 0xE1000),
)
INVISIBLE_CODES = frozenset(code for span in _INVISIBLE for code in span)
# Scripts that are written without spaces: Thai, Lao, Myanmar, Khmer, kana, and the ideographs.
_UNSPACED = (
    range(0x0E00, 0x0F00),
    range(0x1000, 0x10A0),
    range(0x1780, 0x1800),
    range(0x3040, 0x3100),
    range(0x3400, 0x4DC0),
    range(0x4E00, 0xA000),
    range(0xF900, 0xFB00),
    range(0x20000, 0x323B0),
)


def is_invisible(char: str) -> bool:
    """Whether a reader sees nothing of it: format characters such as the soft hyphen, fillers, variation selectors."""
    return ord(char) in INVISIBLE_CODES or unicodedata.category(char) == "Cf"


@lru_cache(maxsize=1 << 16)
def fold(char: str, ignore_case: bool = True) -> str:
    """The folded form of `char`: zero, one or several characters.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.characters import fold
    >>> [fold(char) for char in "Aßﬁ"]
    ['a', 'ss', 'fi']

    ```
    """
    if is_invisible(char):
        return ""
    if unicodedata.is_normalized("NFKD", char) and (not ignore_case or char.casefold() == char):
        return char
    text = unicodedata.normalize("NFKD", char)
    if ignore_case:
        text = unicodedata.normalize("NFKD", text.casefold())
    return "".join(part for part in text if not is_invisible(part))


def fold_text(text: str, ignore_case: bool = True) -> str:
    """`text`, folded character by character."""
    if text.isascii():
        return text.casefold() if ignore_case else text
    return "".join(fold(char, ignore_case) for char in text)


@lru_cache(maxsize=1 << 16)
def is_word(char: str) -> bool:
    """Whether `char` is part of words: letters, digits, the underscore, and marks on them."""
    return char.isalnum() or char == "_" or unicodedata.category(char).startswith("M")


@lru_cache(maxsize=1 << 16)
def needs_boundary(char: str) -> bool:
    """Whether a word that begins or ends with `char` counts as whole only if no letter is next to it there.

    Not so for punctuation and emoji, nor in scripts without spaces, where a word has letters on both sides.
    """
    return is_word(char) and not any(ord(char) in span for span in _UNSPACED)
