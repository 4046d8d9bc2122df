"""One table of controls: every interface shows its rows, and there is no other list."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fundamentallm_hf import FundamentaLLMForCausalLM, controlled_generate
from fundamentallm_hf.portable.controls.control import Control
from fundamentallm_hf.portable.controls.control_table import CONTROLS, describe_controls
from fundamentallm_hf.portable.decoding.phases import Phase
from fundamentallm_hf.settings.generation_settings import SETTINGS

ROOT = Path(__file__).parents[3]
# Runs where nothing has been imported yet, because most places read the table when they are imported.
MADE_UP = """
import json, sys
from fundamentallm_hf.portable.controls import control_table
from fundamentallm_hf.portable.decoding.phases import Phase

def apply(step):
    from transformers import LogitsProcessor

    class Favour(LogitsProcessor):
        def __call__(self, input_ids, scores):
            scores = scores.clone()
            scores[:, step.call.reader.convert_tokens_to_ids(step.call.field("favoured"))] += 1000.0
            return scores

    if step.call.field("favoured"):
        step.add(Phase.LENGTH, Favour())

control_table.CONTROLS["favoured"] = control_table.Control(
    name="favoured", kind=str, default=None, help="A letter that is written all the time.", group="Control",
    reads_text=True, phase=Phase.LENGTH, apply=apply,
)

import torch
torch.set_num_threads(1)
from click.testing import CliRunner
from transformers import GPT2Config, GPT2LMHeadModel, GenerationConfig, pipeline
from fundamentallm_hf import GenerationSettings, Generator, controlled_generate, load_model
from fundamentallm_hf.cli.interactive.commands import suggestions
from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.model_io.loading import DEMO_MODEL
from fundamentallm_hf.publishing.controls_repository import write_controls
from fundamentallm_hf.publishing.model_card import card_for
from fundamentallm_hf.settings.typed_values import read_value
from fundamentallm_hf.settings.generation_settings import SETTINGS
from fundamentallm_hf.web.comparisons import REMOVABLE, without_each
from fundamentallm_hf.web.limits import OPEN
import option_reference

folder = sys.argv[1]
model = load_model(device="cpu")
tokenizer = model.tokenizer
ids = tokenizer("He", return_tensors="pt").input_ids
other = GPT2LMHeadModel(GPT2Config(vocab_size=model.config.vocab_size, n_embd=8, n_layer=1, n_head=1, bos_token_id=2,
                                   eos_token_id=3))
other.tokenizer = tokenizer
run = CliRunner().invoke
stored = GenerationConfig(favoured="e", max_new_tokens=4)
stored.save_pretrained(folder)
text = lambda tokens: tokenizer.decode(tokens[0, 2:])
result = {
    "setting": GenerationSettings(favoured="e").favoured,
    "typed": read_value(SETTINGS["favoured"], "e"),
    "help": run(cli, ["generate", "--help"]).output,
    "command": run(cli, ["generate", "--prompt", "He", "--favoured", "e", "--max-tokens", "4", "-q"]).stdout,
    "generator": Generator(model, favoured="e", max_tokens=4).generate("He"),
    "generate": text(model.generate(ids, favoured="e", max_new_tokens=4)),
    "config": text(model.generate(ids, generation_config=GenerationConfig.from_pretrained(folder))),
    "pipeline": pipeline("text-generation", model=model, tokenizer=tokenizer)("He", favoured="e", max_new_tokens=4)[0],
    "any model": text(other.generate(ids, custom_generate=controlled_generate, favoured="e", max_new_tokens=4)),
    "documented": [function.__doc__ for function in (type(model).generate, controlled_generate)],
    "loop": [str(each) for each in suggestions("/set favo", GenerationSettings())],
    "card": card_for(DEMO_MODEL),
    "controls": (write_controls(folder + "/controls") / "README.md").read_text(),
    "open on the page": "favoured" in OPEN,
    "compared": [column.title for column in without_each(GenerationSettings(favoured="e"))],
    "documentation": option_reference.reference(),
}
sys.__stdout__.write("\\n" + json.dumps(result))
"""


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """What every place does with a control that was entered into the table alone."""
    done = subprocess.run(
        [sys.executable, "-c", MADE_UP, str(tmp_path_factory.mktemp("made_up"))],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "docs")]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_new_row_is_a_setting_an_option_and_a_field(made_up):
    assert made_up["setting"] == made_up["typed"] == "e"
    assert "--favoured" in made_up["help"]
    assert made_up["command"].strip() == made_up["generator"] == "Heeeee"
    assert made_up["generate"] == made_up["config"] == made_up["any model"] == "eeee"
    assert made_up["pipeline"]["generated_text"] == "Heeeee"


def test_a_new_row_is_told_of_wherever_controls_are(made_up):
    for text in (*made_up["documented"], made_up["card"], made_up["controls"], made_up["documentation"]):
        assert "favoured" in text
        assert "A letter that is written all the time." in " ".join(text.split())
    assert any("favoured" in str(each) for each in made_up["loop"])
    assert made_up["open on the page"]
    assert "without favoured" in made_up["compared"]


def test_every_control_is_a_setting_and_an_argument():
    arguments = inspect.signature(controlled_generate).parameters
    for name, control in CONTROLS.items():
        assert SETTINGS[name] is control
        assert (control.config_field in arguments) == (control.any_model and (not control.stock or control.taken_over))
        assert control.config_field in FundamentaLLMForCausalLM.generate.__doc__


def test_what_a_control_refines_is_in_the_table_and_every_other_one_has_an_effect():
    for control in CONTROLS.values():
        assert set(control.refines) <= CONTROLS.keys()
        # How a full window is handled, and whether tokens are drafted, is decided before the first step.
        assert bool(control.refines) != (control.apply is not None) or control.name in ("overflow", "speculate")
        assert control.phase is None or control.phase in Phase


def test_a_control_is_set_only_with_a_value_that_does_something():
    control = Control(name="x", kind=tuple, default=(), help="", group="", off_when=(("strength", 0),))
    assert not control.is_set({})
    assert not control.is_set({"x": []})
    assert not control.is_set({"x": ["a"], "strength": 0})
    assert control.is_set({"x": ["a"], "strength": 1})


def test_a_docstring_gets_the_controls_at_its_own_indentation():
    found = describe_controls("Args:\n    {controls}\n    more: of it.")
    assert found.startswith("Args:\n    bad_words (list[str]): ")
    assert found.endswith("\n    more: of it.")
    assert all(line.startswith("    ") for line in found.splitlines()[1:])
    assert "overflow" in found
    assert "overflow (" not in describe_controls("{controls}", any_model=True)
