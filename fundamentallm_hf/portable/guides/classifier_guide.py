"""Guides by a text classifier, which scores the text with each of the most probable next tokens.

By Bayes' rule the probability of a text that has an attribute is the probability of the text times that of the
attribute given the text. So a token gets the log of the classifier's probability for the text with it, as in FUDGE
(Yang and Klein 2021); here any classifier of whole texts can be used. It cannot read "I am ha", so an unfinished word
is replaced by the word that most often starts so. Only the most probable tokens are scored; all others get the average
of those scores.
"""

from collections.abc import Callable, Iterable, Sequence

import torch

from ..decoding.forward import padding_of
from ..text.characters import fold_text, is_word
from ..text.vocabulary import Vocabulary, add_piece, as_bytes
from ..text.word_counts import WordCounts
from .guided_attributes import MOST_BELOW

# Tokens scored for each row, and number of texts whose scores are kept.
CANDIDATES, _KEPT_JUDGEMENTS = 8, 4096


class ClassifierGuide:
    """Guides by a text classifier. See `Guide`.

    Args:
        judge: called with texts, returns for each the log of the probability that it has the attribute, or nan if it
            cannot score the text.
        vocabulary: what every token adds to the text.
        counts: word counts, which complete the unfinished word.
        end_tokens: ids that end the text, and so the word.
        padding: (prompt rows,) columns of padding before each prompt; rows made of one prompt are adjacent.
        candidates: how many tokens of a row are scored.
        kept: how many scored texts are kept for later steps.
    """

    def __init__(
        self,
        judge: Callable[[Sequence[str]], Sequence[float]],
        vocabulary: Vocabulary,
        counts: WordCounts,
        end_tokens: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        candidates: int = CANDIDATES,
        kept: int = _KEPT_JUDGEMENTS,
    ) -> None:
        self.judge = judge
        self.vocabulary = vocabulary
        self.counts = counts
        self.end_tokens = frozenset(end_tokens)
        # A prompt given as embeddings has no columns, and is not read.
        self.padding = [max(0, columns) for columns in padding] or [0]
        self.candidates = candidates
        self.kept = kept
        self._judged: dict[str, float] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """See `Guide`."""
        likeliest = scores.float().topk(min(self.candidates, scores.shape[-1]))
        near = likeliest.values.isfinite() & (likeliest.values >= likeliest.values[:, :1] - MOST_BELOW)
        tokens, chances = likeliest.indices.tolist(), likeliest.values.cpu().double()
        texts: list[list[str]] = []
        for index, (row, open_ones) in enumerate(zip(input_ids.tolist(), near.sum(dim=-1).tolist(), strict=True)):
            # With one allowed token there is no choice.
            of_row = tokens[index][:open_ones] if open_ones > 1 else []
            start = padding_of(self.padding, index, len(input_ids))
            texts.append(self._texts(row[start:], of_row))
        judged = self._ask(text for of_row in texts if len(set(of_row)) > 1 for text in of_row)
        worth = torch.zeros(scores.shape, dtype=torch.float32)
        for index, of_row in enumerate(texts):
            logs = torch.tensor([judged.get(text, torch.nan) for text in of_row], dtype=torch.double)
            told = logs.isfinite().nonzero()[:, 0]
            if len(told) > 1:
                share = chances[index, told].softmax(dim=-1)
                value = logs[told] - share @ logs[told]
                worth[index, likeliest.indices[index].cpu()[told]] = value.float()
        return worth

    def _texts(self, row: Sequence[int], candidates: Sequence[int]) -> list[str]:
        """The text of a row with each of the candidates, as the classifier reads it."""
        if not candidates:
            return []
        parts, pending = [], b""
        for token in row:
            added, pending = add_piece(pending, self._piece(token))
            parts.append(added)
        text = "".join(parts)
        found = []
        for token in candidates:
            longer = text + add_piece(pending, self._piece(token))[0]
            found.append(longer if token in self.end_tokens else self._ended(longer))
        return found

    def _piece(self, token: int) -> str | bytes:
        piece = self.vocabulary.piece(token)
        return as_bytes(piece) if token in self.vocabulary.fallback else piece

    def _ended(self, text: str) -> str:
        """The text with its last word completed in the most frequent way."""
        start = len(text)
        while start and is_word(text[start - 1]):
            start -= 1
        begun = fold_text(text[start:])
        word = self.counts.likeliest(begun) if begun else None
        if word is None:
            return text
        rest = word[len(begun) :]
        return text + (rest.upper() if len(begun) > 1 and text[start:].isupper() else rest)

    def _ask(self, texts: Iterable[str]) -> dict[str, float]:
        wanted = [text for text in dict.fromkeys(texts) if text.strip()]
        new = [text for text in wanted if text not in self._judged]
        if new:
            self._judged.update(zip(new, self.judge(new), strict=True))
        found = {text: self._judged[text] for text in wanted}
        while len(self._judged) > self.kept:
            del self._judged[next(iter(self._judged))]
        return found
