"""Attributes for any model out of texts, a classifier or a description, and the strength that is suggested for them."""

import json
import math
import random

import opposite_texts
import pytest
import torch
from command import load_once, run
from small_classifier import saved_classifier
from small_models import byte_level_gpt2, sentencepiece_llama

from fundamentallm_hf import Attribute, AttributeSamples, AttributeSource, UserError, load_model, train_attribute
from fundamentallm_hf.generation.chat import ChatPrompt
from fundamentallm_hf.portable.guides.attributes import FITTED
from fundamentallm_hf.training import suggested_strength
from fundamentallm_hf.training.described_texts import OPENINGS, Description, OwnJudgement, write_both_sides
from fundamentallm_hf.training.labelled_samples import OwnText, Writing, write_texts
from fundamentallm_hf.training.suggested_strength import Leaning, measure_leaning
from fundamentallm_hf.training.text_likelihood import likelihoods

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<assistant>"
GLAD, GRIM = "happy. Everyone was happy and laughed", "sad. Everyone was sad and cried"
STARTS = ["Tim", "Lily", "The dog", "One day, Ben", "Mom", "Sue"]


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


@pytest.fixture(scope="module", params=[byte_level_gpt2, sentencepiece_llama])
def other(request):
    return request.param()


@pytest.fixture(autouse=True)
def _own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_the_likelihood_of_a_text_is_that_of_its_tokens(demo, other):
    draw = random.Random(0)
    for model in (demo, other):
        words = ["once", "upon", "a", "time", "there", "was", "small", "cat", "in", "the", "end", "story"]
        pairs = [
            tuple(" ".join(draw.choices(words, k=draw.randint(1, 6))) + end for end in (" ", ".")) for _ in range(23)
        ]
        found = likelihoods(model, model.tokenizer, pairs)
        for (context, text), each in zip(pairs, found, strict=True):
            ids = model.tokenizer(context + text, return_tensors="pt").input_ids
            before = model.tokenizer(context).input_ids
            first = next(
                (i for i, (a, b) in enumerate(zip(before, ids[0].tolist(), strict=False)) if a != b), len(before)
            )
            first = max(1, first)  # nothing predicts the first token of all
            with torch.no_grad():
                logs = model(ids).logits[0, :-1].log_softmax(dim=-1).gather(1, ids[0, 1:, None])[:, 0]
            assert each.tokens == ids.shape[1] - first
            assert each.log == pytest.approx(float(logs[first - 1 :].sum()), abs=1e-3)


def test_a_text_without_tokens_has_no_likelihood(other):
    found = likelihoods(other, other.tokenizer, [("once upon", ""), ("once", " a time")])
    assert found[0] == (0.0, 0)
    assert found[1].tokens
    assert likelihoods(other, other.tokenizer, [("once upon", "")]) == [(0.0, 0)]


def test_what_is_written_reads_behind_its_opening(other, monkeypatch):
    """A decoder that drops the space of a first token must not join two words."""
    openings = ["once upon", "there was a small", "the"]
    for each in write_texts(other, other.tokenizer, Writing(openings, 12, 8)):
        ids = other.tokenizer(each.opening + each.text).input_ids
        assert other.tokenizer.decode(ids, skip_special_tokens=True) == each.opening + each.text
    model = sentencepiece_llama()
    given = model.tokenizer("once upon").input_ids
    whole = model.tokenizer("once upon a time").input_ids
    assert model.tokenizer.decode(whole[len(given) :]) == "a time"
    monkeypatch.setattr(model, "generate", lambda **_: torch.tensor([whole]))
    assert write_texts(model, model.tokenizer, Writing(["once upon"], 1, 9)) == [("once upon", " a time")]


def test_an_instruction_is_a_chat_where_the_tokenizer_has_chats(other, monkeypatch):
    asked = Description("formal", "casual")
    assert asked.prompt("The man", True, other.tokenizer) == "This is a text that is formal:\n\nThe man"
    assert Description("formal").prompt("The man", False, other.tokenizer) == "This is a text:\n\nThe man"
    monkeypatch.setattr(other.tokenizer, "chat_template", TEMPLATE)
    prompt = asked.prompt("The man", False, other.tokenizer)
    assert isinstance(prompt, ChatPrompt)
    assert prompt == ("<user>Write a short text that is casual. Begin with: The man</user><assistant>The man")
    assert Description("formal").prompt("A", False, other.tokenizer).startswith("<user>Write a short text. Begin")


def test_the_judgement_is_the_ratio_of_two_likelihoods(other, monkeypatch):
    monkeypatch.setattr(other.tokenizer, "chat_template", TEMPLATE)
    judge = OwnJudgement(other, other.tokenizer, Description("a story", "the end"))
    turned = OwnJudgement(other, other.tokenizer, Description("the end", "a story"))
    texts = [OwnText("once", " upon a time"), OwnText("the", " cat"), OwnText("a", "")]
    told = []
    odds = judge(texts, lambda *how: told.append(how))
    assert math.isnan(odds[2])
    assert turned(texts)[:2] == pytest.approx([-each for each in odds[:2]], abs=1e-4)
    assert told[-1] == (6, 6)


def test_both_sides_are_written_without_their_instructions(demo):
    told = []
    found = write_both_sides(
        demo, demo.tokenizer, Description(GLAD, GRIM), Writing(STARTS, 13, 12), lambda *how: told.append(how)
    )
    assert [each.opening for each in found] == [*STARTS, STARTS[0], *STARTS]
    assert told[-1] == (13, 13)
    assert len({each.text for each in found}) == 13


@pytest.fixture(scope="module")
def glad(demo):
    """An attribute out of a description, which the story model reads as the beginning of a story."""
    samples = AttributeSamples(STARTS, texts=48, tokens=40, measured=16)
    return train_attribute(demo, AttributeSource(GLAD, GRIM), samples)


def test_a_description_is_enough(demo, glad):
    about = glad.about
    assert about["held_out_auc"] > 0.8
    assert (about["written"], about["teacher"], about["opposite"]) == (48, "the model itself", GRIM)
    shares = about["effect"]["shares"]
    assert next(iter(shares)) == "+0"
    assert max(shares.values()) >= 0.75 > shares["+0"]
    assert about["perplexity"]["+0"] == 1
    # Texts that none has learnt from, judged by single words.
    demo.attributes = {"glad": glad}
    try:
        texts = {}
        for strength in (-4, 4):
            how = {"guide_attribute": "glad", "guide_strength": strength}
            writing = Writing(["The bird", "Anna"], 24, 60, seed=9)
            texts[strength] = write_texts(demo, demo.tokenizer, writing, controls=how)
    finally:
        del demo.attributes
    good, bad = ("happy", "smile", "laugh", "fun", "love"), ("sad", "cry", "cried", "sorry", "scared")
    score = {
        strength: sum(
            sum(word in each.text for word in good) - sum(word in each.text for word in bad) for each in found
        )
        for strength, found in texts.items()
    }
    assert score[4] > score[-4]


def test_the_same_seed_gives_the_same_attribute(demo):
    samples = AttributeSamples(STARTS, texts=16, tokens=20, measured=0)
    made = [train_attribute(demo, AttributeSource(GLAD, GRIM), samples) for _ in range(2)]
    assert made[0].experts == made[1].experts
    assert "effect" not in made[0].about


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("source", ["texts", "classifier", "description"])
def test_any_model_source_and_kind_will_do(other, source, kind, tmp_path):
    sources = {
        "texts": AttributeSource(with_texts=["once upon a time"] * 12, without_texts=["the end of the story"] * 12),
        "classifier": AttributeSource(
            classifier=str(saved_classifier(tmp_path / "words") or tmp_path / "words"), label="POSITIVE"
        ),
        "description": AttributeSource("once upon a time", "the end"),
    }
    samples = AttributeSamples(texts=40, tokens=6, measured=8)
    if source == "classifier":
        with pytest.raises(UserError, match="judged alike"):  # a random model writes no words
            train_attribute(other, sources[source], samples, kind=kind)
        return
    made = train_attribute(other, sources[source], samples, kind=kind)
    assert (made.kind, bool(made.experts), bool(made.vectors)) == (kind, kind == "experts", kind == "steering")
    assert made.about["effect"]["shares"].keys() == made.about["perplexity"].keys()
    assert not hasattr(other, "attributes")


@pytest.mark.parametrize("needed", [0.0, 0.4, 1.0, 1.7, 2.5, 3.9, 5.0, 7.9, 99.0])
def test_the_least_strength_is_found_at_which_most_lean(monkeypatch, needed):
    """The share rises in proportion to the strength, up to 0.9 where it is needed."""
    asked = []

    def write(model, tokenizer, writing, controls):
        asked.append((controls or {}).get("guide_strength", 0.0))
        leaning = 1.0 if asked[-1] >= needed else 0.9 * asked[-1] / needed
        many = round(leaning * writing.number)
        return [OwnText("", "yes" if index < many else "no") for index in range(writing.number)]

    monkeypatch.setattr(suggested_strength, "write_texts", write)
    monkeypatch.setattr(suggested_strength, "_perplexity", lambda *_: 1.0)
    told = []

    class Model:
        pass

    found = measure_leaning(
        Model(),
        None,
        Attribute("words", words={"a": 1.0}),
        lambda texts: [1.0 if each.text == "yes" else -1.0 for each in texts],
        Writing(["a"], 200, 5),
        lambda *how: told.append(how),
    )
    assert isinstance(found, Leaning)
    assert list(found.shares) == sorted(asked)
    assert len(asked) <= 5
    assert told[-1][0] == told[-1][1]
    if needed > suggested_strength.STRENGTHS[-1]:
        assert found.suggested is None
    else:
        assert found.suggested * 2 == int(found.suggested * 2)
        above = min(each for each in (0.0, *suggested_strength.STRENGTHS) if each >= needed)
        assert found.suggested <= above
        assert found.suggested >= needed - 1 or not needed


def test_the_command_makes_an_attribute_of_a_description(tmp_path, monkeypatch):
    load_once(monkeypatch)
    openings = tmp_path / "openings.txt"
    openings.write_text("\n".join(STARTS))
    how = ["train-attribute", "glad", "--description", GLAD, "--opposite", GRIM, "--openings", openings]
    made = run(*how, "--texts", "48", "--tokens", "30", "--measure", "8")
    assert made.exit_code == 0, made.stderr
    lines = dict(line.split(None, 1) for line in made.stdout.splitlines())
    assert lines["teacher"] == "the model itself"
    assert "8 texts lean towards it, by the model's own judgement)" in lines["leaning"]
    assert "strength" in lines
    about = json.loads((tmp_path / "data" / "fundamentallm" / "attributes" / "glad" / "attribute.json").read_text())
    assert (about["kind"], about["description"], about["written"]) == ("experts", GLAD, 48)
    if "suggested_strength" in about:
        assert f"{about['suggested_strength']:g} is suggested" in made.stdout
        assert f"experts for a strength of {about['suggested_strength']:g}" in run("attributes").stdout
    assert set(about["effect"]["shares"]) == set(about["perplexity"])


def test_experts_of_a_model_on_the_hub_are_kept_for_its_user(tmp_path, monkeypatch):
    load_once(monkeypatch, stand_in=None)
    asked = []
    real = load_model(device="cpu")
    monkeypatch.setattr(
        "fundamentallm_hf.model_io.loading.load_model", lambda source=None, **_: asked.append(source) or real
    )
    how = ["--description", GLAD, "--texts", "16", "--tokens", "10", "--measure", "0"]
    made = run("train-attribute", "glad", *how, "--model", "user/stories")
    assert made.exit_code == 0, made.stderr
    assert asked == ["user/stories"]
    assert (tmp_path / "data" / "fundamentallm" / "attributes" / "glad" / "experts.safetensors").is_file()
    missing = run("train-attribute", "glad", *how, "--model", "./nowhere")
    assert (missing.exit_code, "there is no ./nowhere" in missing.stderr) == (1, True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "an attribute is made of two sets of texts, of a classifier, or of a description"),
        ({"description": " "}, "an attribute is made of two sets of texts"),
        ({"with_texts": "a text", "without_texts": ["b"]}, "with_texts has to be a list of texts but is 'a text'"),
        ({"with_texts": ["a"], "without_texts": ["b", 3]}, "without_texts has to be a list of texts but is"),
        ({"with_texts": ["a"]}, "texts are given on one side only"),
        ({"without_texts": ["a"], "description": "b"}, "texts are given on one side only"),
        ({"with_texts": ["a"], "without_texts": ["b"], "classifier": "c"}, "not of both"),
        ({"opposite": "a"}, "an opposite is for an attribute that is made of a description alone"),
        ({"opposite": "a", "description": "b", "classifier": "c"}, "made of a description alone"),
        ({"label": "a", "description": "b"}, "label is 'a', but there is no classifier"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        AttributeSource(**given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "an attribute is made out of texts, --with FILE and --without FILE, of a --classifier, or, with a model"),
        (["--description", "a", "--kind", "words"], "an attribute is made out of texts"),
        (["--description", "a", "--label", "b"], "--label names a label of a classifier, and there is none"),
        (["--opposite", "a"], "an attribute is made out of texts"),
        (["--opposite", "a", "--classifier", "b"], "--opposite is for an attribute out of a --description alone"),
        (["--with", "a", "--without", "b", "--measure", "3"], "are for what a model writes: give --kind experts"),
        (["--with", "a", "--without", "b", "--kind", "experts", "--texts", "9"], "--texts is for texts that a model"),
    ],
)
def test_options_that_do_not_go_together_are_told_in_one_line(options, message):
    result = run("train-attribute", "joy", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"texts": 7}, "texts has to be at least 8 but is 7"),
        ({"tokens": 0}, "tokens has to be at least 1 but is 0"),
        ({"measured": -1}, "measured has to be at least 0 but is -1"),
    ],
)
def test_numbers_of_texts_that_teach_nothing_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        AttributeSamples(**given)


@pytest.mark.parametrize("command", [["train-attribute", "glad", "--description", GLAD], ["overused"]])
def test_openings_without_a_line_are_refused_and_not_replaced_by_others(command, tmp_path):
    openings = tmp_path / "openings.txt"
    openings.write_text("\n \n")
    result = run(*command, "--openings", openings)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "are empty: give prompts, one per line, or leave out --openings" in result.stderr


def test_openings_are_neither_few_nor_double():
    assert len(set(OPENINGS)) == len(OPENINGS) > 20
    assert all(each == each.strip() for each in OPENINGS)


@pytest.mark.core
@pytest.mark.parametrize(
    ("kind", "listed", "strength"),
    [
        ("experts", "experts that tell glad apart (experts", -3),
        ("steering", "a vector that tells glad apart (a steering vector", -4),
    ],
)
def test_the_command_makes_an_attribute_of_texts_that_generate_finds(tmp_path, kind, listed, strength):
    (tmp_path / "with.txt").write_text("\n".join(opposite_texts.GLAD * 2))
    (tmp_path / "without.txt").write_text("\n".join(opposite_texts.GRIM * 2))
    sides = ["--with", tmp_path / "with.txt", "--without", tmp_path / "without.txt"]
    made = run("train-attribute", "glad", *sides, "--kind", kind, "--measure", "8", "--tokens", "40")
    assert made.exit_code == 0, made.stderr
    assert "held-out AUC  1.000 (0.5 is chance)" in made.stdout
    assert "of 8 texts lean towards it, by their words" in made.stdout
    assert listed in run("attributes").stdout
    how = ["generate", "--prompt", "Tim was", "--temperature", "0", "--max-tokens", "40", "-q"]
    plain, guided = run(*how), run(*how, "--guide-attribute", f"glad:{strength}")
    assert guided.exit_code == 0, guided.stderr
    assert guided.stdout != plain.stdout
    assert kind == "steering" or "sad" in guided.stdout
