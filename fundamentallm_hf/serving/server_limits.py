"""The upper limits of a request."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerLimits:
    """The upper limits of a request.

    Attributes:
        tokens: new tokens.
        entries: of a list.
        beams: of a search.
        samples: texts for one prompt.
        characters: of a field that holds text, and of an entry of a list; not of the prompt.
        waiting: requests that may wait; further ones get status 503.
    """

    tokens: int = 4096
    entries: int = 1000
    beams: int = 16
    samples: int = 16
    characters: int = 20_000
    waiting: int = 256
