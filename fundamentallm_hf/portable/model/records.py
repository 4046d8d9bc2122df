"""Metadata of a model's weights in files next to them: how they were trained, and how well they predict a text.

Every record identifies its weights by a digest, so that it is not mistaken for one of later weights after further
training.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..decoding.sidecar_files import find_sidecar

TRAINING, EVALUATION = "training.json", "evaluation.json"
RECORDS = (TRAINING, EVALUATION)
_LARGEST = 1 << 20


def weights_digest(tensors: Iterable[torch.Tensor]) -> str:
    """A digest of weights that depends on their values alone, not on their names, their order or their precision.

    So weights that are stored in float16 and loaded in float32 are the same weights.

    Args:
        tensors: of a state dict or a file; tied weights may occur once or several times.

    Returns:
        16 hexadecimal digits.
    """
    each = set()
    for tensor in tensors:
        short = tensor.dtype in (torch.float16, torch.bfloat16)
        whole = (tensor.float() if short else tensor).detach().cpu().contiguous()
        found = hashlib.sha256(f"{whole.dtype} {tuple(whole.shape)}".encode())
        found.update(whole.reshape(-1).view(torch.uint8).numpy().data)
        each.add(found.hexdigest())
    return hashlib.sha256("".join(sorted(each)).encode()).hexdigest()[:16]


def read_records(file: str | Path) -> list[dict[str, Any]]:
    """The records in a file; none where there is no such file, or where it does not contain records."""
    try:
        if Path(file).stat().st_size > _LARGEST:
            return []
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    records = content.get("records") if isinstance(content, dict) else None
    return [each for each in records if isinstance(each, dict)] if isinstance(records, list) else []


def write_records(file: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records for `read_records`."""
    text = json.dumps({"records": list(records)}, indent=2, ensure_ascii=False) + "\n"
    Path(file).write_text(text, encoding="utf-8")


def records_of(records: Iterable[dict[str, Any]], digest: str) -> list[dict[str, Any]]:
    """The records of the weights with this digest."""
    return [each for each in records if each.get("weights") == digest]


def save_records(model: Any, folder: str | Path) -> None:
    """Write a model's records, from its attribute `records` and its source folder, into its new folder.

    Only records of the weights in their current state are kept: training changes them.
    """
    carried = getattr(model, "records", None) or {}
    digest = ""
    for name in RECORDS:
        file = find_sidecar(model, name)
        known = [*carried.get(name, ()), *(read_records(file) if file else ())]
        if known:
            digest = digest or weights_digest(model.state_dict().values())
            if matching := records_of(known, digest):
                write_records(Path(folder) / name, matching)
