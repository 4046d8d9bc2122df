"""Requests to the Hub: time limits, retries, and the notes that report them.

huggingface_hub retries many requests itself, but has no limit for silence while it sends, reports its actions only in a
log, and gives up when a response is lost.
"""

import logging
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub.utils import tqdm as hf_tqdm

from fundamentallm_hf.portable.errors import UserError

from .error_messages import is_passing, redact, seconds_asked, status_of
from .internals import (
    RequestHook,
    says_nothing_new,
    status_in_log,
    tells_of_broken_connection,
    tells_of_resuming,
    wait_in_log,
)

# Seconds without a byte after which a request counts as lost.
SILENCE = 60.0
TRIES = 3
LONGEST_WAIT = 60.0
BROKEN = "the connection broke"

Result = TypeVar("Result")
Notice = Callable[[str], None]


def try_again(action: Callable[[], Result], notice: Notice, tries: int = TRIES) -> Result:
    """The result of an action, which is retried where the Hub is busy or the connection breaks.

    Args:
        action: may be called more than once.
        notice: called before every further try.
        tries: maximum number of calls.

    Raises:
        Exception: the action's exception, if a retry cannot help or there were enough.
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
            notice(f"{f'the Hub answers {status}' if status else BROKEN}: trying again in {wait:g} s")
            time.sleep(wait)
    raise AssertionError("tries has to be at least 1")


class Bar(hf_tqdm):
    """A progress bar of huggingface_hub that interrupts its work when the process is to end.

    Its threads would otherwise finish their current work, which for a large file may take hours.
    """

    stop = threading.Event()

    def update(self, n: float | None = 1) -> bool | None:
        """Continue, unless the process is to end."""
        if self.stop.is_set():
            raise Interrupted
        return super().update(n)


class Interrupted(UserError):
    """Ends a thread of a process that is to end."""

    def __init__(self) -> None:
        super().__init__("interrupted: what was fetched or sent so far stays, and the next try goes on from there")


@dataclass(eq=False)
class _Talk:
    """One conversation with the Hub, from start to end."""

    notice: Notice
    progress: bool
    silence: float

    def say(self, text: str) -> None:
        """Show a line to the user of this conversation."""
        if not self.progress:
            self.notice(text)
            return
        with Bar.external_write_mode(file=sys.stderr):  # or the bars would be drawn over it
            self.notice(text)


# The conversation of the current thread. Threads that huggingface_hub starts belong to none.
_current: ContextVar[_Talk | None] = ContextVar("conversation", default=None)


@contextmanager
def conversation(notice: Notice, *, progress: bool = False, silence: float = SILENCE) -> Iterator[None]:
    """Limit the time of requests to the Hub, and report messages of huggingface_hub in one line, without tokens.

    Several threads may do so at once. Each receives the notes about its own requests; messages that huggingface_hub
    logs in threads it has started, which do not name a conversation, go to all. The limits apply to everything that
    this process does with huggingface_hub meanwhile. When the last conversation ends, the process is as it was before
    the first.

    Args:
        notice: called with lines for the user, such as a wait.
        progress: whether huggingface_hub shows its progress bars; while one conversation wants them, all have them.
        silence: seconds without a byte after which a request counts as lost.
    """
    talk = _Talk(notice, progress, silence)
    _process.enter(talk)
    token = _current.set(talk)
    try:
        with _ends_threads():
            yield
    finally:
        _current.reset(token)
        _process.leave(talk)


class _Process:
    """The process-wide changes of conversations: the first to start makes them, the last to end restores them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.talks: list[_Talk] = []
        self.restore = ExitStack()

    def enter(self, talk: _Talk) -> None:
        with self.lock:
            if not self.talks:
                with ExitStack() as changes:
                    self._change(changes)
                    self.restore = changes.pop_all()
            self.talks.append(talk)
            self._show_bars()

    def leave(self, talk: _Talk) -> None:
        with self.lock:
            self.talks.remove(talk)
            if self.talks:
                self._show_bars()
                return
            Bar.stop.clear()
            self.restore.close()

    def talks_of_thread(self) -> list[_Talk]:
        """The conversation of the current thread; all of them for a thread that huggingface_hub has started."""
        talk = _current.get()
        return [talk] if talk is not None else list(self.talks)

    def _change(self, changes: ExitStack) -> None:
        changes.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = partial(self._tell, warnings.showwarning)
        logger = logging.getLogger("huggingface_hub")
        changes.callback(_set_logger, logger, logger.handlers, logger.propagate)
        _set_logger(logger, [_ToNotices()], False)
        changes.callback(RequestHook(self._limit).remove)
        # Restored first: warnings of huggingface_hub during the restoration still belong to a conversation.
        changes.callback(disable_progress_bars if are_progress_bars_disabled() else enable_progress_bars)

    def _show_bars(self) -> None:
        (enable_progress_bars if any(talk.progress for talk in self.talks) else disable_progress_bars)()

    def _limit(self, request: Any) -> None:
        if Bar.stop.is_set():
            raise Interrupted
        # Some requests ask for no limit at all, so a default of the client is not enough.
        silence = max((talk.silence for talk in self.talks_of_thread()), default=SILENCE)
        limits = request.extensions.get("timeout") or dict.fromkeys(("connect", "read", "write", "pool"))
        request.extensions["timeout"] = {
            name: silence if seconds is None else seconds for name, seconds in limits.items()
        }

    def _tell(
        self, shown: Callable[..., None], message: Warning | str, category: type[Warning], file: str, *others: Any
    ) -> None:
        """Pass a warning on: those for users to them, those of other code in the usual way."""
        if _current.get() is None and not Path(file).is_relative_to(_HUGGINGFACE_HUB):
            shown(message, category, file, *others)
        elif category is UserWarning:  # others are for developers of huggingface_hub
            for talk in self.talks_of_thread():
                talk.say(_plain(str(message)))


def _set_logger(logger: logging.Logger, handlers: list[logging.Handler], propagate: bool) -> None:
    logger.handlers, logger.propagate = handlers, propagate


_HUGGINGFACE_HUB = Path(huggingface_hub.__file__).parent
_process = _Process()


@contextmanager
def _ends_threads() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM reach the threads that send and download, in addition to their usual effect."""
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


class _ToNotices(logging.Handler):
    """Turns log messages of huggingface_hub into lines for users."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        # The reason for a wait is in the preceding line of the same thread.
        self.last = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if status := status_in_log(text):
            self.last.reason = f"the Hub answers {status}"
        elif tells_of_broken_connection(text):
            self.last.reason = BROKEN
        elif (wait := wait_in_log(text)) is not None:
            self._say(f"{getattr(self.last, 'reason', BROKEN)}: trying again in {wait:g} s")
        elif tells_of_resuming(text):
            self._say(f"{BROKEN}: going on from where it stopped")
        elif not says_nothing_new(text):
            self._say(_plain(text))

    def _say(self, text: str) -> None:
        for talk in _process.talks_of_thread():
            talk.say(text)


def _plain(text: str) -> str:
    return redact(" ".join(text.split()))[:300]
