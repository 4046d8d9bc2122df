"""Word weights with predicted words: every word is exactly as likely as was asked, without lookahead."""

import functools
import math
import random

import numpy as np
import pytest
import torch
from character_chain import BORDERS, Chain, word_factor, words_of
from writing import whole_texts

from fundamentallm_hf import WordWeightsLogitsProcessor, load_model
from fundamentallm_hf.portable.controls.word_forecasts import WordForecasts
from fundamentallm_hf.portable.controls.word_weighting import compile_word_weights
from fundamentallm_hf.portable.decoding.next_words import NextWords
from fundamentallm_hf.portable.text import word_values
from fundamentallm_hf.portable.text.word_counts import WordCounts


class Foreseen:
    """Knows the probability of every word of a chain; stands for a classifier and for the states that it reads."""

    def __init__(self, chain, letters):
        self.chain, self.letters, self.width = chain, letters, 3
        found = [word for word in words_of(letters) if word[-1] not in BORDERS or len(word) <= letters + 1]
        self.classes = sorted({word.rstrip(BORDERS) for word in found})

    def of(self, ids):
        return ids[:, -3:].float()

    def read(self, states):
        return states

    def letter_logits(self, read, letter):
        tokens = [int(token) for token in read[:-1]]
        return np.array([self._logprob(tokens, word) for word in self.classes if word[0] == letter], dtype=np.float32)

    def _logprob(self, tokens, word):
        """Of a word with what ends it; of the longest ones, which stand for all that begin so, without."""
        found = 0.0
        for token in self.chain.tokens(word):
            found += float(self.chain.after(tokens)[token])
            tokens = [*tokens, token]
        ends = self.chain.after(tokens)[self.chain.tokens(BORDERS)].logsumexp(dim=0)
        return found + (float(ends) if len(word) <= self.letters else 0.0)


@pytest.mark.parametrize(
    "weights", [{"ab": 2.0}, {"ab": -3.0, "ca": 1.0}, {"ba*": 1.5, "ba": -3.0}, {r"/\bca\b/": -2.0, "ab": 1.0}]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_with_all_words_predicted_every_word_comes_exactly_as_often_without_lookahead(weights, seed, monkeypatch):
    """The probabilities of whole words, where they begin, are all that it takes."""
    monkeypatch.setattr(word_values, "_UNLISTED", 1e-12)
    chain, prompt = Chain(seed), "a "
    foreseen = Foreseen(chain, 4)
    counts = WordCounts(dict.fromkeys(foreseen.classes, 1.0))
    tables = compile_word_weights(weights, chain.tokenizer, len(chain.tokenizer), counts=counts)
    values = word_values.WordValues(tables.weighted, tables.vocabulary, tables.size, foreseen.classes)
    forecasts = WordForecasts(foreseen, values, foreseen)
    processor = WordWeightsLogitsProcessor(tables, prompt_columns=len(prompt), forecasts=forecasts)
    texts = list(words_of(3))
    asked = {text: math.exp(chain.logprob(prompt, text)) * word_factor(weights, text) for text in texts}
    # A word of more letters may have a weight, too.
    share = 1 + math.fsum(
        math.exp(foreseen._logprob(chain.tokens(prompt), word)) * (word_factor(weights, f"{word} ") - 1)
        for word in foreseen.classes
    )
    for text in texts:
        tokens, found = chain.tokens(prompt), 0.0
        for token in chain.tokens(text):
            found += float(processor(torch.tensor([tokens]), chain.after(tokens)[None])[0].log_softmax(dim=-1)[token])
            tokens.append(token)
        if text[-1] in BORDERS:
            assert math.exp(found) == pytest.approx(asked[text] / share, rel=2e-3), text


@pytest.mark.parametrize("draw", range(6))
def test_factors_are_those_of_all_words_with_a_prefix(draw, monkeypatch):
    """Compared with a sum over words, whatever their classes, of every prefix and every letter after it."""
    monkeypatch.setattr(word_values, "_UNLISTED", 1e-9)
    chance = random.Random(draw)
    tokenizer = load_model(device="cpu").tokenizer
    words = sorted({"".join(chance.choices("ahit", k=chance.randint(1, 4))) for _ in range(60)} | {"a", "i"})
    alone = chance.sample(words, 25) + ["a"] * ("a" not in words)
    classes = [*dict.fromkeys([*alone, *(f"{letter}*" for letter in "ahit" if chance.random() < 0.8)])]
    chance.shuffle(classes)
    shapes = [(8, 5), (8,), (len(classes), 8), (len(classes),)]
    generator = torch.Generator().manual_seed(draw)
    head = NextWords(classes, *(torch.randn(shape, generator=generator) for shape in shapes))
    counts = {word: float(chance.randint(1, 30)) for word in words}
    weights = {word: chance.choice([-3.0, -1.0, 1.0, 2.0]) for word in chance.sample(words, 20)}
    tables = compile_word_weights(weights, tokenizer, len(tokenizer), counts=WordCounts(counts))
    values = word_values.WordValues(tables.weighted, tables.vocabulary, tables.size, head.classes)
    state = torch.randn(5, generator=generator)
    read = np.append(head.read(state[None])[0].numpy(), np.float32(1.0))
    expected = word_values.Expected(values, functools.partial(head.letter_logits, read))
    of_class = dict(zip(classes, head.logits(state[None])[0].exp().tolist(), strict=True))
    of_word = {}
    for word in words:
        others = math.fsum(counts[each] + 0.5 for each in words if each[0] == word[0] and each not in of_class)
        rest = of_class.get(f"{word[0]}*", 0.0) * (counts[word] + 0.5) / max(others, 0.5)
        of_word[word] = of_class.get(word, rest)
    most = {letter: max((of_class[name] for name in classes if name[0] == letter), default=1.0) for letter in "ahit"}
    for prefix in ["", *sorted({word[:cut] for word in words for cut in range(1, len(word) + 1)})]:
        found = values.values(expected, prefix)
        for letter in "ahit":
            begun = [word for word in words if word.startswith(prefix + letter)]
            mass = math.fsum(of_word[word] for word in begun)
            gains = {word: of_word[word] / mass * math.expm1(weights.get(word, 0.0)) for word in begun if mass}
            value, doubt = 1 + sum(gains.values()), sum(abs(g) * (1 - of_word[w] / mass) for w, g in gains.items())
            if mass > 1e-4 * most[(prefix + letter)[0]]:  # others are hardly known
                token = tokenizer.convert_tokens_to_ids(letter)
                assert (1.0 if found is None else found[0][token]) == pytest.approx(value, rel=1e-3), prefix + letter
                assert (0.0 if found is None else found[1][token]) == pytest.approx(doubt, abs=1e-3), prefix + letter
                assert values.value(expected, prefix + letter) == pytest.approx(value, rel=1e-3)


class Wrapped(torch.nn.Module):
    """An output layer that keeps its weights to itself, as adapters do."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, states):
        return self.layer(states)


class Quantized(torch.nn.Module):
    """An output layer of integers, with a factor for each token."""

    def __init__(self, layer):
        super().__init__()
        self.factors = layer.weight.detach().abs().amax(dim=-1) / 127
        self.weight = (layer.weight.detach() / self.factors[:, None]).round().to(torch.int8)

    def forward(self, states):
        return torch.nn.functional.linear(states, self.weight.to(states) * self.factors[:, None])


@pytest.mark.parametrize("kind", [Wrapped, Quantized])
@pytest.mark.parametrize(
    "how", [{"do_sample": False}, {"do_sample": True, "temperature": 0.9, "seed": 5}, {"num_beams": 3}]
)
def test_words_are_predicted_whatever_the_output_layer_is_made_of(kind, how, monkeypatch):
    model, asked = load_model(device="cpu"), []
    read = NextWords.read
    monkeypatch.setattr(NextWords, "read", lambda head, states: asked.append(len(states)) or read(head, states))
    how = how | {"max_new_tokens": 40, "word_weights": {"time": -20.0, "dragon": 2.0}}
    free = whole_texts(model, ["Once upon a"], **how | {"word_weights": None})
    plain = whole_texts(model, ["Once upon a"], **how)
    model.set_output_embeddings(kind(model.get_output_embeddings()))
    asked.clear()
    found = whole_texts(model, ["Once upon a"], **how)
    assert asked
    assert found != free
    assert kind is Quantized or found == plain
