"""On an untested version of transformers a model is checked before its first text; on tested ones nothing happens."""

import logging
import re
import tomllib
from pathlib import Path

import pytest
import torch
import transformers
from small_models import byte_level_gpt2
from tiny_model import tiny

from fundamentallm_hf import Generator, UserError, controlled_generate, load_model
from fundamentallm_hf.portable.decoding import tested_versions
from fundamentallm_hf.portable.decoding.cache_names import NAMES
from fundamentallm_hf.portable.decoding.tested_versions import TESTED, UntestedVersionError, is_tested, step_difference

pytestmark = pytest.mark.core

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
HOW = {"max_new_tokens": 3, "do_sample": False}


@pytest.fixture
def untested(monkeypatch):
    monkeypatch.setattr(transformers, "__version__", "5.99.0")
    monkeypatch.setattr(tested_versions, "_UNTESTED", True)
    monkeypatch.setattr(tested_versions, "_CHECKED", tested_versions.weakref.WeakSet())


@pytest.fixture
def messages(monkeypatch):
    told = []
    monkeypatch.setattr(tested_versions.logger, "warning", told.append)
    return told


@pytest.fixture
def demo():
    return load_model(device="cpu")


def ids_of(model, text="once upon a"):
    return model.tokenizer(text, return_tensors="pt").input_ids


def forget_the_cache(model, monkeypatch):
    """What 5.24 did to a model that passed the old name on beside the new one: each step sees its token alone."""
    prepare = model.prepare_inputs_for_generation

    def prepared(*args, **kwargs):
        inputs = prepare(*args, **kwargs)
        return {name: value for name, value in inputs.items() if name not in NAMES}

    monkeypatch.setattr(model, "prepare_inputs_for_generation", prepared)


def shift_positions(model, monkeypatch):
    prepare = model.prepare_inputs_for_generation

    def prepared(*args, **kwargs):
        inputs = prepare(*args, **kwargs)
        if inputs["input_ids"].shape[1] == 1:
            inputs["position_ids"] = (inputs["position_ids"] - 1).clamp(min=0)
        return inputs

    monkeypatch.setattr(model, "prepare_inputs_for_generation", prepared)


def test_the_versions_that_are_admitted_are_those_that_were_tested():
    dependencies = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    (line,) = [each for each in dependencies if each.startswith("transformers")]
    bounds = re.fullmatch(r"transformers>=(\d+)\.(\d+),<(\d+)\.(\d+)", line)
    first, end = tuple(map(int, bounds.groups()[:2])), tuple(map(int, bounds.groups()[2:]))
    assert TESTED[0] == first
    assert TESTED[1] == (end[0], end[1] - 1)
    assert is_tested(transformers.__version__)


@pytest.mark.parametrize("spoil", [forget_the_cache, shift_positions])
def test_a_model_whose_steps_differ_is_refused_in_one_line_that_names_the_versions(
    demo, untested, messages, monkeypatch, spoil
):
    spoil(demo, monkeypatch)
    with pytest.raises(UntestedVersionError) as refused:
        demo.generate(ids_of(demo), **HOW)
    text = str(refused.value)
    assert "\n" not in text
    assert "transformers 5.99.0" in text
    assert "5.23 to 5.24" in text
    assert messages == ["transformers 5.99.0 is not among the versions that were tested (5.23 to 5.24)."]
    # And again, since nothing has changed.
    with pytest.raises(UntestedVersionError):
        demo.generate(ids_of(demo), **HOW)


def test_any_other_model_is_tried_as_well(untested, monkeypatch):
    torch.manual_seed(0)
    model = byte_level_gpt2()
    for parameter in model.parameters():  # so small a model would write everything alike
        parameter.data *= 20
    model.generate(ids_of(model), custom_generate=controlled_generate, **HOW)
    tested_versions._CHECKED.clear()
    forget_the_cache(model, monkeypatch)
    with pytest.raises(UntestedVersionError, match="GPT2LMHeadModel"):
        model.generate(ids_of(model), custom_generate=controlled_generate, **HOW)


def test_the_generator_says_it_as_its_other_errors(demo, untested, monkeypatch):
    forget_the_cache(demo, monkeypatch)
    with pytest.raises(UserError, match=r"transformers 5\.99\.0 is not among the versions"):
        Generator(demo).generate("Once", max_tokens=2)


@pytest.mark.parametrize(
    "how",
    [{}, {"stop_strings": ["x"]}, {"num_beams": 2}, {"max_new_tokens": 30}, {"prompt_lookup_num_tokens": 2}],
    ids=str,
)
def test_a_model_that_works_is_tried_once_and_writes_the_same(untested, messages, how):
    model = tiny()
    ids = torch.randint(4, 40, (1, 9), generator=torch.Generator().manual_seed(1))
    tested_versions._UNTESTED = False
    expected = None if "stop_strings" in how else model.generate(ids, **HOW | how)
    tested_versions._UNTESTED = True
    runs = []
    hook = model.register_forward_hook(lambda *_: runs.append(1))
    if expected is not None:
        assert torch.equal(model.generate(ids, **HOW | how), expected)
        first, _ = len(runs), runs.clear()
        assert torch.equal(model.generate(ids, **HOW | how), expected)
        assert first - len(runs) == 3  # two steps with a cache, and the whole text
        assert len(messages) == 1
    hook.remove()


def test_prompts_of_every_kind_can_be_tried(untested):
    model = tiny()
    for prompt in (torch.tensor([[5]]), torch.full((3, 100), 7), torch.zeros(2, 0, dtype=torch.long)):
        assert step_difference(model, prompt) < 1e-4


def test_a_models_own_stop_strings_are_not_in_the_way(untested, demo):
    demo.generation_config.stop_strings = ["x"]
    try:
        assert step_difference(demo, ids_of(demo)) < 1e-4
    finally:
        demo.generation_config.stop_strings = None


def test_tested_versions_cost_nothing(demo, monkeypatch):
    monkeypatch.setattr(tested_versions, "step_difference", lambda *_: pytest.fail("it was computed"))
    demo.generate(ids_of(demo), **HOW)


def test_the_message_goes_where_transformers_says_such_things():
    assert isinstance(tested_versions.logger, logging.Logger)
