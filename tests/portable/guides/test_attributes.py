"""Attributes: named safely, found in all their locations, and saved with their model."""

import json

import pytest
import torch
from small_models import byte_level_gpt2

from fundamentallm_hf import Attribute, FundamentaLLMForCausalLM, UserError, load_model
from fundamentallm_hf.model_io.loading import DEMO_MODEL
from fundamentallm_hf.portable.guides.attribute_lookup import (
    BUNDLED,
    find_attribute,
    known_attributes,
    model_attributes,
    user_folder,
)
from fundamentallm_hf.portable.guides.attributes import read_guides
from fundamentallm_hf.portable.text.word_counts import WordCounts

GLAD = Attribute("words", "glad texts", {"happy": 2.0, "lov*": 1.5, "sad": -2.0}, about={"license": "MIT"})
CATS = Attribute("prompts", "texts about cats", {}, "About cats: ", "")


@pytest.fixture(autouse=True)
def _own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("value", "strength", "found"),
    [
        ("glad", None, {"glad": 1}),
        ("glad:2,formal:-1", None, {"glad": 2, "formal": -1}),
        (" glad : 2 , formal ".replace(" :", ":").replace(": ", ":"), 0.5, {"glad": 1, "formal": 0.5}),
        (["glad:2", "glad"], 1, {"glad": 3}),
        (["glad:2", "glad:-2"], 1, {}),
        ("glad", 0, {}),
        ("./a:b/glad", None, {"./a:b/glad": 1}),
        ("./glad:3", None, {"./glad": 3}),
        ((), 5, {}),
    ],
)
def test_strengths_are_read(value, strength, found):
    assert read_guides(value, strength) == found


@pytest.mark.parametrize(
    "value", ["glad:", "glad:x", "glad:11", "glad:nan", ":2", "a b", "-glad", "é", "..", "a" * 101]
)
def test_what_is_no_name_or_strength_is_refused(value):
    with pytest.raises(ValueError, match=r"has to be"):
        read_guides(value)


@pytest.mark.parametrize("attribute", [GLAD, CATS])
def test_an_attribute_comes_back_from_its_folder(tmp_path, attribute):
    assert Attribute.load(attribute.save(tmp_path / "a")) == attribute


@pytest.mark.parametrize(
    ("fields", "words", "message"),
    [
        ({"kind": "magic"}, None, "one of words, experts, steering, prompts, classifier but is 'magic'"),
        ({"kind": "words", "words": {}}, None, "has to hold words with weights but holds none"),
        ({"kind": "words", "words": {"a": "b"}}, None, "have to be texts with numbers"),
        ({"kind": "words"}, "happy\n", r"line 1 of words.tsv has to be a word and a weight but is 'happy'"),
        ({"kind": "words"}, None, "cannot read the attribute .*No such file"),
        ({"kind": "prompts", "with": "a", "without": "a"}, None, "two texts that differ"),
        ({"kind": "prompts", "with": 3}, None, "with and without of an attribute have to be texts"),
        ([], None, "attribute.json has to hold fields by name"),
        ("{", None, "cannot be used"),
    ],
)
def test_what_is_no_attribute_is_refused_in_one_line(tmp_path, fields, words, message):
    (tmp_path / "attribute.json").write_text(fields if isinstance(fields, str) else json.dumps(fields))
    if words is not None:
        (tmp_path / "words.tsv").write_text(words)
    with pytest.raises(UserError, match=message) as refused:
        Attribute.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_words_may_be_inline_and_lists_may_have_comments(tmp_path):
    (tmp_path / "attribute.json").write_text('{"kind": "words"}')
    (tmp_path / "words.tsv").write_text("# comment\nhappy 2.7\n\nlov*\t1\n")
    assert Attribute.load(tmp_path).words == {"happy": 2.7, "lov*": 1}


def test_what_lies_beside_the_model_comes_before_the_users_own_and_the_packages(tmp_path):
    folder = tmp_path / "model"
    load_model(device="cpu").save_pretrained(folder)
    model = FundamentaLLMForCausalLM.from_pretrained(folder)
    assert find_attribute(model, "positive_sentiment") == Attribute.load(BUNDLED / "positive_sentiment")
    GLAD.save(user_folder() / "positive_sentiment")
    assert find_attribute(model, "positive_sentiment") != GLAD
    other = byte_level_gpt2()
    assert find_attribute(other, "positive_sentiment") == GLAD
    model.attributes = {"positive_sentiment": CATS}
    assert find_attribute(model, "positive_sentiment") == CATS


def test_attributes_travel_with_their_model(tmp_path):
    model = load_model(device="cpu")
    model.attributes = {"glad": GLAD, "./elsewhere/cats": CATS}
    first, second = tmp_path / "first", tmp_path / "second"
    model.save_pretrained(first)
    again = FundamentaLLMForCausalLM.from_pretrained(first)
    again.save_pretrained(second)
    again.save_pretrained(first)
    names = {"glad", "animals", "suspense", "positive_sentiment", "negative_sentiment"}
    for folder in (first, second):
        saved = FundamentaLLMForCausalLM.from_pretrained(folder)
        assert set(model_attributes(saved)) == names
        assert find_attribute(saved, "glad") == GLAD


@pytest.mark.parametrize("name", ["../glad", "/etc/passwd", "a/b"])
def test_a_name_is_never_a_path(tmp_path, monkeypatch, name):
    GLAD.save(tmp_path / "data" / "glad")
    with pytest.raises(UserError, match="guide-attribute has to be a name but is"):
        find_attribute(byte_level_gpt2(), name)


def test_an_unknown_name_lists_those_that_exist():
    with pytest.raises(UserError) as refused:
        find_attribute(byte_level_gpt2(), "happines")
    assert str(refused.value) == (
        "there is no attribute 'happines': there are animals, negative_sentiment, positive_sentiment, suspense; "
        "make one with `fundamentallm train-attribute NAME --with FILE --without FILE`"
    )


def test_on_the_hub_attributes_are_found_in_the_models_revision(tmp_path, monkeypatch):
    GLAD.save(tmp_path / "glad")
    asked = []

    class Api:
        def list_repo_files(self, repo, revision=None):
            asked.append((repo, revision))
            return ["config.json", "attributes/glad/attribute.json", "attributes/glad/words.tsv", "attributes/x/y.json"]

    def cached_file(repo, file, revision=None):
        asked.append((repo, revision, file))
        return str(tmp_path / file.removeprefix("attributes/"))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("transformers.utils.cached_file", cached_file)
    model = byte_level_gpt2()
    model.name_or_path, model.config._commit_hash = "user/name", "abc"
    assert find_attribute(model, "glad") == find_attribute(model, "glad") == GLAD
    assert asked == [
        ("user/name", "abc"),
        ("user/name", "abc", "attributes/glad/attribute.json"),
        ("user/name", "abc", "attributes/glad/words.tsv"),
    ]
    assert [(name, where) for name, where, _ in known_attributes(model)][1:2] == [("glad", "model")]


@pytest.mark.parametrize("name", ["positive_sentiment", "negative_sentiment", "animals", "suspense"])
def test_what_comes_with_the_package_holds_words_of_its_model_and_says_where_they_are_from(name):
    attribute = Attribute.load(BUNDLED / name)
    counts = WordCounts.load(DEMO_MODEL / "word_counts.json").counts
    assert set(attribute.words) <= set(counts)
    assert attribute.description
    assert attribute.about["source"]
    assert attribute.about["license"]
    assert sum(file.stat().st_size for file in (BUNDLED / name).iterdir()) < 3e6


def test_a_converted_checkpoint_keeps_what_lay_beside_it(tmp_path):
    import shutil

    from conftest import FIXTURES

    from fundamentallm_hf import convert_checkpoint

    shutil.copytree(FIXTURES / "learned", tmp_path / "trained")
    GLAD.save(tmp_path / "trained" / "attributes" / "glad")
    folder = convert_checkpoint(tmp_path / "trained", tmp_path / "hf")
    assert Attribute.load(folder / "attributes" / "glad") == GLAD
    model = load_model(folder, device="cpu")
    ids = model.tokenizer("To be", return_tensors="pt").input_ids
    how = {"max_new_tokens": 60, "do_sample": False}
    assert not torch.equal(model.generate(ids, **how), model.generate(ids, guide_attribute="glad:6", **how))
