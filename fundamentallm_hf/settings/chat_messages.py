"""Checks and reads prompts: texts, and chats, which are lists of messages. Needs no model."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fundamentallm_hf.portable.controls.setting import is_text
from fundamentallm_hf.portable.errors import UsageError

from .typed_values import short_repr

ROLES = ("system", "user", "assistant")
Message = dict[str, str]
# The messages of a chat; the model answers the last one, or continues the reply that it starts.
Messages = list[Message]
# What may be given to a model: the start of a text, or a chat to be answered.
Prompt = str | Sequence[Message]


def is_chat(value: Any) -> bool:
    """Whether a prompt is a chat rather than text: a list whose first item is a dict."""
    return isinstance(value, Sequence) and not isinstance(value, str) and bool(value) and isinstance(value[0], Mapping)


def check_prompt(prompt: Any) -> str | Messages:
    """Check what is given to a model: the start of a text, or a chat.

    Raises:
        UsageError: it is neither, or holds characters that UTF-8 cannot write.
    """
    if isinstance(prompt, str):
        if not is_text(prompt):
            raise UsageError(f"prompt has to be UTF-8 text but is {short_repr(prompt)}")
        return prompt
    if not is_chat(prompt):
        expected = 'text, or a chat such as [{"role": "user", "content": "Hello"}],'
        raise UsageError(f"prompt has to be {expected} but is {short_repr(prompt)}")
    return check_messages(prompt)


def check_messages(messages: Any, what: str = "chat") -> Messages:
    """Check the messages of a chat.

    Args:
        messages: a list of dicts with "role" and "content"; only the first message may be a system message, and the
            last one must be the user's, or the start of the assistant's reply to it.
        what: the name of the chat in error messages.

    Raises:
        UsageError: the messages are not valid; the message says what was expected.

    Example:

    ```python
    >>> from fundamentallm_hf.settings.chat_messages import check_messages
    >>> check_messages([{"role": "user", "content": "Hello"}])
    [{'role': 'user', 'content': 'Hello'}]

    ```
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        shown = short_repr(messages)
        raise UsageError(f"{what} has to be a list of messages, each with a role and a content, but is {shown}")
    checked: Messages = []
    for number, message in enumerate(messages, 1):
        where = f"message {number} of {what}"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise UsageError(f'{where} has to be {{"role": ..., "content": ...}} but is {short_repr(message)}')
        role, content = message["role"], message["content"]
        if role not in ROLES:
            raise UsageError(f"the role of {where} has to be one of {', '.join(ROLES)} but is {short_repr(role)}")
        if not isinstance(content, str) or not is_text(content):
            raise UsageError(f"the content of {where} has to be text but is {short_repr(content)}")
        if role == "system" and number > 1:
            raise UsageError(f"{where} has the role 'system', which only the first message can have")
        checked.append({"role": role, "content": content})
    asked = turns_of(checked)
    if not asked or asked[-1]["role"] != "user":
        raise UsageError(
            f"the last message of {what} has to be the user's, or the start of a reply to it, but is the "
            f"{checked[-1]['role']}'s"
        )
    return checked


def started_reply(messages: Sequence[Mapping[str, str]]) -> str | None:
    """The start of the reply with which a chat ends; None where it ends with the message to be answered."""
    return messages[-1]["content"] if messages[-1]["role"] == "assistant" else None


def turns_of(messages: Messages) -> Messages:
    """The messages of a chat without the start of a reply with which it may end."""
    return messages if started_reply(messages) is None else messages[:-1]


def with_reply(messages: Sequence[Mapping[str, str]], added: str) -> Messages:
    """A chat with a reply, or with more of the reply that it ends with; unchanged where nothing is added.

    Example:

    ```python
    >>> from fundamentallm_hf.settings.chat_messages import user_chat, with_reply
    >>> with_reply(with_reply(user_chat("Who?"), "A king"), " of old.")[-1]
    {'role': 'assistant', 'content': 'A king of old.'}

    ```
    """
    chat = [dict(message) for message in messages]
    if not added:
        return chat
    return [*turns_of(chat), {"role": "assistant", "content": (started_reply(chat) or "") + added}]


def user_chat(content: str, system: str | None = None) -> Messages:
    """A chat of one user message, after a system message if one is given."""
    return with_system([{"role": "user", "content": content}], system)


def with_system(messages: Messages, system: str | None, what: str = "chat") -> Messages:
    """Put a system message before a chat.

    Raises:
        UsageError: the chat already has one.
    """
    if system is None:
        return messages
    if messages[0]["role"] == "system":
        raise UsageError(f"{what} has a system message already: leave out system, or take it out of there")
    return [{"role": "system", "content": system}, *messages]


def read_chats(text: str, what: str, system: str | None = None) -> list[Messages]:
    """Read chats from JSON lines: each line is a list of messages, or an object with such a list as "messages".

    Args:
        text: the lines; empty ones are skipped.
        what: the name of the file in error messages.
        system: the system message for all of the chats.

    Raises:
        UsageError: a line is not a valid chat; the message names the line.
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
