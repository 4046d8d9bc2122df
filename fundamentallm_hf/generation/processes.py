"""The processes that `torchrun` or `accelerate launch` has started for one run, on one host or several.

The first of them reads and writes; all of them generate. What they exchange goes over the CPU, whatever the model runs
on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from fundamentallm_hf.portable.errors import UserError

# A process that ends is noticed at once by its connection; one that computes for days is no failure.
_PATIENCE = timedelta(days=30)


class Processes:
    """This process among those of its run. One alone exchanges nothing.

    Attributes:
        rank: index of this process; the first one has 0.
        size: how many there are.
        local_rank: index of this process on its host.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @classmethod
    def of_launcher(cls) -> "Processes":
        """As the launcher's environment variables say; one process alone where there is no launcher."""
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
        """Connect the processes for a while."""
        if self.size == 1:
            yield
            return
        from torch import distributed

        with _told(self):
            distributed.init_process_group("gloo", rank=self.rank, world_size=self.size, timeout=_PATIENCE)
        try:
            yield
        finally:
            with suppress(RuntimeError):
                distributed.destroy_process_group()

    def broadcast(self, value: Any = None) -> Any:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        from torch import distributed

        held = [value]
        with _told(self):
            distributed.broadcast_object_list(held, src=0)
        return held[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the first one; nothing in the others."""
        if self.size == 1:
            return [value]
        from torch import distributed

        found: list[Any] | None = [None] * self.size if self.leads else None
        with _told(self):
            distributed.gather_object(value, found, dst=0)
        return found or []


@contextmanager
def _told(processes: Processes) -> Iterator[None]:
    """Say in one line that the others cannot be reached."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"process {processes.rank} of {processes.size} cannot reach the others: one has ended, and the launcher "
            "says which; the same command continues the run"
        ) from error
