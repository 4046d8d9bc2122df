"""Guides by a classifier: exact on a small vocabulary, and consistent in whole calls."""

import json
import math

import pytest
import torch
from command import MODEL, load_once, run
from small_classifier import saved_classifier
from small_models import byte_level_gpt2, sentencepiece_llama
from writing import token_ids as ids
from writing import whole_texts as texts

from fundamentallm_hf import Attribute, FundamentaLLMForCausalLM, UserError, load_model
from fundamentallm_hf.portable.guides import build_guides as guides
from fundamentallm_hf.portable.guides.attribute_lookup import find_attribute
from fundamentallm_hf.portable.guides.classifier_guide import ClassifierGuide
from fundamentallm_hf.portable.guides.text_classifier import load_classifier
from fundamentallm_hf.portable.text.vocabulary import Vocabulary
from fundamentallm_hf.portable.text.word_counts import WordCounts

pytestmark = pytest.mark.core

MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": 3},
    "several": {"do_sample": True, "temperature": 1.2, "seed": 3, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "do_sample": False},
}
# 0 is the end, 1 a special token, 9 and 10 the halves of "é".
PIECES = ("", "", "I am ", "h", "s", ".", "H", "HA", "x", b"\xc3", b"\xa9")
COUNTS = WordCounts({"happy": 9, "have": 1, "sad": 5})


@pytest.fixture(autouse=True)
def _own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


class Judge:
    """Gives every text the log of a number, and keeps what it was asked."""

    def __init__(self, **known):
        self.known, self.asked = known, []

    def __call__(self, texts):
        self.asked.append(list(texts))
        return [math.log(self.known.get(text.replace(" ", "_"), 0.5)) for text in texts]


def guide_of(judge, **how):
    return ClassifierGuide(judge, Vocabulary(PIECES), COUNTS, end_tokens=[0], **how)


def scores_of(**chances):
    scores = torch.full((1, len(PIECES)), -torch.inf)
    for piece, chance in chances.items():
        scores[0, int(piece[1:])] = math.log(chance)
    return scores


def test_a_token_is_worth_what_its_text_is_judged_above_the_average_in_exact_numbers():
    judge = Judge(I_am_happy=0.8, I_am_sad=0.1)
    worth = guide_of(judge)(torch.tensor([[2]]), scores_of(_3=0.5, _4=0.3, _5=0.2))
    logs = {3: math.log(0.8), 4: math.log(0.1), 5: math.log(0.5)}
    average = 0.5 * logs[3] + 0.3 * logs[4] + 0.2 * logs[5]
    expected = torch.zeros(1, len(PIECES))
    for token, log in logs.items():
        expected[0, token] = log - average
    assert torch.allclose(worth, expected)
    assert judge.asked == [["I am happy", "I am sad", "I am ."]]


@pytest.mark.parametrize(
    ("row", "token", "text"),
    [
        ([2], 3, "I am happy"),  # by the likeliest ending
        ([2], 8, "I am x"),  # of which nothing is known
        ([2], 7, "I am HAPPY"),
        ([2], 6, "I am Happy"),
        ([2, 3], 0, "I am h"),  # the text ends, and so does the word
        ([1, 2], 5, "I am ."),  # special tokens are not read
        ([2], 9, "I am "),  # half a character
        ([2, 9], 10, "I am é"),
        ([2, 9], 5, "I am \ufffd."),
    ],
)
def test_what_is_judged(row, token, text):
    judge = Judge()
    guide_of(judge)(torch.tensor([row]), scores_of(**{f"_{token}": 0.6, "_4": 0.4}))
    assert judge.asked[0][0] == text


@pytest.mark.parametrize(
    "scores",
    [
        scores_of(_3=1.0),  # one is open
        scores_of(_3=0.999, _4=0.999 * math.exp(-5.1)),  # one is near enough
        torch.full((1, len(PIECES)), -torch.inf),
    ],
)
def test_where_there_is_nothing_to_choose_nothing_is_asked(scores):
    judge = Judge()
    assert torch.equal(guide_of(judge)(torch.tensor([[2]]), scores), torch.zeros(1, len(PIECES)))
    assert judge.asked == []


def test_no_more_are_asked_than_candidates_and_the_others_are_worth_nothing():
    judge = Judge(I_am_happy=0.8)
    worth = guide_of(judge, candidates=2)(torch.tensor([[2]]), scores_of(_3=0.5, _4=0.3, _5=0.2))
    assert judge.asked == [["I am happy", "I am sad"]]
    assert worth[0, 5] == 0
    assert worth[0, 3] > 0 > worth[0, 4]


@pytest.mark.parametrize("judge", [lambda texts: [math.nan] * len(texts), lambda texts: [-math.inf] * len(texts)])
def test_a_classifier_that_has_nothing_to_say_leaves_the_scores_alone(judge):
    worth = guide_of(judge)(torch.tensor([[2]]), scores_of(_3=0.5, _4=0.3))
    assert torch.equal(worth, torch.zeros(1, len(PIECES)))


def test_padding_is_not_read_and_every_text_is_asked_once():
    judge = Judge()
    guide = guide_of(judge, padding=[2, 0])
    rows = torch.tensor([[8, 8, 2], [8, 8, 2]])
    guide(rows, scores_of(_3=0.6, _4=0.4).expand(2, -1))
    assert judge.asked == [["I am happy", "I am sad", "xxI am happy", "xxI am sad"]]
    guide(rows, scores_of(_3=0.6, _5=0.4).expand(2, -1))
    assert judge.asked[1:] == [["I am .", "xxI am ."]]


def test_few_texts_are_kept_and_all_of_a_step_are_judged():
    judge = Judge(I_am_happy=0.8)
    guide = guide_of(judge, kept=1)
    first = guide(torch.tensor([[2]]), scores_of(_3=0.5, _4=0.3, _5=0.2))
    assert torch.equal(first, guide(torch.tensor([[2]]), scores_of(_3=0.5, _4=0.3, _5=0.2)))
    assert len(guide._judged) == 1
    assert len(judge.asked[1]) == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_classifier(tmp_path_factory.mktemp("classifiers") / "words", longest=128)


def with_attributes(model, folder):
    model.attributes = {
        "glad": Attribute("classifier", classifier=folder, label="POSITIVE"),
        "grim": Attribute("classifier", classifier=folder, label="NEGATIVE"),
        "dogs": Attribute("words", "", {"dog": 2.0, "cat": -2.0}),
    }
    return model


@pytest.fixture(scope="module")
def demo(folder):
    return with_attributes(load_model(device="cpu"), folder)


@pytest.fixture(scope="module", params=[byte_level_gpt2, sentencepiece_llama])
def other(request, folder):
    return with_attributes(request.param(), folder)


@pytest.mark.parametrize("how", MODES.values(), ids=MODES)
def test_a_strength_of_0_is_no_guide(demo, how):
    prompts = ["Once upon a time", "Tom"]
    assert torch.equal(ids(demo, prompts, **how), ids(demo, prompts, guide_attribute="glad:0", **how))
    assert torch.equal(ids(demo, prompts, **how), ids(demo, prompts, guide_attribute="glad", guide_strength=0, **how))


def test_a_strength_raises_or_lowers_what_the_classifier_says(demo, folder):
    judge = load_classifier(folder, "POSITIVE")
    prompts = ["One day, Tim", "Lily was", "The dog", "Mom said"]
    how = {
        "do_sample": True,
        "temperature": 0.8,
        "top_k": 0,
        "seed": 1,
        "max_new_tokens": 80,
        "num_return_sequences": 4,
    }

    def said(guide):
        found = texts(demo, prompts, guide_attribute=guide, **how)
        return sum(map(math.exp, judge(found))) / len(found)

    lowest, low, plain, high = map(said, ("grim:6", "glad:-6", "glad:0", "glad:6"))
    assert max(low, lowest) < plain < high
    assert high > 0.7
    assert lowest < 0.3


@pytest.mark.parametrize("how", [MODES["greedy"], MODES["sampled"], MODES["beams"]], ids=["greedy", "sampled", "beams"])
def test_every_row_of_a_padded_batch_comes_out_as_alone(demo, other, how):
    prompts = ["once upon a time", "a", "the small cat in the"]
    for model in (demo, other):
        together = texts(model, prompts, guide_attribute="glad:4", **how)
        assert together == [texts(model, [prompt], guide_attribute="glad:4", **how)[0] for prompt in prompts]


@pytest.mark.parametrize("how", MODES.values(), ids=MODES)
def test_what_was_judged_follows_the_rows(demo, monkeypatch, how):
    prompts = ["Once upon a time", "Tom"]
    kept = ids(demo, prompts, guide_attribute="glad:4", **how)
    assert not torch.equal(kept, ids(demo, prompts, **how))

    class Forgetful(ClassifierGuide):
        def __init__(self, *args):
            super().__init__(*args, kept=0)

    monkeypatch.setattr(guides, "ClassifierGuide", Forgetful)
    assert torch.equal(kept, ids(demo, prompts, guide_attribute="glad:4", **how))


@pytest.mark.parametrize("how", MODES.values(), ids=MODES)
def test_two_guides_commute(demo, how):
    prompts = ["Once upon a time", "Tom"]
    there = ids(demo, prompts, guide_attribute="glad:3,dogs:2", **how)
    assert torch.equal(there, ids(demo, prompts, guide_attribute="dogs:2,glad:3", **how))


def test_guessed_tokens_change_nothing(other):
    how = {"max_new_tokens": 16, "do_sample": False, "guide_attribute": "glad:4"}
    plain = texts(other, ["once upon a a a"], **how)
    assert plain == texts(other, ["once upon a a a"], prompt_lookup_num_tokens=3, **how)


def test_other_controls_hold(demo):
    found = texts(demo, ["Tim was"], guide_attribute="glad:10", bad_words=["happy", "glad"], must_include=["sad"],
                  do_sample=False, max_new_tokens=60)  # fmt: skip
    assert "sad" in found[0]
    assert not {"happy", "glad"} & {word.strip(".,!\"'") for word in found[0].lower().split()}


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ({"label": "JOY"}, "guide_attribute odd: .* it has no label 'JOY': there are NEGATIVE, POSITIVE"),
        (
            {"missing": "nowhere"},
            "guide_attribute odd: the classifier .*nowhere' cannot be used: there is no config.json",
        ),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_is_written(demo, folder, monkeypatch, attribute, message):
    place = folder / attribute["missing"] if "missing" in attribute else folder
    odd = Attribute("classifier", classifier=place, label=attribute.get("label", "POSITIVE"))
    monkeypatch.setitem(demo.attributes, "odd", odd)
    monkeypatch.setattr(demo.model, "forward", lambda *args, **how: pytest.fail("the model was asked"))
    with pytest.raises(ValueError, match=message) as refused:
        ids(demo, ["Once"], guide_attribute="odd")
    assert "\n" not in str(refused.value)


def test_a_classifier_travels_with_its_model(tmp_path, folder):
    model = with_attributes(load_model(device="cpu"), folder)
    (folder / "training_args.bin").write_bytes(b"pickle")
    first, second = tmp_path / "first", tmp_path / "second"
    model.save_pretrained(first)
    again = FundamentaLLMForCausalLM.from_pretrained(first)
    again.save_pretrained(second)
    again.save_pretrained(first)  # over what it reads
    for place in (first, second):
        own = place / "attributes" / "glad"
        assert json.loads((own / "attribute.json").read_text())["model"] == "."
        assert {file.name for file in (own / "classifier").iterdir()} == {
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        }  # fmt: skip
        saved = FundamentaLLMForCausalLM.from_pretrained(place)
        assert find_attribute(saved, "glad").classifier == own / "classifier"
    how = {"do_sample": False, "guide_attribute": "glad:4"}
    saved.tokenizer = model.tokenizer
    assert texts(saved, ["Tim was"], **how) == texts(model, ["Tim was"], **how)


def test_in_a_repository_its_folder_is_fetched(hub, tmp_path, folder):
    Attribute("classifier", classifier=folder, label="POSITIVE").save(tmp_path / "glad")
    model = byte_level_gpt2()
    files = {
        f"attributes/glad/{file.relative_to(tmp_path / 'glad').as_posix()}": file.read_bytes()
        for file in (tmp_path / "glad").rglob("*")
        if file.is_file()
    }
    hub.make("user/model", {"config.json": model.config.to_json_string().encode(), **files})
    model.name_or_path = "user/model"
    found = find_attribute(model, "glad")
    assert load_classifier(found.classifier, found.label)(["happy"])[0] > math.log(0.9)


def test_the_command_makes_one_that_generate_finds(tmp_path, folder, monkeypatch):
    load_once(monkeypatch)
    made = run("train-attribute", "joy", "--classifier", folder, "--label", "positive")
    assert made.exit_code == 0, made.stderr
    own = tmp_path / "data" / "fundamentallm" / "attributes" / "joy"
    assert str(own) in made.stdout
    assert "POSITIVE" in made.stdout
    assert (own / "classifier" / "model.safetensors").is_file()
    assert str(folder.parent) not in (own / "attribute.json").read_text()
    assert "texts that words calls POSITIVE (a classifier: POSITIVE, your own)" in run("attributes").stdout
    again = run("train-attribute", "joy", "--classifier", folder, "--label", "POSITIVE")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert run("train-attribute", "joy", "--classifier", folder, "--label", "NEGATIVE", "--force").exit_code == 0
    how = ["generate", "--prompt", "Tim was", "--temperature", "0", "--max-tokens", "40"]
    plain, guided = run(*how), run(*how, "--guide-attribute", "joy:6")
    assert guided.exit_code == 0, guided.stderr
    assert guided.stdout != plain.stdout
    (own / "classifier" / "model.safetensors").unlink()
    broken = run(*how, "--guide-attribute", "joy:6")
    assert broken.exit_code in (1, 2)
    assert "has no weights in safetensors" in broken.stderr
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        ([], 2, "is made out of texts, --with FILE and --without FILE, of a --classifier, or, with a model that"),
        (
            ["--with", "a.txt"],
            2,
            "is made out of texts, --with FILE and --without FILE, of a --classifier, or, with a model that",
        ),
        (["--label", "JOY"], 2, "--label names a label of a classifier, and there is none"),
        (["--classifier", "FOLDER", "--with", "a.txt"], 2, "--classifier cannot be combined with --with"),
        (["--classifier", "FOLDER", "--label", "JOY"], 1, "it has no label 'JOY': there are NEGATIVE, POSITIVE"),
        (["--classifier", "FOLDER"], 1, "name one of its labels: NEGATIVE, POSITIVE"),
        (["--classifier", "./nowhere", "--label", "JOY"], 1, "'nowhere' cannot be used: there is no config.json"),
        (["--classifier", "a b", "--label", "JOY"], 1, "has to be user/name on the Hub"),
        (["--classifier", MODEL, "--label", "JOY"], 1, "cannot be used: there is no config.json"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(tmp_path, folder, call, code, message):
    result = run("train-attribute", "joy", *[folder if each == "FOLDER" else each for each in call])
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "data" / "fundamentallm" / "attributes" / "joy").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "../elsewhere"}, "has to be user/name on the Hub, or . for the folder classifier"),
        ({"model": "/etc/passwd"}, "has to be user/name on the Hub"),
        ({}, "has to be user/name on the Hub"),
        ({"model": 3}, "has to be user/name on the Hub"),
        ({"model": "."}, "there is no folder classifier next to its attribute.json"),
        ({"model": "user/name", "label": 3}, "the label of an attribute has to be a text but is 3"),
    ],
)
def test_what_is_no_such_attribute_is_refused_in_one_line(tmp_path, fields, message):
    (tmp_path / "attribute.json").write_text(json.dumps({"kind": "classifier"} | fields))
    with pytest.raises(UserError, match=message) as refused:
        Attribute.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_one_on_the_hub_is_kept_by_its_name(tmp_path):
    attribute = Attribute(
        "classifier", "glad", classifier="user/reviews@v1", label="POSITIVE", about={"license": "mit"}
    )
    assert Attribute.load(attribute.save(tmp_path / "a")) == attribute
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["attribute.json"]
