"""Ends requests: when their visitor asks for it, and when they compute for too long."""

import threading


class Stops:
    """The requests that can be stopped, by their tickets.

    A request is registered here when it is made, even while it waits for its turn.
    """

    def __init__(self) -> None:
        self._events: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def open(self, ticket: str) -> None:
        """Register a request; a running one of the same ticket is stopped."""
        with self._lock:
            before = self._events.get(ticket)
            self._events[ticket] = threading.Event()
        if before is not None:
            before.set()

    def stop(self, ticket: str) -> None:
        """Stop the request."""
        event = self._events.get(ticket)
        if event is not None:
            event.set()

    def find(self, ticket: str) -> threading.Event:
        """The event that is set when the request has to end."""
        with self._lock:
            return self._events.setdefault(ticket, threading.Event())

    def close(self, ticket: str, event: threading.Event) -> None:
        """Forget a finished request, unless another one has replaced it."""
        with self._lock:
            if self._events.get(ticket) is event:
                del self._events[ticket]

    def __len__(self) -> int:
        return len(self._events)


class Clock:
    """Stops a request that computes for longer than allowed.

    Args:
        stop: set to end it.
        allowed: how many seconds it may compute.
    """

    def __init__(self, stop: threading.Event, allowed: float) -> None:
        self.stop, self._allowed = stop, allowed

    def look(self, seconds: float) -> None:
        """Stop the request if it has computed for that long and this is too long."""
        if seconds > self._allowed:
            self.stop.set()
