"""What can go wrong with the Hub, in one line each that says what to do, and without a token in it.

This file knows nothing of what is sent or fetched; how long it is tried is told in `connection.py`.
"""

import errno
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

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
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx, parse_ratelimit_headers

from fundamentallm_hf.portable.errors import UserError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{10,}|\b((?i:Bearer|Basic)) +[^\s'\",]+")
_URL = re.compile(r"(?P<scheme>https?://)(?:[^\s/@'\"]*@)?(?P<rest>[^\s?'\"]*)(?:\?[^\s'\"]*)?")
_BUSY = (408, 429, 500, 502, 503, 504)


def redact(text: str) -> str:
    """A text without tokens: those of this machine, what looks like one, and what URLs carry beside their path.

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
    """Whether an error may be gone at the next try: the Hub is busy, or the connection broke."""
    lasting = (UserError, httpx.LocalProtocolError, httpx.UnsupportedProtocol)
    return not isinstance(error, lasting) and any(
        isinstance(cause, httpx.TransportError) or (status_of(cause) in _BUSY) or _is_short(cause)
        for cause in causes(error)
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the last first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error stands for, if it stands for one."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def seconds_asked(error: BaseException) -> float | None:
    """How long the Hub asks to wait before the next try (RFC 9110, section 10.2.3); None where it does not say."""
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


def hub_error(where: str, error: Exception) -> UserError:
    """An error of the Hub or on the way there, as one line to be read.

    Args:
        where: the repository it is about, with its revision.
        error: as it was raised by huggingface_hub.
    """
    found = list(causes(error))
    for cause in found:
        if isinstance(cause, UserError):
            return cause
    for cause in found:
        if (text := _explain(cause)) is not None:
            return UserError(redact(f"{where} {text}" if not text.startswith("!") else text[1:]))
    lines = " ".join(str(error).split()) or type(error).__name__
    return UserError(redact(f"{where}: {lines[:300]}"))


def page(repo_id: str, place: str) -> str:
    """The address of a repository's page, or of one below it."""
    return redact(f"{constants.ENDPOINT}/{repo_id}/{place}")


def host() -> str:
    """The Hub's host, as messages name it."""
    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2] or "the Hub"


def _is_short(error: BaseException) -> bool:
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


def _explain(error: BaseException) -> str | None:
    """What to say behind the name of a repository, or instead of it where it begins with "!"; None: look further."""
    if isinstance(error, LocalTokenNotFoundError):
        return f"!you are not logged in to {host()}: {LOG_IN} to a token with write access"
    if isinstance(error, OfflineModeIsEnabled):
        return "is not on this machine as a whole, and HF_HUB_OFFLINE is set: get it once with a network"
    if isinstance(error, GatedRepoError):
        return f"is gated: ask for access on its page at {host()}, then {LOG_IN}"
    if isinstance(error, DisabledRepoError):
        return f"has been disabled on {host()}: its page says why"
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision: check the branch, tag or commit"
    if isinstance(error, RepositoryNotFoundError):
        if tokens():
            return f"is not on {host()}, or is private and not open to your token: check the name and the token"
        return f"is not on {host()}, or is private: check the name, or {LOG_IN}"
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error)
    if isinstance(error, IncompleteSnapshotError | LocalEntryNotFoundError):
        return None if error.__cause__ or error.__context__ else "is not on this machine as a whole: get it again"
    if isinstance(error, EntryNotFoundError):
        return f"lacks a file: {' '.join(str(error).split())[:200]}"
    if isinstance(error, HFValidationError):
        return f"!{' '.join(str(error).split()).rstrip('.')}: give a name such as user/name"
    if isinstance(error, httpx.TimeoutException):
        return f"is out of reach: {host()} said nothing for too long; check the connection and try again"
    if isinstance(error, httpx.LocalProtocolError | UnicodeEncodeError):
        return f"cannot be asked for: the token or another header holds what HTTP does not allow; {LOG_IN}"
    if isinstance(error, httpx.TransportError):
        return f"is out of reach: the connection to {host()} failed ({_reason(error)}); check it and try again"
    if isinstance(error, OSError):
        return _explain_disk(error)
    if isinstance(error, ValueError) and str(error).startswith("Invalid metadata in README.md"):
        told = "; ".join(line.strip("- ") for line in str(error).splitlines()[1:])
        return f"cannot have this card: {told or 'its metadata is not valid'}; correct the top of README.md"
    return None


def _explain_status(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    told = " ".join((error.server_message or "").split()).rstrip(".")[:200]
    if status == 401:
        return f"!{host()} does not accept your token: {LOG_IN} to a valid one (HF_TOKEN wins over a login)"
    if status == 403:
        return f"is closed to your token ({told or 'forbidden'}): use one that may write there, or another name"
    if status == 402:
        return f"needs a plan that you do not have ({told or 'payment required'})"
    if status in (409, 412):
        return f"was changed by somebody else meanwhile ({told or status}): try again"
    if status == 429:
        wait = seconds_asked(error)
        when = f"in {wait:.0f} seconds" if wait else "later"
        return f"cannot be reached: {host()} asks for fewer requests; try again {when}"
    if status >= 500:
        return f"cannot be reached: {host()} fails at the moment ({status}); try again later"
    return f"was refused by {host()} ({status}{': ' + told if told else ''})"


def _explain_disk(error: OSError) -> str | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"does not fit on the disk{_at(error)}: free some space, or set HF_HOME to a larger disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot be stored{_at(error)}: {error.strerror or error}; set HF_HOME to a folder that you may write"
    if _is_short(error):
        return "came with a file of another size than it should have: try again"
    return None


def _at(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
