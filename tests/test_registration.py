"""After importing this package, transformers finds its models, in whatever order and by whatever program."""

import subprocess
import sys

import pytest
from command import MODEL

pytestmark = pytest.mark.core

LOOK = """
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
assert type(AutoConfig.from_pretrained(MODEL)).__name__ == "FundamentaLLMConfig"
model = AutoModelForCausalLM.from_pretrained(MODEL)
from fundamentallm_hf import FundamentaLLMForCausalLM
assert type(model) is FundamentaLLMForCausalLM, type(model).__module__
import transformers
assert transformers.FundamentaLLMForCausalLM is FundamentaLLMForCausalLM
print("found")
"""


def run(*command, **how):
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, **how)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from fundamentallm_hf import convert_checkpoint

    return convert_checkpoint(MODEL, tmp_path_factory.mktemp("model") / "model")


@pytest.mark.parametrize(
    "first",
    [
        "import fundamentallm_hf",
        "import transformers, fundamentallm_hf",
        "import torch; import fundamentallm_hf",
        "from fundamentallm_hf import FundamentaLLMConfig",
        "from fundamentallm_hf.portable.model.configuration_fundamentallm import FundamentaLLMConfig",
        "from fundamentallm_hf.portable.model import modeling_fundamentallm",
        "from fundamentallm_hf.portable.decoding import sidecar_files",
        "from fundamentallm_hf.portable import controls, guides",
        "import fundamentallm_hf.cli.main",
        "import fundamentallm_hf; from transformers import pipeline",
        "import fundamentallm_hf, importlib.util; assert importlib.util.find_spec('transformers').loader",
    ],
)
def test_the_order_of_imports_does_not_matter(first, folder):
    done = run("-c", f"MODEL = {str(folder)!r}\n{first}\n{LOOK}")
    assert done.stdout == "found\n", done.stderr[-2000:]


@pytest.mark.parametrize("how", ["module", "script named as the command", "package"])
def test_another_program_that_imports_this_package_finds_the_models(how, folder, tmp_path):
    tool = f"MODEL = {str(folder)!r}\n{LOOK}"
    if how == "package":
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "__init__.py").write_text("import fundamentallm_hf\n")
        (tmp_path / "other" / "tool.py").write_text(tool)
        done = run("-m", "other.tool", cwd=tmp_path)
    elif how == "module":
        (tmp_path / "tool.py").write_text(f"import fundamentallm_hf\n{tool}")
        done = run("-m", "tool", cwd=tmp_path)
    else:
        (tmp_path / "fundamentallm.py").write_text(f"import fundamentallm_hf\n{tool}")
        done = run(tmp_path / "fundamentallm.py", cwd=tmp_path)
    assert done.stdout == "found\n", done.stderr[-2000:]


def test_nothing_heavy_is_imported_for_it():
    look = "import sys, fundamentallm_hf; assert not {'torch', 'transformers', 'click'} & set(sys.modules)"
    assert run("-c", look).returncode == 0


def test_a_failure_to_register_is_told_where_transformers_is_imported():
    config = "fundamentallm_hf.portable.model.configuration_fundamentallm"
    break_it = f"import sys, fundamentallm_hf; sys.modules['{config}'] = None"
    done = run("-c", f"{break_it}\nimport transformers")
    assert done.returncode == 1
    assert "fundamentallm_hf.portable.model.configuration_fundamentallm" in done.stderr
