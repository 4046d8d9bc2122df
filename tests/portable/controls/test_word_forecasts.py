"""Word weights with predicted words: every word is exactly as likely as was asked, without lookahead."""

import math

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
        self.chain, self.letters = chain, letters
        found = [word for word in words_of(letters) if word[-1] not in BORDERS or len(word) <= letters + 1]
        self.classes = sorted({word.rstrip(BORDERS) for word in found})
        self.outer_bias = torch.zeros(len(self.classes))

    def of(self, ids):
        return ids[:, -3:].float()

    def logits(self, states):
        return torch.tensor([[self._logprob(state.long().tolist(), word) for word in self.classes] for state in states])

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
    logits = NextWords.logits
    monkeypatch.setattr(NextWords, "logits", lambda head, states: asked.append(len(states)) or logits(head, states))
    how = how | {"max_new_tokens": 40, "word_weights": {"time": -20.0, "dragon": 2.0}}
    free = whole_texts(model, ["Once upon a"], **how | {"word_weights": None})
    plain = whole_texts(model, ["Once upon a"], **how)
    model.set_output_embeddings(kind(model.get_output_embeddings()))
    asked.clear()
    found = whole_texts(model, ["Once upon a"], **how)
    assert asked
    assert found != free
    assert kind is Quantized or found == plain
