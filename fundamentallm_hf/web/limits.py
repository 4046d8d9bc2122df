"""Limits on the requests of visitors: their size, and no access to files.

Every request is checked here on the server before anything is computed, whether it comes from the page or a program.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fundamentallm_hf.portable.controls.setting import Setting, is_text
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.portable.text.word_lists import split_alternatives
from fundamentallm_hf.settings.chat_messages import Messages, check_messages, started_reply
from fundamentallm_hf.settings.generation_settings import LIST_FILES, SETTINGS, GenerationSettings, find_setting
from fundamentallm_hf.settings.typed_values import short_repr

# Visitors cannot name a file on the server.
CLOSED = LIST_FILES
# The settings that visitors may use.
OPEN: dict[str, Setting] = {name: setting for name, setting in SETTINGS.items() if name not in CLOSED}


@dataclass(frozen=True)
class Limits:
    """The upper limits.

    Attributes:
        prompt: characters in a prompt.
        chat, messages: characters in a chat, and its messages.
        tokens: new tokens in a text.
        samples: texts for one prompt.
        beams: candidates of a beam search.
        total: new tokens of all texts together, every beam counted.
        entries: entries of a list.
        required: words that must be included.
        entry: characters in an entry.
        text: characters in a pattern, a schema or a grammar.
        columns: texts in a comparison.
        alternatives: most probable tokens for each position.
        seed: the highest; browsers hold no larger numbers exactly.
        seconds: computing time of one request; then it ends as if stopped.
    """

    prompt: int = 2000
    chat: int = 10_000
    messages: int = 100
    tokens: int = 500
    samples: int = 6
    beams: int = 8
    total: int = 2000
    entries: int = 40
    required: int = 8
    entry: int = 60
    text: int = 1000
    columns: int = 6
    alternatives: int = 10
    seed: int = 2**52
    seconds: float = 60.0

    def of(self, setting: Setting) -> int | None:
        """The limit of a numeric setting; None where the range of the setting is enough."""
        return {
            "max_tokens": self.tokens,
            "min_tokens": self.tokens,
            "num_samples": self.samples,
            "best": self.samples,
            "beam_size": self.beams,
            "seed": self.seed,
        }.get(setting.name)


LIMITS = Limits()


def read_prompt(prompt: Any, limits: Limits = LIMITS) -> str:
    """Check and return a prompt.

    Raises:
        UsageError: it is no text, or too long.
    """
    if not isinstance(prompt, str) or not is_text(prompt):
        raise UsageError(f"prompt has to be text but is {short_repr(prompt)}", setting="prompt", expected="text")
    if len(prompt) > limits.prompt:
        raise UsageError(
            f"prompt has to have at most {limits.prompt} characters here but has {len(prompt)}: shorten it",
            setting="prompt",
        )
    return prompt


def parse_messages(text: Any, limits: Limits = LIMITS) -> Any:
    """What the JSON of a chat holds.

    Raises:
        UsageError: it is no JSON, or too long.
    """
    try:
        if not isinstance(text, str) or len(text) > 8 * limits.chat:  # a character may take six
            raise ValueError
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"the messages have to be JSON, at most {8 * limits.chat} characters of it") from None


def read_messages(messages: Any, limits: Limits = LIMITS) -> Messages:
    """Check and return the messages of a chat.

    Raises:
        UsageError: they are no chat, the message to be answered is empty, or they are too long.
    """
    if isinstance(messages, list) and len(messages) > limits.messages:
        raise UsageError(
            f"a chat has to have at most {limits.messages} messages here but has {len(messages)}: begin a new one",
            setting="prompt",
        )
    checked = check_messages(messages)
    size = sum(len(message["content"]) for message in checked)
    if size > limits.chat:
        raise UsageError(
            f"a chat has to have at most {limits.chat} characters here but has {size}: begin a new one",
            setting="prompt",
        )
    if started_reply(checked) is None and not checked[-1]["content"].strip():
        raise UsageError("the message is empty: type one", setting="prompt")
    return checked


def read_settings(values: Mapping[str, Any], limits: Limits = LIMITS) -> GenerationSettings:
    """Settings, checked against their ranges, each other, and the limits of this demo.

    Args:
        values: by name; None is the default.
        limits: of this demo.

    Returns:
        The settings, with a seed where one matters.

    Raises:
        UsageError: a value is invalid, or exceeds a limit.
    """
    given = {}
    for name, value in values.items():
        setting = find_setting(name)
        if setting.name in CLOSED and value is not None:
            instead = SETTINGS[setting.follows].label
            raise UsageError(
                f"{setting.label} is not available here: give the words themselves as {instead}", setting=setting.name
            )
        if value is None or (isinstance(value, str) and not value):
            value = setting.default
        _check_size(setting, value, limits)
        given[setting.name] = setting.parse(value)
        _check_value(setting, given[setting.name], limits)
    settings = GenerationSettings(**given)
    total = settings.max_tokens * settings.num_samples * settings.beam_size
    if total > limits.total:
        raise UsageError(
            f"max-tokens times num-samples times beam-size is {total}, but here it has to be at most {limits.total}: "
            "ask for less",
            setting="max_tokens",
        )
    settings.check()
    if settings.seed is None and settings.sampled:
        settings = settings.replace(seed=secrets.randbits(32))
    return settings


def _check_size(setting: Setting, value: Any, limits: Limits) -> None:
    """Reject a value that is too large before anything reads it."""
    if setting.kind is str or setting.kind is tuple:
        many = limits.entries * (limits.entry + 2)
        most = many if setting.kind is tuple else limits.text
        size = len(value) if isinstance(value, str) else len(str(value)) if isinstance(value, dict | list) else 0
        if size > max(most, limits.text):
            raise UsageError(
                f"{setting.label} has to have at most {most} characters here but has {size}: shorten it",
                setting=setting.name,
            )


def _check_value(setting: Setting, value: Any, limits: Limits) -> None:
    most = limits.of(setting)
    if most is not None and value is not None and value > most:
        raise UsageError(
            f"{setting.label} has to be at most {most} here but is {value}: ask for less",
            setting=setting.name,
            value=value,
        )
    if setting.kind is tuple:
        allowed = limits.required if setting.name == "must_include" else limits.entries
        if len(value) > allowed:
            raise UsageError(
                f"{setting.label} has to have at most {allowed} entries here but has {len(value)}: shorten the list",
                setting=setting.name,
            )
        for entry in value:
            if len(entry) > limits.entry:
                raise UsageError(
                    f"{setting.label} has to hold entries of at most {limits.entry} characters here but holds "
                    f"{short_repr(entry)}",
                    setting=setting.name,
                    value=entry,
                )
            if setting.name == "must_include" and len(split_parts(entry)) > limits.required:
                raise UsageError(
                    f"{setting.label} has to hold at most {limits.required} alternatives in an entry here but holds "
                    f"{short_repr(entry)}",
                    setting=setting.name,
                    value=entry,
                )


def split_parts(entry: str) -> list[str]:
    """The alternatives of an entry; the entry itself where it cannot be read, which is reported later."""
    try:
        return split_alternatives(entry)
    except ValueError:
        return [entry]


def field_of(error: UserError) -> str | None:
    """The field of an error: "prompt", or the name of a setting; None where there is none, or several."""
    return error.setting if error.setting == "prompt" or error.setting in OPEN else None
