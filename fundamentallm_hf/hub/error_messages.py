"""The errors of the Hub, in one line each that says what to do, and without tokens.

`connection.py` handles time limits and retries.
"""

import errno
import os
import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, parse_ratelimit_headers

from fundamentallm_hf.portable.errors import UserError

from .internals import complaints_about_card, is_wrong_length

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{10,}|\b((?i:Bearer|Basic)) +[^\s'\",]+")
_URL = re.compile(r"(?P<scheme>https?://)(?:[^\s/@'\"]*@)?(?P<rest>[^\s?'\"]*)(?:\?[^\s'\"]*)?")
_BUSY = (408, 429, 500, 502, 503, 504)


def redact(text: str) -> str:
    """A text without tokens: those of this machine, anything that looks like one, and credentials or queries in URLs.

    Example:

    ```python
    >>> from fundamentallm_hf.hub.error_messages import redact
    >>> redact("GET https://me:secret@host/file?sig=123 with Bearer hf_abcdefghijkl")
    'GET https://host/file with Bearer ...'

    ```
    """
    for token in tokens():
        text = text.replace(token, "...")
    text = _URL.sub(r"\g<scheme>\g<rest>", text)
    return _TOKEN.sub(lambda found: f"{found[1]} ..." if found[1] else "hf_...", text)


def tokens() -> list[str]:
    """The tokens that this process could use, longest first."""
    found = {os.environ.get(name, "").strip() for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")}
    for file in (constants.HF_TOKEN_PATH, constants.HF_STORED_TOKENS_PATH):
        try:
            with open(file, encoding="utf-8") as opened:  # noqa: PTH123 - huggingface_hub's paths are texts
                lines = [line.strip() for line in opened if not line.startswith("[")]
        except (OSError, UnicodeDecodeError):
            continue
        found.update((line.partition("=")[2] or line).strip() for line in lines)
    return sorted((token for token in found if len(token) >= 8), key=len, reverse=True)


def is_passing(error: BaseException) -> bool:
    """Whether a retry may help: the Hub is busy, or the connection broke."""
    lasting = (UserError, httpx.LocalProtocolError, httpx.UnsupportedProtocol)
    return not isinstance(error, lasting) and any(
        isinstance(cause, httpx.TransportError) or (status_of(cause) in _BUSY) or is_wrong_length(cause)
        for cause in causes(error)
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, the last first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error, if it has one."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def told_by(error: BaseException) -> str:
    """The server's message in an error, in one line; "" where it gave none."""
    message = error.server_message if isinstance(error, HfHubHTTPError) else None
    return " ".join((message or "").split()).rstrip(".")[:200]


def seconds_asked(error: BaseException) -> float | None:
    """The wait that the Hub requests before the next try (RFC 9110, section 10.2.3); None where it gives none."""
    for cause in causes(error):
        if not isinstance(cause, HfHubHTTPError):
            continue
        limit = parse_ratelimit_headers(cause.response.headers)
        if limit is not None and limit.remaining == 0:
            return float(limit.reset_in_seconds)
        told = cause.response.headers.get("Retry-After", "").strip()
        if told.isdigit():
            return float(told)
    return None


class HubError(UserError):
    """An error of the Hub or on the way to it, in one line without tokens.

    Attributes:
        about: the subject of the line, such as a repository and its revision; "" where the line starts differently.
        reason: the fault, such as "is out of reach", without its cause and its solution.
    """

    def __init__(self, about: str, reason: str, details: str = "") -> None:
        self.about, self.reason = about, redact(reason)
        super().__init__(redact(f"{about} {reason}{details}".lstrip()))


class ChangedError(HubError):
    """Somebody else has changed the repository since it was read, so nothing was overwritten."""

    def __init__(self, about: str, told: str = "") -> None:
        super().__init__(about, "was changed by somebody else meanwhile", f"{f' ({told})' if told else ''}: try again")


def hub_error(about: str, error: Exception) -> UserError:
    """Turn an error of the Hub or on the way to it into one readable line.

    Args:
        about: the repository with its revision, or the Hub's host.
        error: the exception of huggingface_hub.
    """
    found = list(causes(error))
    for cause in found:
        if isinstance(cause, UserError):
            return cause
    for cause in found:
        if (told := _explain(about, cause)) is not None:
            return told
    lines = " ".join(str(error).split()) or type(error).__name__
    return UserError(redact(f"{about}: {lines[:300]}"))


def page(repo_id: str, place: str) -> str:
    """The address of a repository's page, or of one below it."""
    return redact(f"{constants.ENDPOINT}/{repo_id}/{place}")


def host() -> str:
    """The Hub's host, as messages name it."""
    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2] or "the Hub"


def _explain(about: str, error: BaseException) -> HubError | None:
    """The line for an error; None: look further."""
    server = _server(about)
    if isinstance(error, LocalTokenNotFoundError):
        return HubError("", f"you are not logged in to {host()}", f": {LOG_IN} to a token with write access")
    if isinstance(error, OfflineModeIsEnabled):
        reason = "is not fully cached, and HF_HUB_OFFLINE is set"
        return HubError(about, reason, ": download it once while online")
    if isinstance(error, GatedRepoError):
        return HubError(about, "is gated", f": ask for access on its page at {server}, then {LOG_IN}")
    if isinstance(error, DisabledRepoError):
        return HubError(about, f"has been disabled on {server}", ": its page says why")
    if isinstance(error, RevisionNotFoundError):
        return HubError(about, "has no such revision", ": check the branch, tag or commit")
    if isinstance(error, RepositoryNotFoundError):
        if tokens():
            reason = f"is not on {server}, or is private and not open to your token"
            return HubError(about, reason, ": check the name and the token")
        return HubError(about, f"is not on {server}, or is private", f": check the name, or {LOG_IN}")
    if isinstance(error, RemoteEntryNotFoundError):
        file = unquote(error.response.url.path).partition("/resolve/")[2].partition("/")[2]
        return HubError(about, f"lacks the file {file}" if file else "lacks a file")
    if (complaints := complaints_about_card(error)) is not None:
        told = "; ".join(complaints) or "its metadata is not valid"
        return HubError(about, "cannot have this card", f": {told}; correct the top of README.md")
    if isinstance(error, HfHubHTTPError):
        return _explain_status(about, error)
    if isinstance(error, IncompleteSnapshotError | LocalEntryNotFoundError):
        if error.__cause__ or error.__context__:
            return None
        return HubError(about, "is not fully cached", ": download it again")
    if isinstance(error, EntryNotFoundError):
        return HubError(about, "lacks a file", f": {' '.join(str(error).split())[:200]}")
    if isinstance(error, HFValidationError):
        return HubError("", " ".join(str(error).split()).rstrip("."), ": give a name such as user/name")
    return _explain_connection(about, error)


def _explain_connection(about: str, error: BaseException) -> HubError | None:
    server = _server(about)
    if isinstance(error, httpx.TimeoutException):
        details = f": {server} said nothing for too long; check the connection and try again"
        return HubError(about, "is out of reach", details)
    if isinstance(error, httpx.LocalProtocolError | UnicodeEncodeError):
        details = f": the token or another header holds what HTTP does not allow; {LOG_IN}"
        return HubError(about, "cannot be asked for", details)
    if isinstance(error, httpx.TransportError):
        details = f": the connection to {server} failed ({_reason(error)}); check it and try again"
        return HubError(about, "is out of reach", details)
    return _explain_disk(about, error) if isinstance(error, OSError) else None


def _explain_status(about: str, error: HfHubHTTPError) -> HubError:
    status, server = error.response.status_code, _server(about)
    told = told_by(error)
    if status == 401:
        details = f": {LOG_IN} to a valid one (HF_TOKEN wins over a login)"
        return HubError("", f"{host()} does not accept your token", details)
    if status == 403:
        details = f" ({told or 'forbidden'}): use one that may write there, or another name"
        return HubError(about, "is closed to your token", details)
    if status == 402:
        return HubError(about, "needs a plan that you do not have", f" ({told or 'payment required'})")
    if status in (409, 412):
        return ChangedError(about, told or str(status))
    if status == 429:
        wait = seconds_asked(error)
        when = f"in {wait:.0f} seconds" if wait else "later"
        return HubError(about, "cannot be reached", f": {server} asks for fewer requests; try again {when}")
    if status == 501:
        return HubError(about, f"asks for what {server} does not offer", f" ({status}{': ' + told if told else ''})")
    if status in _BUSY:
        says = f" (it says: {told})" if told else ""
        details = f": {server} fails at the moment ({status}); try again later{says}"
        return HubError(about, "cannot be reached", details)
    refused = f"was refused by {server}" if server != "it" else "refused what was asked for"
    return HubError(about, refused, f" ({status}{': ' + told if told else ''})")


def _explain_disk(about: str, error: OSError) -> HubError | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        details = f"{_at(error)}: free some space, or set HF_HOME to a larger disk"
        return HubError(about, "does not fit on the disk", details)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        details = f"{_at(error)}: {error.strerror or error}; set HF_HOME to a folder that you may write"
        return HubError(about, "cannot be stored", details)
    if is_wrong_length(error):
        return HubError(about, "came with a file of another size than it should have", ": try again")
    return None


def _server(about: str) -> str:
    """The Hub's host for the rest of a line; "it" where the line already starts with the host."""
    return "it" if about == host() else host()


def _at(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
