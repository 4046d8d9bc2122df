"""Code that comes with a model: it runs only if the user has permitted it, and a note names its commit.

This file reads the names of a repository's code, never the code itself.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fundamentallm_hf.portable.errors import UserError

from .connection import Notice
from .error_messages import page

# The code of this type is in this package, so no other code has to run.
OWN = "fundamentallm"


def check_code(folder: Path, name: str, commit: str | None, trusted: bool, notice: Notice) -> bool:
    """Whether to run the code of a model; names the code.

    Args:
        folder: the folder of the model's files.
        name: of the repository, or of the local folder.
        commit: of the repository; None for a local folder.
        trusted: whether the user has permitted it.
        notice: called with the name of the code that runs.

    Returns:
        True where there is code, it is needed, and the user has permitted it.

    Raises:
        UserError: the model needs code and the user has not permitted it, or the code is in another repository.
    """
    config = _read(folder / "config.json")
    if config.get("model_type") == OWN:
        return False
    classes = sorted({each for file in ("config.json", "tokenizer_config.json") for each in _classes(folder / file)})
    if not classes:
        return False
    files = ", ".join(sorted({f"{each.split('.')[0]}.py" for each in classes}))
    where = f"{name} at commit {commit}" if commit else name
    if not trusted:
        if _is_known(config.get("model_type")):
            return False
        read = f"read it at {page(name, f'tree/{commit}')}" if commit else f"read it in {folder}"
        pinned = f" --revision {commit}" if commit else ""
        raise UserError(
            f"{where} needs code of its own ({files}), which runs only if you say so: {read}, then give "
            f"--trust-remote-code{pinned}"
        )
    if other := next((each.partition("--")[0] for each in classes if "--" in each), None):
        raise UserError(
            f"{where} takes its code from another repository ({other}), which may change without notice: give a model "
            "that carries its code"
        )
    notice(f"running the code of {where} ({files})")
    return True


def _classes(file: Path) -> Iterator[str]:
    """The classes that a config names, such as "modeling_x.XForCausalLM"."""
    auto_map = _read(file).get("auto_map")
    for value in auto_map.values() if isinstance(auto_map, dict) else ():
        yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))


def _is_known(model_type: Any) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return isinstance(model_type, str) and model_type in CONFIG_MAPPING


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
