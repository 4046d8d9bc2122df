"""An output file that a run continues after it was killed: the lines, and next to them a record of the run.

The record (`<output>.run.json`) says which run it is and how much of the file belongs to finished prompts. It is
replaced atomically, after the lines it counts are on the disk. Whatever the file holds beyond that is cut off when the
run continues, so no prompt is there twice, in part, or not at all.
"""

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from fundamentallm_hf.files import local_path
from fundamentallm_hf.portable.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

# Seconds between two records of a run. Killed in between, it generates again what it had generated since.
BETWEEN_COMMITS = 0.5
_VERSION = 1


@dataclass(frozen=True)
class Finished:
    """What is written of one prompt.

    Attributes:
        number: of the prompt.
        lines: one for each text, or one with an error.
        failed: whether it is an error.
        tokens: generated for it.
        digest: of the input up to this prompt, for a stream.
    """

    number: int
    lines: list[str]
    failed: bool = False
    tokens: int = 0
    digest: str = ""

    @property
    def texts(self) -> int:
        """How many texts it has."""
        return 0 if self.failed else len(self.lines)


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        done: prompts from the beginning that are finished.
        ahead: numbers of finished prompts after them, with the digests of the input up to each.
        digest: of the input up to `done`, for a stream.
        texts, errors: texts and failed prompts that were written.
        seed: of a run that was given none.
        complete: whether nothing is left.
    """

    done: int = 0
    ahead: dict[int, str] = field(default_factory=dict)
    digest: str = ""
    texts: int = 0
    errors: int = 0
    seed: int | None = None
    complete: bool = False

    def after(self, finished: Iterable[Finished]) -> "RunState":
        """The state when these prompts are finished, too."""
        done, ahead, digest, texts, errors = self.done, dict(self.ahead), self.digest, self.texts, self.errors
        for each in finished:
            ahead[each.number] = each.digest
            texts, errors = texts + each.texts, errors + each.failed
        while done in ahead:
            digest = ahead.pop(done)
            done += 1
        return replace(self, done=done, ahead=ahead, digest=digest, texts=texts, errors=errors)


class Output(Protocol):
    """Where a run writes its lines."""

    state: RunState

    def begin(self, plan: dict[str, Any], seed: int) -> None:
        """Begin a run, or find where it was."""

    def write(self, finished: Sequence[Finished]) -> None:
        """Write the lines of prompts that are finished."""

    def close(self, complete: bool) -> None:
        """Record how far the run is."""


class StreamOutput:
    """Writes lines where nothing can be continued: on stdout, into a pipe or a device.

    Args:
        write: writes text, at once.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.state, self._write = RunState(), write

    def begin(self, plan: dict[str, Any], seed: int) -> None:
        """Begin a run."""
        self.state = RunState(seed=seed)

    def write(self, finished: Sequence[Finished]) -> None:
        """Write the lines of prompts that are finished, in this order."""
        self._write("".join(f"{line}\n" for each in finished for line in each.lines))
        self.state = self.state.after(finished)

    def close(self, complete: bool) -> None:
        """Nothing is left to do."""


class ResumableFile:
    """A file of lines that the same run continues.

    Args:
        path: the file.
        force: replace a file that holds something else.
        append: add to a file that holds something else.

    Raises:
        UserError: the file is there and holds something else, or nothing can be written there.
    """

    def __init__(self, path: str | os.PathLike[str], *, force: bool = False, append: bool = False) -> None:
        self.shown, self.force, self.append = str(path), force, append
        self.path = Path(os.path.realpath(local_path(path)))
        self.record = self.path.with_name(f"{self.path.name}.run.json")
        self.state = RunState()
        self._descriptor = -1
        self._plan: dict[str, Any] = {}
        self._begun = False
        self._offset = 0
        self._committed = 0.0
        self._check()

    def _check(self) -> None:
        """Refuse what is known to be impossible before the model is loaded."""
        if self.path.is_dir():
            raise UserError(f"output-file {self.shown} is a folder: give the name of a file")
        if not self.path.parent.is_dir():
            raise UserError(f"output-file {self.shown} lies in {self.path.parent}, which is no folder: make it first")
        if not os.access(self.path if self.path.exists() else self.path.parent, os.W_OK):
            raise UserError(f"cannot write output-file {self.shown}: permission denied")
        if self._holds_something() and not (self.force or self.append or self.record.exists()):
            raise UserError(f"output-file {self.shown} exists: use --force to replace it or --append to add to it")

    def _holds_something(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    def begin(self, plan: dict[str, Any], seed: int) -> None:
        """Open the file, and find where the run was or begin it.

        Args:
            plan: everything that the lines depend on, in parts by name; ready for JSON.
            seed: for a run that was given none and begins now.

        Raises:
            UserError: the file belongs to another run, another process writes it, or it cannot be written.
        """
        plan = json.loads(json.dumps(plan))  # as it is read back: tuples are lists
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            self._lock()
            self._plan, size = plan, os.fstat(self._descriptor).st_size
            old = self._recorded() if size else None
            if old is not None and old["plan"] == plan and not (old["state"].complete and self.force):
                if size < old["offset"]:
                    raise UserError(
                        f"output-file {self.shown} is shorter than its run has left it: it was changed, so the run "
                        "cannot continue; begin anew with --force"
                    )
                self.state, self._offset = old["state"], old["offset"]
                if self.state.complete:
                    return
            else:
                self._begin_anew(old, size, seed)
            os.ftruncate(self._descriptor, self._offset)
            os.lseek(self._descriptor, self._offset, os.SEEK_SET)
            self._begun = True
        except OSError as error:
            raise self._unwritable(error) from error

    def _begin_anew(self, old: dict[str, Any] | None, size: int, seed: int) -> None:
        if size and old is not None and not self.force and not (self.append and old["state"].complete):
            changed = ", ".join(_differences(old["plan"], self._plan)) or "nothing"
            unfinished = "" if old["state"].complete else "unfinished "
            raise UserError(
                f"output-file {self.shown} holds the {unfinished}texts of another run (changed: {changed}): run that "
                "one again, use --force to replace it, or give another output-file"
            )
        if size and not (self.force or self.append):
            raise UserError(f"output-file {self.shown} exists: use --force to replace it or --append to add to it")
        self._offset = 0
        if size and not self.force:
            os.lseek(self._descriptor, -1, os.SEEK_END)
            self._offset = size
            if os.read(self._descriptor, 1) != b"\n":
                os.write(self._descriptor, b"\n")
                self._offset += 1
        self.state = RunState(seed=seed)
        # Before the old lines are cut off: killed here, the new run finds that it has written nothing.
        self._commit()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process writes output-file {self.shown}: let it finish, or end it") from None
        except OSError:  # a file system without locks
            pass

    def _recorded(self) -> dict[str, Any] | None:
        """The record of the run that wrote the file; None where there is none."""
        try:
            text = self.record.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            read = json.loads(text)
            state = read["state"]
            state["ahead"] = {int(number): digest for number, digest in state["ahead"].items()}
            return {"plan": dict(read["plan"]), "state": RunState(**state), "offset": int(read["offset"])}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{self.record} is not the record of a run that this version can read: move it away, and begin anew "
                "with --force"
            ) from error

    def write(self, finished: Sequence[Finished]) -> None:
        """Write the lines of prompts that are finished, in this order.

        Raises:
            UserError: they cannot be written.
        """
        data = "".join(f"{line}\n" for each in finished for line in each.lines).encode()
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            self._offset += len(data)
            self.state = self.state.after(finished)
            if time.monotonic() - self._committed >= BETWEEN_COMMITS:
                self._commit()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self, complete: bool) -> None:
        """Record how far the run is, and close the file.

        Args:
            complete: whether every prompt is finished.
        """
        if self._descriptor < 0:
            return
        try:
            if self._begun:
                self.state = replace(self.state, complete=complete)
                self._commit()
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def _commit(self) -> None:
        """Record what is written: the lines first, so that the record never counts what is not there."""
        os.fsync(self._descriptor)
        text = json.dumps(
            {"version": _VERSION, "offset": self._offset, "state": asdict(self.state), "plan": self._plan}, indent=1
        )
        hidden = self.record.with_name(f".{self.record.name}.part")  # one name: only one process writes
        try:
            with hidden.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            hidden.replace(self.record)
        finally:
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
        self._committed = time.monotonic()

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cannot write output-file {self.shown}: {error.strerror or error}")


def is_resumable(path: str | os.PathLike[str]) -> bool:
    """Whether a run can continue at a path: it is a regular file, or nothing yet; not a pipe or a device."""
    try:
        return stat.S_ISREG(local_path(path).stat().st_mode)
    except OSError:
        return True


def _differences(old: dict[str, Any], new: dict[str, Any], within: str = "") -> list[str]:
    """What differs between two plans, by name."""
    found = []
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        label = f"{within}{name}".replace("_", "-")
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, "" if name == "settings" else f"{label} ")
        elif before != after:
            short = all(isinstance(each, int | float | None) or len(str(each)) < 30 for each in (before, after))
            found.append(f"{label} {before!r} to {after!r}" if short else label)
    return found
