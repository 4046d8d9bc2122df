"""Ends the computation of a request whose client has left before the answer began.

Starlette itself ends a stream whose client has left, but it computes an answer without a stream to its end.
"""

import asyncio
from collections.abc import Collection
from typing import Any


class EndsWithClient:
    """ASGI middleware that cancels the calls of clients that have left.

    Args:
        app: the application.
        paths: of the requests that it watches.
    """

    def __init__(self, app: Any, paths: Collection[str]) -> None:
        self.app, self.paths = app, paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the application, and cancel the call if the client leaves before it answers."""
        if scope["type"] != "http" or scope["path"] not in self.paths:
            await self.app(scope, receive, send)
            return
        messages: asyncio.Queue = asyncio.Queue()
        answering = asyncio.Event()

        async def listen() -> None:
            while not _has_left(message := await receive()):
                messages.put_nowait(message)
            messages.put_nowait(message)

        async def next_message() -> Any:
            message = await messages.get()
            if _has_left(message):  # it may be asked for again
                messages.put_nowait(message)
            return message

        async def answer(message: Any) -> None:
            answering.set()
            await send(message)

        listener = asyncio.ensure_future(listen())
        call = asyncio.ensure_future(self.app(scope, next_message, answer))
        try:
            await asyncio.wait({listener, call}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.is_set() and not call.done():
                call.cancel()
                await asyncio.wait({call})
            else:
                await call
        finally:
            listener.cancel()
            call.cancel()


def _has_left(message: Any) -> bool:
    return message["type"] == "http.disconnect"
