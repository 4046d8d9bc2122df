"""The repository of the controls works with other models, where this package cannot be imported."""

import ast
import json
import os
import re
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from command import run
from conftest import FIXTURES
from small_models import byte_level_gpt2
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel
from transformers.dynamic_module_utils import get_imports, get_relative_imports
from without_package import blocks, run_without_package

from fundamentallm_hf import controlled_generate, convert_checkpoint
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.attribute_lookup import BUNDLED
from fundamentallm_hf.portable.guides.attributes import Attribute
from fundamentallm_hf.publishing.card_merge import metadata_of
from fundamentallm_hf.publishing.card_metadata import check_metadata
from fundamentallm_hf.publishing.code_license import code_license
from fundamentallm_hf.publishing.controls_repository import FOLDER, recipe_files, requirements, write_controls

pytestmark = pytest.mark.core

NAME, MODEL = "user/controlled-generation", "HuggingFaceTB/SmolLM2-135M-Instruct"
CASES = [
    {"do_sample": True, "seed": 1, "temperature": 2.0, "bad_words": ["a", "*t*", "/[0-9]/"]},
    {"do_sample": True, "seed": 2, "must_include": ["castle", "cat|dog"], "num_return_sequences": 2},
    {"num_beams": 3, "must_include": ["cat"], "bad_words": ["once"]},
    {"do_sample": True, "seed": 3, "guide_attribute": "positive_sentiment:2", "num_return_sequences": 2},
    {"do_sample": False, "repetition_penalty": 1.5, "repetition_unit": "words"},
    {"do_sample": True, "seed": 4, "stop": ["e"], "bad_words": "x, y"},
    {"do_sample": True, "seed": 4, "stop_strings": ["e"], "bad_words": "x, y"},
    {"do_sample": False, "prompt_lookup_num_tokens": 3, "bad_words": ["*s*"]},
    {"do_sample": True, "seed": 5, "pattern": "(a|b){3} cat"},
]
USE = """
def run(model, reader, case, **how):
    prompts = given["prompts"][:1] if "prompt_lookup_num_tokens" in case else given["prompts"]
    inputs = reader(prompts, return_tensors="pt", padding=True)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    return model.generate(**inputs, **how, **case, max_new_tokens=24).tolist()

recipe = {"custom_generate": given["name"], "trust_remote_code": True}
tokenizer = AutoTokenizer.from_pretrained(given["model"], padding_side="left")
model = AutoModelForCausalLM.from_pretrained(given["model"])
result = {"cases": [run(model, tokenizer, case, tokenizer=tokenizer, **recipe) for case in given["cases"]]}
# Without a tokenizer it is the one that lies where the model came from.
result["own tokenizer"] = run(model, tokenizer, given["cases"][0], **recipe)
config = model.generation_config.__class__(**given["cases"][0], max_new_tokens=24)
inputs = tokenizer(given["prompts"], return_tensors="pt", padding=True)
result["config"] = model.generate(
    inputs.input_ids, config, attention_mask=inputs.attention_mask, revision="main", **recipe
).tolist()

from transformers import TextIteratorStreamer
streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
ids = tokenizer(given["prompts"][0], return_tensors="pt").input_ids
whole = model.generate(ids, streamer=streamer, tokenizer=tokenizer, bad_words=["*t*"], max_new_tokens=12, **recipe)
result["streamed"] = ["".join(streamer), tokenizer.decode(whole[0, ids.shape[1]:])]
result["assisted"] = [
    model.generate(ids, do_sample=False, bad_words=["*t*"], max_new_tokens=12, **how, **recipe).tolist()
    for how in ({}, {"assistant_model": model})
]
try:
    model.generate(ids, bad_words=[""], tokenizer=tokenizer, **recipe)
except ValueError as error:
    result["refused"] = str(error)

own = AutoModelForCausalLM.from_pretrained(given["own"], trust_remote_code=True)
own_tokenizer = AutoTokenizer.from_pretrained(given["own"])
inputs = own_tokenizer("To be", return_tensors="pt")
result["own"] = [
    own.generate(**inputs, do_sample=True, seed=1, must_include=["king"], max_new_tokens=200, **how).tolist()
    for how in ({}, recipe)
]

for block in given["blocks"]:
    exec(block)
result["shown"] = tokenizer.decode(output[0])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with the repository, a small model in SmolLM2's place, and one of this project's."""
    folder = tmp_path_factory.mktemp("place")
    tokenizer = byte_level_gpt2().tokenizer
    torch.manual_seed(0)
    shape = {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 256}
    model = GPT2LMHeadModel(GPT2Config(**shape, eos_token_id=0, bos_token_id=0))
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder / MODEL)
    tokenizer.save_pretrained(folder / MODEL)
    convert_checkpoint(FIXTURES / "learned", folder / "shakespeare")
    write_controls(folder / NAME, repo_id=NAME)
    return folder


def test_any_model_writes_with_it_as_with_this_package(place):
    prompts = ["once upon a a a", "the cat"]
    readme = (place / NAME / "README.md").read_text()
    given = {"name": NAME, "model": MODEL, "own": "shakespeare", "prompts": prompts, "cases": CASES}
    result = run_without_package(USE, given | {"blocks": blocks(readme, "python")}, place)

    model = GPT2LMHeadModel.from_pretrained(place / MODEL)
    tokenizer = AutoTokenizer.from_pretrained(place / MODEL, padding_side="left")
    bound = partial(controlled_generate, tokenizer=tokenizer)
    for case, found in zip(CASES, result["cases"], strict=True):
        inputs = tokenizer(
            prompts[:1] if "prompt_lookup_num_tokens" in case else prompts, return_tensors="pt", padding=True
        )
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        assert model.generate(**inputs, **case, custom_generate=bound, max_new_tokens=24).tolist() == found, case
    texts = [tokenizer.batch_decode(found, skip_special_tokens=True) for found in result["cases"]]
    assert all("castle" in text.lower() for text in texts[1])
    assert result["cases"][5] == result["cases"][6]
    assert result["own tokenizer"] == result["config"] == result["cases"][0]
    assert result["streamed"][0] == result["streamed"][1] != ""
    assert result["assisted"][0] == result["assisted"][1]
    assert "bad_words has to be a list of texts" in result["refused"]
    assert result["own"][0] == result["own"][1]
    assert result["shown"]


def test_it_needs_nothing_but_what_it_requires(tmp_path):
    files = recipe_files()
    assert "generate.py" in files
    for name, source in files.items():
        (tmp_path / name).write_text(source)
    for name in files:
        assert {f"{each}.py" for each in get_relative_imports(tmp_path / name)} <= files.keys()
    needed = {each for name in files for each in get_imports(tmp_path / name)}
    # transformers needs the others itself.
    own = {"huggingface_hub", "numpy", "safetensors", "tokenizers"}
    assert needed - set(sys.stdlib_module_names) <= {"torch", "transformers", *own}
    # llguidance is looked for where it is needed alone, which transformers does not take for a requirement.
    assert "llguidance" not in needed


def test_the_folder_holds_the_recipe_its_requirements_a_card_and_the_licence(place):
    folder = place / NAME
    assert {path.name for path in folder.iterdir()} == {FOLDER, "README.md", "LICENSE"}
    assert (folder / "LICENSE").read_text() == code_license()
    assert "Apache License" in code_license()
    made_with, *lines = (folder / FOLDER / "requirements.txt").read_text().splitlines()
    assert re.fullmatch(r"# Made with torch [\d.]+\S*, transformers [\d.]+\.", made_with)
    assert lines == requirements()
    assert [line for line in requirements() if line.startswith("torch")]
    metadata = metadata_of((folder / "README.md").read_text())
    check_metadata(metadata)
    assert "custom_generate" in metadata["tags"]
    assert metadata["library_name"] == "transformers"
    for file in folder.rglob("*"):
        assert not file.is_file() or str(place).encode() not in file.read_bytes()


def test_attributes_come_along_as_code(place):
    source = (place / NAME / FOLDER / "guides_fundamentallm.py").read_text()
    literal = re.search(r"^PACKAGED: .*? = (\{.*?^\})$", source, re.MULTILINE | re.DOTALL)[1]
    packaged = ast.literal_eval(literal)
    found = {name: Attribute.of(fields) for name, fields in packaged.items()}
    assert found.keys() == {folder.name for folder in BUNDLED.iterdir()}
    for name, attribute in found.items():
        bundled = Attribute.load(BUNDLED / name)
        # Experts serve the bundled model alone, and other models go by the words beside them.
        assert attribute == replace(bundled, kind="words", experts=b"")
    assert json.loads(json.dumps(packaged))["positive_sentiment"]["license"].startswith("The MIT License")


def test_an_edited_card_stays(place, tmp_path):
    card = (place / NAME / "README.md").read_text().replace("# Text-level control", "# My control")
    again = write_controls(tmp_path / "again", repo_id=NAME, existing=card)
    assert (again / "README.md").read_text() == card


def test_a_folder_that_holds_something_is_left_alone(place):
    with pytest.raises(UserError, match="not empty"):
        write_controls(place / NAME)


OVER_HTTP = """
tokenizer = AutoTokenizer.from_pretrained(given["model"])
model = AutoModelForCausalLM.from_pretrained(given["model"])
ids = tokenizer("once upon", return_tensors="pt").input_ids
result = model.generate(
    ids, custom_generate=given["name"], trust_remote_code=True, revision=given["revision"], **given["case"]
).tolist()
"""


def test_it_is_pushed_renewed_and_fetched_over_http(place, hub, tmp_path):
    listed = run("push-controls", NAME, "--dry-run")
    assert listed.exit_code == 0, listed.stderr
    assert "custom_generate/generate.py" in listed.stdout
    assert not hub.repos
    assert run("push-controls", NAME, "--message", "For everyone").exit_code == 0
    repo = hub.repo(NAME)
    first = repo.branches["main"]
    assert repo.find("main").title == "For everyone"
    files = {name: file.content for name, file in repo.find("main").files.items() if name != ".gitattributes"}
    written = {str(file.relative_to(place / NAME)): file for file in (place / NAME).rglob("*") if file.is_file()}
    assert files == {name: file.read_bytes() for name, file in written.items()}
    assert "there was nothing to commit" in run("push-controls", NAME).stderr

    edited = files["README.md"].replace(b"# Text-level control", b"# My control")
    hub.make(NAME, {"README.md": edited, f"{FOLDER}/left.py": "left = 1"})
    assert run("push-controls", NAME).exit_code == 0
    assert repo.find("main").files["README.md"].content == edited
    assert f"{FOLDER}/left.py" not in repo.find("main").files

    case = {"do_sample": True, "seed": 1, "bad_words": ["a", "*s*"], "must_include": ["cat"], "max_new_tokens": 24}
    given = {"name": NAME, "model": str(place / MODEL), "revision": first, "case": case}
    there = {name: os.environ[name] for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DISABLE_XET")}
    # In another place than where a folder has the repository's name.
    found = run_without_package(OVER_HTTP, given, tmp_path, **there, HF_HUB_OFFLINE="0")
    model = GPT2LMHeadModel.from_pretrained(place / MODEL)
    ids = AutoTokenizer.from_pretrained(place / MODEL)("once upon", return_tensors="pt").input_ids
    assert model.generate(ids, custom_generate=controlled_generate, **case).tolist() == found


def test_the_command_writes_it_into_a_folder_and_sends_nothing(tmp_path):
    done = run("push-controls", NAME, "--output", tmp_path / "controls")
    assert done.stdout.strip() == str(tmp_path / "controls")
    assert f'custom_generate="{NAME}"' in (tmp_path / "controls" / "README.md").read_text()
    refused = run("push-controls", NAME, "--output", tmp_path / "other", "--private")
    assert refused.exit_code == 2
    assert "--output sends nothing, so --private has no effect" in refused.stderr
    assert run("push-controls", "no/such/name", "--dry-run").exit_code == 1
    assert run("push-controls", NAME, "--output", tmp_path / "controls").exit_code == 1
    assert run("push-controls", NAME, "--output", tmp_path / "controls", "--force").exit_code == 0
    assert run("push-controls", NAME, "--dry-run", "--force").exit_code == 2


FIRST_CALL = """
import logging
said, handler = [], logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("transformers").addHandler(handler)
model = AutoModelForCausalLM.from_pretrained(given["own"], trust_remote_code=True)
said.clear()
model.generate(torch.tensor([[9, 8]]), bad_words=["the"], max_new_tokens=3, **given["how"])
result = [said, type(model.tokenizer).__name__]
"""


@pytest.mark.parametrize("how", [{}, {"custom_generate": NAME, "trust_remote_code": True}])
def test_the_first_call_warns_of_no_other_type_of_model(place, how):
    """The tokenizer is found by the config that the model has, not by one that is read again and needs code."""
    said, kind = run_without_package(FIRST_CALL, {"own": "shakespeare", "how": how}, place)
    assert [line for line in said if "model of type" in line] == []
    assert "Tokenizer" in kind
