"""Text classifiers: probabilities of every kind of head, and no unsafe loading."""

import json
import math
import os

import pytest
import torch
from conftest import offline
from safetensors.torch import load_file, save_file
from small_classifier import saved_classifier, word_classifier
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from fundamentallm_hf import UserError
from fundamentallm_hf.portable.guides.text_classifier import TextClassifier, load_classifier

TEXTS = ["Tom was happy.", "Tom was sad.", "Tom was", "happy happy happy sad"]


def test_a_word_means_what_its_weights_say():
    judge = TextClassifier(*word_classifier(), label="POSITIVE")
    glad, sad, neither, mixed = map(math.exp, judge(TEXTS))
    assert min(glad, mixed) > 0.9 > neither > 0.1 > sad
    assert neither == pytest.approx(0.5)
    opposite = TextClassifier(*word_classifier(), label="NEGATIVE")
    assert [math.exp(each) for each in opposite(TEXTS)] == pytest.approx(
        [1 - glad, 1 - sad, 1 - neither, 1 - mixed], abs=1e-6
    )


@pytest.mark.parametrize(
    ("labels", "config", "expected"),
    [
        (("POSITIVE",), {}, lambda logits: logits.sigmoid()),
        (("POSITIVE", "OTHER"), {"problem_type": "multi_label_classification"}, lambda logits: logits.sigmoid()),
        (("POSITIVE", "NEGATIVE", "OTHER"), {}, lambda logits: logits.softmax(-1)),
        (("POSITIVE", "NEGATIVE"), {"problem_type": "single_label_classification"}, lambda logits: logits.softmax(-1)),
    ],
)
def test_heads_of_every_sort_give_a_probability(labels, config, expected):
    model, tokenizer = word_classifier(labels, **config)
    with torch.no_grad():
        wanted = expected(model(**tokenizer(TEXTS, return_tensors="pt", padding=True)).logits)[:, 0]
    found = TextClassifier(model, tokenizer, "POSITIVE")(TEXTS)
    assert [math.exp(each) for each in found] == pytest.approx(wanted.tolist())


def test_one_label_needs_no_name_and_capitals_make_no_difference():
    assert TextClassifier(*word_classifier(("JOY",))).label == "JOY"
    assert TextClassifier(*word_classifier(), label="positive").label == "POSITIVE"


@pytest.mark.parametrize(
    ("label", "message"),
    [("JOY", "it has no label 'JOY': there are NEGATIVE, POSITIVE"), ("", "its labels: NEGATIVE, POSITIVE")],
)
def test_an_unknown_label_lists_those_that_there_are(label, message):
    with pytest.raises(UserError, match=message):
        TextClassifier(*word_classifier(), label=label)


def test_a_long_text_loses_its_beginning():
    judge = TextClassifier(*word_classifier(longest=8), label="POSITIVE")
    assert judge(["sad " * 20 + "happy " * 6])[0] == pytest.approx(judge(["happy " * 6])[0])
    assert judge(["happy " * 20 + "sad " * 6])[0] == pytest.approx(judge(["sad " * 6])[0])


def test_positions_that_begin_behind_the_padding_are_no_room():
    _, tokenizer = word_classifier()
    tokenizer.model_max_length = int(1e30)
    config = RobertaConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=12, pad_token_id=1, type_vocab_size=1,
    )  # fmt: skip
    judge = TextClassifier(RobertaForSequenceClassification(config), tokenizer, "LABEL_1")
    assert judge.longest == 10
    assert all(map(math.isfinite, judge(["happy " * 50])))


def test_without_a_padding_token_texts_of_different_lengths_are_judged_as_alone():
    _, tokenizer = word_classifier()
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=1, n_positions=64, pad_token_id=None)
    judge = TextClassifier(GPT2ForSequenceClassification(config), tokenizer, "LABEL_1")
    assert judge(TEXTS) == pytest.approx([judge([text])[0] for text in TEXTS], abs=1e-6)


def test_a_classifier_comes_back_from_its_folder_and_is_read_once(tmp_path):
    folder = saved_classifier(tmp_path / "c")
    judge = load_classifier(folder, "POSITIVE")
    assert judge(TEXTS) == pytest.approx(TextClassifier(*word_classifier(), label="POSITIVE")(TEXTS))
    assert load_classifier(folder, "POSITIVE") is judge
    assert load_classifier(folder, "NEGATIVE") is not judge
    os.utime(folder / "config.json", ns=(1, 1))
    assert load_classifier(folder, "POSITIVE") is not judge


def without_head(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({name: each for name, each in weights.items() if "classifier" not in name}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip


def as_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('was run')")


def without_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be used: "),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "cannot be used: "),
        (without_head, "it is no text classifier: its weights have no fitting classifier"),
        (as_pickle, "it has no weights in safetensors, and others are not read"),
        (with_code, "cannot be used: "),
        (without_tokenizer, "it has no tokenizer"),
    ],
)
def test_what_cannot_be_read_safely_is_refused_in_one_line(tmp_path, capfd, spoil, message):
    folder = saved_classifier(tmp_path / "c")
    spoil(folder)
    capfd.readouterr()
    with pytest.raises(UserError, match=message) as refused:
        load_classifier(folder, "POSITIVE")
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "away", "message"),
    [
        ("user/nowhere", False, "there is no such repository on the Hub, or it is not open to you"),
        ("user/reviews@v9", False, "its repository has no revision 'v9'"),
        ("user/reviews", True, "it is not on this machine, and the Hub cannot be reached"),
    ],
)
def test_one_that_cannot_be_had_is_refused_in_one_line(hub, monkeypatch, name, away, message):
    hub.make("user/reviews", {"config.json": b"{}"})
    if away:
        offline(monkeypatch)
    with pytest.raises(UserError) as refused:
        load_classifier(name, "POSITIVE")
    assert str(refused.value) == f"the classifier {name!r} cannot be used: {message}"


def test_on_the_hub_nothing_is_fetched_but_what_is_read(hub, tmp_path, monkeypatch):
    folder = saved_classifier(tmp_path / "c")
    as_fetched = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.make("user/reviews", as_fetched | {"pytorch_model.bin": b"pickle", "onnx/config.json": b"{}", "own.py": b""})
    judge = load_classifier("user/reviews", "POSITIVE")
    assert judge(TEXTS) == pytest.approx(TextClassifier(*word_classifier(), label="POSITIVE")(TEXTS))
    offline(monkeypatch)
    assert TextClassifier.load("user/reviews", "POSITIVE")(TEXTS) == pytest.approx(judge(TEXTS))
    assert not hub.asked(r"GET .*/resolve/.*(bin|onnx|own)")
