"""A model folder is written atomically, and contains no local paths."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerFast
from transformers.dynamic_module_utils import get_relative_imports

from fundamentallm_hf.files import check_target
from fundamentallm_hf.model_io.model_folder import write_model_folder
from fundamentallm_hf.model_io.tokenizer import build_tokenizer, character_vocabulary
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.model.code_files import AUTO_MAP
from fundamentallm_hf.portable.model.configuration_fundamentallm import FundamentaLLMConfig
from fundamentallm_hf.portable.model.modeling_fundamentallm import FundamentaLLMForCausalLM, FundamentaLLMModel


@pytest.fixture(scope="module")
def pair():
    config = FundamentaLLMConfig(vocab_size=6, d_model=8, num_heads=2, num_layers=1, sequence_length=8)
    return FundamentaLLMForCausalLM(config), build_tokenizer(character_vocabulary(["ab"]), 8)


@pytest.fixture
def old(tmp_path):
    """A folder that holds something, inside an otherwise empty one."""
    folder = tmp_path / "place" / "model"
    folder.mkdir(parents=True)
    (folder / "old.txt").write_text("kept")
    return folder


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_the_folder_holds_the_model_its_tokenizer_and_all_of_its_code(pair, tmp_path):
    model, tokenizer = pair
    model.name_or_path = model.config.name_or_path = tokenizer.name_or_path = str(tmp_path / "secret")
    folder = write_model_folder(tmp_path / "new" / "model", *pair)
    assert folder == tmp_path / "new" / "model"
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == AUTO_MAP
    assert config["auto_map"].keys() == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    for target in config["auto_map"].values():
        assert (folder / f"{target.split('.')[0]}.py").is_file()
    for code in folder.glob("*.py"):
        assert {f"{name}.py" for name in get_relative_imports(code)} <= set(names(folder))
    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
    assert names(folder.parent) == ["model"]
    loaded = FundamentaLLMForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
    assert PreTrainedTokenizerFast.from_pretrained(folder)("ab<EOS>").input_ids == tokenizer("ab<EOS>").input_ids


def test_a_plain_save_pretrained_carries_its_code_too(pair, tmp_path):
    pair[0].save_pretrained(tmp_path / "causal")
    FundamentaLLMModel(pair[0].config).save_pretrained(tmp_path / "base")
    for folder in (tmp_path / "causal", tmp_path / "base"):
        auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
        assert {"AutoConfig"} < auto_map.keys()
        assert (folder / "modeling_fundamentallm.py").is_file()


def test_the_folder_is_as_open_to_others_as_any_other(pair, tmp_path):
    (tmp_path / "ordinary").mkdir()
    folder = write_model_folder(tmp_path / "model", *pair)
    assert folder.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_an_empty_folder_needs_no_force_and_a_link_is_followed(pair, tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    write_model_folder(link, *pair)
    assert link.is_symlink()
    assert (real / "config.json").is_file()


def test_without_force_a_folder_that_holds_something_is_kept(pair, old):
    with pytest.raises(UserError, match="is not empty"):
        write_model_folder(old, *pair)
    assert names(old) == ["old.txt"]
    assert names(old.parent) == ["model"]


def test_with_force_it_is_replaced_as_a_whole(pair, old):
    write_model_folder(old, *pair, force=True)
    assert not (old / "old.txt").exists()
    assert (old / "model.safetensors").is_file()
    assert names(old.parent) == ["model"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O\nerror")])
def test_a_failure_while_writing_is_one_line_and_leaves_all_as_it_was(pair, old, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", fail)
    for target in (old, old.with_name("new")):
        with pytest.raises(UserError, match=r"cannot write .*(No space left|I/O error)") as caught:
            write_model_folder(target, *pair, force=True)
        assert "\n" not in str(caught.value)
    assert names(old.parent) == ["model"]
    assert names(old) == ["old.txt"]


def test_an_interruption_is_passed_on_and_leaves_all_as_it_was(pair, old, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_model_folder(old, *pair, force=True)
    assert names(old.parent) == ["model"]
    assert names(old) == ["old.txt"]


def test_the_old_folder_is_put_back_if_the_new_one_cannot_take_its_place(pair, old, monkeypatch):
    rename = Path.rename

    def fail(self, target):
        if self.suffix == ".partial":
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError, match="busy"):
        write_model_folder(old, *pair, force=True)
    assert names(old.parent) == ["model"]
    assert names(old) == ["old.txt"]


def test_a_folder_that_somebody_else_filled_meanwhile_is_kept(pair, tmp_path, monkeypatch):
    target = tmp_path / "place" / "model"
    save = PreTrainedTokenizerFast.save_pretrained

    def fill(self, folder, **kwargs):
        target.mkdir()
        (target / "theirs.txt").touch()
        return save(self, folder, **kwargs)

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", fill)
    with pytest.raises(UserError, match="is not empty"):
        write_model_folder(target, *pair)
    assert names(target) == ["theirs.txt"]
    assert names(target.parent) == ["model"]


KILLED = """
import os, signal, sys
from transformers import PreTrainedTokenizerFast
from fundamentallm_hf.model_io.checkpoint import load_checkpoint
from fundamentallm_hf.model_io.model_folder import write_model_folder
model, tokenizer = load_checkpoint(sys.argv[1])
PreTrainedTokenizerFast.save_pretrained = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
write_model_folder(sys.argv[2], model, tokenizer, force=True)
"""


def test_a_run_that_is_killed_while_writing_leaves_the_old_folder_and_a_hidden_one(old):
    fixture = Path(__file__).parents[1] / "fixtures" / "learned"
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), fixture, old], capture_output=True)
    assert run.returncode == -signal.SIGKILL
    assert names(old) == ["old.txt"]
    (left,) = [path for path in old.parent.iterdir() if path != old]
    assert left.name.startswith(".model.")
    assert left.suffix == ".partial"


def test_places_that_cannot_hold_a_folder_are_refused_before_any_work(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "home" / "cwd").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home" / "cwd")
    refused = {
        file: "is a file",
        file / "model": "lies inside the file",
        file / "deep" / "model": "lies inside the file",
        Path(): "working directory",
        Path("../../home"): "working directory",
        Path("/"): "working directory",
        tmp_path / "a\nb" / ".." / "file": "is a file",
        tmp_path / ("x" * 300): "File name too long",
    }
    for target, message in refused.items():
        with pytest.raises(UserError, match=message) as caught:
            check_target(target, force=True)
        assert "\n" not in str(caught.value)
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(UserError, match="home directory"):
        check_target(tmp_path, force=True)
    assert check_target(tmp_path / "home" / "model") == (tmp_path / "home" / "model").resolve()


def test_a_place_without_permission_is_refused(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(UserError, match="permission denied"):
        write_model_folder(tmp_path / "new" / "model", *pair)
    assert names(tmp_path) == []
