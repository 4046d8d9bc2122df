"""Experts that learn from texts of the model itself, sorted by a classifier."""

import json
import math
from collections import Counter

import pytest
import torch
from command import load_once, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_classifier import saved_classifier
from small_models import byte_level_gpt2

from fundamentallm_hf import UserError, load_model
from fundamentallm_hf.portable.guides.attributes import FITTED
from fundamentallm_hf.portable.guides.output_experts import OutputWeights
from fundamentallm_hf.training.expert_training import train_experts
from fundamentallm_hf.training.labelled_samples import OwnText, Writing, sort_texts, write_texts

OPENINGS = ["One day, Tim", "The little cat was"]


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


@pytest.fixture(autouse=True)
def _own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_openings_are_taken_in_turn_and_the_seed_decides(demo):
    told = []
    found = write_texts(demo, demo.tokenizer, Writing(OPENINGS, 5, 20, seed=3), lambda *how: told.append(how), rows=2)
    assert [each.opening for each in found] == [*OPENINGS, *OPENINGS, OPENINGS[0]]
    assert all(0 < len(each.text) <= 20 for each in found)
    assert len({each.text for each in found}) == 5
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert write_texts(demo, demo.tokenizer, Writing(OPENINGS, 5, 20, seed=3), rows=2) == found
    assert write_texts(demo, demo.tokenizer, Writing(OPENINGS, 5, 20, seed=4), rows=2) != found
    torch.manual_seed(1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    write_texts(demo, demo.tokenizer, Writing(OPENINGS, 1, 5))
    assert torch.rand(1) == drawn


def test_openings_of_different_lengths_do_not_disturb_each_other(demo):
    found = write_texts(demo, demo.tokenizer, Writing(["Once upon a tim", "x" * 90, ""], 9, 1))
    assert [each.text for each in found[::3]] == ["e"] * 3


def test_any_causal_model_writes(demo, monkeypatch):
    model = byte_level_gpt2()
    found = write_texts(model, model.tokenizer, Writing(["Once upon", "The"], 3, 6))
    assert [each.opening for each in found] == ["Once upon", "The", "Once upon"]
    monkeypatch.setattr(model.generation_config, "bos_token_id", None)
    with pytest.raises(UserError, match="there is no opening to write on from: give some, one a line"):
        write_texts(model, model.tokenizer, Writing([""], 3, 6))
    assert write_texts(demo, demo.tokenizer, Writing([""], 1, 6))[0].text


def test_the_ends_are_kept_and_what_cannot_be_judged_is_left_out():
    texts = [OwnText("o", str(index)) for index in range(9)]
    scores = [0.5, 0.9, math.nan, 0.1, 0.6, 0.4, 0.8, 0.2, 0.55]
    having, lacking = sort_texts(texts, scores)
    assert [each.text for each in having] == ["6", "1"]
    assert [each.text for each in lacking] == ["3", "7"]
    assert [len(side) for side in sort_texts(texts, scores, share=0.5)] == [4, 4]
    assert having[0].passage.text == "o6"
    assert having[0].passage.spans == [(1, 2)]
    for alike in ([0.5] * 9, [math.nan] * 9, [0.1, 0.2]):
        with pytest.raises(UserError, match="texts that the model wrote are judged alike: let it write more"):
            sort_texts(texts[: len(alike)], alike)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=40), st.sampled_from([0.1, 0.25, 0.5])
)
def test_each_group_gives_both_sides_as_many(rows, share):
    texts = [OwnText("o", str(index)) for index in range(len(rows))]
    groups, scores = [group for group, _ in rows], [score for _, score in rows]

    def of(group):
        found = [index for index in range(len(rows)) if groups[index] == group]
        try:
            return sort_texts([texts[index] for index in found], [scores[index] for index in found], share)
        except UserError:  # too few, or all judged alike
            return [], []

    expected = [[each for group in range(4) for each in of(group)[side]] for side in (0, 1)]
    if not expected[0]:
        with pytest.raises(UserError, match="judged alike"):
            sort_texts(texts, scores, share, groups)
        return
    assert list(sort_texts(texts, scores, share, groups)) == expected
    found = [Counter(groups[int(each.text)] for each in side) for side in expected]
    assert found[0] == found[1]
    # Texts of one group are one side or the other by their scores alone.
    for high in expected[0]:
        for low in expected[1]:
            if groups[int(high.text)] == groups[int(low.text)]:
                assert scores[int(high.text)] >= scores[int(low.text)]


def test_experts_lean_to_what_the_judge_prefers(demo):
    texts = write_texts(demo, demo.tokenizer, Writing(OPENINGS, 320, 60))

    def share(written):
        letters = "".join(each.text for each in written)
        return letters.count("a") / len(letters)

    having, lacking = sort_texts(texts, [share([each]) for each in texts])
    made = train_experts(demo, demo.tokenizer, [each.passage for each in having], [each.passage for each in lacking])
    assert made.separation > 0.6
    # Where the model gives the letter a chance, the one expert gives it more than the other.
    unseen = write_texts(demo, demo.tokenizer, Writing(OPENINGS, 16, 60, seed=1))
    ids = demo.tokenizer([each.passage.text[:60] for each in unseen], return_tensors="pt", padding=True).input_ids
    with torch.no_grad():
        states = demo.model(ids).last_hidden_state.flatten(0, 1)
        ratios = made.experts(states, OutputWeights.of(demo))
        chances = demo.lm_head(states).softmax(dim=-1)
    letters = {letter: demo.tokenizer(letter).input_ids[0] for letter in "aeiotnsh"}
    means = {
        each: float((chances[:, token] @ ratios[:, token]) / chances[:, token].sum()) for each, token in letters.items()
    }
    assert max(means, key=means.get) == "a"
    assert means["a"] > 0.2


@pytest.mark.parametrize("kind", FITTED)
def test_the_command_makes_a_trained_attribute_of_a_classifier(kind, tmp_path, monkeypatch):
    load_once(monkeypatch)
    folder, openings = saved_classifier(tmp_path / "words"), tmp_path / "openings.txt"
    openings.write_text("\n".join([*OPENINGS, ""]))
    of_it = ["train-attribute", "joy", "--classifier", folder, "--label", "positive", "--kind", kind]
    made = run(*of_it, "--openings", openings, "--texts", "48", "--tokens", "40", "--measure", "8")
    assert made.exit_code == 0, made.stderr
    assert "held-out AUC" in made.stdout
    own = tmp_path / "data" / "fundamentallm" / "attributes" / "joy"
    about = json.loads((own / "attribute.json").read_text())
    assert (about["kind"], about["teacher"], about["label"], about["written"]) == (kind, "words", "POSITIVE", 48)
    assert about["texts"] == {"with": 12, "without": 12}
    assert not (own / "classifier").exists()
    how = ["generate", "--prompt", "Tim was", "--temperature", "0", "--max-tokens", "40"]
    plain, guided = run(*how), run(*how, "--guide-attribute", "joy:6")
    assert guided.exit_code == 0, guided.stderr
    assert guided.stdout != plain.stdout


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (
            ["--texts", "48"],
            2,
            "an attribute is made out of texts, --with FILE and --without FILE, of a --classifier, or",
        ),
        (
            ["--classifier", "FOLDER", "--tokens", "9"],
            2,
            "--openings, --texts, --tokens and --measure are for what a model writes: give --kind experts",
        ),
        (
            ["--classifier", "FOLDER", "--kind", "words"],
            2,
            "--classifier cannot be combined with --with, --without",
        ),
        (["--classifier", "FOLDER", "--kind", "experts"], 1, "name one of its labels: NEGATIVE, POSITIVE"),
        (["--classifier", "FOLDER", "--kind", "experts", "--texts", "7"], 2, "Invalid value for '--texts'"),
        (["--classifier", "FOLDER", "--kind", "experts", "--openings", "no.txt"], 1, "cannot read 'no.txt'"),
        (
            ["--classifier", "FOLDER", "--kind", "experts", "--openings", "EMPTY"],
            1,
            "are empty: give prompts, one per line",
        ),
    ],
)
def test_what_cannot_be_is_told_in_one_line(tmp_path, monkeypatch, call, code, message):
    load_once(monkeypatch)
    folder, empty = saved_classifier(tmp_path / "words"), tmp_path / "empty.txt"
    empty.write_text("\n\n")
    if "EMPTY" in call:
        call = [*call, "--label", "POSITIVE"]
    named = {"FOLDER": folder, "EMPTY": empty}
    result = run("train-attribute", "joy", *[named.get(each, each) for each in call])
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "data" / "fundamentallm" / "attributes" / "joy").exists()
