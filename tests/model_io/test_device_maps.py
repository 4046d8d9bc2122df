"""Models that are spread over devices write the same texts; a map that cannot be is one line."""

import json
import random

import pytest
from command import MODEL, run
from hypothesis import given
from hypothesis import strategies as st
from small_models import byte_level_gpt2

from fundamentallm_hf import Generator, load_model
from fundamentallm_hf.model_io.device_maps import read_device_map
from fundamentallm_hf.model_io.loading import DEMO_MODEL
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.portable.model.lean_step import plain_network

ASKED = [
    {"temperature": 0},
    {"temperature": 0.8, "seed": 3, "must_include": ["dragon"], "bad_words": ["the"]},
    {"beam_size": 2},
    {"temperature": 0.9, "seed": 1, "pattern": "[a-z, ]{5,20}\\."},
]


def texts(model):
    generator = Generator(model, notice=lambda line: None)
    return [generator.complete("Once upon", max_tokens=20, **asked)[0].completion for asked in ASKED]


def groups(model):
    """The modules that a map names: embeddings, layers, and what follows them."""
    found = {}
    for name, _ in model.named_parameters():
        parts = name.split(".")[:-1]
        number = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        found[".".join(parts if number is None else parts[: number + 1])] = None
    return list(found)


@pytest.fixture(scope="module")
def expected():
    model = load_model(device="cpu")
    return groups(model), texts(model)


@pytest.mark.parametrize("draw", range(3))
def test_modules_on_the_disk_change_no_text(expected, draw):
    chance, (first, *others) = random.Random(draw), expected[0]
    head = {"lm_head": "cpu"}  # it shares the weight of the embeddings
    device_map = {first: "cpu"} | head | {name: chance.choice(["cpu", "disk"]) for name in others}
    device_map[chance.choice(others)] = "disk"
    model = load_model(device_map=device_map)
    assert not plain_network(model)
    assert texts(model) == expected[1]


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, "auto"])
def test_one_device_for_everything_is_as_fast_as_without_a_map(device_map, expected):
    model = load_model(device_map=device_map)
    if model.device.type == "cpu":
        assert plain_network(model)
        assert texts(model) == expected[1]


def test_other_models_are_spread_too(tmp_path):
    model = byte_level_gpt2()
    model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    whole, names = load_model(tmp_path, device="cpu"), groups(model)
    device_map = {name: "disk" if ".h." in name else "cpu" for name in names} | {"lm_head": "cpu"}
    assert "disk" in device_map.values()
    assert texts(load_model(tmp_path, device_map=device_map, dtype="float32")) == texts(whole)


@pytest.mark.parametrize(
    ("device_map", "line"),
    [
        ("nothing", "device-map has to be one of auto, balanced, balanced_low_0, sequential, a device, or a JSON"),
        ("{", "device-map has to be"),
        ("{}", "device-map has to be"),
        ('{"a": 1.5}', "device-map has to be"),
        ('{"a": true}', "device-map has to be"),
        ({"": "meta"}, "device-map has to be"),
        ({"": "disk"}, "device-map offloads model.embed_tokens, which reads the input: give it a device such as cpu"),
        ({"model.layers.0": "disk", "lm_head": "cpu"}, "cannot be loaded with device-map .*: The device_map provided"),
        ({"": 99}, "cannot be loaded with device-map {'': 99}: "),
    ],
)
def test_a_map_that_cannot_be_is_one_line(device_map, line):
    with pytest.raises(UserError, match=line) as caught:
        load_model(device_map=device_map)
    assert "\n" not in str(caught.value)


def test_a_map_and_a_device_exclude_each_other_and_checkpoints_have_none():
    with pytest.raises(UsageError, match="device is 'cpu', but device-map decides where everything is"):
        load_model(device="cpu", device_map="auto")
    with pytest.raises(UserError, match=r"device-map needs a Hugging Face folder, and .* is a checkpoint"):
        load_model(MODEL, device_map="auto")


@given(st.dictionaries(st.text("ab.", max_size=5), st.sampled_from(["cpu", "disk", "cuda:1", 0, 3]), min_size=1))
def test_a_map_may_be_a_dict_or_json(device_map):
    assert read_device_map(device_map) == read_device_map(json.dumps(device_map)) == device_map


def test_the_command_takes_a_map(tmp_path, expected, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, *others = expected[0]
    device_map = json.dumps({first: "cpu", "lm_head": "cpu"} | dict.fromkeys(others, "disk"))
    options = ["generate", str(DEMO_MODEL), "--max-tokens", "20", "--prompt", "Once upon", "--temperature", "0"]
    result = run(*options, "--device-map", device_map, "--output-file", "out.jsonl", "--format", "jsonl")
    assert result.exit_code == 0, result.stderr
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert record["completion"] == expected[1][0]
    again = run("generate", "--config", "out.jsonl")
    assert again.exit_code == 0, again.stderr
    assert again.stdout.strip() == record["text"].strip()
    assert run(*options, "--config", "out.jsonl", "--device", "cpu").exit_code == 0
    refused = run(*options, "--device-map", "nothing")
    assert refused.exit_code == 2
    assert "has to be one of auto" in refused.stderr
