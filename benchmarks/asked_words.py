"""How often words with weights are to be expected in texts that a model has written with these weights.

What is asked is the chance e^w p / Z, wherever a word may begin. p is the chance that the word follows there without
weights, in any spelling and with what ends it, and Z is the sum of the same over all that may follow. So the number of
times that a word appears, less the sum of these chances over the text, is a martingale: its expectation is 0, and its
variance the expected sum of q (1 - q), however much earlier words have changed the text. No free texts are needed.

A text is read in one pass. Then all beginnings of listed words are read on, at all places at once, one token in each
pass. What the chance of a beginning is below `LEAST` is not read.

Only words without a border in them can be listed: no phrases, stems or regular expressions.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from transformers import DynamicCache

from fundamentallm_hf.portable.decoding.forward import forward
from fundamentallm_hf.portable.text.characters import fold_text, is_word
from fundamentallm_hf.portable.text.vocabulary import Vocabulary

# Beginnings of words that are less likely than this at some place are not read on.
LEAST = 1e-6
# Tokens that are read in one pass at most.
_MOST_NODES = 512


class Reader(Protocol):
    """Scores of a text that has been read, (tokens, vocabulary), and of what may continue it."""

    logits: torch.Tensor

    def read_on(self, nodes: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, list[int]]:
        """Read tokens, each after the text up to a column or after a token that was read so.

        Args:
            nodes: columns, and the tokens that follow them.

        Returns:
            (nodes, vocabulary) the scores after each, and the column that it got.
        """


class TreeReader:
    """Reads a text with a model, and from it on a tree: every token sees only what it continues.

    Args:
        model: one that takes a mask for each token.
        tokens: of the text.

    Attributes:
        logits: see `Reader`.
    """

    def __init__(self, model, tokens: Sequence[int]) -> None:
        self.model, self.cache = model, DynamicCache()
        self._depths = torch.arange(len(tokens))
        self._visible = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        self.logits = self._forward(torch.tensor(tokens), self._depths, self._visible)

    def read_on(self, nodes: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, list[int]]:
        """See `Reader`."""
        parents, tokens = (torch.tensor(column) for column in zip(*nodes, strict=True))
        own = torch.eye(len(nodes), dtype=torch.bool)
        columns = len(self._depths)
        rows = torch.cat([self._visible[parents], own], dim=1)
        hidden = torch.zeros(columns, len(nodes), dtype=torch.bool)
        self._visible = torch.cat([torch.cat([self._visible, hidden], dim=1), rows])
        depths = self._depths[parents] + 1
        self._depths = torch.cat([self._depths, depths])
        return self._forward(tokens, depths, rows), [*range(columns, columns + len(nodes))]

    @torch.no_grad()
    def _forward(self, tokens: torch.Tensor, depths: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)[None, None]
        output = forward(self.model, tokens[None], mask=mask, positions=depths[None], cache=self.cache, use_cache=True)
        return output.logits[0].float()


class ListedWords:
    """What the tokens of a vocabulary do to listed words.

    Args:
        weights: of the words.
        vocabulary: the text of every token.
        size: number of scores the model gives.
        end_tokens: ids that end a text, and so a word.

    Attributes:
        weights: of the words, which are folded.
        ends: (vocabulary,) bool, the tokens that end the word before them.
        openings: the tokens that end a word and begin a listed one, and the letters that there are of that.
        continuing: tells of the letters of a word, or of "", the tokens after which it may still be a listed one, and
            the letters then.
        longest: letters of the longest word.

    Raises:
        ValueError: an entry is not a word, or a token has the end of a listed word and what follows it.
    """

    def __init__(
        self, weights: Mapping[str, float], vocabulary: Vocabulary, size: int, end_tokens: Collection[int]
    ) -> None:
        self.weights = {fold_text(word): weight for word, weight in weights.items()}
        if bad := [word for word in self.weights if not word or not all(map(is_word, word))]:
            raise ValueError(f"{bad[0]!r} is not a word")
        self.longest = max(map(len, self.weights))
        self._begun = {word[:cut] for word in self.weights for cut in range(1, len(word) + 1)}
        # The letters of tokens that have nothing else, and those at the end of the others.
        self._letters, self._last = dict[int, str](), dict.fromkeys(end_tokens, "")
        for token, piece in enumerate(vocabulary.pieces[:size]):
            folded = fold_text(piece) if isinstance(piece, str) else ""
            if not folded or token in self._last:
                continue
            first, *more = "".join(char if is_word(char) else " " for char in folded).split(" ")
            if not more:
                self._letters[token] = first
            elif {*more[:-1]} & {*self.weights} or (first and any(word.endswith(first) for word in self.weights)):
                raise ValueError(f"the token {piece!r} has the end of a listed word and what follows it")
            else:
                self._last[token] = more[-1]
        self.ends = np.zeros(size, dtype=bool)
        self.ends[[*self._last]] = True
        self.openings = _arrays({token: letters for token, letters in self._last.items() if letters in self._begun})
        self.continuing = lru_cache(None)(self._continuing)

    def follow(self, begun: str | None, token: int) -> str | None:
        """The letters of the word after a token; "" between words, None within one that is not listed."""
        last = self._last.get(token)
        found = begun + self._letters[token] if last is None and begun is not None and token in self._letters else last
        return found if found == "" or found in self._begun else None

    def _continuing(self, begun: str) -> tuple[np.ndarray, list[str]]:
        found = {token: begun + letters for token, letters in self._letters.items()}
        return _arrays({token: letters for token, letters in found.items() if letters in self._begun})


def _arrays(found: Mapping[int, str]) -> tuple[np.ndarray, list[str]]:
    return np.array([*found], dtype=np.int64), [*found.values()]


class Place:
    """Where a word may begin, and the chances of the words that may.

    Attributes:
        free: of each word that is possible, without weights.
        asked: the same with weights, up to the factor 1 / Z.
        share: Z.
    """

    def __init__(self) -> None:
        self.free: dict[str, float] = {}
        self.asked: dict[str, float] = {}
        self.share = 1.0

    def add(self, node: "_Node", chance: float, weight: float) -> None:
        """Add a way to complete a word; `chance` is that of all that follows the place."""
        self.share += node.factor * chance * math.expm1(weight)
        if node.begins:
            self.free[node.letters] = self.free.get(node.letters, 0.0) + chance
            asked = node.factor * chance * math.exp(weight)
            self.asked[node.letters] = self.asked.get(node.letters, 0.0) + asked

    def chances(self) -> dict[str, float]:
        """Those that were asked for."""
        return {word: chance / self.share for word, chance in self.asked.items()}


class _Node(NamedTuple):
    """What may follow a place, up to a token.

    Attributes:
        place: the place.
        column: where the token is read.
        token: the token.
        letters: of the word that has begun.
        chance: without weights.
        factor: e to the weight of a word before, which the beginning of this one ends.
        begins: the word begins here, and not before.
    """

    place: Place
    column: int
    token: int
    letters: str
    chance: float
    factor: float
    begins: bool


def asked_words(
    reader: Reader,
    words: ListedWords,
    begun: Mapping[int, str | None],
    chosen: Callable[[torch.Tensor], torch.Tensor],
    least: float = LEAST,
) -> dict[int, Place]:
    """What is asked at some places of a text.

    Args:
        reader: has read the text.
        words: with weights.
        begun: the column of the last token before each place, and the letters of the word there; see
            `ListedWords.follow`.
        chosen: turns scores into the probabilities by which tokens are chosen without weights.
        least: what is less likely is not read on.
    """
    found = {column: Place() for column in begun}
    nodes: list[_Node] = []
    columns = [*begun]
    for column, chances in zip(columns, chosen(reader.logits[columns]).double().numpy(), strict=True):
        nodes += _opened(words, found[column], column, begun[column], chances, least)
    while nodes:
        later = []
        for first in range(0, len(nodes), _MOST_NODES):
            part = nodes[first : first + _MOST_NODES]
            logits, columns = reader.read_on([(node.column, node.token) for node in part])
            for node, column, chances in zip(part, columns, chosen(logits).double().numpy(), strict=True):
                if node.letters in words.weights:
                    whole = node.chance * float(chances[words.ends].sum())
                    node.place.add(node, whole, words.weights[node.letters])
                tokens, letters = words.continuing(node.letters)
                for at in np.flatnonzero(node.chance * chances[tokens] >= least):
                    chance = node.chance * float(chances[tokens[at]])
                    later.append(
                        node._replace(column=column, token=int(tokens[at]), letters=letters[at], chance=chance)
                    )
        nodes = later
    return found


def _opened(
    words: ListedWords, place: Place, column: int, begun: str | None, chances: np.ndarray, least: float
) -> list[_Node]:
    """The tokens after a place that begin a listed word, or continue one from before; (vocabulary,) `chances`."""
    weight = words.weights.get(begun or "", 0.0)
    place.share += float(chances[words.ends].sum()) * math.expm1(weight)
    ways = [(words.openings, math.exp(weight), True)]
    if begun is not None:
        ways.append((words.continuing(begun), 1.0, not begun))
    return [
        _Node(place, column, int(tokens[at]), letters[at], float(chances[tokens[at]]), factor, begins)
        for (tokens, letters), factor, begins in ways
        for at in np.flatnonzero(chances[tokens] >= least)
    ]


class Tally(NamedTuple):
    """How often a word came at some places, and what was to be expected.

    Attributes:
        free: the sum of its chances without weights.
        asked: the sum of those that were asked for.
        variance: the sum of q (1 - q) over these.
        observed: how often it came.
    """

    free: float = 0.0
    asked: float = 0.0
    variance: float = 0.0
    observed: int = 0

    @property
    def ratio(self) -> float:
        """How often it came, relative to what was asked."""
        return self.observed / self.asked

    @property
    def error(self) -> float:
        """The standard error of the ratio, if words come as was asked."""
        return math.sqrt(self.variance) / self.asked


def tally(
    tokens: Sequence[int],
    first: int,
    is_whole: bool,
    words: ListedWords,
    read: Callable[[Sequence[int]], Reader],
    chosen: Callable[[torch.Tensor], torch.Tensor],
    rate: float = 1.0,
    seed: int = 0,
) -> dict[str, Tally]:
    """Count the listed words of a text, and what was asked for, at the same places.

    A place is left out where the text does not tell for certain what came there.

    Args:
        tokens: the text.
        first: tokens of the prompt; words that begin in it or with the first token behind it are left out.
        is_whole: the last token ends the text.
        words: with weights.
        read: reads a text.
        chosen: see `asked_words`.
        rate: the share of the places that are looked at.
        seed: of their choice.
    """
    begun: list[str | None] = []
    for token in tokens:
        begun.append(words.follow(begun[-1] if begun else "", token))
    # What begins further behind may be cut off.
    last = len(tokens) - 1 if is_whole else len(tokens) - 1 - words.longest
    draw, begin_late = random.Random(seed), bool(words.openings[1])
    places = {
        column: begun[column]
        for column in range(first, last)
        if (begun[column] == "" or begin_late) and draw.random() < rate
    }
    found = asked_words(read(tokens), words, places, chosen) if places else {}
    observed = Counter(word for column, word in came(tokens, begun, words) if column in places)
    tallies = {word: Tally(observed=number) for word, number in observed.items()}
    for place in found.values():
        for word, chance in place.chances().items():
            before = tallies.get(word, Tally())
            tallies[word] = Tally(
                before.free + place.free[word],
                before.asked + chance,
                before.variance + chance * (1 - chance),
                before.observed,
            )
    return tallies


def came(tokens: Sequence[int], begun: Sequence[str | None], words: ListedWords) -> Iterator[tuple[int, str]]:
    """The listed words of a text, each with the column before the token that it begins with.

    Args:
        tokens: the text.
        begun: the letters of the word after each token.
        words: the words.
    """
    start = 0
    for column, token in enumerate(tokens):
        before = begun[column - 1] if column else ""
        if words.ends[token] and before in words.weights:
            yield start, str(before)
        if words.ends[token] or before == "":
            start = column - 1
