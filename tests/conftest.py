"""What the tests share: no network, few threads, and small real models."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import settings

from fundamentallm_hf import load_model

# A check of every change draws the same cases each time; new ones are for whoever works on the code.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    # The models are small, and threads that wait for each other on a busy machine take many times as long.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shakespeare():
    """A real checkpoint of FundamentaLLM with learned positions and a window of 128."""
    return load_model(FIXTURES / "learned" / "final_model.pt", device="cpu")
