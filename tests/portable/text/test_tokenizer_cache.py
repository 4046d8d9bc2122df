"""The token texts of a tokenizer are cached on disk, and results do not depend on the cache."""

import json
import os

import pytest
from toy_tokenizers import FAMILIES, toy_tokenizer

from fundamentallm_hf.portable.text import tokenizer_cache
from fundamentallm_hf.portable.text.token_texts import read_token_texts
from fundamentallm_hf.portable.text.tokenizer_cache import OFF_VARIABLE, cache_folder, token_texts


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(OFF_VARIABLE, raising=False)
    monkeypatch.setattr(tokenizer_cache, "LEAST_TOKENS", 1)
    return tmp_path / "fundamentallm" / "tokenizers"


@pytest.fixture
def reads(monkeypatch):
    read = []
    monkeypatch.setattr(
        tokenizer_cache, "read_token_texts", lambda tokenizer: read.append(1) or read_token_texts(tokenizer)
    )
    return read


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_is_what_was_read(family, folder, reads):
    tokenizer = toy_tokenizer(family)
    assert token_texts(tokenizer) == token_texts(tokenizer) == read_token_texts(tokenizer)
    assert len(reads) == (1 if tokenizer.is_fast else 2)
    assert len(list(cache_folder().glob("*"))) == tokenizer.is_fast


def test_each_tokenizer_has_a_file_of_its_own(folder, reads):
    for family in ("llama", "gemma", "characters"):
        token_texts(toy_tokenizer(family))
    assert len(list(folder.iterdir())) == len(reads) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: json.dumps(json.loads(text) | {"errors": "strict"}),
        lambda text: json.dumps(json.loads(text) | {"pieces": ["a"]}),
        lambda text: json.dumps(json.loads(text) | {"pieces": [["zz"]], "tokens": 1}),
        lambda text: json.dumps(json.loads(text) | {"strips_leading_space": 1}),
        lambda text: json.dumps(json.loads(text) | {"fallback": ["a"]}),
    ],
)
def test_a_damaged_file_is_written_anew(damage, folder, reads):
    tokenizer = toy_tokenizer("llama")
    right = token_texts(tokenizer)
    (file,) = folder.iterdir()
    file.write_text(damage(file.read_text()))
    assert token_texts(tokenizer) == token_texts(tokenizer) == right
    assert len(reads) == 2
    assert list(folder.iterdir()) == [file]


def test_it_can_be_deleted_turned_off_or_be_read_only(folder, reads, monkeypatch):
    tokenizer = toy_tokenizer("gemma")
    right = token_texts(tokenizer)
    for file in folder.iterdir():
        file.unlink()
    assert token_texts(tokenizer) == right
    monkeypatch.setenv(OFF_VARIABLE, "1")
    assert token_texts(tokenizer) == right
    monkeypatch.delenv(OFF_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    assert token_texts(tokenizer) == right
    assert len(reads) == 4


def test_small_tokenizers_are_not_kept(folder, monkeypatch):
    monkeypatch.setattr(tokenizer_cache, "LEAST_TOKENS", 10_000)
    token_texts(toy_tokenizer("byte_level"))
    assert not folder.exists()
