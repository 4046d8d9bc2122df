"""Reads entries from a terminal: line editing, history across runs, completion, several lines at once.

prompt_toolkit does the work; this file sets the keys and the path of the history.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import (
    CompleteEvent,
    Completer,
    Completion,
    PathCompleter,
    get_common_complete_suffix,
)
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, create_output
from prompt_toolkit.output.vt100 import Vt100_Output

from .commands import COMMANDS
from .session_files import state_folder

Suggest = Callable[[str], tuple[str, list[tuple[str, str]]]]

OPEN_LINE = re.compile(r"(?<!\\)(?:\\\\)*\\\Z")
FILE_COMMANDS = "|".join(name for name, command in COMMANDS.items() if command.argument.strip("[]") in ("FILE", "PATH"))
FILE_ARGUMENT = re.compile(rf"/(?:(?:{FILE_COMMANDS}) (?:--force |--tree )*|set [\w-]+[-_]file=)(.*)")


def is_open(entry: str) -> bool:
    r"""Whether an entry continues in the next line: it ends with a `\` that is not escaped by another one.

    Example:

    ```python
    >>> from fundamentallm_hf.cli.interactive.line_editor import is_open
    >>> is_open("one line \\"), is_open("a backslash \\\\")
    (True, False)

    ```
    """
    return OPEN_LINE.search(entry) is not None


def history_file() -> Path:
    """The path of the history of earlier runs."""
    return state_folder() / "history"


class History(FileHistory):
    """The entries of this and of earlier runs; only of this one if the file cannot be used."""

    def load_history_strings(self) -> Iterable[str]:
        with suppress(OSError):
            return list(super().load_history_strings())
        return []

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            path = Path(os.fsdecode(self.filename))
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)  # entries are private
            super().store_string(string)


class _Completer(Completer):
    def __init__(self, suggest: Suggest) -> None:
        self.suggest = suggest
        self.paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        typed = document.text_before_cursor
        if file := FILE_ARGUMENT.fullmatch(typed):
            yield from self.paths.get_completions(Document(file[1]), event)
            return
        replaced, found = self.suggest(typed)
        for text, help in found:
            yield Completion(text, start_position=-len(replaced), display_meta=help)


def _key_bindings() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    @keys.add("c-j")  # how Enter arrives when it is typed before the prompt appears
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # Enter accepts the selected completion, and the next one sends the line
        elif is_open(buffer.document.text_before_cursor) and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("tab")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_next()
            return
        # Computed here and not in the background, where a Tab before the menu appears would be lost.
        found = list(buffer.completer.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
        if len(found) == 1:
            buffer.apply_completion(found[0])
        elif common := get_common_complete_suffix(buffer.document, found):
            buffer.insert_text(common)
        elif buffer.complete_state:
            buffer.complete_next()
        else:
            buffer.start_completion()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


class LineEditor:
    """Reads entries, one or several lines each.

    Args:
        screen: the stream of the terminal to write to.
        suggest: returns completions of the current input, as `commands.suggestions` does.
        color: whether colour is wanted.
    """

    def __init__(self, screen: TextIO, suggest: Suggest, color: bool = True) -> None:
        output = create_output(stdout=screen)
        if isinstance(output, Vt100_Output):
            # Nothing here needs the cursor's row, and a slow terminal's response would end up in the next entry.
            output.enable_cpr = False
        self.prompts: PromptSession[str] = PromptSession(
            "> ",
            multiline=True,
            prompt_continuation=lambda width, line, wrapped: "" if wrapped else ". ",
            history=History(history_file()),
            completer=_Completer(suggest),
            # The menu takes space below the line, so it opens automatically for commands only.
            complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
            key_bindings=_key_bindings(),
            enable_open_in_editor=True,
            enable_suspend=True,
            output=output,
            color_depth=None if color else ColorDepth.DEPTH_1_BIT,
        )

    def read(self) -> str:
        """The next entry.

        Raises:
            EOFError: Ctrl-D on an empty line.
            KeyboardInterrupt: Ctrl-C; `typed` shows whether it discarded input.
        """
        return self.prompts.prompt()

    @property
    def typed(self) -> str:
        """The text in the line."""
        return self.prompts.default_buffer.text


@contextmanager
def silent_keys() -> Iterator[None]:
    """Hide keys that are pressed while a text is being generated; they are input for the next line."""
    with _keys(silent=True):
        yield


@contextmanager
def shown_keys() -> Iterator[None]:
    """Show keys and read them line by line, as another program on the terminal expects it."""
    with _keys(silent=False):
        yield


@contextmanager
def _keys(silent: bool) -> Iterator[None]:
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    fd = 0
    before = termios.tcgetattr(fd)
    mode = termios.tcgetattr(fd)
    if silent:
        mode[3] &= ~(termios.ECHO | termios.ICANON)
        mode[3] |= termios.NOFLSH  # otherwise Ctrl-C would discard them
    else:
        mode[3] |= termios.ECHO | termios.ICANON
        mode[3] &= ~termios.NOFLSH
    termios.tcsetattr(fd, termios.TCSANOW, mode)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, before)
