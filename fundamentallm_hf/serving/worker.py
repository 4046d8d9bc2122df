"""One of several processes of a server: makes its application.

The process that starts the workers imports this module, too, so torch and transformers are imported later.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import Any

from fundamentallm_hf.files import first_line
from fundamentallm_hf.portable.errors import UserError

from .server_limits import ServerLimits
from .shared_counts import SharedCounts


@dataclass(frozen=True)
class Worker:
    """Makes the application in a new process. uvicorn hands it over and calls it there.

    Args:
        options: of `transformers serve`.
        limits, api_key: as in `server.prepare`.
        counts: of all workers.
    """

    options: tuple[str, ...]
    limits: ServerLimits
    api_key: str | None
    counts: SharedCounts

    def __call__(self) -> Any:
        """The application. A failure ends the process, and its reason is left in the row of the process."""
        from uvicorn.config import STARTUP_FAILURE

        threading.Thread(target=_end_with_parent, daemon=True).start()
        row = self.counts.own()
        try:
            application = self._application(row)
        except Exception as error:
            if os.environ.get("FUNDAMENTALLM_TRACEBACK"):
                traceback.print_exc()
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            row.reason = f"{kind}{first_line(error)}"[:500].encode()
            sys.exit(STARTUP_FAILURE)
        row.ready = 1
        return application

    def _application(self, row: Any) -> Any:
        from tqdm import tqdm  # type: ignore[import-untyped]
        from transformers.cli.serve import Serve
        from transformers.cli.transformers import app as commands

        from fundamentallm_hf.model_io import registration as registration

        from .metrics import Metrics
        from .server import prepare

        # Its own lock is a semaphore, which a process that a signal ends would leave behind.
        tqdm.set_lock(threading.RLock())
        metrics = Metrics(self.counts, row)
        prepare(self.limits, self.api_key, metrics)
        metrics.keep_published()
        Serve.start_server = lambda serve: None  # that is done by whoever called
        command = commands.commands["serve"]
        with command.make_context("serve", [*self.options, "--non-blocking"]) as context:
            return command.invoke(context).server.config.app


def _end_with_parent() -> None:
    """Wait until the process that started this one has ended, however it did, and end this one as it would have."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
