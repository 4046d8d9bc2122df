"""The end of a text, and the text that a streamer may output before the end is known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from toy_tokenizers import FAMILIES, toy_tokenizer
from transformers import PreTrainedTokenizerFast

from fundamentallm_hf.generation.streaming import TokenTextStreamer
from fundamentallm_hf.portable.decoding.stop_strings import StopAtText, find_held, find_stop

TEXTS = st.text("abé", max_size=12)
STOPS = st.lists(st.text("abé", min_size=1, max_size=4), max_size=3)


def make_tokenizer():
    """Bytes, and a few pieces of several, so that a token may hold a part of a character or many."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(["aba abba bab"], trainers.BpeTrainer(vocab_size=262, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=backend)


TOKENIZER = make_tokenizer()


def tokens_of(text):
    return TOKENIZER(text).input_ids


@pytest.mark.parametrize(
    ("text", "stops", "ends_behind", "starts_from", "place"),
    [
        ("one two", ["two"], 0, 0, 4),
        ("one two", ["three"], 0, 0, None),
        ("one two", [], 0, 0, None),
        ("abcd", ["abcd", "bc"], 0, 0, 1),  # complete first, though it begins later
        ("abcd", ["bcd", "abcd"], 0, 0, 0),
        ("aXbX", ["X"], 1, 0, 1),
        ("aXbX", ["X"], 2, 0, 3),
        ("aXbX", ["Xb"], 2, 0, 1),
        ("aXbX", ["X"], 0, 2, 3),
    ],
)
def test_find_stop(text, stops, ends_behind, starts_from, place):
    assert find_stop(text, stops, ends_behind, starts_from) == place


@pytest.mark.parametrize(
    ("text", "stops", "starts_from", "place"),
    [
        ("so U", ["User:"], 0, 3),
        ("so Us", ["User:", "s!"], 0, 3),
        ("so Ut", ["User:"], 0, 5),
        ("aab", ["abab"], 0, 1),
        ("so Us", ["User:"], 4, 5),
        ("text", [], 0, 4),
    ],
)
def test_find_held(text, stops, starts_from, place):
    assert find_held(text, stops, starts_from) == place


@given(TEXTS, TEXTS, STOPS, st.integers(0, 3))
def test_the_streamer_hands_over_all_text_before_the_stop_text_and_as_soon_as_it_may(prompt, added, stops, least):
    pieces = []
    streamer = TokenTextStreamer(TOKENIZER, pieces.append, stops, least)
    given_tokens, new_tokens = tokens_of(prompt), tokens_of(added)
    streamer.put(torch.tensor([given_tokens], dtype=torch.long))
    for token in new_tokens:
        streamer.put(torch.tensor([token]))
    before_the_end = "".join(pieces)
    streamer.end()
    free = TOKENIZER.decode(new_tokens[:least]).rstrip("\N{REPLACEMENT CHARACTER}")
    starts_from = len(prompt + free) if least else 0
    text = prompt + added
    end = find_stop(text, stops, len(prompt), starts_from)
    assert "".join(pieces) == text[len(prompt) : end]
    if end is None:
        assert before_the_end == text[len(prompt) : find_held(text, stops, starts_from)]


@given(TEXTS, TEXTS, STOPS.filter(bool), st.integers(0, 3))
def test_a_row_is_done_at_the_token_that_completes_a_stop_text(prompt, added, stops, least):
    given_tokens, new_tokens = tokens_of(prompt), tokens_of(added)
    criterion = StopAtText(TOKENIZER, stops, len(given_tokens), least)
    free = TOKENIZER.decode(new_tokens[:least]).rstrip("\N{REPLACEMENT CHARACTER}")
    starts_from = len(prompt + free) if least else 0
    for count in range(1, len(new_tokens) + 1):
        row = given_tokens + new_tokens[:count]
        done = criterion(torch.tensor([row, row]), None).tolist()
        expected = count > least and find_stop(TOKENIZER.decode(row), stops, len(prompt), starts_from) is not None
        assert done == [expected] * 2
        if expected:
            break


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_the_tokens_are_the_stream_adds_up_to_the_decoded_text(family, data):
    tokenizer = toy_tokenizer(family)
    part = st.integers(0, len(tokenizer) - 1).map(lambda token: [token])
    spelled = st.sampled_from(["\n", "é", "日", "😀", " a", "42"]).map(
        lambda text: tokenizer(text, add_special_tokens=False).input_ids
    )
    prompt = tokenizer(data.draw(st.sampled_from(["the cat", "a", "42 "])), add_special_tokens=False).input_ids
    tokens = [token for ids in data.draw(st.lists(part | spelled, max_size=14)) for token in ids]
    pieces = []
    streamer = TokenTextStreamer(tokenizer, pieces.append)
    streamer.put(torch.tensor([prompt]))
    for token in tokens:
        streamer.put(torch.tensor([token]))
    streamer.end()
    decoded = [tokenizer.decode(ids, skip_special_tokens=True) for ids in (prompt, prompt + tokens)]
    assert "".join(pieces) == decoded[1][len(decoded[0]) :]
