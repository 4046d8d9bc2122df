"""A program on a pseudo-terminal, and the screen that a person would see."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

import pyte

ROWS, COLUMNS = 400, 100
PATIENCE = 120  # seconds; a busy machine may take long to import torch


class Terminal:
    """Starts `command` on a pseudo-terminal, tall enough that nothing scrolls away.

    Nothing here waits for a time to pass: what is waited for is to be seen.
    """

    def __init__(self, command: list[str], **environment: str) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C reaches the program
            env={name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
            | {"TERM": "xterm-256color", "PYTHONUTF8": "1"}
            | environment,
        )
        os.close(slave)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    @property
    def at_the_prompt(self) -> bool:
        """The cursor stands behind an empty `> `, and nothing below."""
        cursor = self.screen.cursor
        return self.lines[cursor.y] == ">" and cursor.x == 2 and self.text.split("\n")[-1] == ">"

    def send(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def read(self) -> bool:
        """Take what has come; False at the end of the program."""
        if not select.select([self.master], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # how Linux says that nobody writes any more
            return False
        self.stream.feed(data)
        return bool(data)

    def wait(self, seen) -> None:
        """Until `seen` stands on the screen, or is true of this terminal."""
        until = time.monotonic() + PATIENCE
        while not (seen in self.text if isinstance(seen, str) else seen(self)):
            there = self.read()
            assert there, f"the program ended while {seen!r} was waited for:\n{self.text}"
            assert time.monotonic() < until, f"waited in vain for {seen!r}:\n{self.text}"

    def enter(self, line: str) -> str:
        """Type a line, wait for the next prompt, and return what came between."""
        place = self.screen.cursor.y
        self.send(line)
        self.wait(lambda terminal: line.split("\r")[-1] in terminal.text)
        self.send("\r")
        self.wait(lambda terminal: terminal.at_the_prompt and terminal.screen.cursor.y != place)
        return "\n".join(self.lines[place + 1 : self.screen.cursor.y]).rstrip()

    def end(self) -> int:
        """Wait for the program to end, and return its exit code."""
        until = time.monotonic() + PATIENCE
        while self.read():
            assert time.monotonic() < until, f"the program does not end:\n{self.text}"
        return self.process.wait(PATIENCE)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
