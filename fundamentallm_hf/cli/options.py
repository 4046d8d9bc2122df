"""Creates the command's options from the table of settings, and groups them in its help."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from fundamentallm_hf.files import read_text
from fundamentallm_hf.portable.controls.setting import Setting
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import DEVICES, DTYPES, SETTINGS

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
# Headings in the help.
MODEL, PROMPT, OUTPUT = "Model", "Prompt", "Output"


class SettingType(click.ParamType):
    """Lets a setting check its own values."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = {int: "integer", float: "number", bool: "boolean"}.get(setting.kind, "text")

    @property
    def takes_file(self) -> bool:
        """Whether the option takes the name of a file."""
        return self.setting.from_file or self.setting.name.endswith("_file")

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """FILE, or the choices if there are any."""
        if self.takes_file:
            return "FILE"
        return f"[{'|'.join(self.setting.choices)}]" if self.setting.choices else None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value in the setting's type."""
        if self.setting.from_file and isinstance(value, str):
            try:
                value = read_text(value)
            except UserError as error:
                self.fail(str(error), param, ctx)
        try:
            return self.setting.parse(value)
        except UserError as error:
            self.fail(f"has to be {error.expected} but is {error.value!r}", param, ctx)  # click names the option

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The choices, and files for a setting that is read from one."""
        if self.takes_file:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(choice) for choice in self.setting.choices if choice.startswith(incomplete)]


class DeviceType(click.ParamType):
    """auto, cpu, cuda, cuda:1, mps."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The device as it was given, if it is valid; only torch knows whether the machine has it."""
        kind, colon, number = str(value).partition(":")
        if kind not in DEVICES or (colon and not number.isdecimal()):
            self.fail(f"has to be one of {', '.join(DEVICES)} but is {value!r}", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The kinds of devices."""
        return [CompletionItem(device) for device in DEVICES if device.startswith(incomplete)]


class DeviceMapType(click.ParamType):
    """A name, or JSON; it is kept as text, so that it can be saved."""

    name = "map"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The map as it was given, if it is valid."""
        from fundamentallm_hf.model_io.device_maps import read_device_map

        try:
            read_device_map(value)
        except UserError as error:
            self.fail(f"has to be {error.expected}, but is {value!r}", param, ctx)
        return str(value)


class GroupedOption(click.Option):
    """An option with a heading in the help."""

    def __init__(self, *args: Any, group: str = "Other", **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help shows its options under their headings: prompt, settings, output."""

    def options_by_group(self, ctx: click.Context) -> dict[str, list[click.Parameter]]:
        """The options in the help, in its order."""
        groups: dict[str, list[click.Parameter]] = {PROMPT: [], MODEL: []}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option):
                groups.setdefault(getattr(param, "group", "Other"), []).append(param)
        last = (OUTPUT, "Other")
        return {name: groups[name] for name in sorted(groups, key=last.__contains__) if groups[name]}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        for heading, params in self.options_by_group(ctx).items():
            records = [record for param in params if (record := param.get_help_record(ctx)) is not None]
            with formatter.section(heading):
                formatter.write_dl(records)


def _joined(ctx: click.Context, param: click.Parameter, lists: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The items of an option that may be given several times, each with several items."""
    return tuple(itertools.chain.from_iterable(lists))


def setting_options(command: Callable) -> Callable:
    """Create an option for every setting, in the order of the table."""
    for setting in reversed(SETTINGS.values()):
        switch = setting.kind is bool
        command = click.option(
            f"--{setting.label}/--no-{setting.label}" if switch else f"--{setting.label}",
            setting.name,
            cls=GroupedOption,
            group=setting.group,
            type=bool if switch else SettingType(setting),
            default=setting.default,
            show_default=(("on" if setting.default else "off") if switch else True)
            if setting.default not in (None, ())
            else False,
            multiple=setting.kind is tuple,
            callback=_joined if setting.kind is tuple else None,
            help=setting.help,
        )(command)
    return command


def option(group: str, *names: str, **keywords: Any) -> Callable[[Callable], Callable]:
    """An option under a heading that is not a generation setting."""
    return click.option(*names, cls=GroupedOption, group=group, **keywords)


def model_options(command: Callable) -> Callable:
    """The options that select the model and its device."""
    for decorate in (
        option(
            MODEL,
            "--trust-remote-code/--no-trust-remote-code",
            default=False,
            show_default="off",
            help="Run the code of a Hub repository. FundamentaLLM models do not need it.",
        ),
        option(MODEL, "--revision", metavar="NAME", help="Branch, tag or commit of a model on the Hub."),
        option(
            MODEL,
            "--dtype",
            type=click.Choice(DTYPES),
            default="auto",
            show_default=True,
            help="Precision of the weights; auto keeps the saved one.",
        ),
        option(
            MODEL,
            "--device-map",
            type=DeviceMapType(),
            metavar="MAP",
            help="Spread a model that is larger than one device: auto, or JSON of devices by the names of modules.",
        ),
        option(
            MODEL,
            "--device",
            type=DeviceType(),
            default="auto",
            show_default=True,
            metavar=f"[{'|'.join(DEVICES)}]",
            help="Device to run on; auto is a GPU if there is one.",
        ),
    ):
        command = decorate(command)
    return command


def given(ctx: click.Context) -> dict[str, Any]:
    """The options on the command line, by name."""
    told = click.core.ParameterSource.COMMANDLINE
    return {name: value for name, value in ctx.params.items() if ctx.get_parameter_source(name) is told}
