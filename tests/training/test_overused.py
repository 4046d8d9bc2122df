"""What a model writes far more often than people do, and the weights that make it as rare."""

import math
import random

import pytest
from click.testing import CliRunner

from fundamentallm_hf import load_model
from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.text.word_lists import read_weights
from fundamentallm_hf.settings.generation_settings import GenerationSettings
from fundamentallm_hf.training.overused import PhraseCounts, Search, count_phrases, find_overused, overused


def writer(frequencies, seed, words=20_000):
    """Texts in which each word comes independently with its frequency."""
    chance = random.Random(seed)
    drawn = chance.choices(list(frequencies), list(frequencies.values()), k=words)
    return [" ".join(drawn[start : start + 50]) for start in range(0, words, 50)]


COMMON = {f"w{index}": 10.0 for index in range(40)}


def test_the_weights_make_words_as_rare_as_people_have_them():
    people = writer(COMMON | {"dragon": 1.0, "said": 10.0, "cat": 4.0}, 1, words=200_000)
    model = writer(COMMON | {"dragon": 8.0, "said": 40.0, "cat": 4.4}, 2)
    found = overused(count_phrases(model, 1), count_phrases(people, 1), Search())
    assert list(found) == ["said", "dragon"]
    # Odds against the other words: 8 and 4 times as high.
    assert found["dragon"] == pytest.approx(-math.log(8), abs=0.25)
    assert found["said"] == pytest.approx(-math.log(4), abs=0.15)


def test_nothing_is_overused_by_chance():
    counted = [count_phrases(writer(COMMON, seed, words=4000), 2) for seed in (3, 4)]
    assert overused(*counted, Search()) == {}


def test_the_ratio_and_the_number_of_entries_are_limits():
    people = count_phrases(writer(COMMON | {"a": 10.0, "b": 10.0}, 5), 1)
    model = count_phrases(writer(COMMON | {"a": 30.0, "b": 60.0}, 6), 1)
    assert list(overused(model, people, Search())) == ["b", "a"]
    assert list(overused(model, people, Search(ratio=4))) == ["b"]
    assert list(overused(model, people, Search(most=1))) == ["b"]


def test_a_phrase_is_listed_only_for_what_its_words_do_not_explain():
    people = count_phrases(writer(COMMON | {"mix": 2.0}, 7, words=100_000))
    often = count_phrases(writer(COMMON | {"mix": 12.0}, 8))
    assert list(overused(often, people, Search(ratio=3))) == ["mix"]
    # As often as with people, but always together.
    single = {word: frequency for word, frequency in COMMON.items() if word not in ("w1", "w2")}
    together = count_phrases(writer(single | {"w1 w2": 10.0}, 9))
    assert list(overused(together, people, Search(ratio=8))) == ["w1 w2"]


def test_phrases_do_not_go_across_punctuation():
    assert [each.counts for each in count_phrases(["A cat. The Cat, the cat\nsat"])] == [
        {"a": 1, "cat": 3, "the": 2, "sat": 1},
        {"a cat": 1, "the cat": 2, "cat sat": 1},
        {"the cat sat": 1},
    ]


def with_subjects(share, seed, texts=300):
    """Texts that hold the word of each of 200 subjects ten times with the given probability, or else not at all."""
    chance = random.Random(seed)
    found = []
    for _ in range(texts):
        words = chance.choices(list(COMMON), k=40)
        for subject in range(200):
            words += [f"s{subject}"] * (10 * (chance.random() < share.get(f"s{subject}", 0.01)))
        chance.shuffle(words)
        found.append(" ".join(words))
    return found


def test_occurrences_that_a_text_draws_independently_count_one_by_one():
    chance = random.Random(0)
    lengths = [chance.randint(5, 200) for _ in range(2000)]
    texts = [" ".join(chance.choices(["the", "a", "cat"], [10, 9, 1], k=length)) for length in lengths]
    (counted,) = count_phrases(texts, 1)
    assert {word: counted.clusters.get(word, 1) for word in ("the", "a", "cat")} == {
        word: pytest.approx(1, abs=0.15) for word in ("the", "a", "cat")
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_subjects_of_a_few_texts_are_not_overused(seed):
    people = count_phrases(with_subjects({}, seed), 1)
    model = count_phrases(with_subjects({}, 100 + seed), 1)
    assert overused(model, people, Search()) == {}
    # What tells is that they come in few texts: the counts alone would list many of them.
    alone = [[PhraseCounts(each.counts) for each in side] for side in (model, people)]
    assert len(overused(*alone, Search())) > 10


@pytest.mark.parametrize("seed", range(3))
def test_a_subject_of_many_texts_is_overused(seed):
    people = count_phrases(with_subjects({}, seed, texts=1000), 1)
    model = count_phrases(with_subjects({"s7": 0.2}, 100 + seed), 1)
    found = overused(model, people, Search())
    assert list(found) == ["s7"]
    assert found["s7"] == pytest.approx(-math.log(20), abs=0.9)


def test_a_list_is_one_that_generate_takes(tmp_path):
    model = load_model(device="cpu")
    people = ["A dragon flew over the quiet town at night and sang of old kings."] * 200
    search = Search(texts=64, tokens=100, ratio=1.5)
    found = find_overused(model, model.tokenizer, people, search=search)
    assert found
    assert all(weight <= -math.log(1.5) + 0.01 for weight in found.values())
    file = tmp_path / "weights.txt"
    file.write_text("# overused\n" + "".join(f"{entry}:{weight}\n" for entry, weight in found.items()))
    settings = GenerationSettings(word_weights_file=str(file), word_weights="zebra:2")
    settings.check()
    assert read_weights(settings.with_files_read().word_weights) == {"zebra": 2.0} | found
    assert settings.with_files_read().word_weights_file is None


def test_there_have_to_be_texts_to_compare_with():
    model = load_model(device="cpu")
    with pytest.raises(UserError, match="no texts to compare with"):
        find_overused(model, model.tokenizer, [" "])


def test_a_file_without_texts_is_not_replaced_by_the_counts_of_the_model(tmp_path):
    people = tmp_path / "people.txt"
    people.write_text(" \n\n")
    done = CliRunner().invoke(cli, ["overused", "--compared-with", str(people)])
    assert done.exit_code == 1
    assert "there are no texts to compare with" in done.output
    assert not done.stdout


def test_the_command_writes_a_list_and_nothing_else(tmp_path):
    people = tmp_path / "people.txt"
    people.write_text("A dragon flew over the quiet town at night and sang of old kings.\n" * 200)
    how = ["overused", "--compared-with", str(people), "--texts", "64", "--tokens", "100", "--ratio", "1.5"]
    done = CliRunner().invoke(cli, how)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines
    assert all(weight < 0 for weight in read_weights(lines).values())
    file = tmp_path / "weights.txt"
    done = CliRunner().invoke(cli, [*how, "--output", str(file)])
    assert done.exit_code == 0, done.output
    assert file.read_text().splitlines() == lines
    done = CliRunner().invoke(cli, [*how, "--output", str(file)])
    assert done.exit_code == 1
    assert "replace it with --force" in done.output
