"""What the page does with files of texts and with what the browser asks for, without a browser."""

import copy
import json
from types import SimpleNamespace

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

import gradio as gr
from toy_tokenizers import toy_model

from fundamentallm_hf import Generator
from fundamentallm_hf.generation.text_tree import TextTree
from fundamentallm_hf.generation.tree_file import SavedTree, tree_text
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.web.actions import LARGEST, Actions
from fundamentallm_hf.web.examples import EXAMPLES, PRESET, PRESETS
from fundamentallm_hf.web.fields import show_fields
from fundamentallm_hf.web.limits import LIMITS, OPEN
from fundamentallm_hf.web.runner import Writer

ACTIONS = Actions(Writer(None), {})
NOTHING = (None, None, None, "", False)  # the fields that are read: nothing is set


def event(**data):
    return SimpleNamespace(_data=data)


def saved(seed):
    tree = TextTree()
    start = tree.add_prompt("a")
    tree.go(tree.add(start.id, "a", "b", seed=seed, tokens=1, finish_reason="length").id)
    return tree_text(SavedTree(tree))


def test_a_file_of_texts_is_opened():
    assert ACTIONS.open_texts(event(text=saved(LIMITS.seed), name="a.json")) == saved(LIMITS.seed)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (saved(LIMITS.seed + 1), "the file 'a.json': the seed of text 2 is 4503599627370497"),
        ("{}", "the file 'a.json' is not a tree of texts: it has to be an object with"),
        (" " * (LARGEST + 1), f"the file 'a.json' has to have at most {LARGEST} characters here"),
        (None, "the file 'a.json' is not JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(text, line):
    with pytest.raises(gr.Error) as refused:
        ACTIONS.open_texts(event(text=text, name="a.json"))
    assert refused.value.message.startswith(line)
    assert "\n" not in refused.value.message


def test_a_text_goes_on_with_the_fields_as_they_are():
    prompt, messages, *fields = ACTIONS.ask(*NOTHING, event(prompt="a b", continues=True, seed=5))
    changed = {name: value for name, value in zip(OPEN, fields, strict=True) if value != gr.skip()}
    assert (prompt, messages) == ("a b", "")
    assert changed == {"seed": "5", "must_include_prompt": False}
    assert dict(
        zip(OPEN, ACTIONS.ask(None, None, None, "dragon", False, event(prompt="a", branches=True))[2:], strict=True)
    )["must_include_prompt"]


def test_a_text_is_written_again_with_its_own_settings():
    asked = ACTIONS.ask(*NOTHING, event(prompt="a", seed=9, settings={"top_k": 5, "bad_words": ["ran"]}))
    own = {"temperature": None, "top_p": None, "seed": 9, "top_k": 5, "bad_words": ("ran",)}
    assert asked == ["a", "", *show_fields(own)]


def chatting():
    model = copy.copy(toy_model("byte_level"))
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = "{% for message in messages %}<{{ message.role }}> {{ message.content }}{% endfor %}"
    return Actions(Writer(Generator(model, tokenizer)), {})


ASKED = [{"role": "user", "content": "a dragon?"}]


def test_a_chat_is_asked_for_with_its_messages_and_controls_are_about_the_reply():
    actions = chatting()
    chat = [*ASKED, {"role": "assistant", "content": "A castle and a"}]
    prompt, messages, *fields = actions.ask(*NOTHING[:3], "castle, dragon", True, event(messages=chat, branches=True))
    assert (prompt, json.loads(messages)) == ("", chat)
    assert fields == [gr.skip()] * len(OPEN)
    values = dict(zip(OPEN, show_fields({"must_include": ("castle", "dragon")}), strict=True))
    given, settings = actions._read("", messages, tuple((values | {"must_include_prompt": True}).values()))
    assert given.messages == chat
    # The user's dragon does not count, and the castle of the reply does.
    assert (settings.must_include, settings.must_include_prompt) == (("dragon",), False)


@pytest.mark.parametrize(
    ("messages", "line"),
    [
        ([{"role": "user", "content": " "}], "the message is empty: type one"),
        ([{"role": "user", "content": "x" * (LIMITS.chat + 1)}], f"at most {LIMITS.chat} characters here but has"),
        (ASKED * (LIMITS.messages + 1), f"at most {LIMITS.messages} messages here but has"),
        ([{"role": "robot", "content": "x"}], "has to be one of system, user, assistant"),
        ("hello", "has to be a list of messages"),
        ({"a": 1}, "has to be a list of messages"),
    ],
)
def test_a_chat_that_cannot_be_answered_is_one_line(messages, line):
    with pytest.raises(gr.Error) as refused:
        chatting().ask(*NOTHING, event(messages=messages))
    assert line in refused.value.message
    assert "\n" not in refused.value.message
    with pytest.raises(UserError, match="the messages have to be JSON"):
        chatting()._read("", "[" * 100_000, show_fields({}))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"prompt": 3},
        {"prompt": "x" * 3000},
        {"prompt": "a", "settings": {"top_p": 5}},
        {"prompt": "a", "settings": {"max_tokens": 10**6}},
        {"prompt": "a", "settings": {}, "seed": "x"},
    ],
    ids=json.dumps,
)
def test_what_a_browser_cannot_ask_for_is_refused(data):
    with pytest.raises(gr.Error):
        ACTIONS.ask(*NOTHING, event(**data))


def test_a_structured_text_is_not_continued_from_its_middle():
    with pytest.raises(gr.Error, match="cannot be continued from its middle"):
        ACTIONS.ask("a|b", None, None, "", False, event(prompt="a", branches=True))


def test_the_fields_are_filled_with_a_text_or_a_chat():
    chat, text = chatting(), Actions(SimpleNamespace(can_chat=False), {})
    long, skipped = "x" * (LIMITS.prompt + 1), gr.skip()
    own = {"settings": {"top_k": 5}, "seed": 9}
    shown = show_fields({"temperature": None, "top_p": None, "seed": 9, "top_k": 5})
    filled = event(chat=True, prompt=long, system="Be brief.", **own)
    assert chat.fill_fields(filled) == [True, long, "Be brief.", *shown]
    assert chat.fill_fields(event(chat=False, prompt="a", **own)) == [False, "a", skipped, *shown]
    assert text.fill_fields(event(chat=False, prompt="a", **own)) == [skipped, "a", skipped, *shown]
    # A chat of a file, and to start afresh.
    assert text.fill_fields(event(**own)) == [skipped] * 3 + shown
    assert chat.fill_fields(event(system="", settings=None)) == [skipped, skipped, "", *show_fields({})]
    for wrong in (event(prompt=long), event(chat=True, prompt="x" * (LIMITS.chat + 1)), event(settings={"top_p": 5})):
        with pytest.raises(gr.Error):
            chat.fill_fields(wrong)


def test_a_preset_leaves_the_chat_and_the_prompt_and_an_example_does_not():
    for index, each in enumerate(PRESETS):
        chat, prompt, *fields = ACTIONS.show_example(PRESETS, index)
        assert (chat, prompt) == (gr.skip(), gr.skip())
        left = {name for name, value in zip(OPEN, fields, strict=True) if value == gr.skip()}
        assert left == set(OPEN) - PRESET, each.name
    for index, each in enumerate(EXAMPLES):
        assert ACTIONS.show_example(EXAMPLES, index) == [False, each.prompt, *show_fields(each.settings)]
