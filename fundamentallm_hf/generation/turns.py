"""Lets computations that cannot be combined take turns: each runs for one step while all others wait."""

import threading
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .batcher import Request


class TurnTaker:
    """A computation in a thread of its own that runs only while it has its turn.

    Args:
        request: its `alone` is called with a function that it calls before every step: that ends the turn, and returns
            when the next one begins.
    """

    def __init__(self, request: "Request") -> None:
        self.request = request
        self._begin, self._ended = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True, name="fundamentallm-turns")
        self._thread.start()

    def take(self) -> bool:
        """Run until the end of the turn. Returns whether the computation has ended."""
        self._begin.release()
        self._ended.acquire()
        return self.request.future.done()

    def _run(self) -> None:
        self._begin.acquire()
        try:
            self.request.finish(self.request.alone(self._pause))
        except BaseException as error:
            self.request.fail(error)
        finally:
            self._ended.release()

    def _pause(self) -> None:
        # Beams draw from torch's generator, which all computations share.
        self.request.set_accepted()
        state = torch.get_rng_state()
        on_device = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._ended.release()
        self._begin.acquire()
        torch.set_rng_state(state)
        if on_device is not None:
            torch.cuda.set_rng_state_all(on_device)
