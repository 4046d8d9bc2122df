"""The places where this package meets what huggingface_hub has not promised to keep.

`private_interfaces.py` lists them with the reasons; `tests/hub/test_internals.py` tries each on a server.
"""

import re
from collections.abc import Callable
from typing import Any

from huggingface_hub.errors import BadRequestError
from huggingface_hub.utils import _http

Hook = Callable[[Any], None]


class RequestHook:
    """Lets a function see every request that huggingface_hub sends from now on, whatever makes its client anew.

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
        """Leave everything as it was before; a factory that somebody else has set since stays."""
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
    """The HTTP status that a line of the log tells of."""
    found = re.match(r"HTTP Error (\d+) thrown", line)
    return int(found[1]) if found else None


def tells_of_broken_connection(line: str) -> bool:
    """Whether a line of the log tells of a request that ended in an error without a status."""
    return status_in_log(line) is None and " thrown while requesting " in line


def wait_in_log(line: str) -> float | None:
    """How many seconds huggingface_hub waits before its next try, as a line of its log tells."""
    found = re.match(r"(?:Rate limited\. Waiting|Retrying in) ([\d.]+)s", line)
    return float(found[1]) if found else None


def tells_of_resuming(line: str) -> bool:
    """Whether a line of the log tells that a download goes on from where it stopped."""
    return "Trying to resume download" in line


def says_nothing_new(line: str) -> bool:
    """Whether a line of the log tells what this package says itself, or what an error will say."""
    return "Skipping to prevent empty commit" in line or "Max retries exceeded" in line


def is_wrong_length(error: BaseException) -> bool:
    """Whether an error is that of a file that came with another size than it should have."""
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


def complaints_about_card(error: BaseException) -> list[str] | None:
    """What the Hub says is wrong with the metadata of a card; None where the error is another one."""
    if not isinstance(error, BadRequestError) or not error.response.request.url.path.endswith("/api/validate-yaml"):
        return None
    try:
        return [" ".join(str(each["message"]).split()) for each in error.response.json()["errors"]]
    except (ValueError, KeyError, TypeError):  # it is refused all the same
        return []
