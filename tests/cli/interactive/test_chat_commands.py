"""Chats in the prompt loop, without a terminal."""

import pytest
from test_session import Recorder

from fundamentallm_hf import Generator
from fundamentallm_hf.cli.interactive.session import Session
from fundamentallm_hf.generation.tree_file import SavedTree, parse_tree, tree_text
from fundamentallm_hf.settings.generation_settings import GenerationSettings

TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}<assistant>"
SETTINGS = {"max_tokens": 12, "temperature": 1.0, "seed": 3}


@pytest.fixture
def model(shakespeare, monkeypatch):
    monkeypatch.setattr(shakespeare.tokenizer, "chat_template", TEMPLATE)
    return shakespeare


@pytest.fixture
def start(model):
    def started(chat=True, **options):
        return Session(lambda name: model, None, GenerationSettings(**SETTINGS), Recorder(), chat=chat, **options)

    return started


def messages(*contents, system=None):
    roles = ("user", "assistant")
    chat = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    return [{"role": "system", "content": system}, *chat] if system else chat


def reply(model, chat, **settings):
    return Generator(model, **SETTINGS | settings).generate(chat)


def test_each_message_is_answered_with_the_whole_chat(start, model):
    session = start(system="Be brief.")
    for typed in ("Who are you?", "Why?", "/system off", "Who?"):
        session.handle(typed)
    one = reply(model, messages("Who are you?", system="Be brief."))
    two = reply(model, messages("Who are you?", one, "Why?", system="Be brief."))
    assert session.output.texts == [one, two, reply(model, messages("Who?"))]


def test_a_chat_can_be_gone_back_in_continued_and_written_again(start, model):
    session = start()
    one, again = (reply(model, messages("Who are you?"), seed=seed) for seed in (3, 4))
    for typed in ("Who are you?", "/retry", "/more"):
        session.handle(typed)
    more = session.output.texts[2]
    assert session.output.texts[:2] == [one, again]
    session.handle("Why?")
    assert session.output.texts[3] == reply(model, messages("Who are you?", again + more, "Why?"))
    for typed in ("/undo", "/undo", "/undo", "Why?"):
        session.handle(typed)
    assert session.output.texts[4] == reply(model, messages("Who are you?", one, "Why?"))
    assert not [each for each in session.output.talk if "Error" in str(each)]


@pytest.mark.parametrize("moves", [("/undo", "/redo"), ("/go 3",), ("/more", "/undo")])
def test_a_later_reply_that_was_gone_back_to_is_written_again_in_its_chat(start, model, moves):
    session = start(system="Be brief.")
    for typed in ("Who are you?", "Why?", *moves, "/retry", "When?"):
        session.handle(typed)
    one = reply(model, messages("Who are you?", system="Be brief."))
    again = reply(model, messages("Who are you?", one, "Why?", system="Be brief."), seed=4)
    assert session.output.texts[-2] == again
    assert session.output.texts[-1] == reply(
        model, messages("Who are you?", one, "Why?", again, "When?", system="Be brief.")
    )
    assert [each for each in session.output.talk if "Error" in str(each)] == []


def test_a_chat_is_saved_with_its_texts_and_goes_on_after_it_is_resumed(start, model):
    session = start(system="Be brief.")
    session.handle("Who are you?")
    one = session.output.texts[0]
    saved = parse_tree(tree_text(SavedTree(session.tree)))
    assert list(saved.tree) == list(session.tree)
    resumed = start(resumed=saved)
    resumed.show_resumed()
    assert f"text: system: Be brief.\n\nuser: Who are you?\n\nassistant: {one}" in resumed.output.talk
    resumed.handle("Why?")
    assert resumed.output.texts == [reply(model, messages("Who are you?", one, "Why?", system="Be brief."))]


def test_what_is_no_command_of_a_chat_is_refused_and_off_ends_it(start):
    session = start(chat=False)
    for typed in ("/chat loud", "/chat", "Who?", "/status", "/chat off", "Who?"):
        session.handle(typed)
    assert session.output.talk[0] == "Error: /chat takes on or off but got 'loud'"
    assert any("Chat: on" in str(each) for each in session.output.talk)
    assert session.output.texts[1].startswith("Who?")
    assert not session.output.texts[0].startswith("Who?")


def test_a_model_without_a_template_begins_no_chat(start, model, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    session = start(chat=False)
    session.handle("/chat")
    assert "has no chat template" in session.output.talk[0]
    session.handle("Who?")
    assert session.output.texts[0].startswith("Who?")
