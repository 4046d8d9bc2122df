"""Invalid chats are rejected, with a message that says why."""

import json

import pytest

from fundamentallm_hf.portable.errors import UsageError
from fundamentallm_hf.settings.chat_messages import check_messages, is_chat, read_chats, user_chat

USER = {"role": "user", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be kind."}
REPLY = {"role": "assistant", "content": "Hi"}


@pytest.mark.parametrize("messages", [[USER], [SYSTEM, USER], [USER, REPLY, USER], (USER,)])
def test_a_chat_ends_with_the_user(messages):
    assert check_messages(messages) == list(messages)
    assert is_chat(messages)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "has to be a list of messages"),
        ("Hello", "has to be a list of messages"),
        ({"role": "user"}, "has to be a list of messages"),
        (["Hello"], "message 1 of chat has to be"),
        ([{"role": "user"}], "message 1 of chat has to be"),
        ([USER | {"name": "Ann"}], "message 1 of chat has to be"),
        ([{"role": "robot", "content": "Hello"}], "one of system, user, assistant but is 'robot'"),
        ([USER, REPLY, {"role": "user", "content": 3}], "content of message 3 of chat has to be text but is 3"),
        ([{"role": "user", "content": "\ud800"}], "has to be text"),
        ([USER, SYSTEM, USER], "only the first message"),
        ([USER, REPLY, REPLY], "has to be the user's, or the start of a reply to it, but is the assistant's"),
        ([SYSTEM, REPLY], "has to be the user's, or the start of a reply to it, but is the assistant's"),
        ([SYSTEM], "has to be the user's, or the start of a reply to it, but is the system's"),
    ],
)
def test_what_is_no_chat_is_refused_in_one_line(messages, expected):
    with pytest.raises(UsageError, match=expected) as raised:
        check_messages(messages)
    assert "\n" not in str(raised.value)


def test_chats_are_read_from_json_lines():
    lines = [json.dumps([USER]), "", json.dumps({"messages": [USER, REPLY, USER]})]
    assert read_chats("\n".join(lines), "chats") == [[USER], [USER, REPLY, USER]]
    assert read_chats(lines[0], "chats", "Be kind.") == [[SYSTEM, USER]] == [user_chat("Hello", "Be kind.")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\n", "holds no chat"),
        (json.dumps([USER]) + "\nHello", "line 2 of chats is not JSON"),
        (json.dumps({"chat": [USER]}), "line 1 of chats has to be a list of messages"),
        (json.dumps([REPLY]), "last message of line 1 of chats"),
        ("[" * 100_000, "line 1 of chats is not JSON"),
        (json.dumps([SYSTEM, USER]), "line 1 of chats has a system message already"),
    ],
)
def test_a_line_that_is_no_chat_is_named(text, expected):
    with pytest.raises(UsageError, match=expected):
        read_chats(text, "chats", "Be kind.")
