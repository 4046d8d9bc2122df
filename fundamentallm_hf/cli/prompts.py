"""Reads the prompts of the command: from options, a file or stdin."""

import sys

from fundamentallm_hf.files import decode_text, read_lines, read_text
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.chat_messages import Messages, check_prompt, read_chats
from fundamentallm_hf.settings.typed_values import unescape


def read_stdin(what: str) -> str:
    """All of stdin.

    Args:
        what: its name, for errors and for the user at a terminal.

    Raises:
        UserError: it is not UTF-8.
    """
    if sys.stdin.isatty():
        print(f"note: reading {what} from the terminal, end it with Ctrl-D", file=sys.stderr)
    return decode_text(sys.stdin.buffer.read(), f"{what} on stdin")


def read_openings(file: str | None) -> list[str]:
    """The prompts of a file, one per line; none if there is no file.

    Raises:
        UserError: the file cannot be read, or has no line that is not empty.
    """
    if file is None:
        return []
    found = read_lines(file)
    if not found:
        raise UserError(f"the openings {file!r} are empty: give prompts, one per line, or leave out --openings")
    return found


def prompts_from_options(given: tuple[str, ...], escape: bool) -> list[str]:
    """The prompts on the command line; `-` is the content of stdin, in which escapes are not read.

    Raises:
        UsageError: a prompt is not text, or stdin is used twice.
        UserError: stdin is not UTF-8.
    """
    if given.count("-") > 1:
        raise UsageError("prompt is - more than once, but stdin can be read only once")
    for prompt in given:
        check_prompt(prompt)
    return [read_stdin("the prompt") if each == "-" else unescape(each) if escape else each for each in given]


def read_prompts(file: str, escape: bool) -> list[str]:
    r"""The prompts of a file, one per line, in UTF-8; `-` is stdin.

    A prompt of several lines is written with `\n`. Empty lines are skipped; spaces belong to the prompt.

    Args:
        file: its path.
        escape: read `\n` and the like as characters.

    Raises:
        UserError: the file cannot be read, is not text, or has no prompt.
    """
    text = read_stdin("the prompts") if file == "-" else read_text(file, f"the prompts file {file!r}", exact=True)
    # Not splitlines(): a form feed or a Unicode line separator may belong to a prompt.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    prompts = [unescape(line) if escape else line for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"the prompts file {file!r} contains no prompt: write one per line")
    return prompts


def read_chat_prompts(file: str, system: str | None) -> list[Messages]:
    """The chats of a file, one per line in JSON; `-` is stdin.

    Args:
        file: where they are.
        system: the system message of all of them.

    Raises:
        UserError: the file cannot be read.
        UsageError: a line is no chat.
    """
    text = read_stdin("the chats") if file == "-" else read_text(file, f"the prompts file {file!r}")
    return read_chats(text, f"the prompts file {file!r}", system)
