"""The files that the prompt loop keeps between runs, in the user's state folder (XDG Base Directory Specification).

Each session saves its texts in a file of its own, so two sessions at a time never overwrite each other.
"""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from fundamentallm_hf.files import one_line
from fundamentallm_hf.portable.errors import UserError

# Sessions that are kept at least, and how long the others are.
KEPT, DAYS = 50, 90


def state_folder() -> Path:
    """The folder for files that a program keeps between runs: `$XDG_STATE_HOME/fundamentallm`."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The specification says to ignore a relative path.
    home = Path(state) if Path(state).is_absolute() else Path("~/.local/state").expanduser()
    return home / "fundamentallm"


def sessions() -> list[Path]:
    """The saved sessions, the one that was saved last at the end."""
    saved = []
    for file in (state_folder() / "sessions").glob("*.json"):
        with suppress(OSError):  # another session may just have removed it
            saved.append((file.stat().st_mtime_ns, file))
    return [file for _, file in sorted(saved)]


def last_session() -> Path:
    """The session that was saved last.

    Raises:
        UserError: there is none.
    """
    found = sessions()
    if not found:
        raise UserError(
            f"there is no session to resume in {state_folder() / 'sessions'}: start one without --resume first"
        )
    return found[-1]


class SessionFile:
    """The file of one session. It is readable by its owner alone, and made with the first text."""

    def __init__(self) -> None:
        self.path: Path | None = None

    def save(self, text: str) -> None:
        """Replace the content atomically.

        Raises:
            UserError: it cannot be written.
        """
        folder = state_folder() / "sessions"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, hidden = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)  # readable by its owner alone
            try:
                with os.fdopen(number, "w", encoding="utf-8", newline="\n") as stream:
                    stream.write(text)
                if self.path is None:
                    self.path = _new_name(folder)
                    _remove_old()
                Path(hidden).replace(self.path)
            except BaseException:
                Path(hidden).unlink(missing_ok=True)
                raise
        except (OSError, ValueError) as error:  # the latter is text that UTF-8 cannot hold
            raise UserError(f"the session cannot be saved in {folder}: {one_line(error)}") from error


def _new_name(folder: Path) -> Path:
    """The name of a new session: when it began, and a number if another one began in the same second."""
    began, number = time.strftime("%Y-%m-%d-%H%M%S"), 1
    while True:
        path = folder / (f"{began}.json" if number == 1 else f"{began}-{number}.json")
        with suppress(FileExistsError):
            path.touch(mode=0o600, exist_ok=False)
            return path
        number += 1


def _remove_old() -> None:
    for file in sessions()[:-KEPT]:
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > DAYS * 24 * 3600:
                file.unlink()
