"""Device maps, which say on which device each module of a model is; accelerate applies them."""

import json
from collections.abc import Mapping
from typing import Any

import torch

from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.generation_settings import DEVICE_MAPS
from fundamentallm_hf.settings.typed_values import short_repr

DeviceMap = str | dict[str, str | int]


def read_device_map(value: str | Mapping[str, Any] | None, device: str = "auto") -> DeviceMap | None:
    """Read and check a device map: a name, one device for all modules, or devices by module names.

    Args:
        value: such as "auto" or "cuda:1"; a dict such as `{"model.layers.0": 0, "lm_head": "disk"}`, or JSON of one.
        device: the setting `device`, which has to be "auto" next to a map.

    Returns:
        A name, a device, or a dict of devices; None without a map.

    Raises:
        UsageError: it is none of these, or there is a device as well.
    """
    if value is None:
        return None
    if device != "auto":
        raise UsageError(f"device is {device!r}, but device-map decides where everything is: leave one out")
    expected = f"one of {', '.join(DEVICE_MAPS)}, a device, or a JSON object of devices by the names of modules"
    refusal = UsageError(
        f"device-map has to be {expected}, but is {short_repr(value)}",
        setting="device_map",
        value=value,
        expected=expected,
    )
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise refusal from error
    if isinstance(value, str):
        if value in DEVICE_MAPS or _is_device(value):
            return value
        raise refusal
    if not isinstance(value, Mapping) or not value:
        raise refusal
    for module, place in value.items():
        if not isinstance(module, str) or not (place == "disk" or _is_device(place)):
            raise refusal
    return dict(value)


def _is_device(name: Any) -> bool:
    if isinstance(name, int):
        return not isinstance(name, bool) and name >= 0
    try:
        return isinstance(name, str) and torch.device(name).type != "meta"
    except RuntimeError:
        return False


def refuse_for_checkpoint(device_map: DeviceMap | None, name: str) -> None:
    """Refuse a device map for a FundamentaLLM checkpoint.

    Raises:
        UserError: there is one.
    """
    if device_map is not None:
        raise UserError(f"device-map needs a Hugging Face folder, and {name} is a checkpoint: convert it first")


def check_placement(model: Any) -> None:
    """Check that a model loaded with a map can generate; sort its `hf_device_map` **in place**, the disk last.

    Raises:
        UserError: the map leaves the first module, which gets the input, without a device.
    """
    placed = getattr(model, "hf_device_map", None)
    if placed is None:  # everything is on one device
        return
    if model.device.type == "meta":
        first = next(name for name, each in model.named_parameters() if each.device.type == "meta")
        raise UserError(
            f"device-map offloads {first.rpartition('.')[0]}, which reads the input: give it a device such as cpu"
        )
    # The pipeline takes the first of them as its device.
    model.hf_device_map = dict(sorted(placed.items(), key=lambda each: each[1] == "disk"))
