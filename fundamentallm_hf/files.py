"""Paths as users type them, text files as UTF-8, and files and folders that are written atomically.

A file or folder is written next to its target under a hidden name and moved into place when it is complete, so whoever
looks at the target sees the old content or the new one. A run that is killed leaves only hidden names behind. Those of
folders end in `.partial` (a new folder, unfinished) or `.replaced` (the old one, complete, between two renames).
Every failure is a `UserError` of one line.
"""

import contextlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from fundamentallm_hf.portable.errors import UserError

# Characters that some programs take for line breaks, as JSON escapes them.
_ESCAPED = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


class NotTextError(UserError):
    """A file or stream holds something other than UTF-8 text."""


def local_path(name: str | os.PathLike[str]) -> Path:
    """The path that a name stands for, with `~` for the home folder.

    Raises:
        UserError: it starts with the home folder of an unknown user.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{str(name)!r} begins with a home folder that is not there: write the whole path") from None


def is_local(name: str) -> bool:
    """Whether a name is a local path rather than a repository on the Hub: it exists, or is written as a path."""
    if is_written_as_path(name):
        return True
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a name, or a null character in it
        return False


def is_written_as_path(name: str) -> bool:
    """Whether a name can only be a local path, whether or not it exists: no repository can have this name.

    Example:

    ```python
    >>> from fundamentallm_hf.files import is_written_as_path
    >>> is_written_as_path("./stories"), is_written_as_path("final_model.pt"), is_written_as_path("user/stories")
    (True, True, False)

    ```
    """
    return Path(name).suffix == ".pt" or name.startswith((".", "/", "~"))


def read_text(file: str | os.PathLike[str], what: str | None = None, *, exact: bool = False) -> str:
    r"""The text of a file, read as UTF-8, without a byte order mark at its start.

    Args:
        file: its path, with `~` for the home folder.
        what: its name in errors; by default its path in quotation marks.
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
        what: their name in errors.

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
    """Check that a folder can be written at `target`, before any work starts.

    Args:
        target: the folder to write; it and its parents need not exist.
        force: allow replacing a folder that is not empty.

    Returns:
        The folder itself, absolute and with symbolic links followed.

    Raises:
        UserError: `target` is a file or inside one, cannot be written, is not empty without `force`, or is the working
            directory, the home directory or a folder around them, which must not be replaced.

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
        standing = next(each for each in (folder, *folder.parents) if each.exists())
        if not standing.is_dir():
            where = "is a file" if standing == folder else f"lies inside the file {str(standing)!r}"
            raise UserError(f"cannot write a folder to {shown}, which {where}: give the path of a folder")
        for kept, name in ((Path.cwd(), "working directory"), (Path(os.environ.get("HOME", "/")), "home directory")):
            if kept.resolve().is_relative_to(folder):
                raise UserError(
                    f"cannot write a folder to {shown}, which would replace the {name}: give a folder of its own"
                )
        if standing == folder and not force and any(folder.iterdir()):
            raise UserError(f"{shown} is not empty: give another folder, or force its replacement")
        parent = folder.parent if standing == folder else standing
        if not os.access(parent, os.W_OK | os.X_OK):
            raise UserError(f"cannot write to {str(parent)!r}: permission denied")
    except OSError as error:
        raise UserError(f"cannot write {shown}: {one_line(error)}") from error
    return folder


@contextmanager
def in_one_step(folder: Path, force: bool) -> Iterator[Path]:
    """Fill a folder under a hidden name next to `folder`, and rename it to `folder` when the block ends well."""
    # Siblings are on the same file system, where a rename is atomic. Not mkdtemp: only their owner can read its
    # folders.
    hidden = f".{folder.name[:40]}.{secrets.token_hex(4)}"
    partial, replaced = folder.with_name(f"{hidden}.partial"), folder.with_name(f"{hidden}.replaced")
    try:
        partial.mkdir()
        yield partial
        check_target(folder, force=force)  # it may have been filled meanwhile
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


class OutputFile:
    """A file that is written atomically. The hidden file is created at once, so that errors occur early.

    Pipes and devices are written directly.

    Args:
        path: the target.
        force: replace an existing file.
        append: keep the existing content and add to it.
        name: its name in errors.
        way_out: the advice in the error if it exists.

    Raises:
        UserError: the file exists and neither option is set, or it cannot be written.
    """

    def __init__(
        self,
        path: str,
        *,
        force: bool = False,
        append: bool = False,
        name: str = "output-file",
        way_out: str = "use --force to replace it or --append to add to it",
    ) -> None:
        self.name, self._way_out = name, way_out
        self.path = Path(os.path.realpath(Path(path).expanduser()))
        self._hidden: Path | None = None
        try:
            self.stream = self._prepare(path, force, append)
        except BaseException as error:
            self._clear()
            if isinstance(error, OSError):
                raise UserError(f"cannot write {name} {path}: {error.strerror or error}") from error
            raise

    def _prepare(self, shown: str, force: bool, append: bool) -> IO[str]:
        there = self.path.exists()
        if self.path.is_dir():
            raise UserError(f"{self.name} {shown} is a folder: give the name of a file")
        if not self.path.parent.is_dir():
            raise UserError(f"{self.name} {shown} is in {self.path.parent}, which is not a folder: create it first")
        if there and not stat.S_ISREG(self.path.stat().st_mode):
            return self.path.open("a", encoding="utf-8", newline="\n")
        if there and not (force or append):
            raise UserError(f"{self.name} {shown} exists: {self._way_out}")
        if there and not os.access(self.path, os.W_OK):
            raise UserError(f"cannot write {self.name} {shown}: it is write-protected")
        number, hidden = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent)
        os.close(number)
        self._hidden = Path(hidden)
        # The mode of the existing file, or that of a new one here.
        mask = os.umask(0)
        os.umask(mask)
        self._hidden.chmod(stat.S_IMODE(self.path.stat().st_mode) if there else 0o666 & ~mask)
        if there and append:
            shutil.copyfile(self.path, self._hidden)
        return self._hidden.open("a", encoding="utf-8", newline="\n")

    def _clear(self) -> None:
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(BrokenPipeError):
                self.stream.close()
            if kind is None and self._hidden is not None:
                self._hidden.replace(self.path)
        except OSError as failure:
            raise UserError(f"cannot write {self.name} {self.path}: {failure.strerror or failure}") from failure
        finally:
            self._clear()


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a text file, without the empty ones.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    return [line for line in read_text(path).splitlines() if line.strip()]


def one_line(error: Exception) -> str:
    """The error's reason, without the path that the surrounding message names and without line breaks."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error that is not empty; the name of its type if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON in readable characters, but for those that some programs take for line breaks."""
    return json.dumps(value, ensure_ascii=False, indent=indent).translate(_ESCAPED)
