"""Groups the characters that patterns treat alike, so that a few representatives cover all of Unicode.

A search over possible continuations would have to try every character. A regular expression sees a character only
through its tests (`[a-z]`, `.`), and a word only through its letters, so characters with the same results lead to the
same state, and one of them is enough.
"""

import codecs
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

from .characters import INVISIBLE_CODES, fold, is_word

CODE_POINTS = 0x110000
_SURROGATES = range(0xD800, 0xE000)
_BLOCK = 256
# Outside of these ranges code points are not assigned or for private use, and so alike but for their numbers.
ASSIGNED = ((0, 0x40000), (0xE0000, 0xE1000))
_UNASSIGNED = ((0x40000, 0xE0000), (0xE1000, CODE_POINTS))
# Classes are renumbered before one of their numbers gets larger than this.
_MOST_CLASSES = 1 << 20
# Characters that are tried before all that start with the same bytes, less one.
_SAMPLES = 7
# Characters that are looked at together.
_CHARACTERS_TOGETHER = 64
# Tests for one character of which is kept what they let pass.
_KEPT_TESTS = 1 << 8
_A_CODE_POINT = re.compile(r"\\U([0-9a-f]{8})")
_ONE_CODE_POINT = re.compile(r"\[?\\U([0-9a-f]{8})\]?")


@lru_cache(maxsize=1)
def all_characters() -> str:
    """Every code point in order, with the surrogates, which no text contains, replaced by NUL."""
    codes = np.arange(CODE_POINTS, dtype="<u4")
    codes[_SURROGATES.start : _SURROGATES.stop] = 0
    return codes.tobytes().decode("utf-32-le")


class CharacterClasses:
    """Sorts all characters by how patterns treat them.

    Args:
        tests: patterns for exactly one character.
        letters: the folded characters that words are compared with.
        ignore_case: words are compared with case folded away.
    """

    def __init__(self, tests: Sequence[re.Pattern[str]], letters: Iterable[str], ignore_case: bool) -> None:
        known = frozenset(letters)
        keys = np.array(_kinds(ignore_case))
        most = int(keys.max()) + 1
        for letter in known:
            keys[ord(letter)] = most = most + 1
        spelled: dict[tuple[object, ...], int] = {}
        for code, parts in _folds(ignore_case).items():
            if not known.isdisjoint(parts):
                seen = (int(_kinds(ignore_case)[code]), *(part if part in known else kind_of(part) for part in parts))
                keys[code] = most + 1 + spelled.setdefault(seen, len(spelled))
        self._classes = _divided(keys, tests)
        self._found: dict[tuple[int, int], tuple[str, ...]] = {}

    @classmethod
    def crossed(
        cls,
        groupings: Sequence["CharacterClasses"],
        tests: Sequence[re.Pattern[str]],
        of_ascii: Callable[[str], Hashable],
    ) -> "CharacterClasses":
        """The characters grouped by groupings and tests at once; those of ASCII also by the results of a function."""
        keys, numbers = np.zeros(CODE_POINTS, dtype=np.int64), dict[Hashable, int]()
        keys[:128] = [numbers.setdefault(of_ascii(chr(code)), 1 + len(numbers)) for code in range(128)]
        for each in groupings:
            keys = np.unique(keys * (int(each._classes.max()) + 1) + each._classes, return_inverse=True)[1]
        crossed = cls.__new__(cls)
        crossed._classes, crossed._found = _divided(keys, tests), {}
        return crossed

    def of(self, char: str) -> int:
        """The class of a character."""
        return int(self._classes[ord(char)])

    def of_all(self, chars: Sequence[str]) -> list[int]:
        """The classes of characters."""
        found: list[int] = self._classes[list(map(ord, chars))].tolist()
        return found

    def representatives(self, first: int = 0, last: int = CODE_POINTS - 1) -> tuple[str, ...]:
        """One character for each class that occurs among the code points from `first` to `last`."""
        if (first, last) not in self._found:
            classes = self._classes[first : last + 1]
            place = np.full(int(classes.max()) + 1, -1)
            # Of several values for one index the last is kept: that of the first character.
            place[classes[::-1]] = np.arange(last, first - 1, -1)
            codes = place[place >= 0]
            self._found[first, last] = tuple(chr(code) for code in codes.tolist() if code not in _SURROGATES)
        return self._found[first, last]


def characters_behind(pending: bytes) -> tuple[int, int, int]:
    """The first and last code point whose UTF-8 starts with these bytes, and how many bytes are missing.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.text.character_classes import characters_behind
    >>> [hex(code) for code in characters_behind(b"\\xf0\\x9f")]
    ['0x1f000', '0x1ffff', '0x2']

    ```
    """
    length = 4 if pending[0] >= 0xF0 else 3 if pending[0] >= 0xE0 else 2
    missing = length - len(pending)
    code = pending[0] & (0xFF >> (length + 1))
    for byte in pending[1:]:
        code = code << 6 | byte & 0x3F
    # No character is encoded in more bytes than it needs, and none is beyond the last code point.
    least = {2: 0x80, 3: 0x800, 4: 0x10000}[length]
    first, last = code << 6 * missing, ((code + 1) << 6 * missing) - 1
    return max(first, least), min(last, CODE_POINTS - 1), missing


def samples_between(first: int, last: int) -> list[str]:
    """A few characters spread evenly from the first to the last of these code points."""
    spread = (chr(first + (last - first) * part // _SAMPLES) for part in range(_SAMPLES + 1))
    return [char for char in spread if not is_surrogate(char)]


def continues(pending: bytes, more: bytes) -> bool:
    """Whether `more` continues a character that starts with `pending`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(pending + more)
    except UnicodeDecodeError:
        return False
    return True


def is_surrogate(char: str) -> bool:
    """Whether it is half of a surrogate pair in UTF-16, which no text in UTF-8 contains."""
    return ord(char) in _SURROGATES


def coarse_key(char: str, ignore_case: bool) -> Hashable:
    """What words of ASCII letters see of a character: two with the same key lead to the same state."""
    parts = fold(char, ignore_case)
    return tuple(part if part.isascii() else kind_of(part) for part in parts)


def coarse_keys(chars: Iterable[str], ignore_case: bool) -> dict[str, Hashable]:
    """The same for many characters. Most have no other form, which is found out for many together."""
    ordered, found = sorted(chars), dict[str, Hashable]()
    for start in range(0, len(ordered), _CHARACTERS_TOGETHER):
        block = "".join(ordered[start : start + _CHARACTERS_TOGETHER])
        alike = block.isalnum() and block[0] > "\x7f" and block.casefold() == block
        if alike and unicodedata.is_normalized("NFKD", block) and INVISIBLE_CODES.isdisjoint(map(ord, block)):
            found |= dict.fromkeys(block, ((True, False, False),))
        else:
            found |= {char: coarse_key(char, ignore_case) for char in block}
    return found


@lru_cache(maxsize=1 << 16)
def kind_of(char: str) -> tuple[bool, bool, bool]:
    """Whether it is a word character, white space, ASCII."""
    return is_word(char), char.isspace(), char.isascii()


def _divided(keys: np.ndarray, tests: Sequence[re.Pattern[str]]) -> np.ndarray:
    """Classes, (code points,), divided by tests for exactly one character."""
    for test in tests:
        if 2 * int(keys.max()) >= _MOST_CLASSES:
            keys = _renumbered(keys)
        keys = keys * 2
        for first, last in _passing(test):
            keys[first:last] += 1
    return _renumbered(keys)


@lru_cache(maxsize=_KEPT_TESTS)
def _passing(test: re.Pattern[str]) -> list[tuple[int, int]]:
    """The code points that a test for exactly one character lets pass, as pairs of the first and the one after the
    last."""
    told = [int(code, 16) for code in _A_CODE_POINT.findall(test.pattern)]
    if _ONE_CODE_POINT.fullmatch(test.pattern) and not test.flags & re.IGNORECASE:
        return [(told[0], told[0] + 1)]
    many, found, scanned = re.compile(f"(?:{test.pattern})+", test.flags), [], [*ASSIGNED]
    for first, last in _UNASSIGNED:
        if any(first <= code < last for code in told):
            scanned.append((first, last))
        elif test.fullmatch(chr(first)):
            found.append((first, last))
    return found + [run.span() for span in scanned for run in many.finditer(all_characters(), *span)]


def _renumbered(keys: np.ndarray) -> np.ndarray:
    """The same classes, numbered without gaps in the same order."""
    used = np.zeros(int(keys.max()) + 1, dtype=bool)
    used[keys] = True
    return (np.cumsum(used, dtype=np.int32) - 1)[keys]


@lru_cache(maxsize=2)
def _codes_of(category: str) -> np.ndarray:
    """The code points of a general category, named by its first letters: format characters, or marks."""
    codes, categories = _categories()
    found = np.array([[*category.encode()]], dtype=np.uint8) == categories[:, : len(category)]
    return np.asarray(codes[found.all(axis=1)])


@lru_cache(maxsize=1)
def _categories() -> tuple[np.ndarray, np.ndarray]:
    """The code points that are assigned, (codes,), and their general categories, (codes, 2) as ASCII."""
    codes = np.concatenate([np.arange(first, last) for first, last in ASSIGNED])
    chars = "".join(all_characters()[first:last] for first, last in ASSIGNED)
    categories = "".join(map(unicodedata.category, chars)).encode()
    return codes, np.frombuffer(categories, dtype=np.uint8).reshape(-1, 2)


@lru_cache(maxsize=1)
def _invisible() -> frozenset[str]:
    return frozenset(map(chr, (*_codes_of("Cf").tolist(), *INVISIBLE_CODES)))


@lru_cache(maxsize=2)
def _folds(ignore_case: bool) -> dict[int, str]:
    """The code points whose folded form differs from themselves, with that form: see `fold`."""
    invisible = _invisible()
    found: dict[int, str] = dict.fromkeys(map(ord, invisible), "")
    for block in chain.from_iterable(range(first, last, _BLOCK) for first, last in ASSIGNED):
        chars = all_characters()[block : block + _BLOCK]
        if unicodedata.is_normalized("NFKD", chars) and chars.casefold() == chars:
            continue
        for code, char in enumerate(chars, block):
            text = unicodedata.normalize("NFKD", char)
            if ignore_case:
                text = unicodedata.normalize("NFKD", text.casefold())
            if text != char and code not in found and char != "\0":
                if not invisible.isdisjoint(text):
                    text = "".join(part for part in text if part not in invisible)
                found[code] = text
    return {code: found[code] for code in sorted(found)}


@lru_cache(maxsize=2)
def _kinds(ignore_case: bool) -> np.ndarray:
    """For every code point a small number for its kind: word character or not, white space or not, and so on."""
    kinds = np.zeros(CODE_POINTS, dtype=np.int32)
    for weight, pattern in ((1, r"\w+"), (2, r"\s+"), (4, r"[\x00-\x7f]+"), (16, r"\n")):
        for first, last in ASSIGNED:
            for run in re.compile(pattern).finditer(all_characters(), first, last):
                kinds[run.start() : run.end()] += weight
    kinds[_codes_of("M")] |= 8
    numbers: dict[tuple[object, ...], int] = {}
    for code, parts in _folds(ignore_case).items():
        if len(parts) != 1 or not parts[0].isalnum():
            key = tuple(map(kind_of, parts))
            kinds[code] += 32 * (1 + numbers.setdefault(key, len(numbers)))
    return kinds
