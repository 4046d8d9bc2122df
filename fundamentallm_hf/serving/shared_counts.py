"""What the processes of a server count, in memory that all of them see.

Every worker has a row. It alone writes to it, and everybody may read it, so there are no locks, and a worker that is
killed leaves nothing locked. The process that started the workers assigns the rows. What a worker has counted stays in
its row when it dies, and its successor counts on from there.
"""

import ctypes
import os
import time
from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any

# Of the requests that are limited and counted.
TEXT_PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/responses")
# Of HTTP, from 100.
_FIRST_STATUS, _STATUSES = 100, 500


class Row(ctypes.Structure):
    """What one process counts.

    Attributes:
        process: id of the process; 0 if there is none.
        ready: whether it answers requests.
        reason: why it could not start, UTF-8; empty if it could.
        answering: HTTP requests now, until they are answered to the end.
        running, waiting: texts now, of which a request may have several.
        tokens, failed, passes, texts: see the page of metrics.
    """

    _fields_ = [
        ("process", ctypes.c_int64),
        ("ready", ctypes.c_int64),
        ("reason", ctypes.c_char * 2000),
        ("answering", ctypes.c_int64),
        ("running", ctypes.c_int64),
        ("waiting", ctypes.c_int64),
        ("tokens", ctypes.c_int64),
        ("failed", ctypes.c_int64),
        ("passes", ctypes.c_int64),
        ("texts", ctypes.c_int64),
        ("answers", ctypes.c_int64 * _STATUSES * len(TEXT_PATHS)),
    ]

    def count(self, path: str, status: int) -> None:
        """Count a request that was answered."""
        self.answers[TEXT_PATHS.index(path)][status - _FIRST_STATUS] += 1


class SharedCounts:
    """The rows of all processes of a server. It may be handed to a process that is being started, and only then.

    Args:
        processes: their number.
    """

    def __init__(self, processes: int = 1) -> None:
        self.rows: Any = get_context("spawn").RawArray(Row, processes)

    def total(self, name: str) -> int:
        """The sum of an attribute over all processes."""
        return sum(getattr(row, name) for row in self.rows)

    def answers(self) -> Iterator[tuple[str, int, int]]:
        """(path, status, number) of all that were answered, sorted."""
        for path, *columns in sorted(zip(TEXT_PATHS, *(row.answers for row in self.rows), strict=True)):
            for status, numbers in enumerate(zip(*columns, strict=True), _FIRST_STATUS):
                if any(numbers):
                    yield path, status, sum(numbers)

    def assign(self, processes: set[int]) -> list[tuple[int, bool]]:
        """Give each process a row. Called by the process that started them, and by no other.

        Args:
            processes: ids of those that live, at most as many as there are rows.

        Returns:
            the id of each that had a row and is gone, and whether it had answered requests.
        """
        gone = []
        for row in self.rows:
            if row.process and row.process not in processes:
                gone.append((row.process, bool(row.ready)))
                row.process = row.ready = row.answering = row.running = row.waiting = 0
        free = [row for row in self.rows if not row.process]
        for row, process in zip(free, processes - {row.process for row in self.rows}, strict=False):
            row.process = process
        return gone

    def own(self, seconds: float = 60) -> Row:
        """The row of this process, once it has one.

        Raises:
            RuntimeError: it gets none in this time.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for row in self.rows:
                if row.process == os.getpid():
                    return row
            time.sleep(0.01)
        raise RuntimeError("the process that starts the workers has assigned no row to this one")

    @property
    def reason(self) -> str:
        """Why a process could not start; empty if all could."""
        return next((row.reason.decode(errors="ignore") for row in self.rows if row.reason), "")
