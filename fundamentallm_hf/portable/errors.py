"""The errors that users are meant to read."""

from typing import Any, Self


class UserError(ValueError):
    """An error that the user can fix: one line that says what was given, what was expected and what to do.

    The command line prints the line and exits with 1; in Python it is an ordinary `ValueError`. Code that needs to know
    what an error is about reads its attributes and never its text.

    Attributes:
        setting: the setting or argument at fault, by its name in Python, such as "max_tokens" or "prompt"; None where
            there is none, or several.
        value: the value that was given for it.
        expected: the accepted values, in words that complete "has to be ..."; None where the line says it in another
            way.
    """

    def __init__(
        self, message: str, *, setting: str | None = None, value: Any = None, expected: str | None = None
    ) -> None:
        super().__init__(message)
        self.setting, self.value, self.expected = setting, value, expected

    @classmethod
    def of(cls, error: ValueError, *, setting: str | None = None) -> Self:
        """The same line as an error of this class, with the attributes of the other.

        Args:
            error: any; one that is not a `UserError` has no attributes.
            setting: the one at fault, where `error` does not say.
        """
        if not isinstance(error, UserError):
            return cls(str(error), setting=setting)
        return cls(str(error), setting=error.setting or setting, value=error.value, expected=error.expected)


class UsageError(UserError):
    """The request is impossible: a value out of its range, or settings that contradict each other.

    The command line exits with 2, as for an unknown option.
    """
