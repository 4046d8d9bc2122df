"""Paths as users type them, text files as UTF-8, and folders that are written atomically.

A folder is written next to its target under a hidden name and moved into place when it is complete, so whoever looks at
the target sees the old folder or the new one. A run that is killed leaves only hidden folders behind, named after the
target and ending in `.partial` (a new folder, unfinished) or `.replaced` (the old one, complete, between two renames).
Every failure is a `UserError` of one line.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fundamentallm_hf.portable.errors import UserError


class NotTextError(UserError):
    """A file or stream holds something other than UTF-8 text."""


def local_path(name: str | os.PathLike[str]) -> Path:
    """The path that a name stands for, with `~` for the home folder.

    Raises:
        UserError: it begins with the home folder of nobody.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{str(name)!r} begins with a home folder that is not there: write the whole path") from None


def is_local(name: str) -> bool:
    """Whether a name means something on this machine rather than a repository on the Hub: it is there, or it is written
    as a path.
    """
    if is_written_as_path(name):
        return True
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a name, or a null character in it
        return False


def is_written_as_path(name: str) -> bool:
    """Whether a name can only mean a path on this machine, whatever is there: no repository is called so.

    Example:

    ```python
    >>> from fundamentallm_hf.files import is_written_as_path
    >>> is_written_as_path("./stories"), is_written_as_path("final_model.pt"), is_written_as_path("user/stories")
    (True, True, False)

    ```
    """
    return Path(name).suffix == ".pt" or name.startswith((".", "/", "~"))


def read_text(file: str | os.PathLike[str], what: str | None = None, *, exact: bool = False) -> str:
    r"""The text of a file, read as UTF-8; a byte order mark at its beginning does not belong to it.

    Args:
        file: where it is, with `~` for the home folder.
        what: the file is called in errors; by default its path in quotation marks.
        exact: keep line ends as they are in the file. Otherwise each is `\n`.

    Raises:
        NotTextError: it is not UTF-8; the line names the first byte that is not.
        UserError: it cannot be read.
    """
    what = repr(str(file)) if what is None else what
    try:
        raw = local_path(file).read_bytes()
    except (OSError, ValueError) as error:  # the latter is a null character in the name
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {what}: {getattr(error, 'strerror', None) or error}") from error
    text = decode_text(raw, what)
    return text if exact else text.replace("\r\n", "\n").replace("\r", "\n")


def decode_text(raw: bytes, what: str) -> str:
    """Bytes as UTF-8 text, without a byte order mark at their beginning.

    Args:
        raw: the bytes.
        what: they are called in errors.

    Raises:
        NotTextError: they are not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Where there is a byte order mark, the decoder does not count it.
        first = error.start + (3 if raw.startswith(b"\xef\xbb\xbf") else 0)
        raise NotTextError(f"{what} is not UTF-8 text (byte {first}): convert it to UTF-8 first") from None


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
