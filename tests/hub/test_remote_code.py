"""Code that comes with a model runs only if the user has permitted it, and a note names its commit."""

import json

import pytest
from command import run
from small_models import byte_level_gpt2

from fundamentallm_hf import UserError, load_model

CODE = """
from pathlib import Path
from transformers import GPT2Config, GPT2LMHeadModel
Path({marker!r}).write_text("was run")
class MineConfig(GPT2Config):
    model_type = "mine"
class MineForCausalLM(GPT2LMHeadModel):
    config_class = MineConfig
"""
CLASSES = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that is there when code was run."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return tmp_path / "marker"


@pytest.fixture
def mine(hub, marker, tmp_path):
    return publish(hub, marker, tmp_path, "mine", CLASSES)


def publish(hub, marker, tmp_path, model_type, classes):
    model = byte_level_gpt2()
    model.save_pretrained(tmp_path / "saved")
    model.tokenizer.save_pretrained(tmp_path / "saved")
    files = {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}
    config = json.loads(files["config.json"]) | {"model_type": model_type, "auto_map": classes}
    del config["architectures"]
    files |= {"config.json": json.dumps(config), "modeling_mine.py": CODE.format(marker=str(marker))}
    return hub.make("user/mine", files)


def test_code_is_not_run_unless_asked_and_the_refusal_names_the_commit(hub, mine, marker, tmp_path):
    commit = mine.branches["main"]
    with pytest.raises(UserError) as caught:
        load_model("user/mine", device="cpu")
    assert str(caught.value) == (
        f"user/mine at commit {commit} needs code of its own (modeling_mine.py), which runs only if you say so: "
        f"read it at {hub.url}/user/mine/tree/{commit}, then give --trust-remote-code --revision {commit}"
    )
    assert run("generate", "user/mine", "--prompt", "a").stderr == f"Error: {caught.value}\n"
    for call in (("pull", "user/mine", tmp_path / "pulled"), ("attributes", "user/mine")):
        assert run(*call).exit_code == 0
    with pytest.raises(
        UserError, match=r"needs code of its own .*: read it in .*pulled, then give --trust-remote-code$"
    ):
        load_model(tmp_path / "pulled", device="cpu")
    assert not marker.exists()


def test_the_answer_to_a_yes_says_which_commit_it_is(hub, mine, marker):
    commit = mine.branches["main"]
    said = []
    model = load_model("user/mine", revision=commit, device="cpu", trust_remote_code=True, notice=said.append)
    assert type(model).__name__ == "MineForCausalLM"
    assert said == [f"running the code of user/mine at commit {commit} (modeling_mine.py)"]
    assert marker.exists()
    result = run("generate", f"user/mine@{commit}", "--trust-remote-code", "--prompt", "a", "--max-tokens", 2)
    assert f"note: running the code of user/mine at commit {commit} (modeling_mine.py)\n" in result.stderr
    with pytest.warns(UserWarning, match=f"running the code of user/mine at commit {commit}"):
        load_model("user/mine", device="cpu", trust_remote_code=True)


def test_a_known_model_needs_no_code_and_runs_none(hub, marker, tmp_path):
    publish(hub, marker, tmp_path, "gpt2", CLASSES)
    assert type(load_model("user/mine", device="cpu")).__name__ == "GPT2LMHeadModel"
    assert not marker.exists()


def test_the_code_of_a_fundamentallm_model_is_this_packages_own(hub, marker, tmp_path):
    assert run("push", "user/stories").exit_code == 0
    hub.make("user/stories", {"modeling_fundamentallm.py": CODE.format(marker=str(marker))})
    said = []
    model = load_model("user/stories", device="cpu", trust_remote_code=True, notice=said.append)
    assert type(model).__module__ == "fundamentallm_hf.portable.model.modeling_fundamentallm"
    assert said == []
    assert not marker.exists()


def test_code_from_another_repository_is_refused(hub, marker, tmp_path):
    publish(hub, marker, tmp_path, "mine", {name: f"other/code--{each}" for name, each in CLASSES.items()})
    with pytest.raises(UserError, match=r"takes its code from another repository \(other/code\)"):
        load_model("user/mine", device="cpu", trust_remote_code=True)
    assert not marker.exists()


@pytest.mark.parametrize("shard", ["../../elsewhere.safetensors", "/elsewhere.safetensors", "missing.safetensors", 3])
def test_an_index_that_names_files_elsewhere_is_refused(hub, tmp_path, shard):
    config = json.dumps(byte_level_gpt2().config.to_dict())
    index = json.dumps({"weight_map": {"transformer.wte.weight": shard}})
    hub.make(
        "user/far", {"config.json": config, "model.safetensors.index.json": index, "model-1-of-1.safetensors": "a"}
    )
    with pytest.raises(
        UserError, match=r"user/far looks for weights in .*, which is no file of its own: nothing was read"
    ):
        load_model("user/far", device="cpu")
