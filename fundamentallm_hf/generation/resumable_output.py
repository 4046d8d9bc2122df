"""An output file that a run can continue after it was killed, and the record of the run next to it.

The record (`<output>.run.json`) identifies the run, and states how much of the file belongs to finished prompts. It is
replaced atomically, after the lines it counts are on the disk. A run that continues cuts off the rest of the file, so
each prompt is in the output exactly once.
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

# Seconds between two updates of the record. A killed run generates again what it has generated since the last one.
BETWEEN_COMMITS = 0.5
_VERSION = 1


@dataclass(frozen=True)
class Finished:
    """The result for one prompt.

    Attributes:
        number: index of the prompt.
        lines: one per text, or a single one with an error.
        failed: whether there is an error.
        tokens: number of generated tokens.
        digest: of the input up to this prompt, for a stream.
    """

    number: int
    lines: list[str]
    failed: bool = False
    tokens: int = 0
    digest: str = ""

    @property
    def texts(self) -> int:
        """Number of texts."""
        return 0 if self.failed else len(self.lines)


@dataclass(frozen=True)
class RunState:
    """The progress of a run.

    Attributes:
        done: number of finished prompts at the start of the input.
        ahead: numbers of finished prompts after those, each with the digest of the input up to it.
        digest: of the input up to the last of the first `done` prompts, for a stream.
        texts, errors: number of texts and of failed prompts in the output.
        seed: drawn for a run without a seed.
        complete: whether all prompts are finished.
    """

    done: int = 0
    ahead: dict[int, str] = field(default_factory=dict)
    digest: str = ""
    texts: int = 0
    errors: int = 0
    seed: int | None = None
    complete: bool = False

    def after(self, finished: Iterable[Finished]) -> "RunState":
        """The state after these prompts are finished as well."""
        done, ahead, digest, texts, errors = self.done, dict(self.ahead), self.digest, self.texts, self.errors
        for each in finished:
            ahead[each.number] = each.digest
            texts, errors = texts + each.texts, errors + each.failed
        while done in ahead:
            digest = ahead.pop(done)
            done += 1
        return replace(self, done=done, ahead=ahead, digest=digest, texts=texts, errors=errors)


class Output(Protocol):
    """Where a run writes its records."""

    state: RunState

    def begin(self, plan: dict[str, Any], seed: int) -> None:
        """Start a run, or continue it."""

    def write(self, finished: Sequence[Finished]) -> None:
        """Write the lines of finished prompts."""

    def close(self, complete: bool) -> None:
        """End the run."""


class StreamOutput:
    """Writes to stdout, a pipe or a device, where no run can be continued.

    Args:
        write: writes text without buffering.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.state, self._write = RunState(), write

    def begin(self, plan: dict[str, Any], seed: int) -> None:
        """Start a run."""
        self.state = RunState(seed=seed)

    def write(self, finished: Sequence[Finished]) -> None:
        """Write the lines of finished prompts in the given order."""
        self._write("".join(f"{line}\n" for each in finished for line in each.lines))
        self.state = self.state.after(finished)

    def close(self, complete: bool) -> None:
        """Do nothing: all lines are written."""


class ResumableFile:
    """A file of lines that the same run continues.

    Args:
        path: the file.
        force: replace a file with other content.
        append: add to a file with other content.

    Raises:
        UserError: the file exists with other content, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, force: bool = False, append: bool = False) -> None:
        self.shown, self.force, self.append = str(path), force, append
        self.path = Path(os.path.realpath(local_path(path)))
        self.record = self.path.with_name(f"{self.path.name}.run.json")
        self.state = RunState()
        self._descriptor = -1
        self._plan: dict[str, Any] = {}
        self._started = False
        self._offset = 0
        self._committed = 0.0
        self._check()

    def _check(self) -> None:
        """Check the path, before the model is loaded."""
        if self.path.is_dir():
            raise UserError(f"output-file {self.shown} is a folder: give the name of a file")
        if not self.path.parent.is_dir():
            raise UserError(
                f"output-file {self.shown} is in {self.path.parent}, which is not a folder: create it first"
            )
        if not os.access(self.path if self.path.exists() else self.path.parent, os.W_OK):
            raise UserError(f"cannot write output-file {self.shown}: permission denied")
        if self._has_content() and not (self.force or self.append or self.record.exists()):
            raise UserError(f"output-file {self.shown} exists: use --force to replace it or --append to add to it")

    def _has_content(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    def begin(self, plan: dict[str, Any], seed: int) -> None:
        """Open the file, and continue its run or start a new one.

        Args:
            plan: everything that the lines depend on, by name; serializable as JSON.
            seed: recorded if a new run starts.

        Raises:
            UserError: the file belongs to another run, another process is writing it, or it cannot be written.
        """
        plan = json.loads(json.dumps(plan))  # as it will be read: with lists in place of tuples
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            self._lock()
            self._plan, size = plan, os.fstat(self._descriptor).st_size
            old = self._recorded() if size else None
            if old is not None and old["plan"] == plan and not (old["state"].complete and self.force):
                if size < old["offset"]:
                    raise UserError(
                        f"output-file {self.shown} is shorter than recorded: it was changed, so the run cannot "
                        "continue; start again with --force"
                    )
                self.state, self._offset = old["state"], old["offset"]
                if self.state.complete:
                    return
            else:
                self._start_again(old, size, seed)
            os.ftruncate(self._descriptor, self._offset)
            os.lseek(self._descriptor, self._offset, os.SEEK_SET)
            self._started = True
        except OSError as error:
            raise self._unwritable(error) from error

    def _start_again(self, old: dict[str, Any] | None, size: int, seed: int) -> None:
        if size and old is not None and not self.force and not (self.append and old["state"].complete):
            changed = ", ".join(_differences(old["plan"], self._plan)) or "nothing"
            unfinished = "" if old["state"].complete else "unfinished "
            raise UserError(
                f"output-file {self.shown} contains the {unfinished}texts of another run (changed: {changed}): repeat "
                "its command, use --force to replace the file, or give another output-file"
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
        # Before the old lines are cut off: if killed here, the new run continues from its start.
        self._commit()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is writing output-file {self.shown}: wait for it, or end it") from None
        except OSError:  # a file system without locks
            pass

    def _recorded(self) -> dict[str, Any] | None:
        """The record of the run that wrote the file; None if there is no record."""
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
                f"{self.record} cannot be read as the record of a run: move it away, and start again with --force"
            ) from error

    def write(self, finished: Sequence[Finished]) -> None:
        """Write the lines of finished prompts in the given order.

        Raises:
            UserError: the file cannot be written.
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
        """Update the record, and close the file.

        Args:
            complete: whether all prompts are finished.
        """
        if self._descriptor < 0:
            return
        try:
            if self._started:
                self.state = replace(self.state, complete=complete)
                self._commit()
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def _commit(self) -> None:
        """Update the record; first flush the lines to the disk, so that the record never counts missing ones."""
        os.fsync(self._descriptor)
        text = json.dumps(
            {"version": _VERSION, "offset": self._offset, "state": asdict(self.state), "plan": self._plan}, indent=1
        )
        # A fixed name will do: the lock lets only one process write.
        hidden = self.record.with_name(f".{self.record.name}.part")
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
    """Whether a run can be continued at a path: a regular file or a new one, not a pipe or a device."""
    try:
        return stat.S_ISREG(local_path(path).stat().st_mode)
    except OSError:
        return True


def _differences(old: dict[str, Any], new: dict[str, Any], within: str = "") -> list[str]:
    """The names of the parts in which two plans differ, with values if they are short."""
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
