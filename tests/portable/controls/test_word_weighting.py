"""Word weights: a word is e^w times as likely as it was beside the words that have no weight, and no other one is."""

import functools
import itertools
import json
import math
import re

import pytest
import torch
from click.testing import CliRunner
from toy_tokenizers import FAMILIES, toy_model, toy_tokenizer
from transformers import GenerationConfig
from writing import token_ids, whole_texts

from fundamentallm_hf import Generator, WordWeightsLogitsProcessor, load_model
from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.portable.controls import word_lookahead, word_weighting
from fundamentallm_hf.portable.controls.word_forecasts import WordForecasts
from fundamentallm_hf.portable.controls.word_weighting import compile_word_weights
from fundamentallm_hf.portable.decoding.sidecar_files import own_word_counts
from fundamentallm_hf.portable.text import word_values
from fundamentallm_hf.portable.text.characters import fold_text
from fundamentallm_hf.portable.text.word_counts import WordCounts
from fundamentallm_hf.portable.text.word_lists import join_weights

MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 1.3, "top_p": 0.9, "num_return_sequences": 2},
    "beams": {"num_beams": 3},
    "sampled beams": {"num_beams": 3, "do_sample": True, "top_k": 20},
}
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


@pytest.mark.parametrize("how", MODES.values(), ids=list(MODES))
@pytest.mark.parametrize("family", ["characters", "byte_level", "llama"])
def test_a_weight_of_nothing_changes_nothing(family, how):
    model, prompts = toy_model(family), ["the cat", "a big dog ran"]
    plain = token_ids(model, prompts, **how)
    for weights in ({}, {"cat": 0, "r*": 0.0}, "cat:0", {"ran": 2.0, "RAN": -2.0}):
        assert torch.equal(token_ids(model, prompts, word_weights=weights, **how), plain)
    shift = WordWeightsLogitsProcessor({"cat": 2, "Cat": -2}, model.tokenizer)
    scores = torch.randn(1, len(model.tokenizer))
    assert torch.equal(shift(torch.tensor([[5, 6]]), scores), scores)


@pytest.mark.parametrize("how", MODES.values(), ids=list(MODES))
@pytest.mark.parametrize("family", ["characters", "byte_level", "llama"])
def test_minus_infinity_is_a_ban(family, how):
    model, prompts = toy_model(family), ["the cat", "a big dog ran"]
    banned = token_ids(model, prompts, bad_words=["c*", "/[aeiou]/"], **how)
    weights = {"c*": -math.inf, "/[aeiou]/": -math.inf}
    assert torch.equal(token_ids(model, prompts, word_weights=weights, **how), banned)
    assert torch.equal(token_ids(model, prompts, word_weights="c*:-inf,/[aeiou]/:-inf", **how), banned)
    assert torch.equal(
        token_ids(model, prompts, bad_words=["c*"], word_weights={"/[aeiou]/": -math.inf}, **how), banned
    )


@pytest.mark.parametrize("how", MODES.values(), ids=list(MODES))
@pytest.mark.parametrize("family", FAMILIES)
def test_heavy_weights_lead_the_text(family, how):
    """On near-uniform models a letter with the highest weight comes in every text, and one with a low weight hardly."""
    model = toy_model(family)
    how = {"max_new_tokens": 12} | how
    for text in whole_texts(model, ["the cat"], word_weights={"*o*": 20.0}, **how | {"top_p": 1.0, "top_k": 0}):
        assert "o" in fold_text(text.removeprefix("the cat"))
    for text in whole_texts(model, ["the cat"], word_weights={"/[a-z]/": -1000}, **how | {"top_p": 1.0, "top_k": 0}):
        assert sum(map(str.isascii, filter(str.isalpha, text.lower().replace("the cat", "", 1)))) <= 3, text


def test_a_batch_is_weighed_as_its_rows_are_alone():
    model, how = toy_model("characters"), {"do_sample": False, "word_weights": {"cat": 3.0, "r*": 2.0, "*g": -4}}
    together = whole_texts(model, ["the cat", "a big dog ran"], **how)
    assert together == [whole_texts(model, [prompt], **how)[0] for prompt in ["the cat", "a big dog ran"]]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"cat": "much"}, "the weight of 'cat' has to be a number of at most 20, or -inf, but is 'much'"),
        ({"cat": 21}, "the weight of 'cat' has to be a number of at most 20"),
        ({"cat": math.nan}, "the weight of 'cat' has to be a number"),
        ({"cat": True}, "the weight of 'cat' has to be a number"),
        (["cat"], "word_weights: every entry has to have a weight, as in 'dragon:2', but there is 'cat'"),
        (3, "word_weights: the value has to be a dict of entries and weights"),
        ({"": 1}, "word_weights: the value has to be a dict of entries and weights"),
        ({"/(/": 1}, "is not a valid regular expression"),
    ],
)
def test_what_is_no_weight_is_refused_in_one_line(value, line):
    with pytest.raises(ValueError, match=re.escape(line)) as error:
        token_ids(toy_model("characters"), ["the"], word_weights=value)
    assert "\n" not in str(error.value)


def test_the_processor_by_itself_refuses_a_ban():
    with pytest.raises(ValueError, match="BadWordsLogitsProcessor"):
        WordWeightsLogitsProcessor({"cat": -math.inf}, toy_tokenizer("characters"))
    with pytest.raises(ValueError, match="pass tokenizer="):
        WordWeightsLogitsProcessor({"cat": 1})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_may_have_fewer_scores_than_its_tokenizer_has_tokens(family):
    tokenizer = toy_tokenizer(family)
    ids, most = tokenizer("the cat", return_tensors="pt").input_ids, len(tokenizer)
    size = max(int(ids.max()) + 1, most - 2)
    wide, narrow = (
        WordWeightsLogitsProcessor({"cat": 2.0, "th*": -1.0}, tokenizer, end_tokens=[0, most - 1], prompt_columns=1)(
            ids, torch.zeros(1, width)
        )
        for width in (most, size)
    )
    assert narrow.shape == (1, size)
    assert torch.allclose(narrow, wide[:, :size], atol=1e-5)


def test_weights_are_kept_in_a_generation_config(tmp_path):
    model, weights = toy_model("characters"), {"cat": 3.0, "*g": -math.inf, "/[aeiou]{2}/": -1.5}
    GenerationConfig(word_weights=weights, max_new_tokens=10).save_pretrained(tmp_path)
    config = GenerationConfig.from_pretrained(tmp_path)
    assert config.word_weights == weights
    given = whole_texts(model, ["the"], word_weights=weights, max_new_tokens=10)
    assert whole_texts(model, ["the"], generation_config=config, max_new_tokens=10) == given
    assert whole_texts(model, ["the"], word_weights=join_weights(weights), max_new_tokens=10) == given


@pytest.fixture(scope="module")
def stories():
    return load_model(device="cpu")


def long_list(model):
    """More words than are read ahead."""
    counts = own_word_counts(model)
    return {word: (-5.0, 0.5, 3.0)[index % 3] for index, word in enumerate(counts.words[::4])}


@pytest.mark.parametrize("listed", ["short", "long"])
@pytest.mark.parametrize(
    "how", [{"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": 5}, {"do_sample": False}]
)
def test_drafts_and_batches_change_nothing(stories, listed, how):
    weights = {"dragon": 3, "girl": -4, "happ*": 2, "very *": -2} if listed == "short" else long_list(stories)
    how = how | {"max_new_tokens": 160, "word_weights": weights}
    drafted = whole_texts(stories, ["Once upon a time"], **how)
    assert drafted == whole_texts(stories, ["Once upon a time"], speculate=False, **how)
    assert drafted[0] != whole_texts(stories, ["Once upon a time"], **how | {"word_weights": None})[0]
    if "seed" not in how:
        assert drafted[0] == whole_texts(stories, ["Tom", "Once upon a time"], **how)[1]


def test_a_long_list_is_not_read_ahead_and_a_short_one_is(stories):
    vocabulary = stories.tokenizer, stories.config.vocab_size
    short = WordWeightsLogitsProcessor(compile_word_weights({"dragon": 2}, *vocabulary))
    long = WordWeightsLogitsProcessor(compile_word_weights(long_list(stories), *vocabulary))
    assert short.reader.at_stake == word_weighting.AT_STAKE
    assert long.reader.at_stake == math.inf


def test_the_weights_of_a_call_arrive_from_every_side(stories, tmp_path):
    generator = Generator(stories, temperature=0, max_tokens=40)
    free, expected = generator.generate("The"), generator.generate("The", word_weights={"had": -4, "fun": 2.5})
    assert expected != free
    assert generator.generate("The", word_weights="had:-4, fun:2.5") == expected
    file = tmp_path / "weights.txt"
    file.write_text("# worn out\nhad:-4\n\nfun:2.5\n")
    assert generator.generate("The", word_weights_file=str(file)) == expected
    assert list(generator.stream("The", word_weights_file=str(file)))[-1] in expected
    done = CliRunner().invoke(
        cli,
        [
            "generate",
            "--prompt",
            "The",
            "--temperature",
            "0",
            "--max-tokens",
            "40",
            "--word-weights",
            "had:-4,fun:2.5",
            "-q",
        ],
    )
    assert done.stdout.strip() == expected
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "The", "word_weights": {"had": -4, "fun": 2.5}}\n{"prompt": "The"}\n')
    done = CliRunner().invoke(
        cli,
        [
            "generate",
            "--prompts-file",
            str(prompts),
            "--temperature",
            "0",
            "--max-tokens",
            "40",
            "--format",
            "jsonl",
            "-q",
        ],
    )
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == [expected, free]
