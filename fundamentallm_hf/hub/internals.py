"""All uses of huggingface_hub that its public interface does not cover.

`private_interfaces.py` lists them with the reasons; `tests/hub/test_internals.py` tests each against a server.
"""

import re
from collections.abc import Callable
from typing import Any

from huggingface_hub.errors import BadRequestError
from huggingface_hub.utils import _http

Hook = Callable[[Any], None]


class RequestHook:
    """Calls a function for every request of huggingface_hub from now on, even if other code replaces its client.

    Clients stay open: others may use them.
    """

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        with _http._CLIENT_LOCK:
            self._before = _http._GLOBAL_CLIENT_FACTORY
            _http._GLOBAL_CLIENT_FACTORY = self._make
            if _http._GLOBAL_CLIENT is not None:
                self._add(_http._GLOBAL_CLIENT)

    def remove(self) -> None:
        """Restore the previous state; a factory that other code has set since stays."""
        with _http._CLIENT_LOCK:
            # Two bound methods are equal, but never identical.
            if self._make == _http._GLOBAL_CLIENT_FACTORY:
                _http._GLOBAL_CLIENT_FACTORY = self._before
            client = _http._GLOBAL_CLIENT
            if client is not None:
                hooks = [each for each in client.event_hooks["request"] if each is not self.hook]
                client.event_hooks = client.event_hooks | {"request": hooks}

    def _make(self) -> Any:
        client = self._before()
        self._add(client)
        return client

    def _add(self, client: Any) -> None:
        client.event_hooks = client.event_hooks | {"request": [*client.event_hooks["request"], self.hook]}


def status_in_log(line: str) -> int | None:
    """The HTTP status in a line of the log."""
    found = re.match(r"HTTP Error (\d+) thrown", line)
    return int(found[1]) if found else None


def tells_of_broken_connection(line: str) -> bool:
    """Whether a line of the log reports a request that failed without a status."""
    return status_in_log(line) is None and " thrown while requesting " in line


def wait_in_log(line: str) -> float | None:
    """The seconds that huggingface_hub waits before its next try, from a line of its log."""
    found = re.match(r"(?:Rate limited\. Waiting|Retrying in) ([\d.]+)s", line)
    return float(found[1]) if found else None


def tells_of_resuming(line: str) -> bool:
    """Whether a line of the log reports that a download continues where it stopped."""
    return "Trying to resume download" in line


def says_nothing_new(line: str) -> bool:
    """Whether a line of the log repeats a message of this package, or of an error to come."""
    return "Skipping to prevent empty commit" in line or "Max retries exceeded" in line


def is_wrong_length(error: BaseException) -> bool:
    """Whether an error reports a file of the wrong size."""
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


def complaints_about_card(error: BaseException) -> list[str] | None:
    """The Hub's complaints about the metadata of a card; None where the error is another one."""
    if not isinstance(error, BadRequestError) or not error.response.request.url.path.endswith("/api/validate-yaml"):
        return None
    try:
        return [" ".join(str(each["message"]).split()) for each in error.response.json()["errors"]]
    except (ValueError, KeyError, TypeError):  # it is refused all the same
        return []
