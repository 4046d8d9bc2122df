"""The interface through which a session of the prompt loop shows text, replies and errors."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fundamentallm_hf.generation.probabilities import Prediction


class SessionOutput(Protocol):
    """The output of a session. Texts are the result; everything else is messages."""

    def given(self, text: str) -> None:
        """The part of a text that the user gave."""

    def written(self, text: str) -> None:
        """A part of a text that the model generated; a `TextPiece` is coloured by its probability."""

    def scale(self) -> None:
        """The colours of probabilities, and what they mean."""

    def recall(self, text: str) -> None:
        """A text that was written before, as a whole."""

    def differences(self, parts: Sequence[tuple[str, str]]) -> None:
        """The differences between two texts, as `text_tree.compare` returns them."""

    def edit(self, text: str) -> str | None:
        """Let the user edit a text.

        Returns:
            The text afterwards; None if it was not saved.

        Raises:
            UserError: there is no terminal, or no editor.
        """

    def end_text(self) -> None:
        """The text is complete."""

    def context(self, text: str) -> None:
        """The text that is being continued; not part of the result."""

    def reply(self, text: str) -> None:
        """The requested output of a command."""

    def predictions(self, found: "Sequence[Prediction]", more: bool) -> None:
        """The most probable next tokens; there may be more."""

    def done(self, text: str) -> None:
        """Confirmation of a command."""

    def aside(self, text: str) -> None:
        """A remark of minor importance."""

    def note(self, text: str) -> None:
        """A note for the user."""

    def error(self, text: str) -> None:
        """Why an action failed."""

    def clear(self) -> None:
        """Empty the screen."""

    def busy(self, text: str) -> AbstractContextManager[Any]:
        """Show that an action takes time."""

    def on_interrupt(self, stop: Callable[[], None]) -> AbstractContextManager[Any]:
        """Call `stop` when the user interrupts a text; does nothing where that ends the program."""
