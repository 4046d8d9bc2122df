"""What the benchmark of word weights expects of a text: by enumeration, and in texts with these weights."""

import functools
import itertools
import math
import re

import numpy as np
import pytest
import torch
from character_chain import Chain
from small_models import byte_level_gpt2

from fundamentallm_hf import WordWeightsLogitsProcessor
from fundamentallm_hf.portable.controls import word_lookahead, word_weighting
from fundamentallm_hf.portable.controls.word_weighting import compile_word_weights
from fundamentallm_hf.portable.text.vocabulary import Vocabulary
from fundamentallm_hf.portable.text.word_counts import WordCounts

END = 0
PIECES = ("", "a", "b", "AB", "c", " ", " a", " ab", " ca", ".", '."b', b"\xf0")
WEIGHTS = {"ab": 1.5, "a": -1.0, "cab": 2.0, "abab": -0.5, "b": 0.7}


class Known:
    """A model that knows the last two tokens of a text, which it has read."""

    def __init__(self, seed, tokens):
        self.seed, self.texts = seed, [tuple(tokens[: cut + 1]) for cut in range(len(tokens))]
        self.logits = torch.stack([self.after(text) for text in self.texts])

    def after(self, text):
        return _scores(self.seed, text[-2:])

    def read_on(self, nodes):
        first = len(self.texts)
        self.texts += [(*self.texts[column], token) for column, token in nodes]
        return torch.stack([self.after(text) for text in self.texts[first:]]), [*range(first, len(self.texts))]


@functools.cache
def _scores(seed, last):
    return torch.tensor(np.random.default_rng([seed, *last]).normal(size=len(PIECES)) * 1.5)


def chosen(logits):
    """Some tokens are left out, as by top-p."""
    return logits.masked_fill(logits < -1.0, -torch.inf).softmax(dim=-1)


def spelled(tokens):
    return "".join(PIECES[token] if isinstance(PIECES[token], str) else "é" for token in tokens)


def ways_on(model, tokens, chance=1.0, first=True):
    """All that may follow a text, up to where the first word that is begun there has ended, with its probability."""
    for token, share in enumerate(chosen(model.after(tokens)[None])[0].tolist()):
        after = (*tokens, token)
        if not share:
            continue
        word = re.search(r"\w*$", spelled(after))[0].lower()
        is_open = token != END and any(each.startswith(word) for each in WEIGHTS) and word
        ends = not first and (token == END or not PIECES[token][:1].isalnum())
        if ends or not is_open:
            yield after, chance * share
        else:
            yield from ways_on(model, after, chance * share, first=False)


def by_hand(model, tokens):
    """The chances of words after a text: free, and asked for."""
    start, free, asked, total = len(spelled(tokens)), {}, {}, 0.0
    for way, chance in ways_on(model, tokens):
        text = spelled(way)
        found = [match for match in re.finditer(r"\w+", text) if match.end() >= start]
        # One that ends where the text ended is complete if no letter follows; the last one, if the text is.
        whole = [match for match in found if match.end() < len(text) or way[-1] == END]
        listed = [match for match in whole if match[0].lower() in WEIGHTS]
        worth = chance * math.exp(sum(WEIGHTS[match[0].lower()] for match in listed))
        total += worth
        for match in listed:
            if match.start() >= start:
                word = match[0].lower()
                free[word] = free.get(word, 0.0) + chance
                asked[word] = asked.get(word, 0.0) + worth
    return free, {word: worth / total for word, worth in asked.items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("begun", [(5,), (9,), (4,), (6, 2), (7,), (8,), (8, 2), (2, 2), (5, 11), (10,)])
def test_the_chances_at_a_place_are_those_of_all_ways_on(script, seed, begun):
    words = script("asked_words").ListedWords(WEIGHTS, Vocabulary(PIECES), len(PIECES), [END])
    model = Known(seed, begun)
    letters = functools.reduce(words.follow, begun, "")
    (place,) = script("asked_words").asked_words(model, words, {len(begun) - 1: letters}, chosen, 0.0).values()
    free, asked = by_hand(model, begun)
    assert set(asked) <= set(place.free)
    for word in place.free:
        assert place.free[word] == pytest.approx(free.get(word, 0.0))
        assert place.chances()[word] == pytest.approx(asked.get(word, 0.0))


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_text_is_counted_at_the_places_that_are_looked_at(script, rate):
    asked_words = script("asked_words")
    words = asked_words.ListedWords(WEIGHTS, Vocabulary(PIECES), len(PIECES), [END])
    draw = np.random.default_rng(4)
    observed = 0
    for number in range(20):
        tokens, is_whole = draw.integers(1, len(PIECES) - 1, 30).tolist(), bool(number % 2)
        tokens += [END] * is_whole
        readers = []

        def read(tokens, readers=readers):
            readers.append(Known(0, tokens))
            return readers[0]

        found = asked_words.tally(tokens, 3, is_whole, words, read, chosen, rate, seed=number)
        begun = [*itertools.accumulate(tokens, words.follow, initial="")][1:]
        last = len(tokens) - 1 if is_whole else len(tokens) - 5
        dice = asked_words.random.Random(number)
        places = [column for column in range(3, last) if dice.random() < rate]
        hand = [by_hand(readers[0], tuple(tokens[: column + 1])) for column in places]
        for word, each in found.items():
            assert each.free == pytest.approx(sum(free.get(word, 0.0) for free, _ in hand), rel=1e-3)
            chances = [asked.get(word, 0.0) for _, asked in hand]
            assert each.asked == pytest.approx(sum(chances), rel=1e-3)
            assert each.variance == pytest.approx(sum(chance * (1 - chance) for chance in chances), rel=1e-3)
        ends = [*itertools.accumulate(len(spelled([token])) for token in tokens)]
        starts = {match.start(): match[0].lower() for match in re.finditer(r"\w+", spelled(tokens))}
        came = [
            starts[at] for column in places for at in range(ends[column], ends[column + 1]) if starts.get(at) in WEIGHTS
        ]
        assert {word: each.observed for word, each in found.items() if each.observed} == {
            word: came.count(word) for word in came
        }
        assert len(begun) == len(tokens)
        observed += len(came)
    assert observed > 20


def test_what_cannot_be_counted_is_refused(script):
    make = functools.partial(script("asked_words").ListedWords, size=3, end_tokens=[0])
    with pytest.raises(ValueError, match="'not only' is not a word"):
        make({"not only": 1.0}, Vocabulary(("", "a", " ")))
    with pytest.raises(ValueError, match="'b ' has the end of a listed word"):
        make({"ab": 1.0}, Vocabulary(("", "a", "b ")))
    with pytest.raises(ValueError, match=r"' ab\.' has the end of a listed word"):
        make({"ab": 1.0}, Vocabulary(("", "a", " ab.")))


@pytest.mark.parametrize("kind", ["characters", "byte_level"])
def test_what_is_read_on_sees_only_what_it_continues(script, kind, shakespeare):
    model = shakespeare if kind == "characters" else byte_level_gpt2()
    tokens = [5, 9, 12, 7, 20, 11]
    reader = script("asked_words").TreeReader(model, tokens)
    paths = {column: tokens[: column + 1] for column in range(len(tokens))}
    logits = dict(enumerate(reader.logits))
    for nodes in ([(0, 8), (5, 9), (5, 10), (3, 8)], [(6, 4), (9, 4), (7, 5), (2, 5)], [(10, 6), (13, 3)]):
        answers, columns = reader.read_on(nodes)
        for (before, token), column, answer in zip(nodes, columns, answers, strict=True):
            paths[column], logits[column] = [*paths[before], token], answer
    for column, path in paths.items():
        with torch.no_grad():
            expected = model(torch.tensor([path])).logits[0, -1]
        torch.testing.assert_close(logits[column], expected, atol=1e-4, rtol=1e-4)


def write(chain, weights, texts, length):
    """Texts of a chain, with weights unless these are None."""
    counts = WordCounts({"ab": 5, "abc": 5, "ba": 2, "bab": 1, "bb": 2, "ca": 3, "cab": 2, "c": 1})
    tokens = torch.tensor([chain.tokens("a ")] * texts)
    processor = None
    if weights is not None:
        tables = compile_word_weights(weights, chain.tokenizer, len(chain.tokenizer), counts=counts)
        processor = WordWeightsLogitsProcessor(tables, prompt_columns=2, lookahead=chain)
    torch.manual_seed(0)
    while tokens.shape[1] < length:
        scores = torch.stack([chain.after(text) for text in tokens.tolist()])
        shifted = scores if processor is None else processor(tokens, scores)
        tokens = torch.cat([tokens, shifted.softmax(dim=-1).multinomial(1)], dim=1)
    return tokens.tolist()


def test_words_come_as_often_as_was_asked_only_with_the_weights(script, monkeypatch):
    """The check of the benchmark holds for texts with weights, and not for texts without them."""
    monkeypatch.setattr(word_weighting, "AT_STAKE", 1e-6)
    monkeypatch.setattr(word_lookahead, "MOST_READ", 1000)
    asked_words, chain, weights = script("asked_words"), Chain(0), {"ab": 2.0, "c": -2.0, "ca": 1.0}
    words = asked_words.ListedWords(weights, Vocabulary.of(chain.tokenizer), len(chain.tokenizer), [])

    class Reader(Known):
        def after(self, text):
            return chain.after(list(text))

    for given in (weights, None):
        total = dict.fromkeys(weights, asked_words.Tally())
        for text in write(chain, given, texts=150, length=60):
            found = asked_words.tally(
                text, 2, False, words, lambda tokens: Reader(0, tokens), lambda logits: logits.softmax(dim=-1)
            )
            for word, each in found.items():
                total[word] = asked_words.Tally(*map(sum, zip(total[word], each, strict=True)))
        off = [abs(each.ratio - 1) / each.error for each in total.values()]
        assert all(each.asked > 20 for each in total.values())
        assert max(off) < 3 if given else min(off) > 4
