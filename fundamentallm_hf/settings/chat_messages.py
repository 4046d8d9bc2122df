"""Chats as users give them: lists of messages, each with a role and its content. Needs no model."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fundamentallm_hf.portable.controls.setting import is_text
from fundamentallm_hf.portable.errors import UsageError

ROLES = ("system", "user", "assistant")
Message = dict[str, str]
# The messages of a chat, the last one to be answered.
Messages = list[Message]


def is_chat(value: Any) -> bool:
    """Whether a prompt is a chat, not a text: a list of messages, of which the first is a dict."""
    return isinstance(value, Sequence) and not isinstance(value, str) and bool(value) and isinstance(value[0], Mapping)


def check_messages(messages: Any, what: str = "chat") -> Messages:
    """The messages of a chat that can be answered.

    Args:
        messages: a list of dicts with "role" and "content"; a system message comes first if there is one, and the last
            message is the user's.
        what: the chat is called in errors.

    Raises:
        UsageError: they are anything else; says what was expected.

    Example:

    ```python
    >>> from fundamentallm_hf.settings.chat_messages import check_messages
    >>> check_messages([{"role": "user", "content": "Hello"}])
    [{'role': 'user', 'content': 'Hello'}]

    ```
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise UsageError(f"{what} has to be a list of messages, each with a role and a content, but is {messages!r}")
    checked: Messages = []
    for number, message in enumerate(messages, 1):
        where = f"message {number} of {what}"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise UsageError(f'{where} has to be {{"role": ..., "content": ...}} but is {message!r}')
        role, content = message["role"], message["content"]
        if role not in ROLES:
            raise UsageError(f"the role of {where} has to be one of {', '.join(ROLES)} but is {role!r}")
        if not isinstance(content, str) or not is_text(content):
            raise UsageError(f"the content of {where} has to be text but is {content!r}")
        if role == "system" and number > 1:
            raise UsageError(f"{where} has the role 'system', which only the first message can have")
        checked.append({"role": role, "content": content})
    if checked[-1]["role"] != "user":
        raise UsageError(f"the last message of {what} has to be the user's but is the {checked[-1]['role']}'s")
    return checked


def user_chat(content: str, system: str | None = None) -> Messages:
    """A chat of one message of the user, behind a system message if there is one."""
    return with_system([{"role": "user", "content": content}], system)


def with_system(messages: Messages, system: str | None, what: str = "chat") -> Messages:
    """A chat with a system message before it.

    Raises:
        UsageError: it has one already.
    """
    if system is None:
        return messages
    if messages[0]["role"] == "system":
        raise UsageError(f"{what} has a system message already: leave out system, or take it out of there")
    return [{"role": "system", "content": system}, *messages]


def read_chats(text: str, what: str, system: str | None = None) -> list[Messages]:
    """Chats in JSON lines: each line a list of messages, or an object that holds one as "messages".

    Args:
        text: the lines; empty ones are left out.
        what: the file is called in errors.
        system: the system message of those chats.

    Raises:
        UsageError: a line is anything else; names the line.
    """
    chats = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"line {number} of {what}"
        try:
            loaded = json.loads(line)
        except (ValueError, RecursionError):
            raise UsageError(
                f'{where} is not JSON: with --chat each line is a list of {{"role": ..., "content": ...}}'
            ) from None
        if isinstance(loaded, dict) and "messages" in loaded:
            loaded = loaded["messages"]
        chats.append(with_system(check_messages(loaded, where), system, where))
    if not chats:
        raise UsageError(f"{what} holds no chat: write one per line")
    return chats
