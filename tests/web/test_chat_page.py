"""Chats on the page, in a browser: turns, other replies, branches, files, and what a model without a template says."""

import io
from contextlib import redirect_stdout

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from command import run as run_command
from test_tree_page import kept, press, wait_for_shown
from web_server import start
from web_visit import after, browser, fill, picture, shown_text, tab, visit, write  # noqa: F401

from fundamentallm_hf.generation.tree_file import parse_tree, read_tree, tree_text

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
OPTIONS = {"max_tokens": 30, "temperature": 0.8, "top_p": 0.9, "seed": 7}
FIRST = "Tell me about bees."


@pytest.fixture(scope="module")
def served():
    return start(TEMPLATE)


def messages(*contents, system=None):
    roles = ("user", "assistant")
    chat = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    return [{"role": "system", "content": system}, *chat] if system else chat


def chat_of(page):
    tree = kept(page)
    return tree.chat(tree.current.id)


def send(page, message):
    fill(page, "prompt", message)
    after(page, lambda: page.click("#write"))
    page.wait_for_function("document.querySelector('#field-prompt textarea').value === ''")
    return shown_text(page)


def test_a_session_of_a_chat(visit, served):  # noqa: F811
    """Turns, retry, undo, more, another token in the middle, an edited reply, a system message, a new chat."""

    def reply(*contents, system=None, **settings):
        return served[2].generator.generate(messages(*contents, system=system), **OPTIONS | settings)

    page = visit()
    assert page.locator("#write").inner_text() == "Send"
    assert shown_text(page) == reply(FIRST, max_tokens=200)
    assert page.locator(".turn.user p").inner_text() == FIRST
    press(page, "New chat")
    page.get_by_text("A chat begins with your message.").wait_for()
    fill(page, "max_tokens", 30)

    one = send(page, "Who are you?")
    assert one == reply("Who are you?")
    two = send(page, "Why?")
    assert two == reply("Who are you?", one, "Why?")
    assert page.locator(".turn p").all_inner_texts() == ["Who are you?", one, "Why?"]
    assert chat_of(page) == messages("Who are you?", one, "Why?", two)

    after(page, lambda: press(page, "Retry"))
    again = shown_text(page)
    assert again == reply("Who are you?", one, "Why?", seed=8)
    press(page, "Undo")
    wait_for_shown(page, two)
    assert page.locator("#texts .tok").count() == 30  # as live as before
    press(page, "Redo")
    wait_for_shown(page, again)
    after(page, lambda: press(page, "Continue"))
    longer = shown_text(page)
    assert longer == reply("Who are you?", one, "Why?", again, seed=8)
    three = send(page, "When?")
    assert three == reply("Who are you?", one, "Why?", longer, "When?", seed=8)

    # From another token in the middle of the reply.
    press(page, "Undo")
    wait_for_shown(page, longer)
    page.locator(".tok").nth(3).click()
    row = page.locator(".panel .row:not(.same)").first
    choice = row.locator(".name").inner_text().split('"')[1]
    after(page, lambda: row.locator(".go").click())
    start_of = again + longer.removeprefix(again)[:3] + choice
    branch = shown_text(page)
    assert branch.startswith(start_of)
    assert branch == reply("Who are you?", one, "Why?", start_of, seed=8)
    assert chat_of(page) == messages("Who are you?", one, "Why?", branch)

    # By hand.
    press(page, "Edit")
    area = page.get_by_label("the text", exact=True)
    assert area.input_value() == branch
    area.fill("Because")
    press(page, "Keep")
    wait_for_shown(page, "Because")
    after(page, lambda: press(page, "Continue"))
    assert shown_text(page) == reply("Who are you?", one, "Why?", "Because", seed=8)
    picture(page, "chat")

    # Another system message begins another chat; what differs is read as turns.
    page.locator("#field-system").locator("textarea, input").first.fill("Be brief.")
    assert send(page, "Who?") == reply("Who?", system="Be brief.", seed=8)
    assert chat_of(page)[:2] == messages("Who?", system="Be brief.")
    page.locator("#branches [data-do=compare]").first.click()
    assert page.locator(".differences .text").inner_text().startswith("system: Be brief.")
    press(page, "Close")

    # All of it is there after a reload.
    told = chat_of(page)
    page.reload()
    wait_for_shown(page, told[-1]["content"])
    assert page.locator(".turn p").all_inner_texts() == ["Be brief.", "Who?"]
    assert chat_of(page) == told


def test_controls_are_about_the_reply(visit, served):  # noqa: F811
    page = visit()
    press(page, "New chat")
    fill(page, "max_tokens", 60)
    fill(page, "bad_words", "bees, was")
    fill(page, "must_include", "dragon*")
    text = send(page, "Write about a dragon and bees.")
    assert "dragon" in text.lower()
    assert "bees" not in text
    expected = OPTIONS | {"max_tokens": 60, "bad_words": ["bees", "was"], "must_include": ["dragon*"]}
    assert text == served[2].generator.generate(messages("Write about a dragon and bees."), **expected)
    assert "✓ dragon" in page.locator(".words").first.inner_text().lower()
    marked = "".join(page.locator(".tok.required").all_text_contents())
    assert marked.lower().startswith("dragon")
    # More of the reply: its dragon counts.
    after(page, lambda: press(page, "Continue"))
    assert page.locator("#alert p").count() == 0
    assert kept(page).current.settings.get("must_include", ()) == ()
    # A comparison is about the message that is typed, or the last one.
    tab(page, "Compare")
    page.get_by_label("with and without each control").check()
    # The start of the reply has its dragon already, so it cannot be left out.
    for typed, asked, count in (("", "Write about a dragon and bees.", 3), ("And then?", "And then?", 4)):
        fill(page, "prompt", typed)
        page.click("#compare")
        shown = "asked => [...document.querySelectorAll('#columns .turn p')].at(-1)?.textContent === asked"
        page.wait_for_function(shown, arg=asked)
        page.wait_for_selector("#write:not([disabled])")
        assert page.locator("#columns .card").count() == count


def test_what_is_exported_answers_the_same_chat(visit, served, monkeypatch):  # noqa: F811
    page = visit()
    press(page, "New chat")
    fill(page, "max_tokens", 20)
    one = send(page, "Who are you?")

    def exported():
        page.wait_for_function("document.querySelector('#as-python').innerText.includes('Who are you?')")
        read = "id => [...document.querySelectorAll(`#${id} .cm-line`)].map(line => line.innerText).join('\\n')"
        link = page.locator("#link").locator("textarea, input").first.input_value()
        return [page.evaluate(read, name) for name in ("as-python", "as-command", "as-curl")], link

    tab(page, "Export")
    (python, command, curl), link = exported()
    assert "--chat" in command
    assert "--config" not in command or '"messages"' in command
    assert '"messages"' in curl
    monkeypatch.setattr("fundamentallm_hf.load_model", lambda *_: served[2].generator.model)
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(python, {})
    assert printed.getvalue() == one + "\n"
    again = visit(link.partition("/?")[2].join(["?", ""]))
    assert shown_text(again) == one
    assert chat_of(again) == chat_of(page)


def test_a_chat_goes_to_the_prompt_loop_and_back(visit, served, tmp_path, monkeypatch):  # noqa: F811
    page = visit()
    press(page, "New chat")
    fill(page, "max_tokens", 20)
    send(page, "Who are you?")
    page.locator(".tok").nth(3).click()
    after(page, lambda: page.locator(".panel .go").first.click())
    send(page, "Why?")
    with page.expect_download() as download:
        press(page, "Download")
    file = tmp_path / "texts.json"
    download.value.save_as(file)
    told = chat_of(page)
    monkeypatch.setattr("fundamentallm_hf.model_io.loading.load_model", lambda *_, **__: served[2].generator.model)
    session = f"/load {file}\n/set max-tokens=10\n/set temperature=0\n/more\nWhen?\n/save --tree {tmp_path}/back.json\n"
    result = run_command("generate", "--interactive", "--chat", stdin=session)
    assert result.exit_code == 0, result.stderr
    assert "Error" not in result.stderr
    back = read_tree(str(tmp_path / "back.json"))
    longer = back.tree.chat(back.tree.current.id)
    assert len(longer) == len(told) + 2
    assert longer[: len(told) - 1] == told[:-1]
    assert longer[len(told) - 1]["content"].startswith(told[-1]["content"])
    page.locator("#branches input[type=file]").set_input_files(tmp_path / "back.json")
    wait_for_shown(page, longer[-1]["content"])
    assert tree_text(parse_tree(page.evaluate("localStorage.getItem('fundamentallm-tree')"))) == tree_text(back)
    assert send(page, "How?")
    assert chat_of(page)[:-2] == longer


def test_an_example_writes_a_text_and_the_switch_brings_the_chat_back(visit, served):  # noqa: F811
    page = visit()
    page.get_by_text("Examples, one for each control").click()
    after(page, lambda: page.locator("#examples").get_by_text("Cold", exact=True).click())
    assert shown_text(page).startswith("The cat")
    page.wait_for_function("document.querySelector('#write').innerText === 'Write'")
    assert not page.locator("#field-chat input").is_checked()
    assert not page.locator("#field-system").is_visible()
    press(page, "New chat")
    page.wait_for_function("document.querySelector('#write').innerText === 'Send'")
    fill(page, "prompt", "")
    page.click("#write")
    page.wait_for_selector("#alert [role=alert]")
    assert "the message is empty: type one" in page.locator("#alert").inner_text()


def test_a_chat_fits_a_phone_and_the_last_message_is_in_sight(visit):  # noqa: F811
    page = visit(width=390, height=844)
    fill(page, "max_tokens", 60)
    for message in ("Who are you?", "Why?", "When?", "How?"):
        send(page, message)
    page.evaluate("window.scrollTo(0, 0)")
    picture(page, "phone-chat")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    turns = page.locator("#texts .turns")
    last, box = page.locator(".turn").last.bounding_box(), turns.bounding_box()
    assert last["y"] + last["height"] <= box["y"] + box["height"] + 1
    assert page.locator("#texts .see .text").bounding_box()["y"] < 700
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    found = axe.run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []


def test_text_of_a_chat_is_never_markup(visit, served):  # noqa: F811
    page = visit()
    hostile = "<img src=x onerror=window.hit=1>${window.hit=1}{{hit}}</p><script>window.hit=1</script>"
    press(page, "New chat")
    fill(page, "max_tokens", 4)
    send(page, hostile)
    assert page.locator(".turn.user p").inner_text() == hostile
    page.reload()
    page.wait_for_selector(".turn.user p")
    page.evaluate("indexedDB.deleteDatabase('fundamentallm-views')")
    page.reload()
    page.wait_for_selector(".turn.user p")
    assert page.locator(".turn.user p").inner_text() == hostile
    assert page.evaluate("window.hit") is None


def test_programs_answer_chats(served):
    from gradio_client import Client

    client = Client(served[1], verbose=False)
    asked = messages("Who are you?")
    (written,) = client.predict(messages=asked, **OPTIONS, api_name="/write")
    assert written["messages"] == asked
    assert written["text"] == served[2].generator.generate(asked, **OPTIONS)
    started = [*asked, {"role": "assistant", "content": "A king"}]
    *_, streamed = client.submit(messages=started, **OPTIONS, api_name="/stream")
    assert streamed == [served[2].generator.generate(started, **OPTIONS)]
