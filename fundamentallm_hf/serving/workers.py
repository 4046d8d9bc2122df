"""`fundamentallm serve --workers`: several processes behind one address.

uvicorn's supervisor starts them, replaces those that die, and ends them. They accept connections from the same
sockets. This process loads neither torch nor a model.
"""

import errno
import logging
import os
import socket
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import click
import uvicorn
from uvicorn.supervisors import Multiprocess

from fundamentallm_hf.portable.errors import UsageError, UserError

from .server_limits import ServerLimits
from .shared_counts import SharedCounts
from .worker import Worker

# Connections that wait to be accepted, and the seconds after which a worker that gives no sign of life is replaced: on
# a busy machine one that imports or compiles may be silent for long.
_BACKLOG, _SILENCE = 2048, 60


def run_workers(number: int, options: tuple[str, ...], limits: ServerLimits, api_key: str | None) -> None:
    """Serve until a signal ends it.

    Args:
        number: of processes.
        options: of `transformers serve`.
        limits, api_key: as in `server.prepare`.

    Raises:
        UsageError: the options are wrong.
        UserError: the address is not to be had, or a worker cannot start.
    """
    found = _checked_address(options)
    if found is None:
        return
    sockets = listen(*found)
    os.environ.setdefault("OMP_NUM_THREADS", str(thread_share(number)))
    counts = SharedCounts(number)
    config = uvicorn.Config(
        Worker(options, limits, api_key, counts),  # a factory of applications
        factory=True,
        workers=number,
        log_level="info",
        backlog=_BACKLOG,
        timeout_worker_healthcheck=_SILENCE,
    )
    supervisor = Supervisor(config, sockets, counts, f"http://{found[0]}:{sockets[0].getsockname()[1]}")
    supervisor.run()
    if supervisor.failure:
        raise UserError(supervisor.failure)


def _checked_address(options: tuple[str, ...]) -> tuple[str, int] | None:
    """Like `read_address`, in a process of its own: transformers' options cannot be read without importing torch."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send_address, args=(options, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        process.join()
        raise UserError(f"the process that reads the options has died (exit code {process.exitcode})") from None
    process.join()
    if isinstance(found, Exception):
        raise found
    return found


def _send_address(options: tuple[str, ...], to: Connection) -> None:
    try:
        to.send(read_address(options))
    except UsageError as error:
        to.send(error)


def read_address(options: tuple[str, ...]) -> tuple[str, int] | None:
    """The host and port among the options of `transformers serve`; None if they ask for help, which is then shown.

    Raises:
        UsageError: they are wrong.
    """
    from transformers.cli.transformers import app as commands

    try:
        values = commands.commands["serve"].make_context("serve", list(options)).params
    except click.exceptions.Exit:
        return None
    except click.ClickException as error:
        raise UsageError(error.format_message()) from None
    return values["host"], values["port"]


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of a host.

    Raises:
        UserError: the host is unknown, or the port in use.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in sorted({(each[0], each[4][0]) for each in found}):
            try:
                sockets.append(socket.create_server((str(address), port), family=family, backlog=_BACKLOG))
            except OSError as error:  # a name may have an address of IPv6 on a machine without it
                if not sockets or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
            port = sockets[0].getsockname()[1]  # where any will do, the same for all
    except OSError as error:
        for each in sockets:
            each.close()
        line = f"cannot listen at {host}, port {port}: {error.strerror or error}. Choose others with --host and --port"
        raise UserError(line) from error
    return sockets


def thread_share(processes: int) -> int:
    """How many threads each of so many processes has for itself."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)


class Supervisor(Multiprocess):
    """uvicorn's, which also assigns rows of counts, and gives up where a worker cannot start.

    Args:
        config: with the number of workers.
        sockets: that they accept connections from.
        counts: with a row for each.
        address: to show.

    Attributes:
        failure: why it has ended; empty after a signal.
    """

    # A terminal that is closed ends the server, as it ends one without workers. Their number is that of the option.
    handle_hup = Multiprocess.handle_term

    def __init__(self, config: Any, sockets: list[socket.socket], counts: SharedCounts, address: str) -> None:
        super().__init__(config, sockets)
        self.counts, self.address, self.failure, self._ready = counts, address, "", False
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of this process, which reports by itself

    def init_processes(self) -> None:
        """Start all workers."""
        super().init_processes()
        self._assign()

    def keep_subprocess_alive(self) -> None:
        """Replace those that have died."""
        super().keep_subprocess_alive()
        self._assign()
        if not self._ready and all(row.ready for row in self.counts.rows):
            self._ready = True
            click.echo(f"{self.processes_num} workers answer at {self.address} (Ctrl-C ends them)", err=True)

    def terminate_all(self) -> None:
        """End all workers. Who connects meanwhile is refused, and does not wait for nobody."""
        for each in self.sockets:
            each.close()
        super().terminate_all()

    def handle_ttin(self) -> None:
        """Nothing."""

    def handle_ttou(self) -> None:
        """Nothing."""

    def _assign(self) -> None:
        for process in self.processes:
            process.child_conn.close()  # so that the end of a worker is seen while it is asked for a sign of life
        for gone, was_ready in self.counts.assign({each.pid for each in self.processes if each.pid is not None}):
            if was_ready:
                click.echo(f"worker {gone} has died and is replaced", err=True)
            elif not self.signal_queue:  # Ctrl-C reaches the workers, too
                self.failure = self.counts.reason or f"worker {gone} has died before it was ready"
                self.should_exit.set()
        if self.should_exit.is_set() and not self.failure:
            self.failure = self.counts.reason
