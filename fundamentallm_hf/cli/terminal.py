"""The command as a program: its notes on stderr, its errors and its exit codes.

Results go to stdout, everything else to stderr. Exit codes: 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C; a
reader that closes the pipe is not a failure.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from fundamentallm_hf.portable.errors import UsageError, UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

TRACEBACK_VARIABLE = "FUNDAMENTALLM_TRACEBACK"


class Notes:
    """Notes for the user besides the result: one line on stderr each, and none twice.

    Args:
        quiet: show neither notes nor progress.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._said: set[str] = set()
        self._line = ""  # on the terminal until the work is done

    @property
    def shows_progress(self) -> bool:
        """Whether stderr is a terminal that shows progress."""
        return not self.quiet and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Show a note, unless it was shown before."""
        if not self.quiet and text not in self._said:
            self._said.add(text)
            start = "\r\x1b[2K" if self._line else ""
            click.echo(f"{start}note: {text}", err=True)
            click.echo(self._line, nl=False, err=True)

    def head(self, text: str) -> None:
        """A header between the texts on stdout."""
        if not self.quiet:
            click.secho(f"--- {text} ---", err=True, dim=True)

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show a line on a terminal until the work is done."""
        if not self.shows_progress:
            yield
            return
        self._line = f"{text} ..."
        click.echo(self._line, nl=False, err=True)
        try:
            yield
        finally:
            self._line = ""
            click.echo("\r\x1b[2K", nl=False, err=True)

    def progress(self, shown: bool = True, speed: bool = False) -> "Progress":
        """A progress bar on stderr, which shows only on a terminal.

        Args:
            shown: whether it may be shown there.
            speed: with a column for the field `speed` of its task.
        """
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        if speed:
            columns.append(TextColumn("{task.fields[speed]}"))
        shown = shown and self.shows_progress
        return Progress(*columns, console=console(sys.stderr), transient=True, disable=not shown)


def uses_color() -> bool:
    """Whether colour is wanted: not with --no-color, nor where NO_COLOR is set (https://no-color.org)."""
    context = click.get_current_context(silent=True)
    return not os.environ.get("NO_COLOR") and (context is None or context.color is not False)


def console(stream: IO[str], **options: Any) -> "Console":
    """A rich console on a stream, in colour only if that is wanted."""
    from rich.console import Console

    return Console(file=stream, no_color=not uses_color() or None, **options)


class Commands(click.Group):
    """A group of commands that reports each failure in one line, with its exit code."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """The context of a call; without colours if none are wanted."""
        with _outcomes():
            context = super().make_context(*args, **extra)
            if os.environ.get("NO_COLOR"):
                context.color = False
            return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the requested command."""
        with _outcomes():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run, report an error in one line, and exit."""
        extra.pop("standalone_mode", None)
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            click.echo(f"Error: {' '.join(error.format_message().split())}", err=True)
            code = error.exit_code
        except click.Abort:
            code = 130
        sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _outcomes() -> Iterator[None]:
    """Turn exceptions that end a command into those that click handles."""
    try:
        yield
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    except UserError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    except BrokenPipeError:
        _forget_stdout()
        raise click.exceptions.Exit(0) from None
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        reason = str(error).strip() or "no reason given"
        hint = "" if isinstance(error, OSError) else f" (for where it happened, set {TRACEBACK_VARIABLE}=1)"
        raise click.ClickException(f"{type(error).__name__}: {reason[:500]}{hint}") from error


def _forget_stdout() -> None:
    # Python flushes stdout once more at its end, when the reader has already gone.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prepare_process() -> None:
    """Make the process use UTF-8 whatever the locale, and handle SIGTERM like an error, with files restored."""
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "strict"), (sys.stderr, "backslashreplace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors=errors)
    sys.argv[1:] = [_as_utf8(argument) for argument in sys.argv[1:]]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _as_utf8(argument: str) -> str:
    """Convert an argument that Python has decoded by the locale to UTF-8; unchanged if that fails."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        return argument
