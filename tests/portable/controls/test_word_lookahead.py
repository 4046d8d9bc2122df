"""Word weights with lookahead: a word is exactly e^w times as likely as it was beside the words without a weight."""

import math

import pytest
import torch
from character_chain import BORDERS, Chain, word_factor, words_of
from toy_tokenizers import toy_tokenizer

from fundamentallm_hf import WordWeightsLogitsProcessor
from fundamentallm_hf.portable.controls import word_lookahead, word_weighting
from fundamentallm_hf.portable.controls.word_weighting import compile_word_weights
from fundamentallm_hf.portable.text.word_counts import WordCounts


def reader_of(chain, weights, prompt):
    """A function that returns the log-probability of a text after `prompt` under weights, and the sums of its steps."""
    known = {"ab": 5, "abc": 5, "ba": 2, "bab": 1, "bb": 2, "ca": 3, "cab": 2, "c": 1}
    counts = WordCounts(known)  # which know nothing of the chain, and are sure of nothing
    tables = compile_word_weights(weights, chain.tokenizer, len(chain.tokenizer), counts=counts)
    processor = WordWeightsLogitsProcessor(tables, prompt_columns=len(prompt), lookahead=chain)

    def read(text):
        tokens, found, shares = chain.tokens(prompt), 0.0, []
        for token in chain.tokens(text):
            shifted = processor(torch.tensor([tokens]), chain.after(tokens)[None])[0]
            shares.append(float(shifted.logsumexp(dim=-1)))
            found += float(shifted[token]) - shares[-1]
            tokens.append(token)
        return found, shares

    return read


@pytest.mark.parametrize(
    "weights",
    [
        {"ab": 2.0},
        {"ab": -3.0},
        {"ab": 2.0, "abc": -1.0, "ca": 1.0},
        {"ba*": 1.5, "ab": -0.5},
        {"ba*": 1.5, "ba": -3.0},
        {r"/\bca\b/": -2.0, "ca*": 1.0},
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_word_comes_exactly_as_often_as_was_asked(weights, seed, monkeypatch):
    """All words that may follow are tried, and all have the probability e^w p / Z, exactly and not by sampling."""
    monkeypatch.setattr(word_weighting, "AT_STAKE", 1e-9)
    monkeypatch.setattr(word_lookahead, "MOST_READ", 1000)
    chain, prompt = Chain(seed), "a "
    texts = list(words_of(3))
    free = {text: math.exp(chain.logprob(prompt, text)) for text in texts}
    borders = [math.exp(chain.logprob(prompt, border)) for border in BORDERS]
    assert sum(free.values()) + sum(borders) == pytest.approx(1, abs=1e-5)
    asked = {text: chance * word_factor(weights, text) for text, chance in free.items()}
    share = sum(asked.values()) + sum(borders)
    read = reader_of(chain, weights, prompt)
    for text in texts:
        found, shares = read(text)
        assert math.exp(found) == pytest.approx(asked[text] / share, rel=2e-3), text
        assert all(abs(each) < 2e-3 for each in shares[1:]), "a word is paid for when it begins, and not again"
    assert chain.asked


@pytest.mark.parametrize("weight", [-1.5, 2.0])
def test_a_phrase_comes_exactly_as_often_as_was_asked(weight, monkeypatch):
    monkeypatch.setattr(word_weighting, "AT_STAKE", 1e-9)
    # Without two spaces in a row: what is read ahead is the phrase with one.
    chain, prompt = Chain(3, spaced=False), "a "
    begun = math.exp(chain.logprob(prompt, "ab "))
    phrases = [f"ab ca{border}" for border in BORDERS]
    chance = sum(math.exp(chain.logprob(prompt, phrase)) for phrase in phrases)
    share = 1 + chance * math.expm1(weight)
    read = reader_of(chain, {"ab ca": weight}, prompt)
    for text in words_of(2):
        expected = math.exp(chain.logprob(prompt, text))
        if text == "ab ":  # what is paid for the phrase that may come
            expected += chance * math.expm1(weight)
        assert math.exp(read(text)[0]) == pytest.approx(expected / share, rel=2e-3), text
    for phrase in phrases:
        expected = math.exp(chain.logprob(prompt, phrase) + weight) / share
        assert math.exp(read(phrase)[0]) == pytest.approx(expected, rel=0.02), phrase
    assert chance < begun / 2


def test_an_end_of_the_text_completes_a_word(monkeypatch):
    monkeypatch.setattr(word_weighting, "AT_STAKE", 1e-9)
    end = toy_tokenizer("characters").eos_token_id
    chain, weights = Chain(4, end), {"ab": 2.0}
    tables = compile_word_weights(
        weights, chain.tokenizer, len(chain.tokenizer), counts=WordCounts({"ab": 1, "abc": 1, "ac": 1})
    )
    processor = WordWeightsLogitsProcessor(tables, prompt_columns=2, lookahead=chain, end_tokens=[end])
    tokens = chain.tokens("a ab")
    shifts = []
    for cut in (2, 3, 4):
        scores = chain.after(tokens[:cut])
        shifts.append(processor(torch.tensor([tokens[:cut]]), scores[None])[0] - scores)
    paid = float(shifts[0][tokens[2]] + shifts[1][tokens[3]] + shifts[2][end])
    assert paid == pytest.approx(2.0, abs=1e-3)
    assert float(shifts[0][end]) == 0
