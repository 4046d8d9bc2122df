"""Finds words and phrases with weights, and estimates what they will add to a text that has begun them.

The entries share one trie. A text is at a few of its nodes at a time, and these do not depend on each other: what a
token adds is the sum of what it adds at each. So whatever is computed for a node serves all texts, and thousands of
entries cost what one costs.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .characters import fold, fold_text, is_word, needs_boundary
from .text_patterns import chance_of_rest
from .word_counts import WordCounts
from .word_matcher import SPACE, STAR, Entry, LiteralMachine, LiteralState

# Steps that are remembered before all are forgotten.
_KEPT_WEIGHED = 1 << 18
_NOWHERE: frozenset[int] = frozenset()


class WeightedRest(NamedTuple):
    """One way to complete entries.

    Attributes:
        text: what is missing.
        chance: that it follows, by word counts.
        gain: what is added to the expected factor if it follows for certain: e^w - 1, where w is what is still due.
    """

    text: str
    chance: float
    gain: float


class BegunPhrase(NamedTuple):
    """A phrase of which at least one word and the first letters of another are there.

    Attributes:
        word: the one that is begun, folded; any word that begins so where the phrase is a stem and ends here.
        is_stem: whether the rest of the word may be anything.
        after: the probability of what follows the word.
        way: what is missing, and its probability by word counts.
    """

    word: str
    is_stem: bool
    after: float
    way: WeightedRest


def expected_of(ways: Sequence[WeightedRest], more: float = 1.0) -> tuple[float, float]:
    """What ways to complete entries add to the expected factor, and how uncertain that is.

    Args:
        ways: the ways.
        more: by how much they are likelier than word counts say.
    """
    gain = stake = 0.0
    for way in ways:
        chance = min(1.0, way.chance * more)
        gain += chance * way.gain
        stake += chance * (1.0 - chance) * abs(way.gain)
    return gain, stake


class WeightedWords(LiteralMachine):
    """A trie of words and phrases with weights. See `LiteralMachine`.

    Args:
        entries: with their weights.
        ignore_case: compare with case folded away.

    Attributes:
        rests: for each node the ways to complete entries, those that matter most first.
        expected: for each node what `expected_of` says of them.
        beyond: for each node what phrases, without their words, add to the expected factor.
        begun_phrases: for each node within a later word of phrases, what is known of them.
        at_border: the weight that is due at a node if no letter follows.
        tangled: entries such as `*a*b` may be at one node on two ways, so nodes do depend on each other.
    """

    def __init__(self, entries: Sequence[tuple[Entry, float]], ignore_case: bool) -> None:
        self._weighed: dict[tuple[LiteralState, str, bool], tuple[LiteralState, float]] = {}
        super().__init__([], ignore_case)
        self.at_border: dict[int, float] = {}
        self._at_once: dict[int, float] = {}
        self.rests: dict[int, list[WeightedRest]] = {}
        self.expected: dict[int, tuple[float, float]] = {}
        self.beyond: dict[int, float] = {}
        self.begun_phrases: dict[int, list[BegunPhrase]] = {}
        self.tangled = False
        for entry, weight in entries:
            path = self.add(entry)
            literal = [item for item, is_literal in zip(entry.items, entry.literal, strict=True) if is_literal]
            at_once = entry.is_stem or not needs_boundary(fold_text(literal[-1], ignore_case)[-1])
            due, node = (self._at_once, path[-2]) if entry.is_stem else (self._at_once, path[-1])
            if not at_once:
                due = self.at_border
            due[node] = due.get(node, 0.0) + weight
            opens = (entry.items[0], entry.literal[0]) == (STAR, False)
            inner = zip(entry.items[1:-1], entry.literal[1:-1], strict=True)
            self.tangled = self.tangled or (opens and (STAR, False) in inner)

    def add_way(self, entry: Entry, dues: Sequence[float], own: float | None, counts: WordCounts) -> None:
        """Let states expect an entry: at each node on its way, how likely it is, and what it is worth.

        Args:
            entry: a word, a stem or a phrase.
            dues: what was due after each of its items, and after what ends it.
            own: the weight that a phrase adds to those of its words; None for a word.
            counts: how words end.
        """
        path = self.add(entry, completes=False)
        items = entry.items[:-1] if entry.is_stem else entry.items
        folded = [item if item == SPACE else fold_text(item) for item in items]
        for cut in range(1, len(items) + 1):
            left = dues[-1] - dues[cut - 1]
            if own is None:
                gain = math.expm1(left)
            elif cut == len(items) and not left:
                continue
            else:
                gain = math.exp(left) - math.exp(left - own)
            if gain:
                chance = chance_of_rest(folded, cut, entry.is_stem, counts)
                way = WeightedRest("".join(items[cut:]), chance, gain)
                self.rests.setdefault(path[cut], []).append(way)
                if own is not None:
                    self.beyond[path[cut]] = self.beyond.get(path[cut], 0.0) + chance * gain
                    if begun := _begun_phrase(folded, cut, entry.is_stem, counts, way):
                        self.begun_phrases.setdefault(path[cut], []).append(begun)

    def finish(self) -> None:
        """Call this when all ways are in."""
        self._weighed.clear()
        for node, rests in self.rests.items():
            rests.sort(key=lambda rest: -rest.chance * abs(rest.gain))
            self.expected[node] = expected_of(rests)
        # Nodes at which nothing can follow are left out, so that a text is at as few as possible.
        self._idle = {
            place
            for place, node in enumerate(self.nodes)
            if not node.next and place not in self.at_border and place not in self.rests
        }

    def weigh(self, state: LiteralState, char: str, begins: bool = True) -> tuple[LiteralState, float]:
        """Read one character.

        Args:
            state: the nodes where the text is; `pending` is false where those at the end of a prompt are not due.
            char: the character.
            begins: let entries begin here.

        Returns:
            The state after it, and the weight of the entries that are complete now.
        """
        key = (state, char, begins)
        known = self._weighed.get(key)
        if known is None:
            due = 0.0
            for part in fold(char, self.ignore_case):
                state, more = self._weigh(state, part, begins)
                due += more
            if len(self._weighed) >= _KEPT_WEIGHED:
                self._weighed.clear()
            known = self._weighed[key] = (state, due)
        return known

    def followers(self, node: int, heads: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """The characters after which a text that is at a node is still somewhere, or an entry is complete.

        Args:
            node: the node.
            heads: the characters there are, by the first folded character of each.
        """
        here = self.nodes[node]
        if here.repeats == STAR:
            parts: Iterable[str] = heads
        else:
            spaces = here.repeats == SPACE or SPACE in here.next
            parts = [*here.next, *(part for part in heads if spaces and part.isspace()), ""]
        for part in dict.fromkeys(parts):
            yield from heads.get(part, ())

    def due_at_end(self, state: LiteralState) -> float:
        """The weight of the entries that are complete if no letter follows."""
        return math.fsum(self.at_border.get(node, 0.0) for node in state.threads) if state.pending else 0.0

    def ways(self, threads: Iterable[int]) -> list[WeightedRest]:
        """The ways to complete entries, those that matter most first."""
        lists = [self.rests[node] for node in sorted(threads) if node in self.rests]
        if len(lists) <= 1:
            return lists[0] if lists else []
        return sorted((rest for rests in lists for rest in rests), key=lambda rest: -rest.chance * abs(rest.gain))

    def _weigh(self, state: LiteralState, part: str, begins: bool) -> tuple[LiteralState, float]:
        word = is_word(part)
        due = 0.0 if word else self.due_at_end(state)
        reached, stays = self._follow((*state.threads, *(self._begin(state) if begins else ())), part)
        # More white space within a phrase completes nothing again.
        due += math.fsum(self._at_once.get(place, 0.0) for place in reached)
        reached |= {star for place in reached if (star := self.nodes[place].star) is not None} | stays
        reached -= self._idle
        return LiteralState(frozenset(reached) if reached else _NOWHERE, word, True), due


def _begun_phrase(
    folded: Sequence[str], cut: int, is_stem: bool, counts: WordCounts, way: WeightedRest
) -> BegunPhrase | None:
    """What is known of a phrase after its first `cut` items; None unless it is within its second or a later word."""
    begin, end = cut, cut
    while begin and all(map(is_word, folded[begin - 1])):
        begin -= 1
    while end < len(folded) and all(map(is_word, folded[end])):
        end += 1
    if begin in (0, cut):
        return None
    after = chance_of_rest(folded, end, is_stem, counts) if end < len(folded) else 1.0
    return BegunPhrase("".join(folded[begin:end]), is_stem and end == len(folded), after, way)
