"""What is told of a model's weights in files beside them: how they were trained, and how well they predict a text.

Every record names the weights that it is about by a digest, so that it is never taken for one of what further training
made of them. This file knows nothing of how models are trained or evaluated, or of how records are shown.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import UsageError, UserError

TRAINING, EVALUATION = "training.json", "evaluation.json"
RECORDS = (TRAINING, EVALUATION)
_LARGEST = 1 << 20


def weights_digest(tensors: Iterable[torch.Tensor]) -> str:
    """A name for weights: that of their values alone, whatever they are called and in whatever order.

    Args:
        tensors: of a state dict or a file; tied weights may come once or several times.

    Returns:
        16 hexadecimal digits.
    """
    each = set()
    for tensor in tensors:
        whole = tensor.detach().cpu().contiguous()
        found = hashlib.sha256(f"{whole.dtype} {tuple(whole.shape)}".encode())
        found.update(whole.reshape(-1).view(torch.uint8).numpy().data)
        each.add(found.hexdigest())
    return hashlib.sha256("".join(sorted(each)).encode()).hexdigest()[:16]


def read_records(file: str | Path) -> list[dict[str, Any]]:
    """The records in a file; none where there is no such file, or where it is not one of records."""
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
    """Those that are about the weights with this digest."""
    return [each for each in records if each.get("weights") == digest]


def evaluation_place(model: str | None, dtype: str) -> Path:
    """Where the evaluation of a model is kept, asked before any work starts.

    Args:
        model: its folder or checkpoint.
        dtype: the precision it is evaluated in.

    Raises:
        UsageError: its weights are not evaluated as they are.
        UserError: it does not lie on this machine, or nothing can be written there.
    """
    if dtype != "auto":
        raise UsageError(f"--save keeps what is told of the weights as they are, but dtype is {dtype}: leave one out")
    path = Path(model or "").expanduser()
    if model is None or not path.exists():
        raise UserError(f"--save writes beside the model, but {model or 'none'} is not on this machine: give a folder")
    folder = path if path.is_dir() else path.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {str(folder)!r}: permission denied")
    return folder / EVALUATION


def add_evaluation(
    file: Path, model: Any, result: Mapping[str, float | int], name: str, dataset: str | None = None
) -> None:
    """Keep what an evaluation found beside the model, in place of what was found on the same text before.

    Args:
        file: from `evaluation_place`.
        model: what was evaluated.
        result: what was found, by name.
        name: what the text is called.
        dataset: the data set on the Hub that it is from.
    """
    record = {
        "weights": weights_digest(model.state_dict().values()),
        "dataset": {"name": name} | ({"id": dataset} if dataset else {}),
        **result,
    }
    others = [
        each
        for each in read_records(file)
        if (each.get("weights"), (each.get("dataset") or {}).get("name")) != (record["weights"], name)
    ]
    try:
        write_records(file, [*others, record])
    except OSError as error:
        raise UserError(f"cannot write {str(file)!r}: {error.strerror or error}") from error
