"""The usual spelling of a required word."""

import pytest
import torch
from toy_tokenizers import toy_tokenizer

from fundamentallm_hf.portable.controls import must_include
from fundamentallm_hf.portable.controls.must_include import MustIncludeLogitsProcessor
from fundamentallm_hf.portable.controls.must_include_spelling import Spellings
from fundamentallm_hf.portable.text.vocabulary import Vocabulary

PIECES = (" mar", " Mar", " MAR", "mal", "MAL", "Lad", "ade", "ade.", "\ufe0f", b"\xc3", " Paris", " paris", "mar")
VOCABULARY = Vocabulary(PIECES)


@pytest.mark.parametrize(
    ("source", "tail", "usual"),
    [
        ("marmalade", "he ate", {" mar", "mar", b"\xc3"}),
        ("marmalade", "He ate it.", {" Mar", b"\xc3"}),
        ("marmalade", "ate mar", {"mal", b"\xc3", " mar", "mar"}),
        ("marmalade", "EAT MAR", {"MAL", b"\xc3", " MAR"}),
        ("marmalade", "ate marmal", {"ade", "ade.", b"\xc3", " mar", "mar"}),
        ("Paris", "in", {" Paris", b"\xc3"}),
        ("king|paris", "in", {" paris", b"\xc3"}),
    ],
)
def test_only_the_customary_spelling_goes_on(source, tail, usual):
    spellings = Spellings([source], VOCABULARY)
    found = spellings.customary(0, tail, range(len(PIECES)))
    assert {piece for piece, as_usual in zip(PIECES, found, strict=True) if as_usual} - {"mar"} == usual - {"mar"}


@pytest.mark.parametrize("source", ["/[0-9]{4}/", "*ing"])
def test_of_a_pattern_no_spelling_is_known(source):
    assert all(Spellings([source], VOCABULARY).customary(0, "", range(len(PIECES))))


def test_a_word_that_is_forced_may_have_a_space_before_it(monkeypatch):
    # With a large vocabulary only a few tokens are tried; here it is one, which is neither.
    monkeypatch.setattr(must_include, "_ALL_TRIED", 0)
    monkeypatch.setattr(must_include, "_TRIED", 1)
    tokenizer = toy_tokenizer("byte_level")
    vocabulary = Vocabulary.of(tokenizer)
    bare, spaced = vocabulary.spell("cat"), vocabulary.spell(" cat")
    ids = tokenizer("the dog,", return_tensors="pt").input_ids
    processor = MustIncludeLogitsProcessor(["cat"], tokenizer, max_new_tokens=max(len(bare), len(spaced)))
    scores = torch.zeros(1, len(tokenizer))
    scores[0, vocabulary.token(".")] = 9.0
    open_tokens = (processor(ids, scores)[0] > -torch.inf).nonzero()[:, 0].tolist()
    assert {bare[0], spaced[0]} <= set(open_tokens)
