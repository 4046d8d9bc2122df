"""Shared fixtures: no network, few threads, and small real models."""

import importlib
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import huggingface_hub.constants
import pytest
import torch
from hub_server import serve
from hub_store import TOKEN
from huggingface_hub.utils import close_session
from hypothesis import settings

from fundamentallm_hf import load_model
from fundamentallm_hf.generation.beam_progress import BeamProgress
from fundamentallm_hf.portable.guides import text_classifier
from fundamentallm_hf.portable.model.lean_step import LeanStep

# Their assertions say what they compared, as those of tests do.
pytest.register_assert_rewrite("private_generation", "private_libraries", "private_serving")

# A check of every change draws the same cases each time; new ones are for whoever works on the code.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

FIXTURES = Path(__file__).parent / "fixtures"
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


# The models are small, and threads that wait for each other on a busy machine take many times as long.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    yield
    torch.set_num_threads(1)  # some tests change it


@pytest.fixture
def script(monkeypatch):
    """Imports a script of `benchmarks/`; what it imports beside it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture(scope="session")
def shakespeare():
    """A real checkpoint of FundamentaLLM with learned positions and a window of 128. Tests must not change it."""
    model = load_model(FIXTURES / "learned" / "final_model.pt", device="cpu")
    before = [each.detach().clone() for each in model.parameters()]
    yield model
    assert all(map(torch.equal, before, model.parameters())), "a test has changed the weights of the shared model"


@pytest.fixture
def slow_model(monkeypatch):
    """Every pass takes `seconds` longer, so that a text is not complete before somebody can stop it."""
    pace = SimpleNamespace(seconds=0.03)
    for kind, name in ((LeanStep, "__call__"), (LeanStep, "packed"), (BeamProgress, "__call__")):
        step = getattr(kind, name)

        def slow(*given, step=step, **more):
            time.sleep(pace.seconds)
            return step(*given, **more)

        monkeypatch.setattr(kind, name, slow)
    return pace


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on this machine, empty, to which the user is logged in; nothing is cached."""
    with serve() as running:
        home = tmp_path / "hf_home"
        for name, value in {
            "ENDPOINT": running.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": running.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_URL_HOSTS": frozenset({"127.0.0.1"}),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        # For processes that tests start.
        for name, value in {
            "HF_ENDPOINT": running.url,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }.items():
            monkeypatch.setenv(name, value)
        # A process keeps the classifiers that it has loaded by their names on the Hub.
        monkeypatch.setattr(text_classifier, "_LOADED", {})
        close_session()
        yield running
        close_session()


def offline(monkeypatch):
    """From now on as with HF_HUB_OFFLINE=1."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    close_session()


@pytest.fixture
def waits(monkeypatch):
    """Nothing waits before it tries again; how long it would have is kept here."""
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited
