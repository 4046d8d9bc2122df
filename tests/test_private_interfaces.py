"""Non-public interfaces of other libraries: each one used is listed, and works as expected.

A test that fails here under a new version of a library names the interface that changed.
"""

import ast
import re
from pathlib import Path

import private_generation  # noqa: F401
import private_libraries  # noqa: F401
import private_serving  # noqa: F401
import pytest
import torch
from private_checks import CHECKS
from small_models import byte_level_gpt2
from transformers import GenerationConfig

import fundamentallm_hf
from fundamentallm_hf.private_interfaces import PRIVATE

pytestmark = pytest.mark.core
PACKAGE = Path(fundamentallm_hf.__file__).parent


@pytest.mark.parametrize("entry", PRIVATE, ids=lambda entry: f"{entry.of}.{entry.name}")
def test_it_is_there_as_it_is_relied_on(entry):
    assert (entry.of, entry.name) in CHECKS, "an entry without a test"
    CHECKS[(entry.of, entry.name)]()


def test_every_test_is_of_an_entry():
    assert CHECKS.keys() == {(entry.of, entry.name) for entry in PRIVATE}


def uses(tree, own):
    """(line, name) of every private name of others in a module's syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            path = [*node.module.split("."), *(name.name for name in node.names)]
            yield from ((node.lineno, part) for part in path if part.startswith("_") and not part.startswith("__"))
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            if node.attr not in own:
                yield node.lineno, node.attr
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "getattr"
            and isinstance(node.args[1], ast.Constant)
            and re.match("_(?!_)", str(node.args[1].value))
            and node.args[1].value not in own
        ):
            yield node.lineno, node.args[1].value


def test_what_is_used_is_entered():
    trees = {file: ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py")}
    own = {"_replace", "_asdict"}  # of named tuples, and documented
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
    # Set or defined here, and not ours.
    own -= {"_commit_hash", "_cb", "_cb_config", "_GLOBAL_CLIENT_FACTORY"}
    own -= {"_get_top_k_continuations", "_get_running_beams_for_next_iteration", "_update_finished_beams"}
    entered = " ".join(f"{entry.name} {entry.why}" for entry in PRIVATE)
    missing = [
        f"{file.relative_to(PACKAGE)}:{line} uses {name}"
        for file, tree in trees.items()
        for line, name in uses(tree, own)
        if not re.search(rf"\b{re.escape(name)}\b", entered)
    ]
    assert missing == []


def test_the_config_of_a_call_takes_no_stop_strings_over():
    """Public, and yet what much depends on: the class of a config survives the copy that `generate()` makes."""
    from fundamentallm_hf.portable.decoding.decoding_loop import WithoutStopStrings

    model = byte_level_gpt2()
    model.generation_config.stop_strings = ["x"]
    seen = []

    def catch(model, input_ids, logits_processor, stopping_criteria, generation_config, **rest):
        seen.append(generation_config)
        return input_ids

    config = WithoutStopStrings.of(GenerationConfig(max_new_tokens=1, stop_strings=["y"]))
    model.generate(torch.tensor([[1, 2]]), config, custom_generate=catch)
    assert seen[0].stop_strings is None
