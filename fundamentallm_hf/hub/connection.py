"""How patient a conversation with the Hub is: how long silence lasts, what is tried again, and what is said of it.

huggingface_hub retries much by itself but has no limit for silence while it sends, says what it does in a log, and
gives up where an answer was lost. This file knows nothing of repositories and files.
"""

import logging
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from huggingface_hub.utils import (
    _http,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    set_client_factory,
)
from huggingface_hub.utils import tqdm as hf_tqdm

from fundamentallm_hf.portable.errors import UserError

from .error_messages import is_passing, redact, seconds_asked, status_of

# Seconds without a byte after which a request counts as lost.
SILENCE = 60.0
TRIES = 3
LONGEST_WAIT = 60.0

Result = TypeVar("Result")
Notice = Callable[[str], None]


def try_again(action: Callable[[], Result], notice: Notice, tries: int = TRIES) -> Result:
    """What an action returns, tried again where the Hub is busy or the connection breaks.

    Args:
        action: may be called more than once.
        notice: is told of every further try.
        tries: how often it is called at most.

    Raises:
        Exception: the action's own, when it is not worth another try or there were enough.
    """
    for attempt in range(1, tries + 1):
        try:
            return action()
        except Exception as error:
            asked = seconds_asked(error)
            wait = 2.0 ** (attempt - 1) if asked is None else asked
            if attempt == tries or wait > LONGEST_WAIT or not is_passing(error):
                raise
            status = status_of(error)
            notice(f"{f'the Hub answers {status}' if status else 'the connection broke'}: trying again in {wait:g} s")
            time.sleep(wait)
    raise AssertionError("tries has to be at least 1")


class Bar(hf_tqdm):
    """A progress bar of huggingface_hub that ends the work behind it when the process is to end.

    Its threads would otherwise finish what they are at, which for a large file may take hours.
    """

    stop = threading.Event()

    def update(self, n: float | None = 1) -> bool | None:
        """Go on, unless it is over."""
        if self.stop.is_set():
            raise Interrupted
        return super().update(n)


class Interrupted(UserError):
    """Ends a thread of a process that is to end."""

    def __init__(self) -> None:
        super().__init__("interrupted: what was fetched or sent so far stays, and the next try goes on from there")


@contextmanager
def conversation(notice: Notice, *, progress: bool = False, silence: float = SILENCE) -> Iterator[None]:
    """Talk to the Hub: no request waits for ever, and what huggingface_hub logs is told in a line, without tokens.

    The limits hold for all that this process does with huggingface_hub meanwhile.

    Args:
        notice: is told what a user should know, such as a wait.
        progress: whether huggingface_hub shows its progress bars.
        silence: seconds without a byte after which a request counts as lost.
    """

    def say(text: str) -> None:
        if not progress:
            notice(text)
            return
        with Bar.external_write_mode(file=sys.stderr):  # or the bars would be drawn over it
            notice(text)

    # There is no public way to ask for the factory in use, and a client that is lost is made anew by it.
    factory = _http._GLOBAL_CLIENT_FACTORY

    def limit(request: Any) -> None:
        if Bar.stop.is_set():
            raise Interrupted
        limits = request.extensions.get("timeout") or dict.fromkeys(("connect", "read", "write", "pool"))
        request.extensions["timeout"] = {
            name: silence if seconds is None else seconds for name, seconds in limits.items()
        }

    def patient() -> Any:
        client = factory()
        # Some requests ask for no limit at all, so the client's own would not do.
        client.event_hooks = client.event_hooks | {"request": [*client.event_hooks["request"], limit]}
        return client

    def tell(message: Warning | str, category: type[Warning], *place: Any, **keywords: Any) -> None:
        if category is UserWarning:  # others are for whoever works on huggingface_hub
            say(_plain(str(message)))

    logger = logging.getLogger("huggingface_hub")
    handlers, propagate, hidden = logger.handlers, logger.propagate, are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = tell
        set_client_factory(patient)
        logger.handlers, logger.propagate = [_ToNotices(say)], False
        (enable_progress_bars if progress else disable_progress_bars)()
        try:
            with _ends_threads():
                yield
        finally:
            (disable_progress_bars if hidden else enable_progress_bars)()
            logger.handlers, logger.propagate = handlers, propagate
            set_client_factory(factory)


@contextmanager
def _ends_threads() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM reach the threads that send and fetch, beside what they do anyway."""
    kept: dict[int, Any] = {}

    def end(number: int, frame: Any) -> None:
        Bar.stop.set()
        kept[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        kept = {number: handler for number, handler in kept.items() if callable(handler)}
    for number in kept:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        Bar.stop.clear()


class _ToNotices(logging.Handler):
    """Turns what huggingface_hub logs into lines for a user."""

    def __init__(self, notice: Notice) -> None:
        super().__init__(logging.WARNING)
        self.notice = notice
        self.reason = "the connection broke"

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if found := re.match(r"HTTP Error (\d+) thrown", text):
            self.reason = f"the Hub answers {found[1]}"
        elif " thrown while requesting " in text:
            self.reason = "the connection broke"
        elif found := re.match(r"(?:Rate limited\. Waiting|Retrying in) ([\d.]+)s", text):
            self.notice(f"{self.reason}: trying again in {float(found[1]):g} s")
        elif "Trying to resume download" in text:
            self.notice("the connection broke: going on from where it stopped")
        elif "Skipping to prevent empty commit" not in text and "Max retries exceeded" not in text:
            self.notice(_plain(text))


def _plain(text: str) -> str:
    return redact(" ".join(text.split()))[:300]
