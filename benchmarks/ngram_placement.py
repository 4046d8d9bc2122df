"""Chances of required words under a small tractable model, exactly: character n-grams times each word's automaton.

In the manner of GeLaTo (Zhang et al. 2023) and Ctrl-G (Zhang et al. 2024), with an interpolated n-gram model (Witten
and Bell 1991) in place of a hidden Markov model. For every context and every place in a word's automaton, dynamic
programming gives the probability that the word appears within a number of characters. For words and stems on character
models.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from fundamentallm_hf.portable.controls.must_include_placement import Outlook, Placement

ORDER = 5
# Numbers of characters for which probabilities are kept; the nearest below is used.
KEPT = sorted({*range(12), *range(12, 60, 4), *range(60, 401, 20)})


class NGram:
    """An interpolated character model: contexts of up to `ORDER` − 1 characters, as arrays."""

    def __init__(self, text: str, pieces: Sequence[str | bytes]) -> None:
        self.tokens = {piece: token for token, piece in enumerate(pieces) if isinstance(piece, str) and len(piece) == 1}
        self.size = len(pieces)
        text = "".join(char for char in text if char in self.tokens)
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for length in range(ORDER):
            for end in range(length, len(text)):
                counts[text[end - length : end]][text[end]] += 1
        contexts = sorted((c for c, found in counts.items() if found.total() > 1 or not c), key=lambda c: (len(c), c))
        self.index = {context: number for number, context in enumerate(contexts)}
        self.shorter = np.array([self.find(context[1:]) for context in contexts])
        self.ends = [sum(len(c) <= length for c in contexts) for length in range(ORDER)]
        rows, letters, weights, nexts = [], [], [], []
        self.kept = np.zeros(len(contexts))
        for context, number in self.index.items():
            found = counts[context]
            self.kept[number] = found.total() / (found.total() + len(found)) if context else 1.0
            for char, count in found.items():
                rows.append(number)
                letters.append(self.tokens[char])
                weights.append(count / found.total() * self.kept[number])
                nexts.append(self.find(context + char))
        self.rows, self.letters = torch.tensor(rows), torch.tensor(letters)
        self.weights, self.nexts = torch.tensor(weights, dtype=torch.float32), torch.tensor(nexts)

    def find(self, text: str) -> int:
        """The longest known context in which a text ends."""
        for length in range(min(ORDER - 1, len(text)), -1, -1):
            found = self.index.get(text[len(text) - length :])
            if found is not None:
                return found
        return 0

    def appearance(self, moves: torch.Tensor, done: int) -> dict[int, torch.Tensor]:
        """For each kept number of characters, (contexts, places): the probability that the automaton gets to `done`.

        `moves`: (places, tokens), the place in the automaton behind each token.
        """
        places = len(moves)
        value = torch.zeros(len(self.index), places)
        value[:, done] = 1.0
        kept = {0: value}
        after = moves[:, self.letters].T  # (edges, places)
        for step in range(1, KEPT[-1] + 1):
            gone = value[self.nexts[:, None], after] * self.weights[:, None]
            value = torch.zeros_like(value).index_add_(0, self.rows, gone)
            for first, last in zip(self.ends[:-1], self.ends[1:], strict=True):
                rest = torch.from_numpy(1 - self.kept[first:last]).float()[:, None]
                value[first:last] += rest * value[self.shorter[first:last]]
            value[:, done] = 1.0
            if step in KEPT:
                kept[step] = value
        return kept


class NGramPlacement(Placement):
    """Hands out exact probabilities in place of an estimate."""

    text = ""
    model: NGram | None = None

    @classmethod
    def train(cls, text: str) -> None:
        """Set the training text."""
        cls.text = text

    def __init__(self, requirements, lookahead=None, temperature=1.0) -> None:
        super().__init__(requirements, None, temperature)
        pieces = requirements.vocabulary.pieces
        if NGramPlacement.model is None:
            NGramPlacement.model = NGram(self.text, pieces)
        self.moves = [_automaton(source.strip("*").lower(), pieces) for source in requirements.sources]
        self.values = [self.model.appearance(moves, len(moves) - 1) for moves in self.moves]

    def __call__(self, texts, scores, states, waiting, left) -> list[list[Outlook]]:
        """See `Placement`. With nothing to come later by itself, the chances are all that weighs."""
        nothing = np.zeros(0, dtype=np.int64)
        outlooks = []
        for index, (entries, places) in enumerate(zip(waiting, left, strict=True)):
            row = texts.tokens(index).tolist()
            text = self.requirements.vocabulary.text(row[-40:])
            room = int(places / self.requirements.rate)
            now = max(length for length in KEPT if length <= room)
            nexts = np.zeros(self.model.size, dtype=np.int64)
            for char, token in self.model.tokens.items():
                nexts[token] = self.model.find(text[-ORDER:] + char)
            here = self.model.find(text[-ORDER:])
            found = []
            for entry in entries:
                moves, values = self.moves[entry], self.values[entry][now]
                place = 1
                for token in row[-40:]:
                    place = int(moves[place, token])
                place = min(place, len(moves) - 2)
                after = moves[place].numpy()
                chances = values[nexts, after].numpy().astype(np.float64).clip(1e-12, 1 - 1e-6)
                begun = float(values[here, place].clip(1e-12, 1 - 1e-6))
                found.append(Outlook(entry, begun, np.arange(self.model.size), chances, nothing, 0.0, 0.0))
            outlooks.append(found)
        return outlooks


def _automaton(word: str, pieces: Sequence[str | bytes]) -> torch.Tensor:
    """The moves of a word's automaton, (places, tokens).

    Place 0 is within another word, 1 + k behind the first k letters of this one, and the last where it is there.
    """
    moves = torch.zeros(len(word) + 2, len(pieces), dtype=torch.long)
    for token, piece in enumerate(pieces):
        char = piece.lower() if isinstance(piece, str) and len(piece) == 1 else " "
        outside = 0 if char.isalnum() or char == "_" else 1
        moves[:, token] = outside
        for place in range(1, len(word) + 1):
            if word[place - 1] == char:
                moves[place, token] = place + 1
    moves[-1] = len(word) + 1
    return moves
