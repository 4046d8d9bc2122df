"""The rules of the package's structure: imports between layers, code that travels with a model, and lengths."""

import ast
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import fundamentallm_hf
from fundamentallm_hf.portable.model.code_files import model_code

PACKAGE = Path(fundamentallm_hf.__file__).parent
PORTABLE = PACKAGE / "portable"
# transformers, and what it cannot be installed without.
ALWAYS_THERE = {"torch", "transformers", "huggingface_hub", "numpy", "safetensors", "tokenizers"}
# Imported where a grammar is used, and nowhere else.
GRAMMARS, GRAMMAR_ENGINE = PORTABLE / "structured", "llguidance"
# Lines, docstrings included.
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def modules(folder=PACKAGE):
    return sorted(file for file in folder.rglob("*.py"))


def label(file):
    return str(file.relative_to(PACKAGE))


def test_imports_point_downwards_and_never_in_a_circle(monkeypatch):
    monkeypatch.chdir(PACKAGE.parent)
    # It would disable the loggers that other tests look at.
    monkeypatch.setattr("logging.config.dictConfig", lambda config: None)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


@pytest.mark.parametrize("file", modules(PORTABLE), ids=label)
def test_what_travels_with_a_model_needs_only_torch_and_transformers(file):
    allowed = ALWAYS_THERE | set(sys.stdlib_module_names)
    if GRAMMARS in file.parents:
        allowed |= {GRAMMAR_ENGINE}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module.partition(".")[0] in allowed


def test_each_folder_of_what_travels_fits_in_one_file():
    assert all(compile(code, name, "exec") for name, code in model_code().items())


def test_inner_packages_define_no_names():
    for file in PACKAGE.glob("*/**/__init__.py"):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        assert all(isinstance(node, ast.Expr) for node in body), label(file)


@pytest.mark.parametrize("file", modules(), ids=label)
def test_files_and_functions_stay_short(file):
    source = file.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{node.name} is too long"
