"""The prompt loop without its terminal: the effects of input lines, and the messages about them.

An input line is a prompt, or a command if it starts with one `/`. A session holds a generator, whose settings are the
session's, and all its texts, and shows everything through a `SessionOutput`. `tree_commands.py` keeps the texts. torch
is imported with the first model.
"""

import itertools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from fundamentallm_hf.cli.output import TOP, end_note
from fundamentallm_hf.portable.controls.setting import Setting
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.chat_messages import Messages
from fundamentallm_hf.settings.generation_settings import GenerationSettings, find_setting
from fundamentallm_hf.settings.typed_values import list_settings, read_assignment, show_value, unescape

from .chat_commands import ChatCommands
from .commands import ALIASES, BUNDLED, COMMANDS, HELP_END, SHOW_PROBS, describe_setting, find_command
from .session_files import SessionFile
from .session_output import SessionOutput
from .tree_commands import Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fundamentallm_hf.generation.completion import Completion
    from fundamentallm_hf.generation.generator import Generator
    from fundamentallm_hf.generation.tree_file import SavedTree

ENTRY = re.compile(r"/(\S*)\s?(.*)", re.DOTALL)
TAIL = 60  # characters of a text that are shown again where it continues
REASONS = {
    "eos": "the model ended the text",
    "stop": "a stop text came",
    "length": "/more goes on",
    "window": "the model's window is full",
    "complete": "the text is complete",
    "blocked": "nothing was left to write",
    "interrupted": "stopped, /more goes on",
}


class Session(ChatCommands):
    """The state of a prompt loop, and the effects of its input lines.

    Args:
        load: loads the model of a path or Hub id, and shows that it takes time; None is the bundled one.
        model: the first model.
        settings: the initial settings.
        output: receives all output.
        escape: read escapes such as `\\n` in input.
        batch_size: samples to generate at a time, at most.
        resumed: the texts of an earlier session.
        file: saves the texts after every change; None saves none.
        chat: answer what is typed as messages of a chat.
        system: the system message of a chat.

    Raises:
        UserError: the settings contradict each other, or the model cannot be loaded.
    """

    def __init__(
        self,
        load: "Callable[[str | None], PreTrainedModel]",
        model: str | None,
        settings: GenerationSettings,
        output: SessionOutput,
        escape: bool = True,
        batch_size: int = 32,
        resumed: "SavedTree | None" = None,
        file: SessionFile | None = None,
        chat: bool = False,
        system: str | None = None,
    ) -> None:
        settings.check()
        super().__init__(output, resumed, file, system)
        self.load_model = load
        self.escape = escape
        self.batch_size = batch_size
        self.start = settings
        self.show_probs = SHOW_PROBS.default
        self.completions: list[Completion] = []  # the last ones
        self._midway = False
        self._waiting: list[str] = []
        self.generator = self._open(model, settings)
        self.model_name = model
        if chat:
            self.begin_chat(anew=resumed is None)

    @property
    def colours(self) -> bool:
        """Whether texts are coloured by probability."""
        return self.show_probs == "inline"

    @property
    def settings(self) -> GenerationSettings:
        """The current settings."""
        return self.generator.settings

    def handle(self, entry: str) -> bool:
        """Handle an input line. Errors are reported, and change nothing.

        Returns:
            Whether the session continues.
        """
        with self._errors_told():
            if not entry.strip():
                return True
            if not entry.startswith("/") or entry.startswith("//"):
                self.take(self._read(entry[1:] if entry.startswith("//") else entry))
                return True
            found = ENTRY.fullmatch(entry)
            command, argument = find_command(found[1]), found[2]  # type: ignore[index]
            # After a prompt blanks count: the next token follows them.
            argument = argument if command.argument == "[TEXT]" else argument.strip()
            if argument and not command.argument:
                raise UserError(f"{command.usage} takes nothing but got {argument!r}")
            if not argument and command.argument and not command.argument.startswith("["):
                raise UserError(f"{command.usage} needs {command.argument}")
            if command.name == "quit":
                return False
            getattr(self, f"do_{command.name}")(argument)
        return True

    def begin(self, prompt: str | Messages) -> bool:
        """Generate from a prompt, or answer a chat; taken literally, even if it starts with a slash."""
        with self._errors_told():
            self.take(prompt)
        return True

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except (UserError, RuntimeError, MemoryError) as error:  # RuntimeError: torch is out of memory
            self.output.error(_first_line(error))

    def _read(self, typed: str) -> str:
        return unescape(typed) if self.escape else typed

    def write(self, prompt: str, continued: bool = False, parent: int | None = None, **changes: Any) -> None:
        """Generate from a prompt, report the result, and keep it among the texts.

        Args:
            prompt: the start of the text.
            continued: the prompt is a text that has been shown, so only the added text is shown.
            parent: the id of the text that the prompt came from; None for a typed prompt.
            changes: settings for this text alone.
        """
        settings = self.settings.replace(**changes)
        request = self.request = Request(prompt, continued, parent, changes, self.settings.seed)
        if settings.num_samples == 1:
            completion, seconds = self._stream(request)
            self.completions = [completion]
            self._tell_speed(completion, seconds)
            self._tell_end(completion)
        else:
            self._write_samples(request)
        if settings.seed is not None:
            request.used_seed = settings.seed + settings.num_samples - 1
        self.remember(request, self.completions, settings)

    def _write_samples(self, request: Request) -> None:
        from fundamentallm_hf.generation.streaming import pieces_of

        settings, began = self.settings.replace(**request.changes), time.monotonic()
        options: dict[str, Any] = {"scored": True, "probabilities": int(self.colours)}
        with self.output.busy(f"writing {settings.num_samples} samples"):
            batches = self.generator.iterate([request.prompt], rows=self.batch_size, **options, **request.changes)
            self.completions = list(itertools.chain.from_iterable(batches))
        seconds, tokens = time.monotonic() - began, sum(each.tokens for each in self.completions)
        count = len(self.completions)
        for number, completion in enumerate(self.completions, 1):
            named = "" if completion.seed is None else f", seed {completion.seed}"
            if count > 1:
                self.output.aside(f"--- sample {number} of {count}{named} ---")
            self._begin(request)
            for piece in pieces_of(completion):
                self.output.written(piece)
            self.output.end_text()
            self._midway = False
            self._tell_end(completion)
        parts = [f"{tokens} tokens", _speed(tokens, seconds)]
        if settings.best is not None:  # the others took time, too
            parts[1:] = [f"the best of {settings.num_samples} samples"]
        if count == 1 and self.completions[0].seed is not None:
            parts.append(f"seed {self.completions[0].seed}")
        self.output.aside(", ".join([*parts, f"/more 1 to /more {count} goes on" if count > 1 else "/more goes on"]))

    def _stream(self, request: Request) -> "tuple[Completion, float]":
        """Show a text as it is generated; returns it, and the seconds until its last piece."""
        beams, text, began = self.settings.beam_size, "", time.monotonic()
        settings = self.settings.replace(**request.changes)
        waits = self.output.busy(f"searching with {beams} beams") if beams > 1 else nullcontext()
        options: dict[str, Any] = {"scored": True, "probabilities": int(self.colours)}
        try:
            stream = self.generator.stream(request.prompt, **options, **request.changes)
            with stream, self.output.on_interrupt(stream.stop):
                pieces = iter(stream)
                # The prompt waits for the first piece, so that an error is not mistaken for a text.
                with waits:
                    first = next(pieces, "")
                self._begin(request)
                for piece in itertools.chain([first], pieces):
                    seconds = time.monotonic() - began
                    self.output.written(piece)
                    text += piece
                    self.save_part(request, text, settings)
            return stream.result, seconds
        finally:
            if self._midway:
                self.output.end_text()
            self._midway = False
            for notice in self._waiting:
                self.output.note(notice)
            self._waiting.clear()

    def _begin(self, request: Request) -> None:
        from fundamentallm_hf.generation.chat import own_part

        self._midway, prompt = True, request.prompt
        if request.chat and not request.continued:
            self.output.given(own_part(prompt))  # only the reply is shown, below what was typed
        elif request.continued:
            last = prompt[prompt.rfind("\n") + 1 :]
            self.output.context(("…" if len(last) < len(prompt) or len(last) > TAIL else "") + last[-TAIL:])
        else:
            self.output.given(prompt)

    def notice(self, text: str) -> None:
        """Show a message, but not in the middle of a text."""
        if self._midway:
            self._waiting.append(text)
        else:
            self.output.note(text)

    def _tell_speed(self, completion: "Completion", seconds: float) -> None:
        parts = [f"{completion.tokens} tokens", _speed(completion.tokens, seconds)]
        if completion.seed is not None:
            parts.append(f"seed {completion.seed}")
        reason = completion.finish_reason
        self.output.aside(", ".join([*parts, REASONS.get(reason, reason)]))

    def _tell_end(self, completion: "Completion") -> None:
        """Notes about the end of a text, and about the part of it that the model cannot see."""
        from fundamentallm_hf.portable.decoding.context_window import can_slide, window_start

        window, slides = self._window(), can_slide(self.generator.model)
        if text := end_note(completion.finish_reason, "/set overflow=slide" if slides else ""):
            self.output.note(text)
        if completion.finish_reason == "stop" and not completion.tokens:
            self.output.note("a stop text comes at once: /unset stop to write past it")
        if window and slides and self.settings.overflow in (None, "slide"):
            given = len(self.generator.tokenizer(completion.prompt, verbose=False).input_ids)
            hidden = window_start(given + completion.tokens, window)
            if hidden:
                self.output.note(
                    f"the text has {given + completion.tokens} tokens and the model's window holds {window}: "
                    f"the first {hidden} are out of its sight"
                )

    def _window(self) -> int | None:
        return getattr(self.generator.model.config.get_text_config(), "max_position_embeddings", None)

    def _open(self, model: str | None, settings: GenerationSettings) -> "Generator":
        loaded = self.load_model(model)
        from fundamentallm_hf.generation.generator import Generator

        return Generator(loaded, notice=self.notice, **settings.to_dict())

    # The commands.

    def do_help(self, name: str) -> None:
        if name:
            known = ALIASES.get(name.lstrip("/"), name.lstrip("/"))
            if known in COMMANDS:
                self.output.reply(f"{COMMANDS[known].usage}\n{COMMANDS[known].help}.")
            elif _is_show_probs(name):
                self.output.reply(describe_setting(SHOW_PROBS, self.show_probs))
            else:
                setting = find_setting(name)
                self.output.reply(describe_setting(setting, getattr(self.settings, setting.name)))
            return
        lines = [f"{command.usage:18}{command.help}" for command in COMMANDS.values()]
        self.output.reply("\n".join(lines) + "\n" + HELP_END)

    def do_set(self, typed: str) -> None:
        name, _, value = typed.replace("=", " ", 1).partition(" ")
        if not typed:
            self.do_status("")
        elif _is_show_probs(name) and "=" in typed:
            self._set_show_probs(SHOW_PROBS.parse(value.strip() or SHOW_PROBS.default))
        elif _is_show_probs(name):
            self.output.reply(describe_setting(SHOW_PROBS, self.show_probs))
        elif not any(sign in typed for sign in "= \t\n"):
            setting = find_setting(typed)
            self.output.reply(describe_setting(setting, getattr(self.settings, setting.name)))
        else:
            self._update(*read_assignment(self.settings, typed, self.escape))

    def _set_show_probs(self, value: str) -> None:
        self.show_probs = value
        self.output.done(f"Updated: {SHOW_PROBS.label}={value}")
        if self.colours:
            self.output.scale()

    def do_unset(self, name: str) -> None:
        if _is_show_probs(name):
            self._set_show_probs(SHOW_PROBS.default)
            return
        setting = find_setting(name)
        settings = self.settings.replace(**{setting.name: setting.default})
        settings.check()
        self._update(setting, settings)

    def _update(self, setting: Setting, settings: GenerationSettings) -> None:
        self.generator.settings = settings
        value = getattr(settings, setting.name)
        shown = show_value(setting, value)
        self.output.done(f"Updated: {setting.label}{' is ' if value in (None, ()) else '='}{shown}")
        for text in settings.without_effect():
            if text.startswith(f"{setting.label} "):
                self.output.note(text)

    def do_status(self, argument: str) -> None:
        model = self.generator.model
        facts = [model.config.model_type, f"{_short(model.num_parameters())} parameters", f"on {model.device.type}"]
        if self._window():
            facts.insert(2, f"window of {self._window()} tokens")
        model_line = f"Model: {self.model_name or 'the bundled story model'} ({', '.join(facts)})"
        shown = ["", f"* {SHOW_PROBS.label}={self.show_probs}"] if self.colours else []
        self.output.reply("\n".join([model_line, *self.chat_status(), *list_settings(self.settings), *shown]))

    def do_reset(self, argument: str) -> None:
        self.generator.settings = self.start
        self.show_probs = SHOW_PROBS.default
        self.output.done("Settings are those of the start")

    def do_more(self, number: str) -> None:
        node = self.text_to_continue(number)
        # A model that has ended a text would end it again immediately.
        beyond = {"min_tokens": max(1, self.settings.min_tokens)} if node.finish_reason == "eos" else {}
        self.write(self.prompt_of(node.id, whole=True), True, node.id, **beyond)

    def do_retry(self, argument: str) -> None:
        if (request := self.request) is None:
            raise UserError("there is no prompt yet: type one")
        changes = {name: value for name, value in request.changes.items() if name != "seed"}
        if request.used_seed is not None and self.settings.seed == request.asked_seed is not None:
            changes["seed"] = request.used_seed + 1  # several samples have used the seeds before
        if not self.settings.sampled:
            self.output.note("nothing is left to chance, so the same settings write the same text")
        self.write(request.prompt, request.continued, request.parent, **changes)

    def do_probs(self, text: str) -> None:
        current = self.tree.current
        text = self._read(text) if text else "" if current is None else self.prompt_of(current.id, whole=True)
        found = self.generator.next_tokens(text, top=TOP)
        self.output.predictions(found, more=self.generator.model.config.get_text_config().vocab_size > len(found))

    def do_model(self, path: str) -> None:
        if path:
            model = None if path == BUNDLED else path
            try:
                self.generator = self._open(model, self.settings)
            except UserError:
                raise
            except Exception as error:  # whatever is wrong with a model, the current one stays
                raise UserError(f"{path} cannot be loaded: {_first_line(error)}") from error
            self.model_name = model
        self.output.reply(f"Model: {self.model_name or 'the bundled story model'}")

    def do_clear(self, argument: str) -> None:
        self.output.clear()


def _is_show_probs(name: str) -> bool:
    return name.replace("-", "_").rstrip("+") == SHOW_PROBS.name


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _speed(tokens: int, seconds: float) -> str:
    return f"{tokens / max(seconds, 1e-9):.0f} tokens/s"


def _short(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
