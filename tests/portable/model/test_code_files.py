"""The packer: the code that travels with a model, in a few flat files that can be packed again without the package."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.dynamic_module_utils import get_relative_imports
from without_package import run_without_package

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM, FundamentaLLMModel
from fundamentallm_hf.portable.model import code_files
from fundamentallm_hf.portable.model.code_files import AUTO_MAP, model_code, pack


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Writes modules of a made-up `portable/` and packs one of them."""

    def build(entry, **sources):
        for name, source in sources.items():
            file = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
        monkeypatch.setattr(code_files, "_PORTABLE", tmp_path)
        return pack(tuple(entry.split("__")))

    return build


def run_packed(files, folder, expression):
    """The value of an expression over the names of `entry`, in a package of the packed files."""
    (folder / "__init__.py").touch()
    for name, source in files.items():
        (folder / name).write_text(source)
    script = (
        f"import sys; sys.path.insert(0, given)\nfrom {folder.name}.b_fundamentallm import *\nresult = {expression}"
    )
    return run_without_package(script, str(folder.parent), folder)


def test_the_model_travels_in_few_files_that_import_only_each_other(tmp_path):
    files = model_code()
    assert len(files) <= 9
    assert {target.partition(".")[0] + ".py" for target in AUTO_MAP.values()} <= files.keys()
    for name, source in files.items():
        (tmp_path / name).write_text(source)
        assert source.startswith('"""')
    for name in files:
        assert {f"{each}.py" for each in get_relative_imports(tmp_path / name)} <= files.keys()


def test_the_same_sources_give_the_same_bytes():
    assert model_code() == model_code()
    assert list(model_code()) == sorted(model_code())


def test_names_keep_their_meaning_across_files(tree, tmp_path):
    files = tree(
        "b__entry",
        a__one="import math\nfrom math import pi as circle\nBASE = 2\ndef one(): return BASE + math.floor(circle)\n",
        a__two='"""Two."""\nfrom .one import (\n    BASE,\n    one,\n)\n\n\ndef two():\n    return one() + BASE\n',
        b__entry="from ..a.two import two as other\nfrom .near import near\ndef three(): return other() + near()\n",
        b__near="def near():\n    return 100\n",
    )
    assert files.keys() == {"a_fundamentallm.py", "b_fundamentallm.py"}
    folder = tmp_path / "packed"
    folder.mkdir()
    assert run_packed(files, folder, "three()") == 107


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            {"b__entry": "from .one import f\nLIMIT = 1\n", "b__one": "LIMIT = 2\ndef f(): pass\n"},
            "define LIMIT differently",
        ),
        (
            {"b__entry": "from .one import f\ndef g(): pass\n", "b__one": "def g(): pass\ndef f(): pass\n"},
            "define g differently",
        ),
        (
            {"b__entry": "from .one import f\nfrom os import path\n", "b__one": "path = 1\ndef f(): pass\n"},
            "define path differently",
        ),
        ({"b__entry": "from .one import f as g\n", "b__one": "def f(): pass\n"}, "import it without `as`"),
        ({"b__entry": "from . import one\n", "b__one": ""}, "import names from a module"),
        ({"b__entry": "from .missing import one\n"}, "import names from a module"),
        ({"b__entry": "from ...outside import one\n"}, "import names from a module"),
        ({"b__entry": "from .one import f\ng = 1\n", "b__one": "from .entry import g\nf = 1\n"}, "imports itself"),
        ({"b__entry": "def f():\n    from .one import g as h\n", "b__one": "g = 1\n"}, "without `as`"),
    ],
    ids=[
        "constants",
        "functions",
        "import and constant",
        "alias",
        "module",
        "missing",
        "outside",
        "circle",
        "in function",
    ],
)
def test_what_would_change_its_meaning_is_refused(tree, sources, message):
    with pytest.raises(ValueError, match=message):
        tree("b__entry", **sources)


def test_the_same_statement_in_two_modules_is_no_difference(tree):
    both = "import logging\nlogger = logging.getLogger(__name__)\n"
    files = tree("b__entry", b__entry=f"from .one import f\n{both}", b__one=f"{both}def f(): pass\n")
    assert files["b_fundamentallm.py"].count("import logging") == 1


def test_imports_inside_functions_and_names_of_comprehensions_are_no_obstacle(tree, tmp_path):
    files = tree(
        "b__entry",
        a__one="VALUE = [name for name in range(3)]\n",
        b__entry="from .near import NEAR\ndef three():\n    from ..a.one import VALUE\n    from .near import NEAR\n"
        "    return [*VALUE, *NEAR]\nNAMES = {name for name in 'ab'}\n",
        b__near="NEAR = [name for name in 'xy']\n",
    )
    folder = tmp_path / "packed"
    folder.mkdir()
    assert run_packed(files, folder, "three()") == [0, 1, 2, "x", "y"]


@given(st.permutations(["first", "second", "third", "fourth"]), st.integers(1, 15))
def test_modules_come_in_the_order_in_which_they_import_each_other(tmp_path_factory, order, choices):
    # A chain, with further imports from anything earlier in it.
    folder = tmp_path_factory.mktemp("tree")
    (folder / "b").mkdir()
    for place, name in enumerate(order):
        earlier = [each for index, each in enumerate(order[:place]) if index == place - 1 or choices >> index & 1]
        lines = [f"from .{each} import {each}_value" for each in earlier]
        value = " + ".join([f"{each}_value" for each in earlier] or ["1"])
        (folder / "b" / f"{name}.py").write_text("\n".join([*lines, f"{name}_value = {value}"]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_files, "_PORTABLE", folder)
        (source,) = pack(("b", order[-1])).values()
    exec(source, {})


SAVED_AGAIN = """
model = AutoModelForCausalLM.from_pretrained(given["folder"], trust_remote_code=True)
model.save_pretrained(given["again"])
third = AutoModelForCausalLM.from_pretrained(given["again"], trust_remote_code=True)
result = [type(third).__module__.rpartition(".")[2], third.num_parameters()]
"""


@pytest.mark.parametrize("kind", [FundamentaLLMForCausalLM, FundamentaLLMModel])
def test_a_saved_folder_can_be_saved_again_without_the_package(kind, tmp_path):
    config = FundamentaLLMConfig(vocab_size=6, d_model=8, num_layers=1, num_heads=2)
    FundamentaLLMForCausalLM(config).save_pretrained(tmp_path / "model")
    if kind is FundamentaLLMModel:
        FundamentaLLMModel.from_pretrained(tmp_path / "model").save_pretrained(tmp_path / "model")
    given = {"folder": str(tmp_path / "model"), "again": str(tmp_path / "again")}
    module, parameters = run_without_package(SAVED_AGAIN, given, tmp_path)
    assert module == "modeling_fundamentallm"
    assert parameters == FundamentaLLMForCausalLM(config).num_parameters()
    code = {name: Path(tmp_path / "again" / name).read_text() for name in model_code()}
    assert code == model_code()
    assert json.loads((tmp_path / "again" / "config.json").read_text())["auto_map"] == AUTO_MAP
