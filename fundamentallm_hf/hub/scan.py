"""Checks what may be sent to the Hub and loaded from it, by names and contents; nothing is ever run or unpickled.

Names that would leave their folder or mean something else on another system are refused in both directions, and so are
pickles. Files to be sent must not contain optimizer state, local paths, or tokens.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fundamentallm_hf.portable.decoding.sidecar_names import BESIDE_WEIGHTS
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides.attributes import FOLDER

from .error_messages import tokens

# Weights and other objects as pickles, or in formats that may contain some.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz", ".h5", ".keras")
CONVERT = "https://huggingface.co/spaces/safetensors/convert"
# Files that a training run leaves next to its model.
_TRAINING = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args|trainer_state)", re.IGNORECASE)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f<>:\"|?*\\]")
_TEXTS = (".json", ".jsonl", ".md", ".py", ".txt", ".tsv", ".yaml", ".yml", ".toml", ".jinja", ".cfg", ".ini", "")
# Words that a model has learned from a text may look like anything.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "word_counts.json", "words.tsv")
_LOCAL_PATH = re.compile(
    r"(?:file://|(?<![\w./:~-]))(?:/(?:home|root|Users|tmp|mnt|media|scratch|workspace|var/folders)/|[A-Za-z]:\\{1,2}Users\\)"
    r"[^\s'\"`)\],]+"
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")
_PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in (2, 3, 4, 5))
_ZIP_START = b"PK\x03\x04"


def check_names(names: Iterable[str], where: str) -> None:
    """Check that every name stays inside its folder and means the same file on every system.

    Args:
        names: of files in a repository, with `/` between folders.
        where: the repository, as messages name it.

    Raises:
        UserError: one does not.

    Example:

    ```python
    >>> from fundamentallm_hf.hub.scan import check_names
    >>> check_names(["config.json", "attributes/formal/words.tsv"], "user/name")

    ```
    """
    seen: dict[str, str] = {}
    for name in names:
        why = _why_not(name)
        if why is None and seen.setdefault(name.casefold(), name) != name:
            why = f"is the same as {seen[name.casefold()]!r} on systems without upper and lower case"
        if why is not None:
            raise UserError(f"{where} has a file called {name!r}, which {why}: nothing was read or written")


def _why_not(name: str) -> str | None:
    parts = name.split("/")
    if not name or "" in parts or ".." in parts or "." in parts or name.startswith("~"):
        return "leads out of its folder"
    if len(name) > 500 or any(len(part.encode()) > 200 for part in parts):
        return "is too long"
    if _FORBIDDEN.search(name):
        return "holds characters that mean something else on some systems"
    if any(part != part.strip() or part.endswith(".") or _RESERVED.fullmatch(part) for part in parts):
        return "is another file or a device on some systems"
    if parts[0].casefold() == ".git":
        return "belongs to git"
    return None


def is_pickle_name(name: str) -> bool:
    """Whether the name of a file is that of a pickle, or of a format that may contain one."""
    return PurePosixPath(name).suffix.lower() in PICKLES


def check_weights(names: Iterable[str], where: str) -> None:
    """Check that a repository's weights can be read without running code.

    Raises:
        UserError: all of its weights are pickles; the message says how to convert them.
    """
    names = list(names)
    # Attributes, drafts and next words have files of their own.
    weights = [name for name in names if name.endswith(".safetensors") and name not in BESIDE_WEIGHTS]
    if any(not name.startswith(f"{FOLDER}/") for name in weights):
        return
    pickles = sorted(name for name in names if is_pickle_name(name) and not _TRAINING.search(name))
    if not pickles:
        return
    shown = ", ".join(pickles[:2]) + (", ..." if len(pickles) > 2 else "")
    if all(name.endswith(".pt") for name in pickles):
        how = (
            f"turn a FundamentaLLM checkpoint into safetensors with `fundamentallm convert {where} FOLDER`, which runs "
            "nothing in it"
        )
    else:
        how = f"have them converted to safetensors at {CONVERT}, then name the revision that it makes (refs/pr/N)"
    raise UserError(f"{where} has its weights only as pickles ({shown}), which can run code when they are read: {how}")


def check_index(folder: Path, where: str) -> None:
    """Check that the index of weights in several files names files of its folder.

    Raises:
        UserError: it names others, or none.
    """
    file = folder / "model.safetensors.index.json"
    if not file.is_file() or (folder / "model.safetensors").is_file():
        return
    try:
        names = set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{where} has a damaged {file.name}: download it again, or report it to its owner") from None
    for name in names:
        if not isinstance(name, str) or "/" in name or _why_not(name) is not None or not (folder / name).is_file():
            raise UserError(f"{where} looks for weights in {name!r}, which is no file of its own: nothing was read")


def check_outgoing(folder: Path) -> list[str]:
    """Check that a folder can be published, and list its files to send.

    Hidden files and Python's cache files are not sent.

    Args:
        folder: what will be sent.

    Returns:
        The names of the files, with `/` between folders, sorted.

    Raises:
        UserError: a name is not safe, a link leads out of the folder, or a file is a pickle, belongs to a training run,
            or contains a token or a local path.
    """
    names = sorted(_names(folder))
    if not names:
        raise UserError(f"there is nothing to send in {str(folder)!r}: give a folder with files in it")
    check_names(names, str(folder))
    secrets, places = tokens(), _places(folder)
    for name in names:
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{name} is a link that leads out of its folder: put the file itself there")
        if _TRAINING.search(PurePosixPath(name).name):
            raise UserError(f"{name} belongs to a training run and not to its model: take it out of the folder")
        _check_bytes(name, file)
        if file.suffix.lower() in _TEXTS:
            _check_text(name, file, secrets, places)
    return names


def _names(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        for kept in (folders, files):
            kept[:] = [name for name in kept if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            if not name.endswith(".pyc"):
                yield Path(place, name).relative_to(folder).as_posix()
        for name in folders:
            if Path(place, name).is_symlink():
                raise UserError(f"{Path(place, name).relative_to(folder)} is a link to a folder: put the files there")


def _check_bytes(name: str, file: Path) -> None:
    with file.open("rb") as opened:
        start = opened.read(8)
    if is_pickle_name(name) or start.startswith((*_PICKLE_STARTS, _ZIP_START)):
        raise UserError(
            f"{name} is a pickle or may hold one, which can run code when it is read: save weights as safetensors "
            "(`fundamentallm convert` does for a FundamentaLLM checkpoint), or take it out of the folder"
        )


def _check_text(name: str, file: Path, secrets: list[str], places: list[str]) -> None:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{name} has to be UTF-8 text but is not: save it as UTF-8") from None
    if _TOKEN.search(text) or any(secret in text for secret in secrets):
        raise UserError(f"{name} holds an access token: take it out, and make a new one, since it was written down")
    if found := next((place for place in places if place in text), None):
        raise UserError(f"{name} names a place on this machine ({found}{_field(file, found)}): take it out")
    if PurePosixPath(name).name not in _VOCABULARIES and (path := _LOCAL_PATH.search(text)):
        raise UserError(f"{name} names a place on this machine ({path[0]}{_field(file, path[0])}): take it out")


def _places(folder: Path) -> list[str]:
    """Local paths that must not be published: the home directory, the working directory and the folder itself."""
    found = {str(Path.home()), os.getcwd(), str(folder), str(folder.resolve())}  # noqa: PTH109 - as the shell says it
    return sorted((place for place in found if place.count("/") + place.count("\\") > 1), key=len, reverse=True)


def _field(file: Path, text: str) -> str:
    """The position in a JSON file."""
    if file.suffix != ".json":
        return ""

    def search(value: Any, path: str) -> str:
        if isinstance(value, dict):
            return next((found for key, each in value.items() if (found := search(each, f"{path}.{key}"))), "")
        if isinstance(value, list):
            return next((found for each in value if (found := search(each, path))), "")
        return path if isinstance(value, str) and text.replace("\\\\", "\\") in value else ""

    try:
        field = search(json.loads(file.read_text(encoding="utf-8")), "").lstrip(".")
    except (ValueError, RecursionError):
        return ""
    return f", in {field}" if field else ""
