"""The prompt loop of `fundamentallm generate --interactive`: reads input, passes it to a session, shows the results.

On a terminal, lines are edited and Ctrl-C stops a text. Otherwise each line of stdin is an input line. In both cases
texts go to stdout and everything else to stderr, so `> texts.txt` saves the texts. `session.py` handles the input,
`line_editor.py` edits the lines.
"""

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO

import click
from rich.panel import Panel
from rich.text import Text

from fundamentallm_hf.cli.output import prediction_lines
from fundamentallm_hf.cli.terminal import console, uses_color
from fundamentallm_hf.generation.tree_file import SavedTree
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.chat_messages import Messages
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .commands import suggestions
from .line_editor import LineEditor, is_open, shown_keys, silent_keys
from .session import Session
from .session_files import SessionFile

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fundamentallm_hf.generation.probabilities import Prediction

# Colours of the classes of probability (`step_of`), from unlikely to likely.
STYLES = ("white on red", "black on bright_red", "black on bright_yellow", "black on bright_green", "")
SHOWN = 60  # characters of a long part that two texts share, at each of its ends
BANNER = "FundamentaLLM Interactive Mode\nType /help for commands, /quit to exit"
# A model may generate control sequences of the terminal.
HARMLESS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | dict.fromkeys(range(127, 160), "�")


class Screen:
    """A session's output: texts on stdout, everything else on stderr (or where the terminal is).

    Args:
        terminal: whether it is a terminal; otherwise there is no style and no blank line.
        quiet: only show requested output, and errors.
    """

    def __init__(self, terminal: bool, quiet: bool = False) -> None:
        self.terminal = terminal
        self.quiet = quiet
        talk = sys.stdout if terminal and not sys.stderr.isatty() else sys.stderr
        self.texts = console(sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.talk = console(talk, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.shows_texts = terminal and sys.stdout.isatty()
        self.last = ""
        self.cleared = False

    def given(self, text: str) -> None:
        self._write(text, "bold")

    def written(self, text: str) -> None:
        probability = getattr(text, "probability", None)
        self._write(text, "" if probability is None else _style_of(probability))

    def scale(self) -> None:
        from fundamentallm_hf.generation.probabilities import STEP_NAMES

        if not self.quiet:
            names = zip(STEP_NAMES, STYLES, strict=True)
            self.talk.print(Text("  ").join(Text(f" {name} ", style) for name, style in names))

    def recall(self, text: str) -> None:
        self.talk.print(Text(text.translate(HARMLESS) if self.terminal else text))

    def differences(self, parts: Sequence[tuple[str, str]]) -> None:
        shown = Text()
        for sign, text in parts:
            text = text.translate(HARMLESS)
            if sign != "=":
                shown.append(f"[-{text}-]" if sign == "-" else f"{{+{text}+}}", "red" if sign == "-" else "green")
            elif len(text) <= 3 * SHOWN:
                shown.append(text, "dim")
            else:
                shown.append(f"{text[:SHOWN]} … {text[-SHOWN:]}", "dim")
        self.talk.print(shown)

    def edit(self, text: str) -> str | None:
        if not self.terminal:
            raise UserError("/edit needs a terminal: give the whole text as a prompt")
        try:
            with shown_keys():
                edited = click.edit(text, extension=".txt")
        except click.ClickException as error:
            raise UserError(f"the editor failed: {error.format_message()}") from error
        # Editors end the last line, whether or not the text did.
        ended = edited is not None and edited.endswith("\n") and not text.endswith("\n")
        return edited[:-1] if edited is not None and ended else edited

    def _write(self, text: str, style: str = "") -> None:
        self.last = text[-1:] or self.last
        if self.shows_texts:
            text = text.translate(HARMLESS)
        if self.shows_texts and style:
            self.texts.print(Text(text, style), end="")
        else:
            sys.stdout.write(text)
        sys.stdout.flush()

    def end_text(self) -> None:
        if not (self.shows_texts and self.last == "\n"):
            sys.stdout.write("\n")
        sys.stdout.flush()
        self.last = ""

    def context(self, text: str) -> None:
        if self.terminal:
            self.talk.print(Text(text.translate(HARMLESS), "dim"), end="" if self.shows_texts else "\n")

    def reply(self, text: str) -> None:
        self._say(text)

    def predictions(self, found: "Sequence[Prediction]", more: bool) -> None:
        click.echo("\n".join(prediction_lines(found, more)), file=self.talk.file)

    def done(self, text: str) -> None:
        if not self.quiet:
            self._say(text)

    def aside(self, text: str) -> None:
        if not self.quiet:
            self._say(text, "dim")

    def note(self, text: str) -> None:
        if not self.quiet:
            self._say(f"note: {text}", "yellow")

    def error(self, text: str) -> None:
        self._say(f"Error: {text}", "red")

    def _say(self, text: str, style: str = "") -> None:
        # Messages are wrapped between words, texts are not: text copied from the screen has to be unchanged.
        self.talk.print(Text(text, style), soft_wrap=not self.terminal)

    def clear(self) -> None:
        if self.terminal:
            self.talk.clear()
            self.cleared = True

    def busy(self, text: str) -> AbstractContextManager[Any]:
        return self.talk.status(f"{text} …") if self.terminal and not self.quiet else nullcontext()

    @contextmanager
    def on_interrupt(self, stop: Callable[[], None]) -> Iterator[None]:
        if not self.terminal:
            yield
            return

        before = signal.getsignal(signal.SIGINT)

        def stop_once(*_: object) -> None:
            signal.signal(signal.SIGINT, before)  # a user who interrupts twice does not want to wait
            stop()

        signal.signal(signal.SIGINT, stop_once)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def banner(self) -> None:
        """The box at the start of a session."""
        if self.quiet:
            return
        self.talk.print(Panel(BANNER, width=min(52, self.talk.width)), soft_wrap=False)
        self.talk.print()

    def gap(self) -> None:
        """The line between an answer and the next input; not on an empty screen."""
        if not self.cleared:
            self.talk.print()
        self.cleared = False


def _style_of(probability: float) -> str:
    from fundamentallm_hf.generation.probabilities import step_of

    return STYLES[step_of(probability)]


def run_loop(
    load: "Callable[[str | None], PreTrainedModel]",
    model: str | None,
    settings: GenerationSettings,
    prompts: Sequence[str | Messages] = (),
    *,
    escape: bool = True,
    batch_size: int = 32,
    quiet: bool = False,
    resumed: SavedTree | None = None,
    chat: bool = False,
    system: str | None = None,
) -> None:
    """Read input until it ends or the user quits.

    Args:
        load: loads the model of a path or Hub id, and shows that it takes time; None is the bundled one.
        model: the first model.
        settings: the initial settings.
        prompts: the first prompts, unchanged; texts, or chats.
        escape: read escapes such as `\\n` in input.
        batch_size: samples to generate at a time, at most.
        quiet: only show requested output, and errors.
        resumed: the texts of an earlier session, to go on with.
        chat: answer what is typed as messages of a chat.
        system: the system message of a chat.

    Raises:
        UserError: the settings contradict each other, the model cannot be loaded, or stdin is not text.
    """
    terminal = sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())
    screen = Screen(terminal, quiet)
    # Scripts leave no files behind.
    file = SessionFile() if terminal else None
    session = Session(load, model, settings, screen, escape, batch_size, resumed, file, chat, system)
    with _notices_of_the_library(session.notice):
        if terminal:
            _converse(session, screen, prompts)
        else:
            _work_through(session, sys.stdin.buffer, prompts)


def _converse(session: Session, screen: Screen, prompts: Sequence[str | Messages]) -> None:
    screen.banner()
    editor = LineEditor(screen.talk.file, lambda text: suggestions(text, session.settings), uses_color())  # type: ignore[arg-type]

    def do(act: Callable[[Any], bool], entry: str | Messages) -> bool:
        goes_on = True
        try:
            with silent_keys():
                goes_on = act(entry)
        except KeyboardInterrupt:
            screen.aside("stopped")
        if goes_on:
            screen.gap()
        return goes_on

    if len(session.tree):
        session.show_resumed()
        screen.gap()
    for prompt in prompts:
        do(session.begin, prompt)
    goes_on = True
    while goes_on:
        try:
            entry = editor.read()
        except EOFError:
            break
        except KeyboardInterrupt:
            if not editor.typed:
                screen.aside("Ctrl-D or /quit leaves")
            continue
        if entry.strip():
            goes_on = do(session.handle, entry)
    screen.done("Goodbye!")


def _work_through(session: Session, stdin: BinaryIO, prompts: Sequence[str | Messages]) -> None:
    for prompt in prompts:
        session.begin(prompt)
    for entry in read_entries(stdin):
        if not session.handle(entry):
            session.output.done("Goodbye!")
            break


def read_entries(stdin: BinaryIO) -> Iterator[str]:
    r"""The input lines of a stream that is not a terminal; all but the last line of a longer input end with `\`.

    Raises:
        UserError: a line is not UTF-8.
    """
    lines: list[str] = []
    for number, line in enumerate(stdin, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise UserError(f"line {number} on stdin has to be UTF-8 text but is not") from None
        if is_open(text):
            lines.append(text[:-1])
            continue
        yield "\n".join([*lines, text])
        lines = []
    if lines:
        yield "\n".join(lines)


@contextmanager
def _notices_of_the_library(tell: Callable[[str], None]) -> Iterator[None]:
    """Show warnings that the library logs as notices; the session itself reports hidden parts of the text."""

    from fundamentallm_hf.portable.decoding.context_window import OUT_OF_SIGHT

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record, "topic", None) != OUT_OF_SIGHT:
                tell(record.getMessage())

    logger, handler = logging.getLogger("fundamentallm_hf"), Handler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
