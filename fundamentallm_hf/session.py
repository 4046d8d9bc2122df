"""The prompt loop without its terminal: what an entry does, and what is told about it.

An entry is a prompt, or a command if it begins with one `/`. A session holds a generator, whose settings are the
session's, and the last texts. It says what it has to say through an `Output`, and knows nothing of keys or screens.
torch is imported with the first model, not before.
"""

import itertools
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from .commands import ALIASES, BUNDLED, COMMANDS, HELP_END, describe_setting, find_command
from .errors import UserError
from .setting_text import load_settings, read_assignment, save_settings, show_value
from .settings import SETTINGS, GenerationSettings, Setting, find_setting

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .generation import Completion, Generator

ENTRY = re.compile(r"/(\S*)\s?(.*)", re.DOTALL)
TAIL = 60  # characters of a text that are shown again where it goes on
REASONS = {
    "eos": "the model ended the text",
    "stop": "a stop text came",
    "length": "/more goes on",
    "window": "the model's window is full",
    "blocked": "nothing was left to write",
    "interrupted": "stopped, /more goes on",
}


class Output(Protocol):
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
        """The answer to a command."""

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


def show_token(text: str) -> str:
    """A token as it is named in a list of predictions.

    Example:

    ```python
    >>> show_token(" "), show_token("c"), show_token("\\n")
    ('" " (space)', '"c"', '"\\\\n" (line break)')

    ```
    """
    names = {" ": "space", "\n": "line break", "\t": "tab", "": "no text"}
    quoted = '"' + "".join(char if char.isprintable() else repr(char)[1:-1] for char in text) + '"'
    return f"{quoted} ({names[text]})" if text in names else quoted


def next_token_probabilities(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", text: str, count: int = 10
) -> list[tuple[str, float]]:
    """The `count` likeliest tokens behind `text`, each as text with its probability: the model's own, without settings.

    Raises:
        UserError: the text is empty, and the model has no token that begins one.
    """
    import torch

    from .context_window import window_start

    ids = tokenizer(text, verbose=False).input_ids or [model.generation_config.bos_token_id]
    if ids[0] is None:
        raise UserError("the model needs a text to go on from: /probs TEXT")
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    ids = ids[window_start(len(ids), window) :] if window else ids
    with torch.inference_mode():
        logits = model(torch.tensor([ids], device=model.device)).logits[0, -1]
    best = logits.float().softmax(-1).topk(min(count, len(logits)))
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends or []
    found = []
    for token, chance in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        name = "end of the text" if token in ends else show_token(tokenizer.decode([token]))
        found.append((name, chance))
    return found


class Session:
    """What a prompt loop remembers, and what its entries do.

    Args:
        load: loads the model of a path or Hub id; None is the bundled one.
        model: the first one.
        settings: those of the start.
        output: where everything goes.
        unescape: reads escapes such as `\\n` in prompts and stop texts.

    Raises:
        UserError: the settings contradict each other, or the model cannot be loaded.
    """

    def __init__(
        self,
        load: "Callable[[str | None], PreTrainedModel]",
        model: str | None,
        settings: GenerationSettings,
        output: Output,
        unescape: Callable[[str], str] = str,
    ) -> None:
        settings.check()
        self.load_model = load
        self.output = output
        self.unescape = unescape
        self.start = settings
        self.request: tuple[str, bool, dict[str, Any]] | None = None  # what was written last, as `write` takes it
        self.asked_seed: int | None = None  # the setting at that time
        self.used_seed: int | None = None  # the last one that was used
        self.completions: list[Completion] = []
        self._midway = False
        self._waiting: list[str] = []
        self.generator = self._open(model, settings)
        self.model_name = model

    @property
    def settings(self) -> GenerationSettings:
        """The current ones."""
        return self.generator.settings

    def handle(self, entry: str) -> bool:
        """Do what an entry asks for. What goes wrong is told, and changes nothing.

        Returns:
            Whether the session goes on.
        """
        try:
            if not entry.strip():
                return True
            if not entry.startswith("/") or entry.startswith("//"):
                self.write(self.unescape(entry[1:] if entry.startswith("//") else entry))
                return True
            found = ENTRY.fullmatch(entry)
            command, argument = find_command(found[1]), found[2]  # type: ignore[index]
            # Behind a text blanks count: they are what the next token stands behind.
            argument = argument if command.argument == "[TEXT]" else argument.strip()
            if argument and not command.argument:
                raise UserError(f"{command.usage} takes nothing but got {argument!r}")
            if not argument and command.argument and not command.argument.startswith("["):
                raise UserError(f"{command.usage} needs {command.argument}")
            if command.name == "quit":
                return False
            getattr(self, f"do_{command.name}")(argument)
        except (UserError, RuntimeError, MemoryError) as error:  # RuntimeError: torch is out of memory
            self.output.error(_first_line(error))
        return True

    def write(self, prompt: str, continued: bool = False, **changes: Any) -> None:
        """Write to a prompt and tell how it went.

        Args:
            prompt: how the text begins.
            continued: the prompt is a text that has been shown, so only what is added to it is.
            changes: settings for this text alone.
        """
        settings = self.settings.but(**changes)
        self.request, self.asked_seed, self.used_seed = (prompt, continued, changes), self.settings.seed, None
        began = time.monotonic()
        if settings.num_samples == 1:
            self.completions = [self._stream(prompt, changes, continued)]
            self.used_seed = self.completions[-1].seed
            self._tell_speed(self.completions[0], time.monotonic() - began)
            self._tell_end(self.completions[0])
            return
        with self.output.busy(f"writing {settings.num_samples} samples"):
            self.completions = self.generator.complete(prompt, **changes)
        self.used_seed = self.completions[-1].seed
        seconds, tokens = time.monotonic() - began, sum(each.tokens for each in self.completions)
        for number, completion in enumerate(self.completions, 1):
            named = "" if completion.seed is None else f", seed {completion.seed}"
            self.output.aside(f"--- sample {number} of {len(self.completions)}{named} ---")
            self._begin(prompt, continued)
            self.output.written(completion.completion)
            self.output.end_text()
            self._midway = False
            self._tell_end(completion)
        parts = [f"{tokens} tokens", _speed(tokens, seconds), f"/more 1 to /more {len(self.completions)} goes on"]
        self.output.aside(", ".join(parts))

    def _stream(self, prompt: str, changes: dict[str, Any], continued: bool) -> "Completion":
        beams = self.settings.beam_size
        waits = self.output.busy(f"searching with {beams} beams") if beams > 1 else nullcontext()
        try:
            stream = self.generator.stream(prompt, **changes)
            with stream, self.output.on_interrupt(stream.stop):
                pieces = iter(stream)
                # The prompt waits for the first piece, so that a refusal is not taken for a text.
                with waits:
                    first = next(pieces, "")
                self._begin(prompt, continued)
                for piece in itertools.chain([first], pieces):
                    self.output.written(piece)
            return stream.result
        finally:
            if self._midway:
                self.output.end_text()
            self._midway = False
            for text in self._waiting:
                self.output.note(text)
            self._waiting.clear()

    def _begin(self, prompt: str, continued: bool) -> None:
        self._midway = True
        if continued:
            last = prompt[prompt.rfind("\n") + 1 :]
            self.output.context(("…" if len(last) < len(prompt) or len(last) > TAIL else "") + last[-TAIL:])
        else:
            self.output.given(prompt)

    def notice(self, text: str) -> None:
        """Tell something, but not in the middle of a text."""
        if self._midway:
            self._waiting.append(text)
        else:
            self.output.note(text)

    def _tell_speed(self, completion: "Completion", seconds: float) -> None:
        parts = [f"{completion.tokens} tokens", _speed(completion.tokens, seconds)]
        if completion.seed is not None:
            parts.append(f"seed {completion.seed}")
        self.output.aside(", ".join([*parts, REASONS[completion.finish_reason]]))

    def _tell_end(self, completion: "Completion") -> None:
        """What the user should know about how a text ended, and what of it is out of the model's sight."""
        window = self._window()
        if completion.finish_reason == "window":
            way_past = "; /set overflow=slide goes on from its last part" if self._own else ""
            self.output.note(f"the text fills the model's window of {window} tokens{way_past}")
        if completion.finish_reason == "blocked":
            self.output.note("the controls leave no continuation of the text, so it ends here: loosen them to go on")
        if completion.finish_reason == "stop" and not completion.tokens:
            self.output.note("a stop text comes at once: /unset stop to write past it")
        if window and self._own and self.settings.overflow in (None, "slide"):
            from .context_window import window_start

            given = len(self.generator.tokenizer(completion.prompt, verbose=False).input_ids)
            hidden = window_start(given + completion.tokens, window)
            if hidden:
                self.output.note(
                    f"the text has {given + completion.tokens} tokens and the model's window holds {window}: "
                    f"the first {hidden} are out of its sight"
                )

    def _window(self) -> int | None:
        return getattr(self.generator.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def _own(self) -> bool:
        """Whether the model can slide; models of other types end at their window."""
        return self.generator.model.config.model_type == "fundamentallm"

    def _open(self, model: str | None, settings: GenerationSettings) -> "Generator":
        with self.output.busy(f"loading {model or 'the bundled story model'}"):
            from .generation import Generator

            return Generator(self.load_model(model), notice=self.notice, **settings.to_dict())

    def _change(self, settings: GenerationSettings) -> None:
        self.generator.settings = settings

    # The commands.

    def do_help(self, name: str) -> None:
        if name:
            known = ALIASES.get(name.lstrip("/"), name.lstrip("/"))
            if known in COMMANDS:
                self.output.reply(f"{COMMANDS[known].usage}\n{COMMANDS[known].help}.")
            else:
                setting = find_setting(name)
                self.output.reply(describe_setting(setting, getattr(self.settings, setting.name)))
            return
        lines = [f"{command.usage:18}{command.help}" for command in COMMANDS.values()]
        self.output.reply("\n".join(lines) + "\n" + HELP_END)

    def do_set(self, typed: str) -> None:
        if not typed:
            self.do_status("")
        elif not any(sign in typed for sign in "= \t\n"):
            setting = find_setting(typed)
            self.output.reply(describe_setting(setting, getattr(self.settings, setting.name)))
        else:
            self._update(*read_assignment(self.settings, typed, self.unescape))

    def do_unset(self, name: str) -> None:
        setting = find_setting(name)
        settings = self.settings.but(**{setting.name: setting.default})
        settings.check()
        self._update(setting, settings)

    def _update(self, setting: Setting, settings: GenerationSettings) -> None:
        self._change(settings)
        value = getattr(settings, setting.name)
        shown = show_value(setting, value)
        self.output.reply(f"Updated: {setting.label}{' is ' if value in (None, ()) else '='}{shown}")

    def do_status(self, argument: str) -> None:
        model = self.generator.model
        facts = [model.config.model_type, f"{_short(model.num_parameters())} parameters", f"on {model.device.type}"]
        if self._window():
            facts.insert(2, f"window of {self._window()} tokens")
        lines = [f"Model: {self.model_name or 'the bundled story model'} ({', '.join(facts)})"]
        marked, width = False, max(len(setting.label) for setting in SETTINGS.values()) + 2
        for group in dict.fromkeys(setting.group for setting in SETTINGS.values()):
            lines += ["", group]
            for setting in (each for each in SETTINGS.values() if each.group == group):
                value = getattr(self.settings, setting.name)
                changed = value != setting.default
                marked = marked or changed
                default = f"  (default: {show_value(setting, setting.default)})" if changed else ""
                lines.append(f"{'*' if changed else ' '} {setting.label:{width}}{show_value(setting, value)}{default}")
        if marked:
            lines += ["", "* differs from the default"]
        self.output.reply("\n".join(lines))

    def do_reset(self, argument: str) -> None:
        self._change(self.start)
        self.output.reply("Settings are those of the start")

    def do_save(self, file: str) -> None:
        replace = file.split()[0] == "--force"
        file = file.removeprefix("--force").strip() if replace else file
        if not file:
            raise UserError("/save --force needs FILE")
        self.output.reply(f"Saved: {save_settings(self.settings, file, replace)}")

    def do_load(self, file: str) -> None:
        self._change(load_settings(file))
        changed = [
            f"{setting.label}={show_value(setting, value)}"
            for setting in SETTINGS.values()
            if (value := getattr(self.settings, setting.name)) != setting.default
        ]
        self.output.reply("\n".join(f"Updated: {each}" for each in changed) or "Settings are the defaults")

    def do_more(self, number: str) -> None:
        count = len(self.completions)
        if not count:
            raise UserError("there is no text yet: type a prompt")
        if not number and count > 1:
            raise UserError(f"there are {count} texts: choose one, /more 1 to /more {count}")
        if number and (not number.isdecimal() or not 1 <= int(number) <= count):
            raise UserError(f"N has to be a whole number from 1 to {count} but is {number!r}")
        completion = self.completions[int(number or 1) - 1]
        # A model that has ended a text would end it again at once.
        beyond = {"min_tokens": max(1, self.settings.min_tokens)} if completion.finish_reason == "eos" else {}
        self.write(completion.text, continued=True, **beyond)

    def do_retry(self, argument: str) -> None:
        if self.request is None:
            raise UserError("there is no prompt yet: type one")
        prompt, continued, changes = self.request
        changes = {name: value for name, value in changes.items() if name != "seed"}
        if self.used_seed is not None and self.settings.seed == self.asked_seed is not None:
            changes["seed"] = self.used_seed + 1  # several samples have used those before
        if not self.settings.sampled:
            self.output.note("nothing is left to chance, so the same settings write the same text")
        self.write(prompt, continued, **changes)

    def do_probs(self, text: str) -> None:
        text = self.unescape(text) if text else self.completions[0].text if self.completions else ""
        found = next_token_probabilities(self.generator.model, self.generator.tokenizer, text)
        lines = [f"  {token}: {chance:.2f}" for token, chance in found]
        self.output.reply("\n".join(["Next token probabilities:", *lines]))

    def do_model(self, path: str) -> None:
        if path:
            model = None if path == BUNDLED else path
            try:
                self.generator = self._open(model, self.settings)
            except UserError:
                raise
            except Exception as error:  # whatever is wrong with a model, the present one stays
                raise UserError(f"{path} cannot be loaded: {_first_line(error)}") from error
            self.model_name = model
        self.output.reply(f"Model: {self.model_name or 'the bundled story model'}")

    def do_clear(self, argument: str) -> None:
        self.output.clear()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _speed(tokens: int, seconds: float) -> str:
    return f"{tokens / max(seconds, 1e-9):.0f} tokens/s"


def _short(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
