"""A model is published with everything that belongs to it and nothing else, and loads unchanged."""

import json
import re
import shutil
from contextlib import ExitStack

import pytest
import torch
from command import MODEL, run
from conftest import FIXTURES, offline
from hub_store import OTHER_TOKEN
from huggingface_hub.utils import are_progress_bars_disabled
from safetensors.torch import save_file
from small_models import byte_level_gpt2
from transformers.utils import logging
from without_package import run_without_package

from fundamentallm_hf import Generator, UserError, load_model
from fundamentallm_hf.portable.guides.attributes import Attribute
from fundamentallm_hf.publishing.publish import CODE_LICENSE, _quiet, push, push_model

NEEDED = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", CODE_LICENSE}


def contents(hub, name="user/stories", revision="main"):
    return {
        name: file.content for name, file in hub.repo(name).find(revision).files.items() if name != ".gitattributes"
    }


def logits(model):
    with torch.no_grad():
        return model(**model.tokenizer("To be, or not", return_tensors="pt")).logits


def text(model):
    return Generator(model, notice=lambda told: None).generate("To be", max_tokens=60, seed=3, bad_words=["the"])


@pytest.mark.parametrize("fixture", ["learned", "sinusoidal"])
def test_a_checkpoint_comes_back_the_same_bit_by_bit(hub, tmp_path, fixture):
    source = FIXTURES / fixture / "final_model.pt"
    before = load_model(source, device="cpu")
    result = run("push", source, "user/stories")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{hub.url}/user/stories/commit/{hub.repo('user/stories').branches['main']}\n"
    assert len(hub.repo("user/stories").commits) == 2
    assert contents(hub).keys() >= NEEDED
    result = run("pull", "user/stories", tmp_path / "stories")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'stories'}\n"), result.stderr
    for place in ("user/stories", tmp_path / "stories"):
        after = load_model(place, device="cpu")
        assert torch.equal(logits(after), logits(before))
        assert text(after) == text(before)


def test_nothing_but_the_model_goes(hub, tmp_path):
    """What lies beside a model in real life stays at home: pickles, optimizer state, paths, other files."""
    place = tmp_path / "runs" / "by Somebody"
    shutil.copytree(FIXTURES / "learned", place)
    run("convert", place / "final_model.pt", place / "model")
    model = place / "model"
    shutil.copy(FIXTURES / "learned" / "best.pt", model / "optimizer.pt")
    torch.save({"a": 1}, model / "training_args.bin")
    save_file({"exp_avg": torch.ones(3)}, model / "optimizer.safetensors")
    (model / "notes.txt").write_text(f"lies in {place}")
    (model / "LICENSE").write_text("Do what you like.")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"_name_or_path": str(place), "name_or_path": str(place)}))
    Attribute("words", "is formal", {"yours": 1.0, "hey": -1.0}).save(model / "attributes" / "formal")
    result = run("push", model, "user/stories")
    assert result.exit_code == 0, result.stderr
    sent = contents(hub)
    assert sent.keys() >= NEEDED | {"LICENSE", "attributes/formal/attribute.json", "attributes/formal/words.tsv"}
    others = sent.keys() - NEEDED - {"LICENSE", "attributes/formal/attribute.json", "attributes/formal/words.tsv"}
    assert all(name.endswith(".py") or name in ("tokenizer_config.json", "training.json") for name in others)
    assert not any(str(tmp_path).encode() in content or b"by Somebody" in content for content in sent.values())
    assert sent["LICENSE"] == b"Do what you like."
    assert b"Apache License" in sent[CODE_LICENSE]
    assert "modeling_fundamentallm.py" in sent
    assert not any("hub" in name for name in sent)  # what travels is what generate() needs


def test_what_cannot_be_cleaned_is_refused_before_anything_is_sent(hub, tmp_path):
    run("convert", MODEL, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("Trained in /home/me/runs.\n")
    result = run("push", tmp_path / "model", "user/stories")
    assert result.exit_code == 1
    assert result.stderr == "Error: README.md names a place on this machine (/home/me/runs.): take it out\n"
    assert not hub.repos


def test_a_dry_run_lists_what_would_go_with_sizes(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    result = run("push", MODEL, "user/stories", "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = [re.fullmatch(r" *([\d,]+)  (.+)", line).groups() for line in result.stdout.splitlines()]
    sizes = {name: int(size.replace(",", "")) for size, name in lines}
    assert sizes.keys() >= NEEDED
    total = sizes.pop(f"{len(sizes) - 1} files")
    assert total == sum(sizes.values())
    assert sizes["model.safetensors"] > 400_000
    assert not hub.requests


def test_the_options_of_push(hub, monkeypatch):
    result = run("push", MODEL, "user/stories", "--private", "--message", "Begin", "--license", "mit", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert hub.repo("user/stories").private
    assert hub.repo("user/stories").find("main").title == "Begin"
    assert b"\nlicense: mit\n" in contents(hub)["README.md"]
    result = run("push", MODEL, "user/stories@next")
    assert result.exit_code == 0, result.stderr
    assert "next" in hub.repo("user/stories").branches
    hub.repo("user/stories").readers.add("other")
    monkeypatch.setenv("HF_TOKEN", OTHER_TOKEN)
    result = run("push", "user/stories", "user/stories", "--create-pr", "--license", "cc0-1.0")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{hub.url}/user/stories/discussions/1\n"
    assert "note: until it is accepted, it is user/stories@refs/pr/1" in result.stderr
    assert b"\nlicense: cc0-1.0\n" in contents(hub, revision="refs/pr/1")["README.md"]


def test_the_same_again_is_no_commit_and_edits_of_the_card_survive(hub):
    run("push", MODEL, "user/stories")
    result = run("push", MODEL, "user/stories")
    assert "note: user/stories has all of this already: there was nothing to commit" in result.stderr
    assert len(hub.repo("user/stories").commits) == 2
    card = contents(hub)["README.md"].decode()
    hub.make("user/stories", {"README.md": card + "\nMy own words.\n", "picture.png": b"png"})
    result = run("push", FIXTURES / "sinusoidal" / "final_model.pt", "user/stories")
    assert result.exit_code == 0, result.stderr
    assert "My own words." in contents(hub)["README.md"].decode()
    assert contents(hub)["picture.png"] == b"png"


def test_an_older_models_weights_and_attributes_do_not_stay(hub):
    hub.make("user/stories", {"model-00001-of-00002.safetensors": b"x", "attributes/old/attribute.json": "{}"})
    run("push", MODEL, "user/stories")
    assert not contents(hub).keys() & {"model-00001-of-00002.safetensors", "attributes/old/attribute.json"}


def test_who_pushes_is_asked_once(hub):
    run("push", MODEL, "user/stories")
    assert len(hub.asked("whoami")) == 1  # the Hub limits this request strictly


def test_no_work_is_done_without_a_login(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("fundamentallm_hf.publishing.publish.convert_checkpoint", None)
    result = run("push", MODEL, "user/stories")
    assert result.exit_code == 1
    assert re.fullmatch(
        r"Error: you are not logged in to 127.0.0.1:\d+: log in with `hf auth login`.*\n", result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a", "b", "c"], 2, "expected [MODEL] USER/NAME but got 3 arguments"),
        ([MODEL, "stories"], 1, "the repository has to be a name such as user/stories but is 'stories'"),
        ([MODEL, "user/stories@a", "--revision", "b"], 2, "name one of the two"),
        (["no/such/model.pt", "user/stories"], 1, "does not exist"),
        ([MODEL], 2, "is on this machine: add the name of a repository, such as user/name"),
        ([], 2, "Missing argument"),
    ],
)
def test_wrong_uses_of_push(hub, arguments, code, message):
    result = run("push", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert not hub.repos


def test_a_model_in_memory_is_pushed_the_same_way(hub):
    model = load_model(MODEL, device="cpu")
    url = model.push_to_hub("user/stories", commit_message="From memory", private=True, tags=["tiny"])
    assert url == f"{hub.url}/user/stories/commit/{hub.repo('user/stories').branches['main']}"
    assert hub.repo("user/stories").find("main").title == "From memory"
    assert contents(hub).keys() >= NEEDED
    assert b"\n- tiny\n" in contents(hub)["README.md"]
    assert torch.equal(logits(load_model("user/stories", device="cpu")), logits(model))
    run("push", MODEL, "user/again", "--private")
    same = contents(hub, "user/again")
    assert same.pop("README.md")
    assert {name: content for name, content in contents(hub).items() if name != "README.md"} == same
    del model.tokenizer
    model.name_or_path = ""
    with pytest.raises(ValueError, match="has no tokenizer"):
        model.push_to_hub("user/stories")


def test_any_other_causal_model_is_pushed_too(hub):
    model = byte_level_gpt2()
    sent = push_model(model, "user/gpt", max_shard_size="20KB")
    assert sent.changed
    assert {"README.md", "config.json", "tokenizer.json", "model.safetensors.index.json"} <= contents(
        hub, "user/gpt"
    ).keys()
    assert CODE_LICENSE not in contents(hub, "user/gpt")
    assert push_model(model, "user/gpt").changed
    assert "model.safetensors.index.json" not in contents(hub, "user/gpt")
    loaded = load_model("user/gpt", device="cpu")
    assert torch.equal(loaded.transformer.wte.weight, model.transformer.wte.weight)


def test_the_bundled_model_is_pushed_with_its_attributes_and_word_counts(hub):
    assert run("push", "user/demo").exit_code == 0
    assert {"word_counts.json", "attributes/animals/words.tsv"} <= contents(hub, "user/demo").keys()
    result = run("attributes", "user/demo")
    assert result.exit_code == 0, result.stderr
    assert re.search("animals .*next to the model", result.stdout)


ANYWHERE = """
from transformers import pipeline
told = {"trust_remote_code": True, "revision": given["commit"]}
model = AutoModelForCausalLM.from_pretrained("user/stories", **told)
pipe = pipeline("text-generation", model="user/stories", device="cpu", **told)
result = [pipe("To be", return_full_text=False, **given["settings"])[0]["generated_text"]]
try:
    model.push_to_hub("user/again")
except ValueError as error:
    result.append(str(error))
"""


def test_without_this_package_the_text_is_the_same(hub, tmp_path):
    model = load_model(MODEL, device="cpu")
    model.attributes = {"old": Attribute("words", "is old", {"thou": 2.0, "thee": 2.0, "you": -2.0})}
    model.push_to_hub("user/stories")
    commit = hub.repo("user/stories").branches["main"]
    hub.make("user/stories", {"config.json": "broken since"})
    controls = {"bad_words": ["the"], "must_include": ["king"], "guide_attribute": "old", "temperature": 1.0, "seed": 3}
    given = {"commit": commit, "settings": {"max_new_tokens": 60, "do_sample": True, **controls}}
    online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    written, refused = run_without_package(ANYWHERE, given, tmp_path, **online)
    told = Generator(load_model("user/stories", revision=commit, device="cpu"), notice=lambda said: None)
    assert "To be" + written == told.complete("To be", max_tokens=60, **controls)[0].text
    assert "king" in written.lower()
    assert refused == "publishing needs the package: pip install fundamentallm-hf"
    assert "user/again" not in str(hub.repos)


def test_generate_takes_a_pinned_hub_id_and_needs_no_network_the_second_time(hub, monkeypatch):
    run("push", MODEL, "user/stories")
    commit = hub.repo("user/stories").branches["main"]
    hub.make("user/stories", {"config.json": "broken"})
    name = f"user/stories@{commit}"
    told = ("--prompt", "To be", "--max-tokens", 20, "--seed", 1, "--format", "json")
    first = run("generate", name, *told)
    assert first.exit_code == 0, first.stderr
    (record,) = json.loads(first.stdout)
    assert (record["model"], record["revision"]) == ("user/stories", commit)
    offline(monkeypatch)
    before = len(hub.requests)
    assert run("generate", name, *told).stdout == first.stdout
    assert run("generate", "user/stories", "--revision", commit, *told).stdout == first.stdout
    result = run("generate", "--interactive", "--max-tokens", 5, stdin=f"/model {name}\nTo be\n")
    assert "Error" not in result.output
    assert name in result.output
    assert run("evaluate", name, __file__).exit_code == 0
    assert run("attributes", name).exit_code == 0
    assert len(hub.requests) == before
    result = run("generate", "user/stories", *told)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "HF_HUB_OFFLINE is set" in result.stderr


def test_pushes_that_overlap_leave_the_progress_bars_as_they_were():
    def state():
        return logging.is_progress_bar_enabled(), are_progress_bars_disabled()

    before = state()
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(_quiet())
        second.enter_context(_quiet())
        assert state() == (False, before[1])
        first.close()
        assert state() == (False, before[1])
    assert state() == before


def test_an_edit_while_a_push_is_on_its_way_is_not_lost(hub):
    """Of the model's repository and of the controls': the edit stays, the push says so, and the next one keeps it."""
    for name, arguments in (("user/stories", ("push", MODEL)), ("user/controls", ("push-controls",))):
        assert run(*arguments, name).exit_code == 0
        card = contents(hub, name)["README.md"].decode()
        original, edits = hub.next_failure, [f"{card}\nMine, meanwhile.\n"]

        def meanwhile(request, name=name, original=original, edits=edits):
            found = original(request)
            if edits and f"GET /{name}/resolve" in request:
                hub.make(name, {"README.md": edits.pop()})
            return found

        hub.next_failure = meanwhile
        result = run(*arguments, name)
        assert not edits
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"Error: {name} was changed by somebody else meanwhile: try again\n"
        assert "Mine, meanwhile." in contents(hub, name)["README.md"].decode()
        hub.next_failure = original
        assert run(*arguments, name).exit_code == 0
        assert "Mine, meanwhile." in contents(hub, name)["README.md"].decode()


def test_push_takes_source_names_of_all_kinds(hub, tmp_path):
    push(FIXTURES / "learned", "user/a")
    push("user/a", "user/b")
    run("pull", "user/b@main", tmp_path / "c")
    push(tmp_path / "c", "user/c")
    weights = [contents(hub, f"user/{name}")["model.safetensors"] for name in "abc"]
    assert weights[0] == weights[1] == weights[2]


def test_errors_of_the_hub_are_one_line_of_the_command(hub, waits, tmp_path):
    hub.make("user/stories", {"config.json": "{}"})
    for call in (
        ("generate", "user/none", "--prompt", "a"),
        ("generate", "user/stories@v9", "--prompt", "a"),
        ("evaluate", "user/none", __file__),
        ("attributes", "user/none"),
        ("pull", "user/none"),
        ("pull", "user/none", tmp_path / "there"),
        ("convert", "user/none", tmp_path / "there"),
        ("push", "user/none", "user/other"),
        ("pull", "../x"),
    ):
        result = run(*call)
        assert (result.exit_code, result.stdout) == (1, ""), call
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
    assert list(tmp_path.glob("there*")) == []


def test_a_checkpoint_on_the_hub_is_refused_as_a_model_and_converted_without_running_it(hub, tmp_path):
    names = ("final_model.pt", "tokenizer.json", "model.yaml")
    hub.make("user/raw", {name: (FIXTURES / "learned" / name).read_bytes() for name in names})
    result = run("generate", "user/raw", "--prompt", "a")
    assert result.exit_code == 1
    how = re.search(r"`(fundamentallm convert user/raw FOLDER)`", result.stderr)[1]
    result = run(*how.replace("FOLDER", str(tmp_path / "converted")).split()[1:])
    assert result.exit_code == 0, result.stderr
    assert torch.equal(
        logits(load_model(tmp_path / "converted", device="cpu")), logits(load_model(MODEL, device="cpu"))
    )
    hub.make("user/none", {"config.json": "{}"})
    result = run("convert", "user/none", tmp_path / "there")
    assert result.stderr == (
        "Error: user/none holds no FundamentaLLM checkpoint (.pt): there is nothing to convert, load it as it is\n"
    )


def test_weights_as_pickles_are_refused(hub):
    hub.make("user/bin", {"config.json": '{"model_type": "gpt2"}', "pytorch_model.bin": b"\x80\x04"})
    with pytest.raises(
        UserError, match=r"has its weights only as pickles .*: have them converted to safetensors at https"
    ):
        load_model("user/bin", device="cpu")
    result = run("pull", "user/bin")
    assert result.exit_code == 0
    assert "note: left out, since pickles can run code when they are read: pytorch_model.bin" in result.stderr
    assert not hub.asked("resolve.*bin$")
