"""The interface through which a session of the prompt loop shows text, replies and errors."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fundamentallm_hf.generation.probabilities import Prediction


class SessionOutput(Protocol):
    """Where a session's words go. Texts are the result; everything else is talk."""

    def given(self, text: str) -> None:
        """The part of a text that the user gave."""

    def written(self, text: str) -> None:
        """A part of a text that the model wrote."""

    def end_text(self) -> None:
        """The text is complete."""

    def context(self, text: str) -> None:
        """What a text goes on from; no part of the result."""

    def reply(self, text: str) -> None:
        """What a command was asked to tell."""

    def predictions(self, found: "Sequence[Prediction]", more: bool) -> None:
        """The likeliest next tokens; there may be more."""

    def done(self, text: str) -> None:
        """That a command has done what it does."""

    def aside(self, text: str) -> None:
        """A remark that may be overlooked."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def error(self, text: str) -> None:
        """Why something was not done."""

    def clear(self) -> None:
        """Empty the screen."""

    def busy(self, text: str) -> AbstractContextManager[Any]:
        """Shows that something takes a while."""

    def on_interrupt(self, stop: Callable[[], None]) -> AbstractContextManager[Any]:
        """Calls `stop` when the user wants no more of a text; does nothing where that ends the program."""
