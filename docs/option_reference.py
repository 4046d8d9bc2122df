"""Generates the table of options in cli.md and the table of prompt-loop commands in interactive.md.

    python docs/option_reference.py

A test fails where a page and the program differ.
"""

from pathlib import Path

import click

from fundamentallm_hf.cli.generate import generate
from fundamentallm_hf.cli.interactive.commands import COMMANDS
from fundamentallm_hf.cli.options import GroupedCommand, SettingType
from fundamentallm_hf.settings.generation_settings import SETTINGS

BEGIN = "<!-- The tables below are written by docs/option_reference.py. -->\n"
END = "<!-- End of the tables. -->"


def reference() -> str:
    """The options of `generate` in Markdown, a table for each group of the help."""
    assert isinstance(generate, GroupedCommand)
    parts = []
    with click.Context(generate, info_name="generate", **generate.context_settings) as context:
        for group, params in generate.options_by_group(context).items():
            rows = [_row(param, context) for param in params if isinstance(param, click.Option)]
            parts.append(f"\n### {group}\n\n| option | takes | default | what it does |\n|---|---|---|---|\n")
            parts += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows]
    return "".join(parts) + "\n"


def _row(param: click.Option, context: click.Context) -> tuple[str, str, str, str]:
    setting = SETTINGS.get(param.name or "")
    names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
    if param.is_flag:
        takes = ""
    elif setting is not None and setting.kind is tuple:
        takes = "a list separated by commas" if setting.comma_separated else "text"
    elif isinstance(param.type, SettingType) and param.type.takes_file:
        takes = "file"
    elif setting is not None:
        takes = setting.expected
    elif isinstance(param.type, click.IntRange):
        takes = f"a whole number of at least {param.type.min}"
    elif isinstance(param.type, click.Choice):
        takes = "one of " + ", ".join(map(str, param.type.choices))
    else:
        takes = param.make_metavar(context).strip("[]").replace("|", ", ").lower()
    default = ""
    if isinstance(param.show_default, str):
        default = param.show_default
    elif param.show_default:
        default = f"{param.default:g}" if isinstance(param.default, float) else str(param.default)
    return names, takes, default, (param.help or "").replace("<", "&lt;").replace("*", r"\*")


def loop_reference() -> str:
    """The commands of the prompt loop in Markdown."""
    rows = [f"| `{command.usage}` | {command.help}. |\n" for command in COMMANDS.values()]
    return "\n| command | what it does |\n|---|---|\n" + "".join(rows) + "\n"


PAGES = {Path(__file__).parent / "cli.md": reference, Path(__file__).parent / "interactive.md": loop_reference}


def updated(page: str, tables: str) -> str:
    """The page with its tables as they have to be."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + tables + END + rest.split(END)[1]


if __name__ == "__main__":
    for file, tables in PAGES.items():
        file.write_text(updated(file.read_text(encoding="utf-8"), tables()), encoding="utf-8")
