"""The commands of the prompt loop: their names, arguments and help, and the completion of input.

`session.py` implements them. Nothing slow is imported here.
"""

import difflib
from dataclasses import dataclass
from typing import Any

from fundamentallm_hf.portable.controls.setting import Setting
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings
from fundamentallm_hf.settings.typed_values import show_value

BUNDLED = "bundled"


@dataclass(frozen=True)
class Command:
    """A command of the loop: its name without the slash, its argument, its help."""

    name: str
    argument: str
    help: str

    @property
    def usage(self) -> str:
        """The command as it is typed."""
        return f"/{self.name} {self.argument}".rstrip()


COMMANDS = {
    command.name: command
    for command in (
        Command("help", "[NAME]", "Show the commands, or describe a command or a setting"),
        Command("set", "[NAME=VALUE]", "Change a setting; += adds to a list, -= removes from it"),
        Command("unset", "NAME", "Restore the default of a setting, as /set NAME= does"),
        Command("status", "", "Show the model and the current settings"),
        Command("reset", "", "Restore the settings that the session started with"),
        Command(
            "save",
            "FILE",
            "Write the settings to a file, or all texts with --tree; --force replaces a file",
        ),
        Command("load", "FILE", "Read a file of settings, as --config does, or a file of texts"),
        Command("more", "[N]", "Continue the text, or sample N"),
        Command("retry", "", "Generate from the same prompt again, with another seed"),
        Command("undo", "", "Go back to the text before"),
        Command("redo", "", "Take the last /undo back"),
        Command("branches", "", "List all texts of the session by number, as a tree; * marks the current one"),
        Command("go", "N", "Go to text N"),
        Command("edit", "", "Edit the text in $EDITOR, to go on from there"),
        Command("diff", "N [M]", "Show how text N, or text M, differs from the current text, or from text N"),
        Command("rename", "N NAME", "Give text N another name in /branches"),
        Command("delete", "N", "Delete text N and all texts that came from it"),
        Command("chat", "[off]", "Begin a chat: answer what is typed as messages; off ends it"),
        Command("system", "[MESSAGE]", "Show the system message of the next chat, or give it one; off removes it"),
        Command("probs", "[TEXT]", "Show the most probable next tokens after the last text, or after TEXT"),
        Command("model", "[PATH]", f"Switch to another model; {BUNDLED} is the one in this package"),
        Command("clear", "", "Clear the screen"),
        Command("quit", "", "Quit, as Ctrl-D does"),
    )
}
# A setting of the loop alone: how texts are shown.
SHOW_PROBS = Setting(
    "show_probs",
    str,
    "off",
    "inline colours each token of a text by the probability with which it was chosen.",
    "Display",
    choices=("off", "inline"),
)
ALIASES = {"?": "help", "exit": "quit", "bye": "quit", "q": "quit"}
HELP_END = """
Anything else is a prompt. // starts a prompt with a slash; \\ at the end of a line continues it on the next.
Tab completes, Up finds earlier input, Alt-Enter starts a new line, Ctrl-C stops the text, Ctrl-D quits."""


def find_command(name: str) -> Command:
    """The command called `name`, without its slash.

    Raises:
        UserError: there is none; names the nearest.
    """
    name = name.lower()
    found = COMMANDS.get(ALIASES.get(name, name))
    if found:
        return found
    near = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], n=1)
    hint = f"did you mean /{near[0]}?" if near else "/help lists them, and // begins a prompt with a slash"
    raise UserError(f"there is no command /{name}: {hint}")


def describe_setting(setting: Setting, value: Any) -> str:
    """A setting's value, what it does and what it takes."""
    takes = f"It takes {setting.expected.rstrip(',')}."
    return f"{setting.label}={show_value(setting, value)}\n{setting.help}\n{takes}"


def suggestions(text: str, settings: GenerationSettings) -> tuple[str, list[tuple[str, str]]]:
    """Completions of the current input.

    Args:
        text: the input line up to the cursor.
        settings: the current settings.

    Returns:
        The part of `text` that a suggestion replaces, and the suggestions with a word of explanation each.
    """
    if not text.startswith("/") or text.startswith("//") or "\n" in text:
        return "", []
    name, blank, typed = text[1:].partition(" ")
    found: list[tuple[str, str]]
    if not blank:
        found = [(f"/{each.name}" + (" " if each.argument else ""), each.help) for each in COMMANDS.values()]
        return text, [each for each in found if each[0].startswith(text)]
    command = ALIASES.get(name, name)
    label, sign, value = typed.partition("=")
    if command == "set" and sign:
        named = label.strip().rstrip("+-").replace("-", "_")
        setting = SHOW_PROBS if named == SHOW_PROBS.name else SETTINGS.get(named)
        choices = ("true", "false") if setting and setting.kind is bool else setting.choices if setting else ()
        return value, [(choice, "") for choice in choices if choice.startswith(value)]
    if command in ("set", "unset", "help"):
        plain, end = typed.replace("_", "-"), "=" if command == "set" else ""
        found = [
            (setting.label + end, f"now {show_value(setting, getattr(settings, setting.name))}")
            for setting in SETTINGS.values()
            if command != "unset" or getattr(settings, setting.name) != setting.default
        ]
        if command != "unset":
            found.append((SHOW_PROBS.label + end, "colours texts by probability"))
        if command == "help":
            found = [(each.name, each.help) for each in COMMANDS.values()] + found
        return typed, [each for each in found if each[0].startswith(plain)]
    return "", []
