"""Runs Python where this package cannot be imported, with empty caches and no network."""

import json
import os
import re
import subprocess
import sys

_PRELUDE = """
import json, os, sys
sys.modules["fundamentallm_hf"] = None  # what is None here cannot be imported
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
given = json.loads(sys.argv[1])
"""
_END = """
assert not [name for name in sys.modules if name.startswith("fundamentallm_hf.")]
sys.__stdout__.write("\\n" + json.dumps(result))
"""


def run_without_package(script, given, folder, **environment):
    """What the script calls `result`; `given` is there under that name.

    Args:
        script: Python.
        given: for `json.dumps`.
        folder: where it runs; its caches come into `.home`.
        environment: more variables.
    """
    home = folder / ".home"
    places = {"HF_HOME": str(home), "HF_MODULES_CACHE": str(home / "modules"), "HF_HUB_OFFLINE": "1"}
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_ENDPOINT")}
    done = subprocess.run(
        [sys.executable, "-c", f"{_PRELUDE}\n{script}\n{_END}", json.dumps(given)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=kept | places | {"OMP_NUM_THREADS": "1"} | environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def blocks(page, language):
    """The code blocks of a page in Markdown."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
