"""A repository with a model on the local Hub of the tests, and what is on the disk after a download of it."""

import re
from pathlib import Path

import pytest

FILES = {
    "config.json": '{"model_type": "fundamentallm"}',
    "model.safetensors": b"weights " * 5000,
    "README.md": "# Stories\n",
    "attributes/formal/attribute.json": "{}",
    "pytorch_model.bin": b"\x80\x04 pickled",
}
KEPT = sorted(name for name in FILES if not name.endswith(".bin"))


@pytest.fixture
def stories(hub):
    return hub.make("user/stories", FILES)


def read(snapshot):
    return {name: (snapshot.folder / name).read_bytes() for name in snapshot.files}


def leftovers(*folders):
    """Files that are no one's: half written ones, and ones under hidden names."""
    found = [path for folder in folders if Path(folder).exists() for path in Path(folder).rglob("*")]
    return [path.name for path in found if re.search(r"incomplete|\.partial|\.replaced", path.name)]
