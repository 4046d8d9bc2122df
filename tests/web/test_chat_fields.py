"""Chats and the fields of the page: what a reload, presets, "Start afresh" and an edit that was left do in a chat."""

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from test_chat_page import FIRST, OPTIONS, chat_of, messages, send, served  # noqa: F401
from test_reading_the_page import value, wait_for_status
from test_tree_page import kept, press, rows, wait_for_shown
from web_visit import after, browser, fill, shown_text, visit  # noqa: F401

SHOWS = """([name, wanted]) =>
  document.querySelector(`#field-${name}`)?.querySelector("textarea, input").value === wanted"""


def wait_for_value(page, name, wanted):
    page.wait_for_function(SHOWS, arg=[name, wanted])


def test_a_reload_has_the_settings_and_the_system_message_of_the_chat(visit):  # noqa: F811
    page = visit()
    fill(page, "system", "Be brief.")
    fill(page, "max_tokens", 20)
    fill(page, "bad_words", "happy")
    text = send(page, "Who are you?")
    wait_for_status(page, "20 characters")
    page.reload()
    wait_for_shown(page, text)
    for name, wanted in (("system", "Be brief."), ("bad_words", "happy"), ("max_tokens", "20"), ("prompt", "")):
        wait_for_value(page, name, wanted)
    wait_for_status(page, "20 characters · seed 7")
    assert page.locator("#field-chat input").is_checked()
    # The next message belongs to the chat.
    again = send(page, "Why?")
    assert chat_of(page) == messages("Who are you?", text, "Why?", again, system="Be brief.")
    # A message that waits for its reply is typed again; settings on request leave what is typed.
    page.locator("#branches .name").nth(2).click()
    page.wait_for_function("document.querySelector('#status').textContent.trim() === ''")
    page.reload()
    wait_for_value(page, "prompt", "Who are you?")
    wait_for_value(page, "system", "Be brief.")
    page.locator("#branches .name").last.click()
    wait_for_shown(page, again)
    fill(page, "prompt", "And when?")
    fill(page, "system", "")
    page.get_by_role("button", name="use the settings of").click()
    wait_for_value(page, "bad_words", "happy")
    wait_for_value(page, "system", "Be brief.")
    assert value(page, "prompt") == "And when?"


def test_a_reload_of_a_text_turns_the_chat_off_and_of_a_chat_on(visit):  # noqa: F811
    page = visit()
    page.locator("#field-chat input").uncheck()
    page.wait_for_function("document.querySelector('#write').innerText === 'Write'")
    fill(page, "prompt", "The cat")
    fill(page, "max_tokens", 20)
    after(page, lambda: page.click("#write"))
    text = shown_text(page)
    page.reload()
    wait_for_shown(page, text)
    wait_for_value(page, "prompt", "The cat")
    page.wait_for_function("document.querySelector('#write').innerText === 'Write'")
    assert not page.locator("#field-chat input").is_checked()


def test_a_preset_answers_the_typed_message_or_the_last_one_again(visit, served):  # noqa: F811
    page = visit()

    def preset(name):
        after(page, lambda: page.locator("#presets").get_by_text(name, exact=True).click())
        page.wait_for_function("document.querySelector('#field-prompt textarea').value === ''")
        return shown_text(page)

    fill(page, "bad_words", "happy")
    fill(page, "prompt", "Who are you?")
    completion = OPTIONS | {"temperature": 0.7, "top_p": 1.0, "max_tokens": 50, "bad_words": ["happy"]}
    chat = chat_of(page)
    one = preset("Completion")
    asked = [*chat, *messages("Who are you?")]
    assert one == served[2].generator.generate(asked, **completion)
    assert page.locator("#field-chat input").is_checked()
    poetry = completion | {"temperature": 1.0, "top_k": 40, "max_tokens": 100}
    two = preset("Poetry")
    assert two == served[2].generator.generate(asked, **poetry)
    tree = kept(page)
    assert tree.chat(tree.current.id)[:-1] == asked
    assert len(tree.children(tree.current.parent)) == 2


def test_start_afresh_in_a_chat_and_back(visit):  # noqa: F811
    page = visit()
    fill(page, "system", "Be brief.")
    fill(page, "max_tokens", 20)
    text = send(page, "Who are you?")
    names, told = rows(page), chat_of(page)
    press(page, "Start afresh")
    page.get_by_text("A chat begins with your message.").wait_for()
    wait_for_value(page, "system", "")
    wait_for_value(page, "max_tokens", "200")
    assert rows(page) == []
    press(page, "Bring the texts back")
    wait_for_shown(page, text)
    wait_for_value(page, "system", "Be brief.")
    wait_for_value(page, "max_tokens", "20")
    assert (rows(page), chat_of(page)) == (names, told)
    press(page, "Start afresh")
    page.get_by_text("A chat begins with your message.").wait_for()
    wait_for_value(page, "max_tokens", "200")
    fill(page, "max_tokens", 20)
    again = send(page, "Why?")
    assert chat_of(page) == messages("Why?", again)


def test_an_edit_of_a_reply_that_was_left_belongs_to_that_reply(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    one = send(page, "Who are you?")
    send(page, "Why?")
    press(page, "Undo")
    wait_for_shown(page, one)
    press(page, "Edit")
    page.keyboard.press("Escape")
    wait_for_shown(page, one)
    assert page.get_by_role("button", name="Edit them again").count() == 0
    press(page, "Edit")
    page.get_by_label("the text", exact=True).fill("A king")
    page.keyboard.press("Escape")
    wait_for_shown(page, one)
    press(page, "Redo")
    press(page, "Edit them again")
    assert page.get_by_label("the text", exact=True).input_value() == "A king"
    press(page, "Keep")
    wait_for_shown(page, "A king")
    told = chat_of(page)
    assert [each["content"] for each in told][-2:] == ["Who are you?", "A king"]


def test_turns_are_named_by_their_words(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    press(page, "New chat")
    send(page, "“Who are you?”")
    press(page, "New chat")
    send(page, "???")
    names = page.locator("#branches .name").all_inner_texts()
    assert FIRST.rstrip(".") in names[0]
    assert "Who are you?”" in names
    assert "???" in names
    assert not any(name.startswith(("user", "assistant")) for name in names)
