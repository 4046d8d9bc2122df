"""Matches lists of words, phrases and regular expressions against text, with the probability of each match.

An entry in slashes is a regular expression, any other entry is words (see `word_matcher.py`). This file combines the
two machines and gives every state a probability that the text goes on to complete an entry.
"""

from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from heapq import nlargest
from typing import Any, NamedTuple

import numpy as np

from .character_classes import CharacterClasses, kind_of
from .characters import fold, fold_text, is_word
from .prefix_tree import CodedTexts, read_together
from .regex_matcher import RegexMachine
from .word_counts import WordCounts, chance_of_letters
from .word_lists import is_regex
from .word_matcher import MANY, SPACE, Entry, LiteralMachine, LiteralState

# Known words that the look-ahead expects of regular expressions and stars, at most.
_MOST_WORDS = 1000
# States of which the ways on are kept.
_MOST_WAYS_KEPT = 1 << 14
# Characters within which the end of a regular expression is looked for.
_FAR = 8


class PatternState(NamedTuple):
    """The states of both machines."""

    literal: LiteralState
    regex: Any


class Rest(NamedTuple):
    """One way to complete an entry: the missing text, and its probability."""

    text: str
    chance: float


class TextPatterns:
    """Finds entries in text, one character at a time.

    Args:
        sources: the entries as users write them.
        ignore_case: compare with case folded away.
        counts: word counts, which predict how words end.
        expects: give a started regular expression a probability even if no known word matches it; the closer its end,
            the higher.

    Raises:
        ValueError: an entry cannot be read; the message names it.
    """

    def __init__(self, sources: Sequence[str], ignore_case: bool, counts: WordCounts, expects: bool = False) -> None:
        sources = [source.strip() for source in sources]
        regexes = [source[1:-1] for source in sources if is_regex(source)]
        entries = [Entry.parse(source) for source in sources if not is_regex(source)]
        self.regex = RegexMachine(regexes, ignore_case) if regexes else None
        self.start = PatternState(LiteralMachine.start, self.regex.start if self.regex else None)
        self.literal = LiteralMachine(entries, ignore_case)
        self.ignore_case = ignore_case
        self._given_letters = self.literal.alphabet
        hard = [entry for entry in entries if entry.is_plain]
        soft = self._words_found(entries, counts) if regexes or len(hard) < len(entries) else []
        for entry in soft:
            self.literal.paths.append(self.literal.add(entry, completes=False))
        self.rests: dict[int, list[Rest]] = {}
        self._ways: dict[frozenset[int], list[Rest]] = {}
        self._keys: dict[str, Hashable] = {}
        self._frequency = 0.0
        plain = [pair for pair in zip(entries + soft, self.literal.paths, strict=True) if pair[0].is_plain]
        given: set[int] = set()
        for entry, path in sorted(plain, key=lambda pair: not pair[0].is_stem):
            places = path[:-1] if entry.is_stem else path
            # An entry that always completes another first, or is the same in other letters, adds no probability.
            if places[-1] not in given and not any(self.literal.nodes[at].complete == "now" for at in places[1:-1]):
                given.add(places[-1])
                self._give_chances(entry, path, counts)
        for rests in self.rests.values():
            rests.sort(key=lambda rest: -rest.chance)
        # How often an entry starts where a word does.
        self.frequency = min(1.0, self._frequency)
        self._chance = {place: min(1.0, sum(rest.chance for rest in rests)) for place, rests in self.rests.items()}
        self._expects = expects and not soft

    def key(self, char: str) -> Hashable:
        """What these patterns see of a character: two with the same key lead to the same state."""
        found = self._keys.get(char)
        if found is None:
            shown = fold_text(char)
            found = self._keys[char] = (
                tuple(part if part in self._parts else kind_of(part) for part in fold(char, self.ignore_case)),
                self.regex.key(char) if self.regex is not None and shown else bool(shown),
            )
        return found

    @cached_property
    def is_plain(self) -> bool:
        """Whether no character beyond ASCII, nor its like, is told from others of its kind."""
        return self.regex is None and all(map(str.isascii, self.literal.alphabet))

    @cached_property
    def _parts(self) -> set[str]:
        return self.literal.alphabet

    @cached_property
    def classes(self) -> CharacterClasses:
        """The characters grouped by how these patterns treat them."""
        tests = self.regex.tests if self.regex is not None else []
        return CharacterClasses(tests, self.literal.alphabet, self.ignore_case)

    @cached_property
    def match_classes(self) -> CharacterClasses:
        """The characters grouped by what they complete: like `classes`, but for the words that only predict."""
        if self._given_letters == self.literal.alphabet:
            return self.classes
        tests = self.regex.tests if self.regex is not None else []
        return CharacterClasses(tests, self._given_letters, self.ignore_case)

    def step(self, state: PatternState, char: str) -> tuple[PatternState, bool]:
        """Read one character; returns the new state, and whether an entry is now complete."""
        return self._joined(self.literal.step(state.literal, char), state, char)

    def step_once(self, state: PatternState, char: str) -> tuple[PatternState, bool]:
        """Like `step`, for callers that remember the step themselves."""
        return self._joined(self.literal.step_once(state.literal, char), state, char)

    def _joined(self, step: tuple[LiteralState, bool], state: PatternState, char: str) -> tuple[PatternState, bool]:
        """A step of the words together with that of the expressions."""
        literal, hit = step
        if self.regex is None or not (char.isascii() or fold(char)):
            return PatternState(literal, state.regex), hit
        regex, found = self.regex.step(state.regex, char)
        return PatternState(literal, regex), hit or found

    def read(self, state: PatternState, text: str) -> tuple[PatternState, bool]:
        """Read several characters."""
        hit = False
        for char in text:
            state, found = self.step(state, char)
            hit = hit or found
        return state, hit

    def ends(self, state: PatternState) -> bool:
        """Whether an entry is complete if the text ends here."""
        return self.literal.ends(state.literal) or (self.regex is not None and self.regex.ends(state.regex))

    def forget(self, state: PatternState) -> PatternState:
        """The same state, without matches that are complete already: for the end of a prompt."""
        return PatternState(self.literal.forget(state.literal), self.regex and self.regex.forget(state.regex))

    def neutral(self, state: PatternState) -> PatternState:
        """The same position in a text in which nothing has started."""
        return PatternState(self.literal.neutral(state.literal), self.regex and self.regex.neutral(state.regex))

    def core(self, state: PatternState) -> PatternState:
        """The same state, without what only tells probabilities: from both, the same entries are completed."""
        return state._replace(literal=self.literal.core(state.literal))

    def idle(self, state: PatternState) -> bool:
        """Whether nothing has started in the current word, and none of its further letters can start anything."""
        return self.regex is None and self.literal.idle(state.literal)

    @property
    def is_restless(self) -> bool:
        """Whether an entry may start anywhere within a word, so that every letter has to be read."""
        return self.regex is not None or self.literal.begins_anywhere

    def chance(self, state: PatternState) -> float:
        """The probability, by word counts, that a started match becomes an entry."""
        known = sum(self._chance.get(place, 0.0) for place in state.literal.threads)
        if self._expects and self.regex is not None:
            distance = self.regex.distance(state.regex)
            known += 0.0 if distance is None or distance > _FAR else chance_of_letters(distance)
        return min(1.0, known)

    def distance(self, state: PatternState) -> int:
        """About the fewest characters that complete an entry from here, whatever was begun."""
        return min(
            self.literal.distance(state.literal), self.regex.fewest(state.regex) if self.regex is not None else MANY
        )

    def ways(self, state: PatternState) -> Sequence[Rest]:
        """The ways to complete an entry from here, the likeliest first."""
        threads = state.literal.threads
        found = self._ways.get(threads)
        if found is None:
            rests = (rest for place in threads for rest in self.rests.get(place, ()))
            found = sorted(rests, key=lambda rest: -rest.chance)
            if len(self._ways) > _MOST_WAYS_KEPT:
                self._ways.clear()
            self._ways[threads] = found
        return found

    def _words_found(self, entries: Sequence[Entry], counts: WordCounts) -> list[Entry]:
        """The known words in which an entry is found: what the look-ahead expects of regular expressions and stars.

        Only the most frequent of them are taken.
        """
        words: Iterable[str] = counts.words
        if self.regex is None:
            runs = {self._longest_run(entry) for entry in entries}
            words = [word for word in words if any(map(word.__contains__, runs))]
        elif not entries:
            least = self.regex.fewest(self.regex.start) - 2  # a match may hold the spaces around a word
            words = [word for word in words if len(word) >= least]
            first = self._first_characters({" ", *"".join(words)})
            if " " not in first:
                words = [word for word in words if not first.isdisjoint(word[: len(word) - least])]
        words = list(words)
        after, states = read_together(CodedTexts.of(words), self._unless_found(self.start, " "), self._unless_found)
        complete = np.array([state is None or self.step(state, " ")[1] for state in states], dtype=bool)
        found = [words[at] for at in complete[after].nonzero()[0].tolist()]
        likeliest = nlargest(_MOST_WORDS, found, key=counts.counts.__getitem__)
        return [Entry(tuple(word), (True,) * len(word), word) for word in likeliest]

    def _unless_found(self, state: PatternState | None, char: str) -> PatternState | None:
        """The state after a character; None from where an entry is complete."""
        if state is None:
            return None
        after, hit = self.step(state, char)
        return None if hit else after

    def _first_characters(self, chars: Iterable[str]) -> set[str]:
        """Those of some characters with which a match of an expression may start after another of them."""
        assert self.regex is not None
        regex = self.regex
        before = {regex.neutral(regex.step(regex.start, char)[0]) for char in chars}
        steps = {char: [regex.step(state, char) for state in before] for char in chars}
        return {char for char, after in steps.items() if any(hit or regex.alive(state) for state, hit in after)}

    def _longest_run(self, entry: Entry) -> str:
        """The most letters in a row that every text with an entry has."""
        marks = zip(entry.items, entry.literal, strict=True)
        text = "".join(fold_text(item, self.ignore_case) if literal else SPACE for item, literal in marks)
        return max(text.split(SPACE), key=len)

    def _give_chances(self, entry: Entry, path: list[int], counts: WordCounts) -> None:
        items = entry.items[:-1] if entry.is_stem else entry.items
        folded = [item if item == SPACE else fold_text(item) for item in items]
        self._frequency += chance_of_rest(folded, 0, entry.is_stem, counts)
        for cut in range(1, len(items) + 1):
            rest = Rest("".join(items[cut:]), chance_of_rest(folded, cut, entry.is_stem, counts))
            self.rests.setdefault(path[cut], []).append(rest)


def chance_of_rest(folded: Sequence[str], cut: int, stem: bool, counts: WordCounts) -> float:
    """The probability that an entry is completed after its first `cut` items, taking its words as independent."""
    text = "".join(folded)
    done = len("".join(folded[:cut]))
    chance = 1.0
    place = 0
    while place < len(text):
        end = place + 1
        if is_word(text[place]):
            while end < len(text) and is_word(text[end]):
                end += 1
            if end >= done:
                chance *= counts.chance(text[place : max(place, done)], text[place:end], stem and end == len(text))
        elif place >= done and text[place] != SPACE:
            chance *= 0.1  # punctuation within an entry, as in "c++"
        place = end
    return chance
