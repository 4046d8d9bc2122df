"""The training example, as a user runs it: a new model, fine-tuning, two processes, and bad input."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FIXTURES

from fundamentallm_hf import Generator, load_model
from fundamentallm_hf.publishing.model_card import card_for

TRAIN = Path(__file__).parents[2] / "examples" / "train.py"
SMALL = ["--hidden-size", "16", "--layers", "1", "--heads", "2", "--window", "32", "--batch-characters", "256"]
STEPS = ["--steps", "6", "--eval-every", "3", "--cpu", "--threads", "1"]


@pytest.fixture
def stories(tmp_path):
    file = tmp_path / "stories.txt"
    file.write_text("<|endoftext|>".join(["Once upon a time there was a cat. The cat sat on the mat."] * 30))
    return file


def run(*arguments, launcher=(sys.executable,)):
    command = [*launcher, str(TRAIN), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_new_model_trains_in_stages_resumes_and_loads(tmp_path, stories):
    options = [stories, "--output-dir", tmp_path / "run", *SMALL, "--optimizer", "muon", "--stages", "16:0.5"]
    first = run(*options, *STEPS)
    assert first.returncode == 0, first.stderr[-2000:]
    assert "eval_bits_per_character" in first.stdout + first.stderr
    again = run(*options, *STEPS, "--steps", 9)
    assert again.returncode == 0, again.stderr[-2000:]
    assert (tmp_path / "run" / "checkpoint-9").exists()
    model = load_model(tmp_path / "run" / "model", device="cpu")
    assert model.config.use_cache
    assert Generator(model).generate("Once", max_tokens=5).startswith("Once")
    card = card_for(tmp_path / "run" / "model")
    assert re.search(r"\| steps \| [369] \|", card)
    assert "| optimizer | muon |" in card
    assert str(tmp_path) not in card


def test_fine_tuning_goes_on_from_a_pt_file(tmp_path, stories):
    source = FIXTURES / "learned" / "final_model.pt"
    options = ["--init-from", source, "--output-dir", tmp_path / "run", "--batch-characters", 512, *STEPS]
    done = run(stories, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert load_model(tmp_path / "run" / "model", device="cpu").config.max_position_embeddings == 128


def test_two_processes_train_one_model(tmp_path, stories):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    done = run(stories, "--output-dir", tmp_path / "run", *SMALL, *STEPS, launcher=launcher)
    assert done.returncode == 0, done.stderr[-2000:]
    assert load_model(tmp_path / "run" / "model", device="cpu").num_parameters() > 0


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", [], "is empty"),
        ("short", [], "twentieth out|give more text"),
        ("Zürich " * 300, ["--init-from", FIXTURES / "learned" / "final_model.pt"], "vocabulary lacks"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, text, options, message):
    file = tmp_path / "text.txt"
    file.write_text(text)
    done = run(file, "--output-dir", tmp_path / "run", *SMALL, *STEPS, *options)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("train.py: ")
    assert re.search(message, last)
