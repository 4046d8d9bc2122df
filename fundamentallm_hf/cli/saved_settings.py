"""Saves settings and loads them: a JSON or YAML file of settings by name, or a text's record.

A record is a line of the command's jsonl output. It has everything that generated its text, so it reproduces it.
"""

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fundamentallm_hf.files import NotTextError, OutputFile, read_text
from fundamentallm_hf.generation.tree_file import says_tree
from fundamentallm_hf.portable.controls.setting import is_text
from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings, find_setting

from .prompts import read_stdin

# Besides settings, a record identifies its text by the options with these names.
OTHERS = ("model", "prompt", "revision", "device", "device_map", "dtype")


@dataclass(frozen=True)
class SavedSettings:
    """The content of a settings file.

    Attributes:
        settings: by their names in Python, each of them checked.
        others: what it says of `OTHERS`.
        messages: the chat that was answered, as it was found; None if there was none.
        sample: of the texts that these settings write, the index of the one that is meant; None for all of them.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    sample: int | None = None
    messages: Any = None


def read_settings(file: str, text: str | None = None) -> SavedSettings:
    """Read a file of settings; `-` is stdin.

    Args:
        file: its name.
        text: its content, if it has been read already.

    Raises:
        UserError: the file cannot be read.
        UsageError: it is neither JSON nor YAML, or has an unknown setting or an invalid value.
    """
    loaded = _parse(file, _read(file) if text is None else text)
    messages = loaded.pop("messages", None)
    settings, others, sample = dict(loaded), {}, None
    if isinstance(loaded.get("settings"), dict):
        settings = loaded["settings"]
        if "finish_reason" in loaded:  # a record; its metadata of the text are not settings
            sample = loaded.get("sample")
            others = {name: loaded[name] for name in OTHERS if loaded.get(name) is not None}
        else:
            others = {name: value for name, value in loaded.items() if name != "settings"}
    else:
        others = {name: settings.pop(name) for name in OTHERS if name in settings}
    for name, value in others.items():
        if name not in OTHERS:
            raise UsageError(f"config {file}: {_unknown(name)}")
        if not isinstance(value, str) or not is_text(value):
            raise UsageError(f"config {file}: {name} has to be text but is {value!r}")
    checked = {}
    for name, value in settings.items():
        try:
            setting = find_setting(str(name))
        except UsageError:
            raise UsageError(f"config {file}: {_unknown(str(name))}") from None
        try:
            checked[setting.name] = setting.parse(value)
        except UsageError as error:
            raise UsageError(f"config {file}: {error}") from error
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int) or sample < 0):
        raise UsageError(f"config {file}: sample has to be a whole number of at least 0 but is {sample!r}")
    return SavedSettings(checked, others, sample, messages)


def write_settings(settings: GenerationSettings, file: str, force: bool = False) -> Path:
    """Write all settings by name as JSON, atomically.

    Args:
        settings: the settings to write.
        file: the target.
        force: replace an existing file.

    Returns:
        The file.

    Raises:
        UserError: it exists and may not be replaced, or cannot be written.
    """
    way_out = f"choose another name, or replace it with /save --force {file}"
    with OutputFile(file, force=force, name="the file", way_out=way_out) as target:
        target.stream.write(json.dumps(settings.to_dict(), indent=2, ensure_ascii=False) + "\n")
    return target.path


def _unknown(name: str) -> str:
    known = [*SETTINGS, *OTHERS]
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return f"there is no setting {name!r}: " + (
        f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    )


def _read(file: str) -> str:
    if file == "-":
        return read_stdin("the settings")
    try:
        return read_text(file, f"the config {file!r}")
    except NotTextError as error:
        raise UsageError.of(error) from None


def _parse(file: str, text: str) -> dict[str, Any]:
    if says_tree(text):
        raise UsageError(f"the config {file!r} holds texts, not settings alone: /load in the prompt loop reads it")
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > 1 and all(line.startswith("{") for line in lines):
        raise UsageError(
            f"the config {file!r} holds {len(lines)} lines of records: give one of them, for instance by "
            f"`sed -n 1p {file} | fundamentallm generate --config -`"
        )
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        import yaml

        try:
            loaded = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f" (line {mark.line + 1})" if mark else ""
            raise UsageError(f"the config {file!r} is neither JSON nor YAML{where}") from None
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise UsageError(f"the config {file!r} has to hold settings by name but holds {type(loaded).__name__}")
    return loaded
