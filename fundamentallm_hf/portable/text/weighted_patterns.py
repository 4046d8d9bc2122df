"""Adds up what a text is due for words, phrases and regular expressions with weights.

Of each state it is also known which factor may be expected of what the text has begun: 1 - c + c e^w for a word of
weight w that comes with probability c. Probabilities are estimated from word counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .characters import fold_text, is_word
from .pieces import shared_length
from .text_patterns import PatternState, TextPatterns
from .weighted_regexes import Tail, WeightedRegexes
from .weighted_words import WeightedWords
from .word_counts import WordCounts
from .word_lists import is_regex
from .word_matcher import Entry, LiteralState

# The least expected factor: the estimates of several phrases may add up to less than nothing.
LEAST_VALUE = 1e-4


class WeightedPatterns(TextPatterns):
    """Reads texts character by character, and adds up weights.

    States are those of `TextPatterns`, with a `Tail` for the regular expressions; nothing counts as a hit.

    Args:
        weights: of the entries, as users write them. Those that match the same are added up.
        ignore_case: compare with case folded away.
        counts: how words end.

    Attributes:
        counts: how words end.
        words: the trie of words and phrases.
        regexes: the regular expressions; None if there are none.
        size: how many words and phrases it expects.
        outcomes: the words that it expects, and what is due for each.
        is_empty: no entry has a weight.

    Raises:
        ValueError: an entry cannot be read; names it.
    """

    def __init__(self, weights: Mapping[str, float], ignore_case: bool, counts: WordCounts) -> None:
        expressions: dict[str, float] = {}
        merged: dict[tuple[Any, ...], tuple[Entry, float]] = {}
        for source, weight in weights.items():
            source = source.strip()
            if is_regex(source):
                expressions[source[1:-1]] = expressions.get(source[1:-1], 0.0) + weight
                continue
            entry = Entry.parse(source)
            items = zip(entry.items, entry.literal, strict=True)
            key = tuple((fold_text(item, ignore_case), literal) for item, literal in items)
            merged[key] = (entry, weight + (merged[key][1] if key in merged else 0.0))
        chosen = {source: weight for source, weight in expressions.items() if weight}
        entries = [pair for pair in merged.values() if pair[1]]
        self.is_empty = not chosen and not entries
        self.ignore_case = ignore_case
        self.counts = counts
        self.regexes = WeightedRegexes(chosen, ignore_case) if chosen else None
        self.words = WeightedWords(entries, ignore_case)
        self.words.finish()
        self.start = PatternState(LiteralState(frozenset(), False, True), Tail())
        outcomes = list(self._outcomes(entries, counts))
        self.size = len(outcomes)
        # All are read before any is added, because steps that are remembered do not know later nodes.
        dues = [self._dues(entry) for entry, _ in outcomes]
        self.outcomes: dict[str, float] = {}
        for (entry, own), due in zip(outcomes, dues, strict=True):
            self.words.add_way(entry, due, own, counts)
            if own is None and not entry.is_stem:
                self.outcomes[fold_text("".join(entry.items), ignore_case)] = due[-1]
        self.words.finish()

    def step(self, state: PatternState, char: str) -> tuple[PatternState, bool]:
        """Read one character; returns the new state, and False."""
        literal, tail = state
        literal, due = self.words.weigh(literal, char)
        if self.regexes is not None and fold_text(char):
            tail = self.regexes.step(tail, char)
        if due:
            tail = tail._replace(due=tail.due + due)
        return PatternState(literal, tail), False

    def ends(self, state: PatternState) -> bool:
        """See `due_at_end`: nothing is complete because the text ends."""
        return False

    def due_at_end(self, state: PatternState) -> float:
        """What is due besides `due` if the text ends here."""
        due = self.words.due_at_end(state.literal)
        return due if self.regexes is None else due + self.regexes.due_at_end(state.regex.live)

    def forget(self, state: PatternState) -> PatternState:
        """The same state, without what is complete already or due: for the end of a prompt."""
        pending = not any(node in self.words.at_border for node in state.literal.threads)
        tail = Tail(state.regex.before) if self.regexes is None else self.regexes.forget(state.regex)
        return PatternState(state.literal._replace(pending=pending), tail)

    def neutral(self, state: PatternState) -> PatternState:
        """The same position in a text in which nothing has started."""
        return PatternState(LiteralState(frozenset(), state.literal.in_word, True), Tail(state.regex.before))

    def chance(self, state: PatternState) -> float:
        """Zero: values take the place of chances."""
        return 0.0

    def ways(self, state: PatternState) -> Sequence[Any]:
        """The ways to complete entries from here, those that matter most first."""
        return self.words.ways(state.literal.threads)

    def _dues(self, entry: Entry) -> list[float]:
        """What is due after each item of an entry, and after what ends it."""
        items = entry.items[:-1] if entry.is_stem else entry.items
        state, dues = self.read(self.start, " ")[0], []
        for item in items:
            state = self.read(state, item)[0]
            dues.append(state.regex.due)
        return [*dues, dues[-1] if entry.is_stem else self.read(state, " ")[0].regex.due]

    def _outcomes(
        self, entries: Sequence[tuple[Entry, float]], counts: WordCounts
    ) -> Iterator[tuple[Entry, float | None]]:
        """What may come of a beginning: words, for all that entries give for them, and phrases with their own weight.

        Yields:
            The words or phrases, and the weight that a phrase adds to those of its words; None for a word.
        """
        soft = self.regexes is not None or any(not entry.is_plain or entry.is_stem for entry, _ in entries)
        words = {word: Entry(tuple(word), (True,) * len(word), word) for word in self._weighted(counts)} if soft else {}
        for entry, weight in entries:
            if not entry.is_plain:
                continue
            items = entry.items[:-1] if entry.is_stem else entry.items
            text = fold_text("".join(items))
            if not all(map(is_word, text)):
                yield entry, weight
            elif not entry.is_stem:
                words.setdefault(text, entry)
            elif not counts.mass(text):
                yield entry, None
        for entry in words.values():
            yield entry, None

    def _weighted(self, counts: WordCounts) -> Iterator[str]:
        """The counted words that any entries give weight. Words that begin alike are read together."""
        path, before = [self.read(self.start, " ")[0]], ""
        for word in counts.words:
            shared = shared_length(before, word)
            del path[shared + 1 :]
            for char in word[shared:]:
                path.append(self.step(path[-1], char)[0])
            before = word
            if word and self.step(path[-1], " ")[0].regex.due:
                yield word
