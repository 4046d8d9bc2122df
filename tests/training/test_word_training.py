"""Word weights from two texts, and the command that creates an attribute from them."""

import json
import math
import random

import pytest
from command import MODEL, load_once, run
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf import Attribute, UserError
from fundamentallm_hf.training.word_training import area_under_curve, log_odds, train_words


@pytest.fixture(autouse=True)
def _own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def lines(*words, number=40):
    draw = random.Random(0)
    return [" ".join(draw.choice(words) for _ in range(8)) for _ in range(number)]


def test_a_weight_is_the_log_odds_ratio_with_a_prior_worked_out_by_hand():
    weights = log_odds({"good": 30, "the": 70}, {"good": 5, "the": 95})
    prior = {"good": 3.5, "the": 16.5}
    some, others = 30 + prior["good"], 5 + prior["good"]
    expected = math.log(some / (120 - some)) - math.log(others / (120 - others))
    assert weights == {"good": pytest.approx(expected, abs=1e-3), "the": pytest.approx(-expected, abs=1e-3)}


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 90), min_size=1),
       st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 90), min_size=1))  # fmt: skip
def test_the_other_way_round_the_weights_are_negated(some, others):
    there, back = log_odds(some, others), log_odds(others, some)
    assert there == {word: -weight for word, weight in back.items()}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_the_area_is_the_share_of_pairs_in_order(higher, lower):
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in higher for b in lower]
    assert area_under_curve(higher, lower) == pytest.approx(sum(pairs) / len(pairs))


def test_words_that_tell_texts_apart_are_found_and_held_out_texts_judge_them():
    made = train_words(lines("dog", "the", "a"), lines("car", "the", "a"))
    assert set(made.weights) == {"dog", "car"}
    assert made.weights["dog"] > 1 > -1 > made.weights["car"]
    assert made.separation > 0.95
    same = train_words(lines("dog", "the", "a"), ["dog", *lines("car", "the", "a", number=8)])
    assert same.separation is None


def test_texts_that_are_alike_make_nothing():
    with pytest.raises(UserError, match="no word tells the 40 texts with the attribute and the 40 without it apart"):
        train_words(lines("a", "b"), lines("a", "b"))
    with pytest.raises(UserError, match="the texts without the attribute hold no words"):
        train_words(["a"], ["", "..."])


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "with.txt").write_text("\n".join(lines("king", "the", "thy", "love")))
    (tmp_path / "without.txt").write_text("\n".join(lines("car", "the", "my", "love")))
    return ["--with", tmp_path / "with.txt", "--without", tmp_path / "without.txt"]


def test_the_command_makes_an_attribute_that_generate_finds(tmp_path, texts, monkeypatch):
    load_once(monkeypatch, stand_in=MODEL)
    made = run("train-attribute", "royal", *texts, "--description", "about kings")
    assert made.exit_code == 0, made.stderr
    assert "held-out AUC  1.000 (0.5 is chance)" in made.stdout
    folder = tmp_path / "data" / "fundamentallm" / "attributes" / "royal"
    assert str(folder) in made.stdout
    assert json.loads((folder / "attribute.json").read_text())["held_out_auc"] == 1
    assert set(Attribute.load(folder).words) == {"king", "thy", "car", "my"}
    listed = run("attributes")
    assert "royal" in listed.stdout
    assert "about kings (4 words, your own)" in listed.stdout
    assert "animals" in listed.stdout
    again = run("train-attribute", "royal", *texts)
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert "there is an attribute 'royal'" in again.stderr
    assert run("train-attribute", "royal", *texts, "--force").exit_code == 0
    how = ["generate", MODEL, "--prompt", "The", "--temperature", "0", "--max-tokens", "40"]
    plain, guided = run(*how), run(*how, "--guide-attribute", "royal:8")
    assert guided.exit_code == 0, guided.stderr
    assert guided.stdout != plain.stdout
    assert run(*how, "--guide-attribute", "royal:8", "--guide-strength", "0").stdout == plain.stdout
    # A folder, named on the command line, does the same.
    assert run(*how, "--guide-attribute", f"{folder}:8").stdout == guided.stdout


def test_beside_a_model_only_that_model_has_it(tmp_path, texts):
    (tmp_path / "model").mkdir()
    made = run("train-attribute", "royal", *texts, "--model", tmp_path / "model")
    assert made.exit_code == 0, made.stderr
    assert (tmp_path / "model" / "attributes" / "royal" / "words.tsv").is_file()
    assert "royal" not in run("attributes").stdout
    assert "next to the model" in run("attributes", tmp_path / "model").stdout


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (["train-attribute", "a/b"], 1, "the name of an attribute has to be of letters"),
        (["train-attribute", "royal", "--with", "no.txt"], 1, "cannot read 'no.txt': No such file"),
        (["train-attribute", "royal", "--model", "user/name"], 1, "there is no user/name"),
        (["attributes", "./nowhere"], 1, "there is no ./nowhere"),
        (["generate", MODEL, "--guide-attribute", "royall"], 2, "there is no attribute 'royall': there are animals"),
        (["generate", MODEL, "--guide-attribute", "./nowhere"], 2, "cannot read the attribute './nowhere'"),
        (["generate", MODEL, "--guide-attribute", "a:x"], 2, "the strength of a has to be a number from -10 to 10"),
        (["generate", MODEL, "--guide-strength", "11"], 2, "has to be a number from -10 to 10 but is '11'"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(texts, monkeypatch, call, code, message):
    load_once(monkeypatch, stand_in=MODEL)
    if call[0] == "train-attribute":
        call = [*call[:2], *texts, *call[2:]]
    result = run(*call)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
