"""Guides by a list of weighted words: each token gets the expected weight of the word that it starts.

If the word turns out differently, the weight given for its start is taken back, so a text gets exactly the weights of
its words, whatever its tokens: with strength s the scores of a beam contain s times the sum of the weights. Such a list
cannot take account of negation, or of the meaning of a word in its sentence.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..decoding.row_states import RowStates
from ..decoding.texts import Texts
from ..text.characters import fold_text, is_word
from ..text.vocabulary import Vocabulary, add_piece, as_bytes
from .attribute_words import AttributeWords

# Scores that the kept tables may hold together, and the number of tables that are kept whatever their size.
_KEPT_SCORES, _KEPT_TABLES = 1 << 23, 64
# The state in a word of which nothing is known.
_UNKNOWN = "\x00"


class WordPlace(NamedTuple):
    """The state of a text.

    Attributes:
        begun: the folded start of the unfinished word; empty between words.
        paid: the weight given for it so far, less the weight still due for earlier words.
        pending: the first bytes of the next character.
    """

    begun: str = ""
    paid: float = 0.0
    pending: bytes = b""


class _Piece(NamedTuple):
    """The parts of a token: the rest of a word, the whole words in it, and the start of another."""

    lead: str
    inner: float
    tail: str
    whole: bool  # all of it belongs to one word


class WordTables:
    """The weight of every token in each state of a word, computed once for a list and a vocabulary.

    Args:
        weights: of the words.
        vocabulary: what every token adds to the text.
        size: number of scores the model gives.
    """

    start = WordPlace()

    def __init__(self, weights: AttributeWords, vocabulary: Vocabulary, size: int) -> None:
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
        # Special tokens, and parts of characters, say nothing about the word.
        self.quiet = torch.tensor(quiet, dtype=torch.long)
        self._inside = {token: piece for token, piece in self._pieces.items() if piece.lead}
        self._between = self._from_between()

    def table(self, begun: str) -> torch.Tensor:
        """(vocabulary,) weight of each token here: the words that it completes, and the word that it leaves."""
        if not begun:
            return self._between
        table = self._tables.pop(begun, None)
        if table is None:
            table = self._from_inside(begun)
        self._tables[begun] = table  # the end of a dict is its newest part
        while len(self._tables) > max(_KEPT_TABLES, _KEPT_SCORES // self.size):
            del self._tables[next(iter(self._tables))]
        return table

    def advance(self, place: WordPlace, token: int) -> WordPlace:
        """The state after `token`."""
        piece = self.vocabulary.piece(token)
        if not piece:
            return place
        known = self._pieces.get(token)
        if known is None or place.pending:
            raw = as_bytes(piece) if token in self.vocabulary.fallback else piece
            text, pending = add_piece(place.pending, raw)
            if not text:
                return place._replace(pending=pending)
            # Nothing was given for it, so the weight due is given with the next token.
            read = self._read(fold_text(text))
            return WordPlace(self._known(place.begun, read), place.paid - self._finished(place.begun, read), pending)
        worth = float(self.table(place.begun)[token])
        return WordPlace(self._known(place.begun, known), worth - self._finished(place.begun, known))

    def ending(self, place: WordPlace) -> float:
        """The weight of the text if it ends here."""
        return self._of(place.begun, "")

    def _read(self, text: str) -> _Piece:
        end = next((index for index, char in enumerate(text) if not is_word(char)), len(text))
        if end == len(text):
            return _Piece(text, 0.0, "", True)
        words = "".join(char if is_word(char) else " " for char in text[end:]).split(" ")
        return _Piece(text[:end], sum(self.weights.of(word) for word in words[:-1] if word), words[-1], False)

    def _known(self, begun: str, piece: _Piece) -> str:
        """The start of a word after a piece, `_UNKNOWN` where nothing is known of it."""
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
            # " ha" does not start "happy" for a model that writes that word in one token, so words count for the first
            # token in their tokenization.
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
        """For each token that spellings start with: how often their words were counted, and that times their weight."""
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
        return self.judge_texts(Texts.of(input_ids), scores)

    def judge_texts(self, texts: Texts, scores: torch.Tensor) -> torch.Tensor:
        """See `JudgesTexts`."""
        rows = []
        for place in self.states(texts):
            row = self.tables.table(place.begun) - place.paid
            row[self.tables.quiet] = 0.0
            row[self.end_tokens] = self.tables.ending(place) - place.paid
            rows.append(row)
        return torch.stack(rows)[:, : scores.shape[-1]]


def _spellings(word: str) -> tuple[str, ...]:
    return f" {word}", word, f" {word.capitalize()}", word.capitalize()
