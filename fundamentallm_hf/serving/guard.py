"""Lets a request in, or answers why not, and counts the answers."""

import asyncio
import hmac
from collections.abc import Collection
from typing import Any

from .metrics import Metrics

# Paths that need no key: whether the server is alive is no secret.
OPEN_PATHS = ("/health",)
CLIENT_LEFT = 499  # as web servers note it; nobody gets it


class Guard:
    """ASGI middleware for the API key, the limit of waiting requests, and the metrics.

    It passes on the pieces of a stream as they are. Starlette's middleware for functions would send each through a
    queue, which takes longer than computing it.

    Args:
        app: the application.
        paths: of the requests that are limited and counted.
        api_key: that requests have to carry; None if they need none.
        most_waiting: requests that may wait.
        metrics: in which answers are counted.
    """

    def __init__(
        self, app: Any, paths: Collection[str], api_key: str | None, most_waiting: int, metrics: Metrics
    ) -> None:
        self.app, self.paths, self.api_key = app, paths, api_key
        self.most_waiting, self.metrics = most_waiting, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the application, or answer 401 or 503."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if not self._has_key(scope):
            line = "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'"
            await error_answer(401, line)(scope, receive, send)
        elif path not in self.paths:
            await self.app(scope, receive, send)
        elif self.metrics.waiting >= self.most_waiting:
            self.metrics.count(path, 503)
            line = f"{self.most_waiting} requests are waiting already: try again later"
            await error_answer(503, line)(scope, receive, send)
        else:
            await self._counted(scope, receive, send)

    def _has_key(self, scope: Any) -> bool:
        if self.api_key is None or scope["path"] in OPEN_PATHS:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ").strip()
        return hmac.compare_digest(given, self.api_key.encode())

    async def _counted(self, scope: Any, receive: Any, send: Any) -> None:
        path, begun = scope["path"], False

        async def answer(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self.metrics.count(path, message["status"])
                if self.metrics.crowded:  # the next connection of this client finds a process that has less to do
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        self.metrics.add_answering(1)
        try:
            await self.app(scope, receive, answer)
        except asyncio.CancelledError:
            if not begun:
                self.metrics.count(path, CLIENT_LEFT)
            raise
        finally:
            self.metrics.add_answering(-1)


def error_answer(status: int, line: str) -> Any:
    """An error in FastAPI's form, and in that of the OpenAI interface, of which its client shows the message."""
    from fastapi.responses import JSONResponse

    return JSONResponse({"detail": line, "error": {"message": line}}, status_code=status)
