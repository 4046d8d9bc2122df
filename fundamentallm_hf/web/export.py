"""Exports what is on screen so that it can be reproduced: as Python, a command, a request, a link, or JSON.

All of them contain the same prompt, settings and seed. Values are quoted for their target, so that no prompt can become
code there. A prompt may be a chat through a template (`ChatPrompt`): its messages are exported.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import orjson

from fundamentallm_hf.generation.chat import ChatPrompt
from fundamentallm_hf.generation.completion import Completion, make_record
from fundamentallm_hf.portable.controls.setting import Setting
from fundamentallm_hf.portable.text.word_lists import is_regex, split_entries
from fundamentallm_hf.settings.chat_messages import Messages
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings
from fundamentallm_hf.settings.typed_values import read_value, show_value

from .limits import OPEN, parse_messages, read_messages, read_prompt

PROMPT, MESSAGES = "prompt", "messages"


def changed(settings: GenerationSettings) -> dict[str, Any]:
    """The settings that differ from their defaults, lists as lists."""
    values = {name: getattr(settings, name) for name in OPEN}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value != SETTINGS[name].default
    }


def as_python(prompt: str, settings: GenerationSettings, model: str | None = None) -> str:
    """A program that prints the texts."""
    one = settings.num_samples == 1
    arguments = "".join(f"    {name}={value!r},\n" for name, value in changed(settings).items())
    call = f"{'generate' if one else 'complete'}(\n    {_as_argument(prompt)},\n{arguments})"
    lines = [
        "from fundamentallm_hf import Generator, load_model",
        "",
        f"generator = Generator(load_model({'' if model is None else repr(model)}))",
    ]
    if one:
        lines += [f"print(generator.{call})"]
    else:
        lines += [f"for completion in generator.{call}:", "    print(completion.text)"]
    return "\n".join(lines) + "\n"


def _as_argument(prompt: str) -> str:
    """The prompt or the messages of a chat, as Python."""
    if not isinstance(prompt, ChatPrompt):
        return repr(prompt)
    return "[\n" + "".join(f"        {message!r},\n" for message in prompt.messages) + "    ]"


def _given(prompt: str) -> dict[str, Any]:
    """The prompt or the messages of a chat, by the name of their field."""
    return {MESSAGES: prompt.messages} if isinstance(prompt, ChatPrompt) else {PROMPT: prompt}


def as_command(prompt: str, settings: GenerationSettings, model: str | None = None) -> str:
    """A command that prints the texts. Values that a command line cannot contain are read from a here-document.

    Example:

    ```python
    >>> from fundamentallm_hf import GenerationSettings
    >>> from fundamentallm_hf.web.export import as_command
    >>> print(as_command("It's", GenerationSettings(seed=1, bad_words=["ran", "very happy"])), end="")
    fundamentallm generate \\
        --prompt 'It'"'"'s' \\
        --seed 1 \\
        --bad-words 'ran, very happy'

    ```
    """
    head = "fundamentallm generate" + ("" if model is None else f" {shlex.quote(model)}")
    options = _prompt_options(prompt)
    backslash = "\\" in prompt
    for name, value in changed(settings).items():
        setting = SETTINGS[name]
        options += _options(setting, value)
        backslash = backslash or (setting.escaped and any("\\" in entry for entry in value))
    if None in options:
        saved = json.dumps({**_given(prompt), "settings": changed(settings)}, ensure_ascii=True, indent=2)
        return f"{head} --config - <<'END'\n{saved}\nEND\n"
    if backslash:
        options.append("--no-escape")
    return " \\\n    ".join([head, *(option for option in options if option is not None)]) + "\n"


def _prompt_options(prompt: str) -> list[str | None]:
    """The options for a prompt or a chat; None in the list where none can express it, as a chat of several turns."""
    texts = {"--prompt": str(prompt)}
    options: list[str | None] = []
    if isinstance(prompt, ChatPrompt):
        system = [each["content"] for each in prompt.messages if each["role"] == "system"]
        *before, last = prompt.messages
        if last["role"] != "user" or len(before) > len(system):
            return [None]
        options, texts = ["--chat"], {"--prompt": last["content"]} | ({"--system": system[0]} if system else {})
    return options + [_option(name, text) if _is_plain(text) and text != "-" else None for name, text in texts.items()]


def _option(name: str, value: str) -> str:
    return f"{name} {shlex.quote(value)}"


def _is_plain(text: str) -> bool:
    """Whether a text stays unchanged in a shell and on the clipboard."""
    return all(char.isprintable() or char == "\n" for char in text)


def _options(setting: Setting, value: Any) -> list[str | None]:
    """The options for this value on the command line; None in the list where none can express it."""
    name = f"--{setting.label}"
    if setting.kind is bool:
        return [name if value else f"--no-{setting.label}"]
    if setting.kind is tuple and not setting.comma_separated:
        return [_option(name, entry) if _is_plain(entry) else None for entry in value]
    if setting.kind is tuple:
        joined = ", ".join(entry if is_regex(entry) else entry.replace(",", r"\,") for entry in value)
        return [_option(name, joined) if split_entries(joined) == list(value) and _is_plain(joined) else None]
    if setting.from_file or (isinstance(value, str) and not _is_plain(value)):
        return [None]
    return [_option(name, str(value))]


def as_curl(prompt: str, settings: GenerationSettings, address: str) -> str:
    """Two requests that print the texts: one asks for them, the other fetches them.

    Args:
        prompt, settings: of the texts.
        address: of this page, without a slash at its end.
    """
    body = json.dumps({**_given(prompt), **changed(settings)}, ensure_ascii=True)
    url = shlex.quote(f"{address}/gradio_api/call/v2/write")
    again = shlex.quote(f"{address}/gradio_api/call/write")
    return (
        f"EVENT=$(curl -s {url} -H 'Content-Type: application/json' \\\n"
        f"    -d {shlex.quote(body)} | cut -d '\"' -f 4)\n"
        f"curl -sN {again}/$EVENT\n"
    )


def as_link(prompt: str, settings: GenerationSettings, address: str) -> str:
    """A link to this page that restores prompt and settings."""
    values = {name: show_value(OPEN[name], getattr(settings, name)) for name in changed(settings)}
    # The page's defaults differ from those of the settings, so unset values have to be in the link, too.
    unset = {name: "not set" for name in ("temperature", "top_p") if getattr(settings, name) is None}
    given = {MESSAGES: _json(prompt.messages)} if isinstance(prompt, ChatPrompt) else {PROMPT: prompt}
    return f"{address}/?{urlencode(given | values | unset)}"


def _json(messages: Messages) -> str:
    return json.dumps(messages, ensure_ascii=False, separators=(",", ":"))


def read_link(parameters: Mapping[str, str]) -> tuple[str | Messages | None, dict[str, Any]]:
    """Prompt or messages, and settings, of a link; unknown names are ignored, because others may add theirs.

    Raises:
        UserError: a value cannot be used.
    """
    prompt: str | Messages | None = read_prompt(parameters[PROMPT]) if PROMPT in parameters else None
    if MESSAGES in parameters:
        prompt = read_messages(parse_messages(parameters[MESSAGES]))
    return prompt, {name: read_value(OPEN[name], parameters[name]) for name in parameters if name in OPEN}


def as_json(completions: Sequence[Completion], settings: GenerationSettings, model: str | None = None) -> str:
    """Everything about the texts; the download of one text reproduces it with `generate --config`."""
    records = [make_record(each, {"model": model}, settings) for each in completions]
    # The standard library's module would spend longer on the indentation than the page on everything else about a text.
    return orjson.dumps(records[0] if len(records) == 1 else records, option=orjson.OPT_INDENT_2).decode()
