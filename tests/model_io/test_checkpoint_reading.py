"""The paths and forms of a checkpoint's parts, and the errors about invalid ones."""

import json
import os
import pathlib
import shutil
import stat

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fundamentallm_hf.model_io.checkpoint import (
    convert_checkpoint,
    is_fundamentallm_source,
    load_checkpoint,
    read_checkpoint,
)
from fundamentallm_hf.model_io.tokenizer import character_vocabulary
from fundamentallm_hf.portable.errors import UserError

CONFIG = {"vocab_size": 6, "d_model": 4, "num_heads": 1, "num_layers": 1, "sequence_length": 5, "ffn_expansion": 1}


def state_of(seed=0):
    shapes = {"token_embedding.weight": (6, 4), "positional_encoding.embeddings.weight": (5, 4)}
    shapes |= {f"blocks.0.{name}.weight": (4,) for name in ("norm1", "norm2")}
    for name in ("attention.W_q", "attention.W_k", "attention.W_v", "attention.W_o", "ffn.linear1", "ffn.linear2"):
        shapes |= {f"blocks.0.{name}.weight": (4, 4), f"blocks.0.{name}.bias": (4,)}
    shapes["output_norm.weight"] = (4,)
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def run(tmp_path):
    """A training run's folder with a tokenizer and a final_model.pt of the smallest shape."""
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    vocabulary = {"min_frequency": 1, "char_to_id": character_vocabulary(["ab"]), "special_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    torch.save({"model_state": state_of(), "model_config": CONFIG}, folder / "final_model.pt")
    return folder


def refused(path, *parts):
    """The path is refused in one line that holds these parts, and nothing is written anywhere near it."""
    target = pathlib.Path(path).parent / "target"
    before = sorted(target.parent.rglob("*")) if target.parent.is_dir() else []
    with pytest.raises(UserError) as caught:
        convert_checkpoint(path, target)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert before == (sorted(target.parent.rglob("*")) if target.parent.is_dir() else [])


def embedding(path):
    return read_checkpoint(path).state_dict["model.embed_tokens.weight"]


def test_of_a_folder_the_final_the_best_or_the_newest_epoch_is_read(run):
    names = ["epoch_2.pt", "epoch_10.pt", "epoch_9.pt", "best.pt", "final_model.pt"]
    for seed, name in enumerate(names):
        torch.save({"model_state": state_of(seed), "model_config": CONFIG}, run / name)
    for name in ("final_model.pt", "best.pt", "epoch_10.pt", "epoch_9.pt", "epoch_2.pt"):
        assert torch.equal(embedding(run), state_of(names.index(name))["token_embedding.weight"])
        (run / name).unlink()
    refused(run, "holds no final_model.pt, best.pt or epoch_*.pt")


def test_without_model_config_the_yaml_files_beside_are_read_in_turn(run):
    torch.save(state_of(), run / "bare.pt")
    refused(run / "bare.pt", "no model_config", "model.yaml or config.yaml or bare.yaml", repr(str(run)))
    for epochs, name in enumerate(("bare.yaml", "config.yaml", "model.yaml"), start=1):
        (run / name).write_text(yaml.safe_dump({**CONFIG, "dropout": epochs / 10}))
        assert read_checkpoint(run / "bare.pt").config.dropout == epochs / 10
    # What the file itself says comes first.
    assert read_checkpoint(run / "final_model.pt").config.dropout == 0.1
    (run / "model.yaml").unlink()
    (run / "model.yaml").mkdir()
    refused(run / "bare.pt", "cannot read", "model.yaml", "Is a directory")
    (run / "model.yaml").rmdir()
    (run / "model.yaml").write_text("d_model: 4\n  num: [")
    refused(run / "bare.pt", "model.yaml", "not valid YAML")
    (run / "model.yaml").write_text("!!python/object/apply:os.mkdir [ran]")
    refused(run / "bare.pt", "not valid YAML")
    (run / "model.yaml").write_bytes(b"\xff\xfe\x00")
    refused(run / "bare.pt", "is not UTF-8 text (byte 0)", "model.yaml")


def test_the_tokenizer_lies_beside_the_checkpoint_or_one_folder_up(run, monkeypatch):
    deep = run / "checkpoints"
    deep.mkdir()
    shutil.copy(run / "final_model.pt", deep / "best.pt")
    assert len(read_checkpoint(deep).tokenizer) == 6
    monkeypatch.chdir(deep)
    assert len(read_checkpoint("best.pt").tokenizer) == 6
    (run / "tokenizer.json").unlink()
    refused(deep, "no tokenizer.json", repr(str(deep)), repr(str(run)))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("[" * 100_000, ["not valid JSON"]),
        ("[]", ["not FundamentaLLM's", "char_to_id"]),
        ('{"version": "1.0", "model": {"vocab": {}}}', ["not FundamentaLLM's"]),
        ('{"char_to_id": {"a": "0"}}', ["not FundamentaLLM's"]),
        ('{"char_to_id": {"a": true}}', ["not FundamentaLLM's"]),
        (json.dumps({"char_to_id": dict(zip("abcdef", range(6), strict=True))}), ["lacks <PAD>"]),
        (json.dumps({"char_to_id": {**character_vocabulary(["a"]), "bc": 5}}), ["one character", "'bc'"]),
        (json.dumps({"char_to_id": {**character_vocabulary(["a"]), "b": 7}}), ["0 to 5"]),
        (json.dumps({"char_to_id": character_vocabulary(["abc"])}), ["vocab_size of 6", "7 tokens"]),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_refused(run, content, parts):
    (run / "tokenizer.json").write_text(content)
    refused(run, "tokenizer.json", *parts)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_marks_of_wrappers_are_taken_off(run, prefix):
    torch.save({"model_state": {prefix + n: v for n, v in state_of().items()}, "model_config": CONFIG}, run / "best.pt")
    assert torch.equal(embedding(run / "best.pt"), state_of()["token_embedding.weight"])


def test_a_file_in_torchs_old_format_and_a_link_to_a_file_are_read(run, tmp_path):
    old = run / "old.pt"
    torch.save({"model_state": state_of(1), "model_config": CONFIG}, old, _use_new_zipfile_serialization=False)
    assert torch.equal(embedding(old), state_of(1)["token_embedding.weight"])
    shutil.move(old, tmp_path / "blob")
    (run / "link.pt").symlink_to(tmp_path / "blob")
    assert torch.equal(embedding(run / "link.pt"), state_of(1)["token_embedding.weight"])


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float32),
        (torch.float64, torch.float32),
    ],
)
def test_half_precision_is_kept_and_double_becomes_single(run, tmp_path, stored, kept):
    state = {name: value.to(stored) for name, value in state_of().items()}
    state["output_proj.weight"] = state["token_embedding.weight"]
    torch.save({"model_state": state, "model_config": CONFIG}, run / "final_model.pt")
    checkpoint = read_checkpoint(run)
    assert checkpoint.config.tie_word_embeddings
    assert {value.dtype for value in checkpoint.state_dict.values()} == {kept}
    model, _ = load_checkpoint(run)
    assert model.dtype == kept
    assert model(torch.tensor([[4, 5]])).logits.dtype == kept
    assert load_checkpoint(run, dtype=torch.float32)[0].dtype == torch.float32
    folder = convert_checkpoint(run, tmp_path / "out")
    written = load_file(folder / "model.safetensors")
    assert {value.dtype for value in written.values()} == {kept}
    assert torch.equal(written["model.embed_tokens.weight"], state["token_embedding.weight"].to(kept))


def test_mixed_precision_becomes_single(run):
    state = state_of()
    state["token_embedding.weight"] = state["token_embedding.weight"].half()
    torch.save({"model_state": state, "model_config": CONFIG}, run / "final_model.pt")
    assert {value.dtype for value in read_checkpoint(run).state_dict.values()} == {torch.float32}


def test_an_output_layer_of_its_own_survives_the_written_folder(run, tmp_path):
    state = state_of()
    state["output_proj.weight"] = state["token_embedding.weight"] + 1
    torch.save({"model_state": state, "model_config": CONFIG}, run / "final_model.pt")
    folder = convert_checkpoint(run, tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(load_file(folder / "model.safetensors")["lm_head.weight"], state["output_proj.weight"])


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({}, ["holds no weights", "a dict with nothing"]),
        ([1, 2], ["holds no weights", "a list"]),
        ({"model_state": {}, "epoch": 3}, ["holds no weights"]),
        ({"model_state": {"a": 1}}, ["holds no weights", "'model_state'"]),
        ({"model_state": {"a\nb": torch.zeros(2, dtype=torch.long)}}, ["'a\\nb'", "floating-point", "int64"]),
        ({"model_state": {"a": torch.zeros(2, 2).to_sparse()}}, ["dense", "sparse"]),
        ({"model_state": {"a": torch.zeros(2, device="meta")}}, ["dense", "meta"]),
        ({"model_state": state_of(), "model_config": [1]}, ["model_config", "a list"]),
        ({"model_state": state_of(), "where": pathlib.PurePosixPath("/x")}, ["nothing was run", "PurePosixPath"]),
        ({"transformer.wte.weight": torch.zeros(2, 2), "model_config": None}, ["holds no weights"]),
    ],
)
def test_a_file_without_usable_weights_is_refused(run, content, parts):
    torch.save(content, run / "final_model.pt")
    refused(run, repr(str(run / "final_model.pt")), *parts)


def test_every_truncation_is_refused(run):
    whole = (run / "final_model.pt").read_bytes()
    for length in (0, 1, 4, 100, 1000, 4096, 5000, len(whole) // 2, len(whole) - 1):
        (run / "cut.pt").write_bytes(whole[:length])
        refused(run / "cut.pt", "truncated or damaged")


def test_paths_of_the_wrong_kind_are_refused(run, tmp_path):
    refused(tmp_path / "missing\n.pt", "does not exist", "missing\\n.pt")
    (tmp_path / "folder.pt").mkdir()
    refused(tmp_path / "folder.pt", "folder.pt", "holds no final_model.pt")
    refused(run / "final_model.pt" / "inside.pt", "does not exist")
    os.mkfifo(tmp_path / "pipe.pt")
    refused(tmp_path / "pipe.pt", "neither a file nor a folder")
    folder = convert_checkpoint(run, tmp_path / "out")
    refused(folder, "is a Hugging Face model folder already")
    refused(folder / "model.safetensors", "of a Hugging Face model folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(run):
    (run / "final_model.pt").chmod(0)
    refused(run, "cannot read", "Permission denied")
    (run / "final_model.pt").chmod(stat.S_IRUSR)
    run.chmod(0)
    refused(run, "cannot read", "Permission denied")
    run.chmod(stat.S_IRWXU)


def test_a_file_that_cannot_be_opened_is_refused(run, monkeypatch):
    def deny(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", deny)
    with pytest.raises(UserError, match=r"cannot read .*final_model.pt': Permission denied"):
        read_checkpoint(run)


@pytest.mark.parametrize("force", [False, True])
def test_the_target_may_never_hold_the_source(run, force):
    before = sorted(run.parent.rglob("*"))
    for target in (run, run.parent, run / "final_model.pt"):
        with pytest.raises(UserError, match="holds the checkpoint"):
            convert_checkpoint(run, target, force=force)
    assert sorted(run.parent.rglob("*")) == before


def test_the_model_is_ready_to_generate_and_knows_where_it_came_from(run):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    model, tokenizer = load_checkpoint(run)
    assert torch.equal(torch.rand(1), expected), "loading must not use up random numbers"
    assert not model.training
    assert model.name_or_path == model.config.name_or_path == str(run)
    generation = model.generation_config
    assert (generation.pad_token_id, generation.bos_token_id, generation.eos_token_id) == (0, 2, None)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 2, 3)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer.model_max_length == 5


def test_provenance_holds_plain_values_and_no_places(run):
    training = {
        "learning_rate": 0.003,
        "optimizer": "adamw",
        "max_steps": None,
        "checkpoint_keep_last": 3,
        "betas": [0.9, 0.99],
        "data_path": "corpus.txt",
        "checkpoint_dir": "runs",
        "log_file": "log",
        "comment": "/home/somebody",
        "windows": "C:\\Users",
        "nested": {"seed": 42, "cache_dir": "x", "paths": ["a"], "list": ["~/x", "kept"]},
        "tensor": torch.zeros(1),
    }
    content = {"model_state": state_of(), "model_config": CONFIG, "epoch": 4, "step": 9}
    content |= {"metrics": {"val_loss": 2.5}, "training_config": training, "optimizer_state": {"state": {}}}
    torch.save(content, run / "final_model.pt")
    assert read_checkpoint(run).provenance == {
        "epoch": 4,
        "step": 9,
        "metrics": {"val_loss": 2.5},
        "training_config": {
            "learning_rate": 0.003,
            "optimizer": "adamw",
            "max_steps": None,
            "checkpoint_keep_last": 3,
            "betas": [0.9, 0.99],
            "nested": {"seed": 42, "list": ["kept"]},
        },
    }
    torch.save(state_of(), run / "bare.pt")
    (run / "bare.yaml").write_text(yaml.safe_dump(CONFIG))
    assert read_checkpoint(run / "bare.pt").provenance == {}


def test_a_source_is_told_from_a_model_folder_and_from_a_hub_name(run, tmp_path):
    assert is_fundamentallm_source(run)
    assert is_fundamentallm_source(run / "final_model.pt")
    assert is_fundamentallm_source("no/such/file.pt")
    assert not is_fundamentallm_source("openai-community/gpt2")
    assert not is_fundamentallm_source(tmp_path)
    assert not is_fundamentallm_source(run / "tokenizer.json")
    assert not is_fundamentallm_source(convert_checkpoint(run, tmp_path / "out"))
    # transformers' Trainer leaves .pt files of its own in its folders.
    (tmp_path / "out" / "optimizer.pt").touch()
    assert not is_fundamentallm_source(tmp_path / "out")
