"""The fields of the page: one for each setting that visitors may use, created from the table of settings.

Names, help, choices and ranges come from the table. This file decides how a value is entered, for example by a slider.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import gradio as gr

from fundamentallm_hf.generation.text_tree import differing
from fundamentallm_hf.portable.controls.setting import Setting
from fundamentallm_hf.settings.typed_values import read_value, show_value

from .comparisons import REMOVABLE
from .escaping import escape
from .limits import LIMITS, OPEN, read_settings

# The page's defaults: the values that the guide recommends, and a fixed seed that can be passed on.
START: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "seed": 7}
# Always visible; all others are collapsed.
ESSENTIAL = ("temperature", "max_tokens", "bad_words", "must_include", "guide_attribute")
# Names of these for visitors who do not know the settings.
_PLAIN = {
    "max_tokens": "length",
    "bad_words": "banned words",
    "must_include": "required words",
    "guide_attribute": "mood",
}
# The seed is shown with a text, the next two are about several texts, and the page sets the last one for a branch.
_NOT_OF_A_TEXT = ("seed", "num_samples", "best", "must_include_prompt")
_DEFAULT = re.compile(r" The default is [^.]*\.")
# Sliders: from, to, step. The settings may have wider ranges, which programs can use.
_SLIDERS = {
    "temperature": (0, 2, 0.05),
    "top_p": (0.05, 1, 0.05),
    "max_tokens": (1, LIMITS.tokens, 1),
    "num_samples": (1, LIMITS.samples, 1),
    "guide_strength": (-10, 10, 0.5),
    "repetition_penalty": (0.5, 2, 0.05),
    "length_penalty": (-2, 4, 0.1),
    "no_repeat_ngram": (0, 8, 1),
    "beam_size": (1, LIMITS.beams, 1),
    "min_p": (0, 1, 0.01),
}
_PLACEHOLDERS = {
    "bad_words": "ran, very happy, lil* (any ending)",
    "must_include": "dragon*, king|queen",
    "word_weights": "dragon:2, said:-1.5",
    "stop": "The end",
    "pattern": "(Monday|Tuesday), the [0-9]{1,2}th",
    "json_schema": '{"type": "object", "properties": {"name": {"type": "string"}}}',
    "grammar": 'start: "Hello " NAME',
}


def make_field(setting: Setting, attributes: list[str]) -> gr.components.Component:
    """Create the field of a setting.

    Args:
        setting: of the table.
        attributes: names of those that the model has.
    """
    value = START.get(setting.name, setting.default)
    label = f"{_PLAIN[setting.name]} ({setting.label})" if setting.name in _PLAIN else setting.label
    common: dict[str, Any] = {"label": label, "info": help_of(setting), "elem_id": f"field-{setting.name}"}
    if setting.name in _SLIDERS:
        low, high, step = _SLIDERS[setting.name]
        start = value if value is not None else low
        return gr.Slider(low, high, value=start, step=step, buttons=[], min_width=210, **common)
    if setting.name == "guide_attribute":
        return gr.Dropdown(attributes, value=[], multiselect=True, allow_custom_value=True, **common)
    if setting.kind is bool:
        return gr.Checkbox(value=value, **common)
    if setting.choices:
        choices = [("not set", ""), *((choice, choice) for choice in setting.choices)]
        return gr.Dropdown(choices, value="", **common)
    if setting.kind in (int, float) and setting.default is not None:
        return gr.Number(value=value, precision=0 if setting.kind is int else None, **common)
    # An optional number is a text field: gradio's number fields turn an empty value into 0.
    lines = 4 if setting.from_file else 1
    typed = "" if value in (None, ()) else show_value(setting, value)
    return gr.Textbox(value=typed, lines=lines, placeholder=_PLACEHOLDERS.get(setting.name, "not set"), **common)


# Where texts begin, and chats. A chat begins with a message, if there is none yet.
FIRST_PROMPT, FIRST_MESSAGE = "Once upon a time", "Tell me about bees."


def names_of(chat: bool) -> tuple[str, str]:
    """What the field of the prompt and the button are called, for a chat or for a text."""
    return ("message", "Send") if chat else ("prompt", "Write")


def show_chat_fields(chat: bool) -> list[Any]:
    """The prompt, the button and the system message as they are for a chat, or for a text."""
    typed, button = names_of(chat)
    prompt = gr.update(label=typed, placeholder="your message" if chat else "")
    return [prompt, gr.update(value=button), gr.update(visible=chat)]


def help_of(setting: Setting) -> str:
    """The help text of the setting, as its field shows it. Where the page starts with another value, it names that."""
    if setting.name not in START:
        return plain(setting.help)
    return plain(f"{_DEFAULT.sub('', setting.help)} This page starts at {START[setting.name]:g}.")


def with_field_names(text: str) -> str:
    """An error with its settings named as their fields are."""
    for name, field in _PLAIN.items():
        text = re.sub(
            rf"(?<![\w-]){name.replace('_', '[_-]')}(?![\w-])", f"{field} ({OPEN[name].label})", text, count=1
        )
    return text


def plain(text: str) -> str:
    """Text for next to a field, where gradio escapes markup but reads stars as emphasis, and brackets as links.

    Example:

    ```python
    >>> from fundamentallm_hf.web.fields import plain
    >>> plain("curs*")
    'curs∗'

    ```
    """
    return text.replace("*", "\N{ASTERISK OPERATOR}").replace("](", "]\N{WORD JOINER}(")


def read_field(setting: Setting, value: Any) -> Any:
    """The value that a visitor has entered, in the setting's type; None for an unset one.

    Raises:
        UserError: the setting does not take it.
    """
    if isinstance(value, list):
        value = [each for each in value if each != ""]  # Enter in an empty field adds one
    if value is None or value == "" or value == []:
        return None
    # `min_p` has no slider position for "not set" but 0, which does the same.
    if setting.name == "min_p" and value == 0:
        return None
    if isinstance(value, str) and not setting.choices:
        return read_value(setting, value)
    if setting.kind is int and isinstance(value, float):
        if not value.is_integer():
            raise setting.refusal(value)
        return int(value)
    return value


def show_field(setting: Setting, value: Any) -> Any:
    """A value as its field shows it: the opposite of `read_field`."""
    if setting.name == "guide_attribute":
        return list(value or ())
    if setting.kind in (str, tuple) and not setting.choices:
        return "" if value in (None, ()) else show_value(setting, value)
    if value is None:
        if setting.choices:
            return ""
        return {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0}.get(setting.name, "")
    if setting.default is None and setting.name not in _SLIDERS and not setting.choices:
        return show_value(setting, value)
    return value


def show_fields(values: Mapping[str, Any]) -> list[Any]:
    """The values of all fields, in the order of `OPEN`; missing ones get the page's defaults."""
    full = {name: setting.default for name, setting in OPEN.items()} | START | dict(values)
    return [show_field(OPEN[name], full[name]) for name in OPEN]


def chips_html(values: Mapping[str, Any]) -> str:
    """The fields that differ from the page's defaults, each with a button that takes it back.

    What can be left out has another one, which writes a text with it and one without it.

    Args:
        values: as the fields show them.
    """
    defaults = dict(zip(OPEN, show_fields({}), strict=True))
    chips = []
    for name, value in values.items():
        if value == defaults[name] or (value in (None, "", []) and defaults[name] in (None, "", [])):
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        label, shown = OPEN[name].label, escape(shown if len(shown) <= 24 else f"{shown[:23]}…")
        title = f"Write with and without {label}"
        side = f'<button type="button" class="side" data-compare="{name}" title="{title}">compare</button>'
        chips.append(
            f"<li>{label} <b>{shown}</b> {side if name in REMOVABLE else ''}"
            f'<button type="button" data-name="{name}" aria-label="remove {label}">✕</button></li>'
        )
    return f'<ul aria-label="settings that differ">{"".join(chips)}</ul>' if chips else ""


def settings_html(values: Mapping[str, Any]) -> str:
    """The settings of the fields, hidden: the browser compares them with those of the text in view.

    Of the settings that say how to write one text, each has its value, or null for its default, as the tree of texts
    has it. Nothing is returned where a field holds what is refused.

    Args:
        values: as the fields show them.
    """
    try:
        settings = read_settings({name: read_field(OPEN[name], value) for name, value in values.items()})
    except ValueError:
        return ""
    known = differing(settings)
    compared = {name: known.get(name) for name in OPEN if name not in _NOT_OF_A_TEXT}
    return f'<div hidden data-settings="{escape(json.dumps(compared))}"></div>'


def groups() -> dict[str, list[str]]:
    """The names of the collapsed settings, under the headings of the table."""
    found: dict[str, list[str]] = {}
    for name, setting in OPEN.items():
        if name not in ESSENTIAL:
            found.setdefault(setting.group, []).append(name)
    return found
