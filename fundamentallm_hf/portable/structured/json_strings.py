"""Strings of JSON that may be cut off anywhere: in an escape, or in a character of several bytes."""

import json
import re
from collections.abc import Iterator

from .schema_scalars import rests_of_character

_BROKEN = re.compile(rb"\\(u[0-9a-fA-F]{0,3})?\Z")


def string_end(raw: bytes, data: bytes, index: int) -> int:
    """The index in `data` of the quotation mark that ends the string; -1 where there is none."""
    backslashes = len(raw) - len(raw.rstrip(b"\\"))
    index += backslashes % 2
    while index < len(data):
        if data[index] == 0x5C:
            index += 1
        elif data[index] == 0x22:
            return index
        index += 1
    return -1


def read_string(raw: bytes) -> str | None:
    """The text of a string, given the bytes between its quotation marks; None where it is cut off."""
    try:
        return str(json.loads(b'"' + raw + b'"'))
    except ValueError:
        return None


def read_number(raw: bytes) -> object:
    """A number or word, given its bytes; None where it is cut off."""
    try:
        return json.loads(raw)
    except ValueError:
        return None


def broken(raw: bytes) -> bytes:
    """The unfinished escape at the end of a string; empty where there is none."""
    found = _BROKEN.search(raw)
    if found is None:
        return b""
    before = raw[: found.start() + 1]
    return found[0] if (len(before) - len(before.rstrip(b"\\"))) % 2 else b""


def mended(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A string that may be cut off within an escape or a character, and bytes that complete it."""
    begun = broken(raw)
    if begun == b"\\":
        yield from ((raw, rest) for rest in (b"n", b'"', b"\\"))
    elif begun:
        for code in (b"\\u0001", b"\\u001f", b"\\u0041"):
            if code.startswith(begun.lower()):
                yield raw, code[len(begun) :]
    else:
        yield from ((raw, rest) for rest in rests_of_character(raw))
