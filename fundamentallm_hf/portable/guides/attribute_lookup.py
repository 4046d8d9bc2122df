"""Finds attributes: on the model, next to it, in the user's folder, and in this package.

A name is never read as a path: a generation config or a web request cannot make the library read anything except
    attributes known by name.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import UserError
from .attributes import FILE_NAME, FOLDER, NAME, Attribute, check_name, is_path
from .classifier_files import CLASSIFIER_FILES, CLASSIFIER_FOLDER
from .packaged_attributes import PACKAGED

# Attributes of the package serve every model without an attribute of that name. A copy of this file that travels with a
# model has no such folder next to it.
BUNDLED = Path(__file__).parents[2] / "demo_model" / FOLDER
MAKE_ONE = "make one with `fundamentallm train-attribute NAME --with FILE --without FILE`"


def user_folder() -> Path:
    """The folder of the user's attributes (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_DATA_HOME") or ""
    return (Path(home) if home.startswith("/") else Path("~/.local/share").expanduser()) / "fundamentallm" / FOLDER


def model_attributes(model: Any) -> dict[str, Attribute]:
    """The attributes in a model's memory or folder, which travel with it.

    Raises:
        UserError: one cannot be read.
    """
    found = {}
    place = _local(model)
    if place is not None:
        found = {name: Attribute.load(place / name) for name in _names(place)}
    elif model.name_or_path:
        for name in _hub_names(model):
            found[name] = _from_hub(model, name)
    carried = getattr(model, "attributes", None) or {}
    return found | {name: each for name, each in carried.items() if not is_path(name)}


def find_attribute(model: Any, name: str) -> Attribute:
    """Find the attribute of this name: on the model, next to it, in the user's folder, or in this package.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    carried = getattr(model, "attributes", None) or {}
    if name in carried:
        return carried[name]
    if is_path(name):
        raise UserError(
            f"guide-attribute has to be a name but is {name!r}: folders are read only where the command's "
            "--guide-attribute names them",
            setting="guide_attribute",
            value=name,
        )
    check_name(name)
    local = _local(model)
    if local is not None and (local / name / FILE_NAME).is_file():
        return Attribute.load(local / name)
    if name in (hub := _hub_names(model)):
        return _from_hub(model, name)
    for place in (user_folder(), BUNDLED):
        if (place / name / FILE_NAME).is_file():
            return Attribute.load(place / name)
    if name in PACKAGED:
        return Attribute.of(PACKAGED[name])
    named = {each for each in carried if not is_path(each)}
    known = sorted({*named, *_names(local), *hub, *_names(user_folder()), *_names(BUNDLED), *PACKAGED})
    there = f"there are {', '.join(known)}" if known else "there are none"
    raise UserError(f"there is no attribute {name!r}: {there}; {MAKE_ONE}", setting="guide_attribute", value=name)


def known_attributes(model: Any) -> list[tuple[str, str, Attribute]]:
    """All attributes that can guide a model: name, source ("model", "user" or "package"), and the attribute."""
    found = {name: ("model", each) for name, each in model_attributes(model).items()}
    for where, place in (("user", user_folder()), ("package", BUNDLED)):
        for name in _names(place):
            if name not in found:
                found[name] = (where, Attribute.load(place / name))
    return [(name, *found[name]) for name in sorted(found)]


def save_attributes(model: Any, folder: str | Path) -> None:
    """Write the files that travel with a model into its folder."""
    for name, each in model_attributes(model).items():
        each.save(Path(folder) / FOLDER / name)


def _names(place: Path | None) -> Sequence[str]:
    if place is None or not place.is_dir():
        return ()
    return sorted(each.name for each in place.iterdir() if NAME.fullmatch(each.name) and (each / FILE_NAME).is_file())


def _local(model: Any) -> Path | None:
    if not model.name_or_path:
        return None
    path = Path(model.name_or_path)
    return (path if path.is_dir() else path.parent) / FOLDER if path.exists() else None


def _hub_names(model: Any) -> list[str]:
    """The attributes in a model's repository on the Hub; asked once."""
    if not model.name_or_path or _local(model) is not None:
        return []
    known = getattr(model, "_attribute_names", None)
    if known is None:
        try:
            from huggingface_hub import HfApi

            files = HfApi().list_repo_files(model.name_or_path, revision=_revision(model))
        except (OSError, ValueError, RuntimeError):
            return _cached_names(model)
        split = [file.split("/") for file in files]
        found = [parts[1] for parts in split if len(parts) == 3 and parts[0] == FOLDER and parts[2] == FILE_NAME]
        known = model._attribute_names = [name for name in found if NAME.fullmatch(name)]
    return known


def _cached_names(model: Any) -> list[str]:
    """The attributes that were downloaded before, for use where the Hub cannot be reached."""
    with suppress(OSError, ValueError):
        from transformers.utils import cached_file

        config = cached_file(model.name_or_path, "config.json", revision=_revision(model), local_files_only=True)
        return list(_names(Path(config).parent / FOLDER))
    return []


def _from_hub(model: Any, name: str) -> Attribute:
    kept = model.__dict__.setdefault("_hub_attributes", {})
    if name not in kept:
        from transformers.utils import cached_file

        def find(file: str) -> Path:
            if file == CLASSIFIER_FOLDER:
                return _folder_from_hub(model, f"{FOLDER}/{name}/{file}")
            return Path(cached_file(model.name_or_path, f"{FOLDER}/{name}/{file}", revision=_revision(model)))

        kept[name] = Attribute.read(f"{model.name_or_path}/{name}", find)
    return kept[name]


def _folder_from_hub(model: Any, folder: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [f"{folder}/{pattern}" for pattern in CLASSIFIER_FILES]
    return Path(snapshot_download(model.name_or_path, revision=_revision(model), allow_patterns=patterns)) / folder


def _revision(model: Any) -> str | None:
    return getattr(model.config, "_commit_hash", None)
