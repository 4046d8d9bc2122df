"""Loads models: FundamentaLLM checkpoints, Hugging Face folders, repositories on the Hub, and the bundled model."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fundamentallm_hf.files import first_line, is_local, local_path
from fundamentallm_hf.hub.connection import Notice
from fundamentallm_hf.hub.download import fetch
from fundamentallm_hf.hub.remote_code import check_code
from fundamentallm_hf.hub.scan import check_index, check_weights
from fundamentallm_hf.portable.decoding.sidecar_files import own_tokenizer
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.generation_settings import DEVICES, DTYPES
from fundamentallm_hf.settings.typed_values import short_repr

from . import registration as registration
from .checkpoint import is_fundamentallm_source, load_checkpoint
from .device_maps import DeviceMap, check_placement, read_device_map, refuse_for_checkpoint

DEMO_MODEL = Path(__file__).parents[1] / "demo_model"


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is a GPU where there is one and the CPU elsewhere.

    Raises:
        UsageError: there is no such device anywhere.
        UserError: there is no such device on this machine.
    """
    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise UsageError(f"device has to be one of {', '.join(DEVICES)} but is {name!r}")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    index = name.partition(":")[2]
    if index and not (index.isdecimal() and kind != "auto"):
        raise UsageError(f"device has to be a name such as cuda or cuda:1 but is {name!r}")
    if not there[kind] or (kind == "cuda" and int(index or 0) >= torch.cuda.device_count()):
        raise UserError(f"device is {name!r}, but torch finds no such device on this machine: use auto or cpu")
    return torch.device(name)


def choose_dtype(name: torch.dtype | str | None) -> torch.dtype | None:
    """The precision called `name`; None, which keeps that of the weights, for "auto".

    Raises:
        UsageError: there is no such precision.
    """
    if name is None or isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise UsageError(f"dtype has to be one of {', '.join(DTYPES)} but is {name!r}")
    return None if name == "auto" else getattr(torch, name)


def load_model(
    source: str | Path | None = None,
    *,
    device: str = "auto",
    device_map: str | Mapping[str, Any] | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    notice: Notice | None = None,
    progress: bool = False,
) -> PreTrainedModel:
    """Load a causal language model, ready to generate.

    Args:
        source: FundamentaLLM's `final_model.pt` or its folder, a Hugging Face folder, or a Hub id such as `user/name`
            or `user/name@revision`, of any causal language model. None: the bundled story model.
        device: "auto", "cpu", "cuda" or "mps".
        device_map: in place of `device`, for a model larger than one; see `read_device_map`.
        dtype: precision of the weights, such as "bfloat16"; by default ("auto") the saved one.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run the code of a Hub repository or a folder. FundamentaLLM models never need it here, and
            their code is not run.
        notice: called with lines for the user, such as which commit's code is run; without it, a warning is issued.
        progress: show progress bars on stderr while a model is downloaded from the Hub.

    Returns:
        The model in evaluation mode, its tokenizer as the attribute `tokenizer`.

    Raises:
        UsageError: a revision is given for a model that has none, or two of them; or both device and device map.
        UserError: there is nothing at `source`, it is no causal language model, or the device or map does not fit it.

    Example:

    ```python
    >>> from fundamentallm_hf import load_model
    >>> load_model(device="cpu").config.model_type
    'fundamentallm'

    ```
    """
    target, dtype = choose_device(device), choose_dtype(dtype)
    placement = read_device_map(device_map, device)
    name = str(source) if source is not None else str(DEMO_MODEL)
    path = local_path(name)
    if revision is not None and path.exists():
        raise UsageError(
            f"revision is {revision!r}, but only a model on the Hub has revisions and {name} is a local model"
        )
    if is_fundamentallm_source(path):
        refuse_for_checkpoint(placement, name)
        model, tokenizer = load_checkpoint(path)
        if dtype is not None:
            model = model.to(dtype=dtype)
    else:
        notice = notice or (lambda text: warnings.warn(text, stacklevel=2))
        found = _find_folder(name, path, revision, notice, progress)
        model, tokenizer = _from_pretrained(found, dtype, placement, trust_remote_code, notice)
    model.tokenizer = tokenizer
    return (model if placement is not None else model.to(target)).eval()


def tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: its attribute, or the one in the folder or repository it was loaded from.

    Raises:
        UserError: the model has none and was not loaded from anywhere.
    """
    try:
        return own_tokenizer(model)
    except ValueError as error:
        raise UserError.of(error) from error


def find_checkpoint(source: str | Path, notice: Notice) -> Path:
    """The local path of a FundamentaLLM checkpoint; one on the Hub is downloaded, and nothing in it is run.

    Args:
        source: a `.pt` file, its folder, or a Hub id such as `user/name@revision`.
        notice: called with lines for the user meanwhile.

    Raises:
        UserError: the repository cannot be downloaded, or has no checkpoint.
    """
    name, path = str(source), local_path(source)
    if is_local(name) or name.count("/") != 1:
        return path

    def choose(names: Sequence[str]) -> list[str]:
        return [each for each in names if "/" not in each and Path(each).suffix in (".pt", ".yaml", ".json")]

    snapshot = fetch(name, choose=choose, notice=notice)
    if not any(each.endswith(".pt") for each in snapshot.files):
        raise UserError(
            f"{name} holds no FundamentaLLM checkpoint (.pt): there is nothing to convert, load it as it is"
        )
    return snapshot.folder


class _Found(NamedTuple):
    """A model in a folder, its name in errors, and its commit if it is from the Hub."""

    folder: Path
    name: str
    commit: str | None


def _find_folder(name: str, path: Path, revision: str | None, notice: Notice, progress: bool) -> _Found:
    """The folder of a Hugging Face model; one on the Hub is downloaded.

    Raises:
        UserError: there is none, or its weights are not safe to read.
    """
    if path.exists():
        if not (path / "config.json").is_file():
            raise UserError(f"{name} is neither a FundamentaLLM checkpoint nor a folder with a config.json")
        return _Found(path, name, None)
    if is_local(name):
        raise UserError(f"there is no {name}: give a checkpoint, a folder or a Hub id such as user/name")
    snapshot = fetch(name, revision, notice=notice, progress=progress)
    check_weights([*snapshot.files, *snapshot.left_out], name)
    return _Found(snapshot.folder, snapshot.repo_id, snapshot.commit)


def _from_pretrained(
    found: _Found, dtype: torch.dtype | None, device_map: DeviceMap | None, trust_remote_code: bool, notice: Notice
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer through the Auto classes, with the usual failures in one line each."""
    folder, name = found.folder, found.name
    check_index(folder, name)
    runs_code = check_code(folder, name, found.commit, trust_remote_code, notice)
    try:
        # Weights as pickles could run code, so only safetensors are read.
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype or "auto", use_safetensors=True, trust_remote_code=runs_code, device_map=device_map
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=runs_code)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{name} cannot be loaded{_by(device_map)}: {first_line(error)}") from error
    except (RuntimeError, AssertionError, KeyError) as error:  # as accelerate and torch refuse a map
        if device_map is None:
            raise
        raise UserError(f"{name} cannot be loaded{_by(device_map)}: {first_line(error)}") from error
    check_placement(model)
    model.config._commit_hash = found.commit
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return model, tokenizer


def _by(device_map: DeviceMap | None) -> str:
    return "" if device_map is None else f" with device-map {short_repr(device_map)}"
