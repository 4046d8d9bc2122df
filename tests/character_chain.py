"""A chain over five characters: a model whose texts have known probabilities, so that these can be checked exactly."""

import functools
import itertools
import math

import torch
from toy_tokenizers import toy_tokenizer

ALPHABET = "abc ."
BORDERS = " ."


class Chain:
    """A model over five characters that knows the last three: a known distribution over texts.

    It is asked like the model of a call, and keeps what it was asked for.
    """

    def __init__(self, seed, end=None, spaced=True):
        self.tokenizer = toy_tokenizer("characters")
        self.ids = [self.tokenizer.convert_tokens_to_ids(char) for char in ALPHABET]
        self.end = end
        self.generator = torch.Generator().manual_seed(seed)
        self.spaced = spaced
        self.asked = 0

    @functools.cache  # noqa: B019 - as long as the test
    def scores(self, last):
        found = torch.full((len(self.tokenizer),), -torch.inf)
        found[self.ids] = torch.randn(len(self.ids), generator=self.generator) * 1.5
        if last[-1:] == (self.ids[ALPHABET.index(" ")],) and not self.spaced:
            found[last[-1]] = -torch.inf
        if self.end is not None:
            found[self.end] = 0.0
        return found.log_softmax(dim=-1)

    def after(self, tokens):
        return self.scores(tuple(tokens[-3:]))

    def logits(self, texts, rows, continuations):
        self.asked += len(rows)
        answers = []
        for row, path in zip(rows, continuations, strict=True):
            tokens = texts.tokens(row).tolist()
            answers.append(torch.stack([self.after(tokens + path[: cut + 1]) for cut in range(len(path))]))
        return answers

    def tokens(self, text):
        return [self.ids[ALPHABET.index(char)] for char in text]

    def logprob(self, prompt, text):
        tokens = self.tokens(prompt)
        found = 0.0
        for token in self.tokens(text):
            found += float(self.after(tokens)[token])
            tokens.append(token)
        return found


def words_of(length):
    """Every word of at most `length` letters, with what ends it, and every beginning that is longer."""
    letters = [char for char in ALPHABET if char not in BORDERS]
    for count in range(1, length + 1):
        for word in itertools.product(letters, repeat=count):
            yield from ("".join(word) + border for border in BORDERS)
    yield from ("".join(word) for word in itertools.product(letters, repeat=length + 1))


def word_factor(weights, word):
    """The factor of one word with its border, by hand."""
    bare = word.rstrip(BORDERS)
    whole = bare != word
    found = 0.0
    for entry, weight in weights.items():
        if entry.endswith("*"):
            found += weight * bare.startswith(entry[:-1])
        elif entry.startswith("/"):
            found += weight * (whole and bare == entry.strip("/b\\"))
        else:
            found += weight * (whole and bare == entry)
    return math.exp(found)
