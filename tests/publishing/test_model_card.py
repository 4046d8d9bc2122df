"""A card describes the contents of the model's folder, and its examples run, with and without this package."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from command import calls_of, load_once, run
from conftest import FIXTURES
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from small_models import byte_level_gpt2
from without_package import blocks, run_without_package

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM, convert_checkpoint
from fundamentallm_hf.model_io.loading import DEMO_MODEL
from fundamentallm_hf.model_io.model_folder import write_model_folder
from fundamentallm_hf.model_io.tokenizer import build_tokenizer, character_vocabulary
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.attribute_lookup import BUNDLED
from fundamentallm_hf.portable.guides.attributes import Attribute
from fundamentallm_hf.portable.model.records import EVALUATION, TRAINING
from fundamentallm_hf.publishing.card_merge import metadata_of
from fundamentallm_hf.publishing.model_card import card_for

ROOT = Path(__file__).parents[2]
STORIES, SHAKESPEARE, OTHER = "user/stories", "user/shakespeare", "user/gpt2"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory in which three models lie as if they were on the Hub."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(DEMO_MODEL, folder / STORIES)
    FundamentaLLMForCausalLM.from_pretrained(DEMO_MODEL).save_pretrained(folder / STORIES)  # with its code
    convert_checkpoint(FIXTURES / "learned", folder / SHAKESPEARE)
    model = byte_level_gpt2()
    write_model_folder(folder / OTHER, model, model.tokenizer)
    return folder


def characters_model(folder, alphabet):
    tokenizer = build_tokenizer(character_vocabulary([alphabet]), 8)
    config = FundamentaLLMConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    return write_model_folder(folder, FundamentaLLMForCausalLM(config), tokenizer)


def test_the_bundled_models_cards_are_as_they_would_be_written(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "model_cards"))
    import write

    for file, folder in write.CARDS.items():
        card = file.read_text(encoding="utf-8")
        assert card == card_for(folder, existing=card), "run python model_cards/write.py"
    monkeypatch.delitem(sys.modules, "write")


def test_the_template_is_that_of_the_package():
    template = ROOT / "model_cards" / "template.md"
    assert template.read_text() == (ROOT / "fundamentallm_hf" / "publishing" / "model_card_template.md").read_text()


@pytest.mark.parametrize("name", [STORIES, SHAKESPEARE, OTHER])
def test_the_hubs_own_client_and_server_take_the_card(name, place, hub):
    card = card_for(place / name, repo_id=name)
    parsed = ModelCard(card)
    parsed.validate()
    assert parsed.data.library_name == "transformers"
    assert parsed.data.pipeline_tag == "text-generation"
    assert ("fundamentallm" in parsed.data.tags) == ("character-level" in parsed.data.tags) == (name != OTHER)
    assert parsed.data.get("widget")
    assert card_for(place / name, repo_id=name, existing=str(parsed)) == card


def test_figures_in_the_metadata_are_those_that_were_measured(place):
    (record,) = json.loads((place / STORIES / EVALUATION).read_text())["records"]
    card = card_for(place / STORIES, repo_id=STORIES)
    found = {result.metric_type: result for result in ModelCard(card).data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {
        name: round(record[name], 4) for name in ("bits_per_character", "perplexity", "accuracy")
    }
    assert found["accuracy"].dataset_type == "roneneldan/TinyStories"
    assert ModelCard(card).data.model_name == "stories"


def test_figures_of_other_weights_are_not_told(place, tmp_path):
    shutil.copytree(place / STORIES, tmp_path / "model")
    model = FundamentaLLMForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    save_file({name: each.contiguous() for name, each in model.model.named_parameters("model")}, tmp_path / "w")
    (tmp_path / "w").rename(tmp_path / "model" / "model.safetensors")
    card = card_for(tmp_path / "model")
    assert "model-index" not in metadata_of(card)
    assert "## How it was trained" not in card
    assert "It has not been evaluated yet" in card


def test_it_tells_shape_size_alphabet_and_training(place):
    card = card_for(place / SHAKESPEARE, repo_id=SHAKESPEARE)
    model = FundamentaLLMForCausalLM.from_pretrained(place / SHAKESPEARE)
    for line in (
        "# shakespeare",
        "| layers | 2 |",
        "| context | 128 characters |",
        f"| parameters | {sum(each.numel() for each in model.parameters()):,}, the output tied to the embedding |",
        "67 characters, one token each, and 4 special tokens",
        "| steps | 780 |",
        "| loss on held-out text | 2.054 |",
        "It has no token that ends a text",
    ):
        assert line in card
    assert "## Attributes" not in card
    assert "models/shakespeare" not in card  # where the training text lay
    stories = card_for(place / STORIES, repo_id=STORIES)
    assert "no token that ends" not in stories
    effect = Attribute.load(BUNDLED / "positive_sentiment").about["effect"]
    assert (
        f"{', '.join(f'{round(100 * share, 1):g}%' for share in effect['shares'].values())} {effect['what']}" in stories
    )
    other = card_for(place / OTHER, repo_id=OTHER)
    assert "trust_remote_code" not in other
    assert "tokens of several characters" in other


@pytest.mark.parametrize("alphabet", ["日本語", "0123456789", "a", " `|*<>\\[]_$\n\"'", "АБВГабвг "])
def test_examples_are_made_of_what_the_model_can_write(alphabet, tmp_path, monkeypatch):
    load_once(monkeypatch)
    folder = characters_model(tmp_path / alphabet.encode().hex(), alphabet)  # loaded once for every name
    monkeypatch.chdir(tmp_path)
    card = card_for(folder)
    monkeypatch.setattr("warnings.warn", lambda text, **options: pytest.fail(str(text)))
    for block in blocks(card, "bash"):
        for call in calls_of(block):
            assert "has no token for" not in run(*call, "--max-tokens", "30").stderr


def test_a_widget_of_ones_own_begins_the_examples(place):
    card = card_for(place / STORIES, repo_id=STORIES, existing='---\nwidget:\n- text: My dog\'s "name"\n---\n')
    assert """--prompt 'My dog'"'"'s "name"'""" in card
    assert r'generator.stream("My dog\'s' not in card
    assert r'generator.stream("My dog' + r"'s \"name\"" in card


def test_what_strangers_wrote_stays_text(place, tmp_path):
    shutil.copytree(place / SHAKESPEARE, tmp_path / "model")
    hostile = "a | b\n\n<!-- /fundamentallm: attributes --> <script> `x` [y](z)"
    attribute = {"kind": "words", "description": hostile, "words": {"a": 1}, "effect": {"shares": {"1": "x"}}}
    (tmp_path / "model" / "attributes" / "odd").mkdir(parents=True)
    (tmp_path / "model" / "attributes" / "odd" / "attribute.json").write_text(json.dumps(attribute))
    for file in (TRAINING, EVALUATION):
        digest = json.loads((place / SHAKESPEARE / TRAINING).read_text())["records"][0]["weights"]
        odd = {"weights": digest, "license": "../x", "text": hostile, "dataset": 3, "perplexity": "low"}
        (tmp_path / "model" / file).write_text(json.dumps({"records": [odd]}))
    card = card_for(tmp_path / "model")
    assert "<script>" not in card
    assert "license" not in metadata_of(card)
    assert card.count("<!-- /fundamentallm: attributes -->") == 1
    assert card_for(tmp_path / "model", existing=card) == card


def test_the_command_writes_it_and_keeps_what_was_changed(place, tmp_path):
    shutil.copytree(place / SHAKESPEARE, tmp_path / "model")
    options = ["--license", "mit", "--language", "en", "--dataset", "user/plays", "--base-model", "user/base"]
    done = run("card", tmp_path / "model", SHAKESPEARE, *options)
    assert done.stdout.strip() == str(tmp_path / "model" / "README.md")
    card = (tmp_path / "model" / "README.md").read_text()
    expected = {"license": "mit", "language": ["en"], "datasets": ["user/plays"], "base_model": "user/base"}
    assert metadata_of(card).items() >= expected.items()
    (tmp_path / "model" / "README.md").write_text(card.replace("# shakespeare", "# The Bard"))
    assert run("card", tmp_path / "model", SHAKESPEARE).exit_code == 0
    assert (tmp_path / "model" / "README.md").read_text() == card.replace("# shakespeare", "# The Bard")
    refused = run("card", tmp_path / "model", "--language", "English")
    assert refused.exit_code == 1
    assert "language in the card's metadata has to be" in refused.stderr
    assert "has to be such as user/name but is 'a b'" in run("card", tmp_path / "model", "a b").stderr


def test_what_evaluate_finds_of_any_model_comes_into_its_card(place, tmp_path):
    (tmp_path / "held_out.txt").write_text("once upon a time")
    assert run("evaluate", place / OTHER, tmp_path / "held_out.txt", "--save").exit_code == 0
    card = card_for(place / OTHER, repo_id=OTHER)
    assert "| held_out | **" in card
    assert metadata_of(card)["model-index"][0]["results"][0]["dataset"] == {"name": "held_out", "type": "held-out"}
    (place / OTHER / EVALUATION).unlink()


@pytest.mark.parametrize("content", [None, {}, {"config.json": "{"}, {"config.json": '{"model_type": "gpt2"}'}])
def test_a_folder_without_a_model_is_refused_in_one_line(content, tmp_path):
    for name, text in (content or {}).items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        card_for(tmp_path if content is not None else tmp_path / "missing")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [STORIES, SHAKESPEARE, OTHER])
def test_its_blocks_run(name, place, monkeypatch, capsys):
    load_once(monkeypatch)
    monkeypatch.chdir(place)
    card = card_for(place / name, repo_id=name)
    assert len(blocks(card, "bash")) == 2 + (name == STORIES)
    for block in blocks(card, "bash"):
        for call in calls_of(block):
            result = run(*call, "--max-tokens", "40")  # as it stands but shorter
            assert result.exit_code == 0, result.stderr
            assert result.stdout
    scope = {}
    for block in blocks(card, "python"):
        exec(re.sub(r"(max_(new_)?tokens)=\d+", r"\1=40", block), scope)
        assert capsys.readouterr().out
    assert len(blocks(card, "python")) == (3 if name == OTHER else 4)


CASES = [
    {"do_sample": True, "seed": 1, "temperature": 0.8, "top_p": 0.9, "num_return_sequences": 2},
    {"do_sample": True, "seed": 4, "temperature": 0.8, "guide_attribute": "positive_sentiment:2,animals"},
    {"num_beams": 3, "do_sample": False, "bad_words": ["the", "said", "*ly"]},
    {"do_sample": True, "seed": 3, "must_include": ["dragon", "castle|house"], "repetition_penalty": 1.2},
    {"do_sample": True, "seed": 5, "pattern": " (a|the) (dog|cat) .{10,30}\\."},
]
USE = """
from transformers import pipeline
model = AutoModelForCausalLM.from_pretrained(given["name"], trust_remote_code=True, revision=given["revision"])
tokenizer = AutoTokenizer.from_pretrained(given["name"], revision=given["revision"])
inputs = tokenizer(given["prompt"], return_tensors="pt")
result = {"logits": model(**inputs).logits[0, -1].tolist()}
result["model"] = [model.generate(**inputs, **case, max_new_tokens=60).tolist() for case in given["cases"]]
pipe = pipeline(
    "text-generation", model=given["name"], trust_remote_code=True, revision=given["revision"], device="cpu"
)
result["pipeline"] = [
    [each["generated_text"] for each in pipe(given["prompt"], **case, max_new_tokens=60, top_k=0)]
    for case in given["cases"][:3]
]
for block in given["blocks"]:
    exec(block.replace("=100", "=20"))
"""


def test_a_pushed_model_writes_the_same_text_where_this_package_cannot_be_imported(hub, tmp_path):
    assert run("push", STORIES, "--quiet").exit_code == 0
    repo = hub.repo(STORIES)
    card = repo.find("main").files["README.md"].content.decode()
    shown = [block for block in blocks(card, "python") if "fundamentallm_hf" not in block]
    assert len(shown) == 2
    there = {name: os.environ[name] for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DISABLE_XET")}
    given = {"name": STORIES, "revision": repo.branches["main"], "prompt": "One day, Tim", "cases": CASES}
    given["blocks"] = shown
    result = run_without_package(USE, given, tmp_path, **there, HF_HUB_OFFLINE="0")

    from transformers import AutoTokenizer

    model = FundamentaLLMForCausalLM.from_pretrained(DEMO_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    inputs = tokenizer("One day, Tim", return_tensors="pt")
    assert model(**inputs).logits[0, -1].tolist() == result["logits"]
    expected = [model.generate(**inputs, **case, max_new_tokens=60) for case in CASES]
    assert [tokens.tolist() for tokens in expected] == result["model"]
    texts = [tokenizer.batch_decode(tokens, skip_special_tokens=True) for tokens in expected]
    assert texts[: len(result["pipeline"])] == result["pipeline"]
    assert "dragon" in texts[3][0]
