"""Guides by a list of weighted words: each token is worth the expected weight of the word that it begins.

What was given for a beginning is taken back where the word turns out otherwise, so over a text exactly the weights of
its words are paid, whatever its tokens: with strength s the scores of a beam hold s times the sum of the weights. A
negation before a word, or what it means in its sentence, is beyond such a list. This file knows nothing of where lists
come from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..decoding.row_states import RowStates
from ..text.characters import fold_text, is_word
from ..text.vocabulary import Vocabulary, add_piece, as_bytes
from .word_weights import WordWeights

# Scores that the kept tables may hold together, and tables that are kept however large they are.
_KEPT_SCORES, _KEPT_TABLES = 1 << 23, 64
# The place in a word that nothing is known of.
_UNKNOWN = "\x00"


class WordPlace(NamedTuple):
    """Where a text stands.

    Attributes:
        begun: the folded beginning of the word that is being written; empty between words.
        paid: what was given for it, less what is due for words before it.
        pending: the first bytes of the next character.
    """

    begun: str = ""
    paid: float = 0.0
    pending: bytes = b""


class _Piece(NamedTuple):
    """What a token adds: the rest of a word, the words that it holds whole, and the beginning of another."""

    lead: str
    inner: float
    tail: str
    whole: bool  # all of it belongs to one word


class WordTables:
    """What every token is worth from each place in a word, made once for a list and a vocabulary.

    Args:
        weights: of the words.
        vocabulary: what every token adds to the text.
        size: number of scores the model gives.
    """

    start = WordPlace()

    def __init__(self, weights: WordWeights, vocabulary: Vocabulary, size: int) -> None:
        self.weights = weights
        self.vocabulary = vocabulary
        self.size = max(size, len(vocabulary.pieces))
        self._characters = vocabulary.longest <= 1
        self._tables: dict[str, torch.Tensor] = {}
        self._pieces: dict[int, _Piece] = {}
        quiet = []
        for token in range(self.size):
            piece = vocabulary.piece(token)
            partial = isinstance(piece, bytes) or (token in vocabulary.fallback and not piece.isascii())
            text = "" if partial else fold_text(str(piece))
            if text:
                self._pieces[token] = self._read(text)
            else:
                quiet.append(token)
        # Special tokens, and parts of characters, tell nothing of the word.
        self.quiet = torch.tensor(quiet, dtype=torch.long)
        self._inside = {token: piece for token, piece in self._pieces.items() if piece.lead}
        self._between = self._from_between()

    def table(self, begun: str) -> torch.Tensor:
        """(vocabulary,) what each token is worth from here: words that it completes, and the one that it leaves."""
        if not begun:
            return self._between
        table = self._tables.pop(begun, None)
        if table is None:
            table = self._from_inside(begun)
        self._tables[begun] = table  # the end of a dict is its youngest part
        while len(self._tables) > max(_KEPT_TABLES, _KEPT_SCORES // self.size):
            del self._tables[next(iter(self._tables))]
        return table

    def advance(self, place: WordPlace, token: int) -> WordPlace:
        """The place behind `token`."""
        piece = self.vocabulary.piece(token)
        if not piece:
            return place
        known = self._pieces.get(token)
        if known is None or place.pending:
            raw = as_bytes(piece) if token in self.vocabulary.fallback else piece
            text, pending = add_piece(place.pending, raw)
            if not text:
                return place._replace(pending=pending)
            # Nothing was given for it, so what is due is given with the next token.
            read = self._read(fold_text(text))
            return WordPlace(self._known(place.begun, read), place.paid - self._finished(place.begun, read), pending)
        worth = float(self.table(place.begun)[token])
        return WordPlace(self._known(place.begun, known), worth - self._finished(place.begun, known))

    def ending(self, place: WordPlace) -> float:
        """What the text is worth if it ends here."""
        return self._of(place.begun, "")

    def _read(self, text: str) -> _Piece:
        end = next((index for index, char in enumerate(text) if not is_word(char)), len(text))
        if end == len(text):
            return _Piece(text, 0.0, "", True)
        words = "".join(char if is_word(char) else " " for char in text[end:]).split(" ")
        return _Piece(text[:end], sum(self.weights.of(word) for word in words[:-1] if word), words[-1], False)

    def _known(self, begun: str, piece: _Piece) -> str:
        """The beginning of a word behind a piece, `_UNKNOWN` for all that nothing is known of."""
        text = begun + piece.lead if piece.whole else piece.tail
        return _UNKNOWN if text and (text[0] == _UNKNOWN or self.weights.leads_nowhere(text)) else text

    def _of(self, begun: str, lead: str) -> float:
        return 0.0 if begun == _UNKNOWN or not begun + lead else self.weights.of(begun + lead)

    def _finished(self, begun: str, piece: _Piece) -> float:
        return 0.0 if piece.whole else self._of(begun, piece.lead) + piece.inner

    def _tail_worth(self, tail: str) -> float:
        return self.weights.expected(tail) if tail else 0.0

    def _from_between(self) -> torch.Tensor:
        table = torch.zeros(self.size, dtype=torch.float64)
        for token, piece in self._pieces.items():
            tail = piece.lead if piece.whole else piece.tail
            table[token] = self._finished("", piece) + self._tail_worth(tail)
        if not self._characters:
            # " ha" begins no "happy" for a model that writes it in one token, so words count for the token that a
            # tokenizer begins them with.
            ways = [(spelt, word) for word in self.weights.counts for spelt in _spellings(word)]
            first = self._first_tokens(ways)
            for token, piece in self._pieces.items():
                tail = piece.lead if piece.whole else piece.tail
                if tail and self.vocabulary.piece(token)[: -len(tail)] in ("", " "):
                    table[token] = self.weights.average(*first.get(token, (0.0, 0.0)), tail)
        return table

    def _from_inside(self, begun: str) -> torch.Tensor:
        table = self._between + self._of(begun, "")
        first = {}
        if not self._characters and begun != _UNKNOWN:
            first = self._first_tokens([(word[len(begun) :], word) for word in self.weights.words(begun)])
        for token, piece in self._inside.items():
            text = begun + piece.lead
            if not piece.whole:
                table[token] = self._finished(begun, piece) + self._tail_worth(piece.tail)
            elif begun == _UNKNOWN:
                table[token] = 0.0
            elif self._characters:
                table[token] = self.weights.expected(text)
            else:
                table[token] = self.weights.average(*first.get(token, (0.0, 0.0)), text)
        return table

    def _first_tokens(self, ways: Sequence[tuple[str, str]]) -> dict[int, tuple[float, float]]:
        """For each token by which spellings begin: how often their words were counted, and that times their weight."""
        found: dict[int, tuple[float, float]] = {}
        for spelt, word in ways:
            tokens = self.vocabulary.spell(spelt)
            if tokens:
                count, weighted = found.get(tokens[0], (0.0, 0.0))
                own = self.weights.counts[word]
                found[tokens[0]] = (count + own, weighted + own * self.weights.of(word))
        return found


class WordGuide:
    """Guides by a list of weighted words. See `Guide`.

    Args:
        tables: made of the list.
        end_tokens: ids that end the text.
        prompt_columns: width of the prompts in tokens; by default that of the first call.
    """

    def __init__(self, tables: WordTables, end_tokens: Sequence[int] = (), prompt_columns: int | None = None) -> None:
        self.tables = tables
        self.end_tokens = torch.tensor(list(end_tokens), dtype=torch.long)
        self.states: RowStates[WordPlace] = RowStates(tables.start, tables.advance, prompt_columns=prompt_columns)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """See `Guide`."""
        rows = []
        for place in self.states(input_ids):
            row = self.tables.table(place.begun) - place.paid
            row[self.tables.quiet] = 0.0
            row[self.end_tokens] = self.tables.ending(place) - place.paid
            rows.append(row)
        return torch.stack(rows)[:, : scores.shape[-1]]


def _spellings(word: str) -> tuple[str, ...]:
    return f" {word}", word, f" {word.capitalize()}", word.capitalize()
