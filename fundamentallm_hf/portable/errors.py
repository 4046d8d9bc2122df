"""The errors that users are meant to read."""


class UserError(ValueError):
    """Something the user can put right: one line that says what was given, what was expected and what to do.

    The command line prints the line and exits with 1; in Python it is an ordinary `ValueError`.
    """


class UsageError(UserError):
    """What was asked for cannot be: a value out of its range, or settings that contradict each other.

    The command line exits with 2, as for an unknown option.
    """
