"""Connects the processes that `torchrun` or `accelerate launch` has started for one run, on one or several hosts.

The first process reads and writes; all processes generate. They exchange data through the CPU, even if the model is on
a GPU.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from fundamentallm_hf.portable.errors import UserError

# If a process ends, its connection closes at once. A process that computes for days is not a failure.
_PATIENCE = timedelta(days=30)


class Processes:
    """This process and the others of its run. A single process exchanges nothing.

    Attributes:
        rank: index of this process, from 0.
        size: number of processes.
        local_rank: index of this process on its host.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @classmethod
    def of_launcher(cls) -> "Processes":
        """Read the environment variables of the launcher; a single process if there is no launcher."""
        try:
            found = [int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        except (KeyError, ValueError):
            return cls()
        return cls(*found) if found[1] > 1 and "MASTER_ADDR" in os.environ else cls()

    @property
    def leads(self) -> bool:
        """Whether this process reads and writes."""
        return self.rank == 0

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connect the processes within a `with` block."""
        if self.size == 1:
            yield
            return
        from torch import distributed

        with _one_line_errors(self):
            distributed.init_process_group("gloo", rank=self.rank, world_size=self.size, timeout=_PATIENCE)
        try:
            yield
        finally:
            with suppress(RuntimeError):
                distributed.destroy_process_group()

    def broadcast(self, value: Any = None) -> Any:
        """The value of the first process, in every process."""
        if self.size == 1:
            return value
        from torch import distributed

        held = [value]
        with _one_line_errors(self):
            distributed.broadcast_object_list(held, src=0)
        return held[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes by rank, in the first process; an empty list in the others."""
        if self.size == 1:
            return [value]
        from torch import distributed

        found: list[Any] | None = [None] * self.size if self.leads else None
        with _one_line_errors(self):
            distributed.gather_object(value, found, dst=0)
        return found or []


@contextmanager
def _one_line_errors(processes: Processes) -> Iterator[None]:
    """Report a broken connection as an error of one line."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"process {processes.rank} of {processes.size} cannot reach the others: one has ended, and the launcher "
            "reports which; run the same command to continue"
        ) from error
