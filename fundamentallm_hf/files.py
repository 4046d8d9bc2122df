"""Writes folders whole or not at all.

A folder is written beside its target under a hidden name and moved into place when it is complete, so whoever looks at
the target sees the old folder or the new one. A run that is killed leaves only hidden folders behind, named after the
target and ending in `.partial` (a new folder, unfinished) or `.replaced` (the old one, whole, between two renames).

This file knows nothing of what is in a folder.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fundamentallm_hf.portable.errors import UserError


def check_target(target: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Whether a folder can be written at `target`, asked before any work starts.

    Args:
        target: the folder to write; it and its parents need not exist.
        force: let a folder that holds something be replaced.

    Returns:
        The folder itself, absolute and with symbolic links followed.

    Raises:
        UserError: `target` is a file or lies inside one, cannot be written, holds something and `force` is not set,
            or is the working directory, the home directory or a folder around them, which nothing may replace.

    Example:

    ```python
    >>> import tempfile
    >>> from fundamentallm_hf.files import check_target
    >>> check_target(tempfile.mkdtemp() + "/model").name
    'model'

    ```
    """
    shown = repr(str(target))
    folder = Path(os.path.realpath(target))
    try:
        standing = next(place for place in (folder, *folder.parents) if place.exists())
        if not standing.is_dir():
            where = "is a file" if standing == folder else f"lies inside the file {str(standing)!r}"
            raise UserError(f"cannot write a folder to {shown}, which {where}: give the path of a folder")
        for place, name in ((Path.cwd(), "working directory"), (Path(os.environ.get("HOME", "/")), "home directory")):
            if place.resolve().is_relative_to(folder):
                raise UserError(
                    f"cannot write a folder to {shown}, which would replace the {name}: give a folder of its own"
                )
        if standing == folder and not force and any(folder.iterdir()):
            raise UserError(f"{shown} is not empty: give another folder, or force its replacement")
        place = folder.parent if standing == folder else standing
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"cannot write to {str(place)!r}: permission denied")
    except OSError as error:
        raise UserError(f"cannot write {shown}: {one_line(error)}") from error
    return folder


@contextmanager
def in_one_step(folder: Path, force: bool) -> Iterator[Path]:
    """Fill a folder under a hidden name beside `folder`; what is in it takes that place when the block ends well."""
    # Siblings lie on the same file system, where a rename is one step. Not mkdtemp: its folders are their owner's only.
    hidden = f".{folder.name[:40]}.{secrets.token_hex(4)}"
    partial, replaced = folder.with_name(f"{hidden}.partial"), folder.with_name(f"{hidden}.replaced")
    try:
        partial.mkdir()
        yield partial
        check_target(folder, force=force)  # somebody else may have filled it meanwhile
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
    except BaseException:
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def one_line(error: Exception) -> str:
    """What went wrong, without the path that the surrounding message names and without line breaks."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
