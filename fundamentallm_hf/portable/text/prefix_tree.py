"""Many texts as arrays of characters, and their prefixes as a tree, so that all of them are read at once.

This file knows nothing of tokens, and of patterns only that they read one character after another.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from .character_classes import CODE_POINTS

# Characters of a text that are part of the tree; the rest of a longer one is read alone.
DEEPEST = 32

ReadState = TypeVar("ReadState", bound=Hashable)


class CodedTexts(NamedTuple):
    """Texts as one array of code points.

    Attributes:
        codes: (characters,) int32, the code points of the texts.
        starts: (texts,) where each text starts in them.
        lengths: (texts,) the number of its characters.
    """

    codes: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> "CodedTexts":
        """Encode texts."""
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int32)
        return cls(codes, lengths.cumsum() - lengths, lengths)

    def chosen(self, which: np.ndarray) -> "CodedTexts":
        """Some of the texts, by a mask or their indices."""
        return self._replace(starts=self.starts[which], lengths=self.lengths[which])

    def behind(self) -> "CodedTexts":
        """What is left of the texts, none of which is empty, without the first character."""
        return self._replace(starts=self.starts + 1, lengths=self.lengths - 1)

    def beginning(self, char: str) -> np.ndarray:
        """(texts,) bool: which of them, none of which is empty, begin with a character."""
        return np.asarray(self.codes[self.starts] == ord(char))

    def ending(self, char: str) -> np.ndarray:
        """(texts,) bool: which of them end in a character."""
        if not len(self.codes):
            return np.zeros(len(self.lengths), dtype=bool)
        last = self.codes[(self.starts + self.lengths - 1).clip(min=0)]
        return np.asarray((last == ord(char)) & (self.lengths > 0))

    def characters(self) -> list[str]:
        """The characters of all texts that the codes were made of, in order."""
        used = np.zeros(CODE_POINTS, dtype=bool)
        used[self.codes] = True
        return list(map(chr, used.nonzero()[0].tolist()))


class Letters:
    """Characters, those that are alike as one letter.

    Args:
        keys: tells for each character which others are like it.

    Attributes:
        shown: the letters, by number: the first character of each.
        numbers: (code points,) int32, the number of the letter of each character.
    """

    def __init__(self, keys: Mapping[str, Hashable]) -> None:
        ordered = sorted(keys)
        seen: dict[Hashable, int] = {}
        numbers = [seen.setdefault(keys[char], len(seen)) for char in ordered]
        self.numbers = np.zeros(1 + max(map(ord, ordered[-1:]), default=0), dtype=np.int32)
        self.numbers[list(map(ord, ordered))] = numbers
        first: dict[int, str] = {}
        for char, number in zip(ordered, numbers, strict=True):
            first.setdefault(number, char)
        self.shown = list(first.values())


class PrefixTree:
    """The prefixes of texts as nodes, ordered by their length.

    Args:
        texts: the texts.
        letters: which characters are alike; the nodes are the prefixes that differ in letters.

    Attributes:
        letters: the letters, by number.
        parents: (nodes,) the node one character before each; the root is node 0.
        characters: (nodes,) the number of the last letter of each.
        depths: the nodes of each length, as pairs of the first and the one after the last.
        ends: (texts,) the node of each text, or of its first `DEEPEST` characters.
        longer: the letters behind those, by index, for the texts that are longer.
    """

    def __init__(self, texts: CodedTexts, letters: Letters) -> None:
        self.letters, width = letters.shown, len(letters.shown)
        self.ends = np.zeros(len(texts.lengths), dtype=np.int32)
        self.depths: list[tuple[int, int]] = []
        parents, characters = [np.zeros(1, np.int32)], [np.zeros(1, np.int32)]
        # Of the texts that are long enough: their indices, and which of the nodes of a length each has reached.
        at = np.arange(len(texts.lengths))
        reached = np.zeros(len(at), dtype=np.int64)
        first, count = 0, 1
        for depth in range(min(DEEPEST, int(texts.lengths.max(initial=0)))):
            reached, at = (each[texts.lengths[at] > depth] for each in (reached, at))
            keys = reached * width + letters.numbers[texts.codes[texts.starts[at] + depth]]
            found, reached = np.unique(keys, return_inverse=True)
            above, last = np.divmod(found, width)
            parents.append((first + above).astype(np.int32))
            characters.append(last.astype(np.int32))
            self.ends[at] = count + reached
            self.depths.append((count, count + len(found)))
            first, count = self.depths[-1]
        self.parents, self.characters = np.concatenate(parents), np.concatenate(characters)
        self.longer = {
            index: [letters.shown[letters.numbers[code]] for code in texts.codes[start + DEEPEST : start + length]]
            for index, start, length in self._beyond(texts)
        }

    @staticmethod
    def _beyond(texts: CodedTexts) -> list[tuple[int, int, int]]:
        """The index, start and length of each text that the tree does not hold whole."""
        which = (texts.lengths > DEEPEST).nonzero()[0]
        return [*zip(which.tolist(), texts.starts[which].tolist(), texts.lengths[which].tolist(), strict=True)]


def read_together(
    texts: CodedTexts, start: ReadState, step: Callable[[ReadState, str], ReadState]
) -> tuple[np.ndarray, list[ReadState]]:
    """Read texts, each from the same state; each state is asked once for a character at one place of the texts.

    Args:
        texts: the texts.
        start: the state before them.
        step: the state after one more character.

    Returns:
        (texts,) the number of the state after each text, and the states by number.
    """
    states, numbers = [start], {start: 0}
    after = np.zeros(len(texts.lengths), dtype=np.int64)
    at = np.arange(len(after))
    for depth in range(int(texts.lengths.max(initial=0))):
        at = at[texts.lengths[at] > depth]
        pairs, place = np.unique(after[at] * CODE_POINTS + texts.codes[texts.starts[at] + depth], return_inverse=True)
        told = []
        for number, code in (divmod(pair, CODE_POINTS) for pair in pairs.tolist()):
            state = step(states[number], chr(code))
            if state not in numbers:
                numbers[state] = len(states)
                states.append(state)
            told.append(numbers[state])
        after[at] = np.array(told, dtype=np.int64)[place]
    return after, states
