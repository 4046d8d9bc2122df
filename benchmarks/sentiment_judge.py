"""Judges of texts that have nothing to do with how the texts came about: how positive they are, and how fluent.

Sentiment is judged by logistic regression over the mean of the states that SmolLM2-135M has after its 16th layer,
trained on reviews (each line of a file is a 0 or 1, a tab, and a text). Layers 12, 20, 24 and 28 told held-out reviews
apart less well. Beside it are logistic regression over the words and pairs of words of the same reviews, which knows
less but shares nothing with any network, and VADER's compound score. Fluency is the perplexity under the whole of
SmolLM2.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from models import smollm2

LAYERS = 16
_ROWS = 25


class SentimentJudge:
    """Judges sentiment and fluency.

    Args:
        files: of reviews.
        cache: a file that keeps what SmolLM2 makes of the reviews, which takes minutes.
    """

    def __init__(self, files: Sequence[Path], cache: Path | None = None) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self.model = smollm2()
        self.model.tokenizer.padding_side = "right"
        self._scores = SentimentIntensityAnalyzer().polarity_scores
        lines = [line.split("\t", 1) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
        rows = [(line[1], int(line[0])) for line in lines if len(line) == 2]
        texts, labels = zip(*rows, strict=True)
        if cache is not None and cache.is_file():
            states = numpy.load(cache)
        else:
            states = self._states(texts)
            if cache is not None:
                numpy.save(cache, states)
        # Balanced, so that a text of which nothing is known counts as neither.
        self.classifier = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.003, max_iter=500, class_weight="balanced")
        )
        self.accuracy = float(cross_val_score(self.classifier, states, labels, cv=5).mean())
        self.reviews = len(rows)
        self.classifier.fit(states, labels)
        self.of_words = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=10, max_iter=500, class_weight="balanced"),
        )
        self.accuracy_of_words = float(cross_val_score(self.of_words, texts, labels, cv=5).mean())
        self.of_words.fit(texts, labels)

    def positive(self, texts: Sequence[str]) -> float:
        """The share that is positive, by the classifier."""
        return float((self.classifier.predict_proba(self._states(texts))[:, 1] > 0.5).mean())

    def positive_by_words(self, texts: Sequence[str]) -> float:
        """The share that is positive, by the words alone."""
        return float((self.of_words.predict_proba(texts)[:, 1] > 0.5).mean())

    def positive_by_vader(self, texts: Sequence[str]) -> float:
        """The share that is positive, by VADER."""
        return sum(self._scores(text)["compound"] > 0 for text in texts) / len(texts)

    def perplexity(self, pairs: Sequence[tuple[str, str]]) -> float:
        """Per token of SmolLM2, of texts behind their openings: over all together."""
        nats, count = 0.0, 0
        for rows in self._batches([len(opening + text) for opening, text in pairs]):
            read = self._read([pairs[row][0] + pairs[row][1] for row in rows])
            with torch.no_grad():
                logs = self.model(**read).logits[:, :-1].log_softmax(dim=-1)
            logs = logs.gather(2, read.input_ids[:, 1:, None])[..., 0]
            for place, row in enumerate(rows):
                first = len(self.model.tokenizer(pairs[row][0]).input_ids)
                last = int(read.attention_mask[place].sum())
                nats -= float(logs[place, first - 1 : last - 1].sum())
                count += last - first
        return math.exp(nats / count)

    def _read(self, texts: Sequence[str]):
        return self.model.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=512)

    @torch.no_grad()
    def _states(self, texts: Sequence[str]) -> numpy.ndarray:
        inner = self.model.model
        layers, inner.layers = inner.layers, inner.layers[:LAYERS]
        found = numpy.zeros((len(texts), self.model.config.hidden_size), dtype=numpy.float32)
        passed: list[torch.Tensor] = []
        hook = inner.layers[-1].register_forward_hook(
            lambda _, __, output: passed.append(output[0] if isinstance(output, tuple) else output)
        )
        try:
            for rows in self._batches(list(map(len, texts))):
                read = self._read([texts[row] if texts[row].strip() else "." for row in rows])
                passed.clear()
                inner(**read, use_cache=False)
                mask = read.attention_mask[..., None].float()
                mask[:, 0] = 0  # what the first token holds belongs to no text
                mean = (passed[0] * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
                found[rows] = mean.numpy()
        finally:
            hook.remove()
            inner.layers = layers
        return found

    @staticmethod
    def _batches(lengths: list[int]) -> list[list[int]]:
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        return [order[place : place + _ROWS] for place in range(0, len(order), _ROWS)]
