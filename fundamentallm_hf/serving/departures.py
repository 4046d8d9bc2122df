"""Ends the computation of a request whose client has left before the answer began.

Starlette ends a stream whose client has left by itself, but an answer as a whole is computed to its end.
"""

import asyncio
from collections.abc import Collection
from typing import Any


class EndsWithClient:
    """An ASGI middleware.

    Args:
        app: the application.
        paths: where it acts.
    """

    def __init__(self, app: Any, paths: Collection[str]) -> None:
        self.app, self.paths = app, paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the application, and cancel the call if the client leaves before it answers."""
        if scope["type"] != "http" or scope["path"] not in self.paths:
            await self.app(scope, receive, send)
            return
        messages: asyncio.Queue = asyncio.Queue()
        answering, gone = asyncio.Event(), {"type": "http.disconnect"}

        async def listen() -> None:
            while (message := await receive()) != gone:
                messages.put_nowait(message)
            messages.put_nowait(gone)

        async def next_message() -> Any:
            message = await messages.get()
            if message == gone:  # it may be asked for again
                messages.put_nowait(gone)
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
