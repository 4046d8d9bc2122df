"""Training: a new model, one that is resumed, fine-tuned or trained by two processes, and every bad input."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import run
from conftest import FIXTURES
from safetensors.torch import load_file

from fundamentallm_hf import Generator, UserError, load_model
from fundamentallm_hf.publishing.model_card import card_for
from fundamentallm_hf.training import loss_plot, train_model
from fundamentallm_hf.training.training_options import TrainingOptions

EXAMPLE = Path(__file__).parents[2] / "examples" / "train.py"
POINT = FIXTURES / "learned" / "final_model.pt"
SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2, "window": 32}
SMALL = {**SHAPE, "batch_characters": 256, "steps": 6, "eval_every": 3, "cpu": True}


@pytest.fixture
def stories(tmp_path):
    file = tmp_path / "stories.txt"
    texts = [
        f"Once upon a time there was a {'very ' * (number % 5)}big cat. It sat on the mat." for number in range(40)
    ]
    file.write_text("<|endoftext|>".join(texts))
    return file


def trained(stories, folder, notice=lambda line: None, **options):
    return train_model.train_model(TrainingOptions(files=[stories], output_dir=folder, **{**SMALL, **options}), notice)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def as_options(options):
    """For the command line."""
    return [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def test_the_command_trains_a_model_that_loads_and_has_a_card_and_a_plot(tmp_path, stories):
    options = {**SMALL, "optimizer": "muon", "stages": "16:0.5"}
    options.pop("cpu")
    done = run("train", stories, "--output-dir", tmp_path / "run", *as_options(options), "--cpu")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "run" / "model")
    assert re.search(r"step 6 of 6: [\d.]+ bits per character, [\d,]+ characters a second, 0:00 left", done.stderr)
    assert re.search(r"step 6: [\d.]+ bits per character of the held-out text", done.stderr)
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    model = load_model(tmp_path / "run" / "model", device="cpu")
    assert model.config.use_cache
    assert Generator(model).generate("Once", max_tokens=5).startswith("Once")
    card = card_for(tmp_path / "run" / "model")
    assert re.search(r"\| steps \| [36] \|", card)
    assert "| optimizer | muon |" in card
    assert str(tmp_path) not in card
    quiet = run("train", stories, "--output-dir", tmp_path / "quiet", *as_options(options), "--cpu", "--quiet")
    assert (quiet.exit_code, quiet.stderr) == (0, "")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path, stories, optimizer):
    options = {"optimizer": optimizer, "stages": "8:0.4,16:0.2", "dropout": 0.2, "steps": 9, "precision": "bfloat16"}
    whole = trained(stories, tmp_path / "whole", **options)
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "model")
    # Killed while it wrote its last checkpoint: that one is there in part.
    (tmp_path / "broken" / "checkpoint-9" / "trainer_state.json").unlink()
    (tmp_path / "broken" / "checkpoint-9" / "optimizer.pt").unlink()
    lines = []
    resumed = trained(stories, tmp_path / "broken", lines.append, **options)
    assert "continuing at step 6" in lines
    assert weights(resumed) == weights(whole)


def test_more_steps_give_what_they_would_have_given_from_the_beginning(tmp_path, stories):
    options = {"decay_share": 0.3, "warmup_steps": 1, "eval_every": 2}
    whole = trained(stories, tmp_path / "whole", **options, steps=10)
    trained(stories, tmp_path / "changed", **options, steps=8)
    for checkpoint in (tmp_path / "changed").glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-4":
            shutil.rmtree(checkpoint)
    # The two best are kept: where step 4 is not among them there is nothing to resume, and the run begins anew.
    assert weights(trained(stories, tmp_path / "changed", **options, steps=10)) == weights(whole)


def test_a_finished_run_is_not_trained_on(tmp_path, stories):
    # A learning rate that only does harm: the run stops early.
    lines = []
    options = {"steps": 40, "eval_every": 2, "patience": 2, "lr": 30.0, "warmup_steps": 0}
    folder = trained(stories, tmp_path / "run", lines.append, **options)
    assert any(line.startswith("stopped at step") for line in lines)
    before, lines = weights(folder), []
    assert trained(stories, tmp_path / "run", lines.append, **options) == folder
    assert lines[0].startswith("this run is finished")
    assert weights(folder) == before


def test_fine_tuning_starts_from_a_pt_file_or_a_folder(tmp_path, stories):
    options = dict.fromkeys(SHAPE) | {"batch_characters": 512}
    first = trained(stories, tmp_path / "first", init_from=POINT, **options)
    assert load_model(first, device="cpu").config.max_position_embeddings == 128
    second = trained(stories, tmp_path / "second", init_from=first, **options, lr=1e-9, weight_decay=0.0)
    before, after = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)


def test_two_processes_train_one_model(tmp_path, stories):
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "fundamentallm_hf"]
    options = {name: value for name, value in SMALL.items() if name != "cpu"}
    command = [*launch, "train", str(stories), "--output-dir", str(tmp_path / "run"), *as_options(options), "--cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert load_model(tmp_path / "run" / "model", device="cpu").num_parameters() > 0


def test_a_compiled_model_learns_the_same(tmp_path, stories, monkeypatch):
    # Traced and taken apart as always, but run without generating code, which takes a minute.
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: compile_module(self, backend="aot_eager", **how)
    )
    plain = trained(stories, tmp_path / "plain", attention="eager", precision="float32", steps=3)
    compiled = trained(stories, tmp_path / "compiled", compile=True, precision="float32", steps=3)
    before, after = (load_file(folder / "model.safetensors") for folder in (plain, compiled))
    assert all(torch.allclose(after[name], before[name], atol=1e-4) for name in before)


@pytest.mark.parametrize(
    ("content", "options", "code", "message"),
    [
        (None, {}, 1, "cannot read"),
        (b"", {}, 1, "is empty"),
        (b"\xff\xfe\x00", {}, 1, "UTF-8"),
        (b"<|endoftext|>" * 5, {}, 1, "there is no text"),
        (b"short", {}, 1, "twentieth out|give more text"),
        ("Zürich ".encode() * 300, {"init_from": POINT}, 1, "vocabulary lacks"),
        (b"text " * 100, {"init_from": "nowhere.pt"}, 1, "there is no nowhere.pt"),
        (b"text " * 100, {"init_from": FIXTURES}, 1, "neither a FundamentaLLM checkpoint nor"),
        (b"text " * 100, {"init_from": POINT, "layers": 2}, 2, "layers belongs to a new model"),
        (b"text " * 100, {"held_out": "nowhere.txt"}, 1, "cannot read 'nowhere.txt'"),
        (b"text " * 100, {"hidden_size": 16, "heads": 3}, 2, "multiple of heads"),
        (b"text " * 100, {"stages": "8:0.9,16:0.9"}, 2, "LENGTH:SHARE"),
        (b"text " * 100, {"steps": 0}, 2, "at least 1"),
        (b"text " * 100, {"lr": "nan"}, 2, "lr has to be a number"),
        (b"text " * 100, {"dataset": "user/name"}, 2, "and not both"),
        (b"text " * 100, {"output_dir": "/dev/null/run"}, 1, "cannot write to"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, content, options, code, message):
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    small = {} if "init_from" in options else SHAPE
    given = {"output_dir": tmp_path / "run", **small, "steps": 2, **options}
    done = run("train", file, *as_options(given), "--cpu")
    assert done.exit_code == code, done.output
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert re.search(message, last)


def test_a_dataset_needs_its_package_and_a_column_of_text(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    options = {"dataset": "user/name", "output_dir": tmp_path, **SMALL}
    with pytest.raises(UserError, match=r"pip install 'fundamentallm-hf\[train\]'"):
        train_model.train_model(TrainingOptions(**options))

    class Rows(list):
        def take(self, number):
            return self[:number]

    rows = Rows({"text": f"Once upon a time there were {number} cats.", "id": number} for number in range(90))
    module = type(sys)("datasets")
    module.load_dataset = lambda name, split, streaming: rows
    monkeypatch.setitem(sys.modules, "datasets", module)
    assert train_model.read_texts(TrainingOptions(**options, dataset_texts=60)) == [row["text"] for row in rows[:60]]
    with pytest.raises(UserError, match="no column of text 'id' but text, id"):
        train_model.read_texts(TrainingOptions(**options, dataset_column="id"))

    def broken(*_, **__):
        raise ConnectionError("no\nnetwork")

    module.load_dataset = broken
    with pytest.raises(UserError, match="'user/name' cannot be read: no network"):
        train_model.read_texts(TrainingOptions(**options))


def test_without_matplotlib_the_model_is_written_all_the_same(tmp_path, stories, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    lines = []
    folder = trained(stories, tmp_path / "run", lines.append, steps=1)
    assert folder.is_dir()
    assert any("needs matplotlib" in line for line in lines)
    with pytest.raises(UserError, match="needs matplotlib"):
        loss_plot.plot_loss([], tmp_path / "loss.png", 1)


def test_ctrl_c_says_how_to_go_on(tmp_path, stories, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_model, "train_model", interrupted)
    done = run("train", stories, "--output-dir", tmp_path / "run")
    assert done.exit_code == 130
    assert "the same command continues" in done.stderr


def test_the_plan_of_the_bundled_model_is_one(tmp_path, stories, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path / "nothing.txt"), "--output-dir", str(tmp_path)])
    example = runpy.run_path(str(EXAMPLE))
    options = TrainingOptions(files=[stories], output_dir=tmp_path, **example["PLAN"])
    assert options.shape()["hidden_size"] == example["PLAN"]["hidden_size"]
    assert example["main"]() == 1
    assert capsys.readouterr().err.startswith("train.py: cannot read")


def test_the_bundled_model_is_trained_in_two_runs_by_one_command(tmp_path, stories, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(stories), "--output-dir", str(tmp_path), "--cpu"])
    example = runpy.run_path(str(EXAMPLE))
    options = TrainingOptions(files=[stories], output_dir=tmp_path, init_from=tmp_path, **example["FURTHER"])
    assert options.steps == example["FURTHER"]["steps"]
    small = {**SMALL, "stages": "16:0.5", "compile": False, "precision": "float32"}
    example["PLAN"].update(small)
    example["FURTHER"].update({name: value for name, value in small.items() if name not in SHAPE})
    assert example["main"]() == 0
    first, further = (tmp_path / name / "model" for name in ("first", "further"))
    assert capsys.readouterr().out.splitlines()[-1] == str(further)
    assert weights(first) != weights(further)
    plan = json.loads((tmp_path / "further" / "plan.json").read_text())
    assert (plan["init_from"], plan["seed"]) == (str(first), "1")
    before = weights(further)
    assert example["main"]() == 0
    assert weights(further) == before
    assert "this run is finished" in capsys.readouterr().err
