"""The text in view: where its given part comes from, whether the fields show its settings, its row in the list."""

import json
import random

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from test_tree_page import kept, press, rows, wait_for_shown
from web_visit import after, browser, fill, served, shown_text, visit, write  # noqa: F401

OFFER = "#texts .offer"
ODD = [
    "a",
    " ",
    "\n",
    "\r\n",
    "\r",
    "\t",
    "\0",
    "\u2028",
    "\ufeff",
    "שלום",
    "\u202e",
    "👍",
    "🏽",
    "\u200d",
    "<b>",
    "${x}",
    "\ud83d",
]
IN_LIST = """() => {
  const list = document.querySelector("#branches .list").getBoundingClientRect();
  const here = document.querySelector("#branches .here, #branches .hides").getBoundingClientRect();
  return here.top >= list.top - 1 && here.bottom <= list.bottom + 1;
}"""


def value(page, name):
    return page.locator(f"#field-{name}").locator("textarea, input").first.input_value()


def given_parts(page):
    """The parts of what the text in view was given, and whether an earlier text wrote them."""
    return page.evaluate(
        "[...document.querySelectorAll('#texts .see .prompt > span')]"
        ".map(part => [part.textContent, part.className === 'earlier'])"
    )


def test_what_earlier_texts_wrote_is_paler_than_what_was_typed_and_is_gone_to(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    first = write(page)
    assert given_parts(page) == [["Once upon a time", False]]
    assert page.locator(".legend .earlier").count() == 0
    after(page, lambda: press(page, "Continue"))
    assert given_parts(page) == [["Once upon a time", False], [first.removeprefix("Once upon a time"), True]]
    colour = "selector => getComputedStyle(document.querySelector(selector)).color"
    typed, earlier = (page.evaluate(colour, f"#texts .legend .{name}") for name in ("prompt", "earlier"))
    assert page.evaluate(colour, "#texts .text .typed") == typed
    assert page.evaluate(colour, "#texts .text .earlier") == earlier != typed

    # From another choice in the middle of the second text: it is green, as what was typed.
    page.locator(".tok").nth(4).click()
    row = page.locator(".panel .row:not(.same)").first
    choice = row.locator(".name").inner_text().split('"')[1]
    second = shown_text(page)
    after(page, row.locator(".go").click)
    parts = given_parts(page)
    written = [first.removeprefix("Once upon a time"), second.removeprefix(first)[:4]]
    assert parts == [["Once upon a time", False], *([each, True] for each in written), [choice, False]]

    # Each part leads to the text that wrote it.
    page.locator("#texts .text .earlier").last.click()
    press(page, "Go to that text")
    wait_for_shown(page, second)
    page.locator("#texts .text .earlier").first.click()
    press(page, "Go to that text")
    wait_for_shown(page, first)
    page.locator("#texts .see .prompt").click()
    assert page.locator(".panel").inner_text().startswith("This part was given")
    page.wait_for_function("document.querySelectorAll('#texts .tok').length === 20")

    # Of a text that was edited, what was typed is green.
    press(page, "Edit")
    page.get_by_label("the text", exact=True).fill(first.replace("upon", "on") + " The end.")
    press(page, "Keep")
    assert "".join(text for text, _ in given_parts(page)) == first.replace("upon", "on") + " The end."
    assert not any(earlier for _, earlier in given_parts(page))


def test_settings_of_the_text_in_view_are_offered_where_the_fields_show_others(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    first = write(page)
    assert page.locator(OFFER).count() == 0
    after(page, lambda: press(page, "Retry"))
    assert page.locator(OFFER).count() == 0  # another seed is shown with the text
    fill(page, "num_samples", 2)
    fill(page, "bad_words", "lil*")
    page.wait_for_selector(OFFER)
    assert page.locator(OFFER).inner_text().startswith("The fields show other settings than those of this text: bad-")
    write(page)
    assert page.locator(OFFER).count() == 0
    for _ in range(2):
        press(page, "Undo")
    wait_for_shown(page, first)
    page.wait_for_selector(OFFER)
    assert ": bad-words. " in page.locator(OFFER).inner_text()
    press(page, "Use those of the text")
    page.wait_for_function("document.querySelector('#field-bad_words').querySelector('textarea, input').value === ''")
    page.wait_for_selector(OFFER, state="detached")
    count = len(kept(page))
    fill(page, "seed", 7)
    assert write(page) == first
    assert len(kept(page)) == count

    # A value that is refused is no setting to compare with; a reload offers nothing, since its fields are filled.
    fill(page, "top_k", "-3")
    page.wait_for_function("!document.querySelector('#chips [data-settings]')")
    assert page.locator(OFFER).count() == 0
    fill(page, "top_k", "5")
    page.wait_for_selector(OFFER)
    page.reload()
    wait_for_shown(page, first)
    page.wait_for_selector(OFFER, state="detached")
    assert value(page, "max_tokens") == "20"


def test_any_edited_text_is_kept_and_read_back(visit):  # noqa: F811
    page = visit()
    rng = random.Random(5)
    for _ in range(6):
        typed = "".join(rng.choices(ODD, k=rng.choice([1, 6, 3000])))
        press(page, "Edit")
        page.evaluate("typed => { document.querySelector('.editing textarea').value = typed; }", typed)
        press(page, "Keep")
        read = typed.replace("\r\n", "\n").replace("\r", "\n")
        tree = kept(page)  # as strictly as a file
        assert tree.text(tree.current.id) == "".join(
            "\ufffd" if "\ud800" <= each <= "\udfff" else each for each in read
        )
        # Without a change there is no other text.
        press(page, "Edit")
        press(page, "Keep")
        assert len(kept(page)) == len(tree)
    texts = [tree.text(node.id) for node in tree]
    page.reload()
    page.wait_for_selector("#branches .here")
    tree = kept(page)
    assert [tree.text(node.id) for node in tree] == texts


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])
def test_the_text_in_view_is_in_sight_in_the_list(visit, size):  # noqa: F811
    page = visit(width=size[0], height=size[1])
    nodes = [{"id": 1, "parent": None, "name": "a", "prompt": "Once upon a time", "completion": ""}]
    for number in range(2, 62):
        about = {"tokens": 30, "perplexity": 1.5, "finish_reason": "length", "settings": {"max_tokens": number}}
        own = {"prompt": None, "completion": f" there was a dog{number}", "seed": number}
        nodes.append({"id": number, "parent": 1 if number % 3 else number - 1, "name": f"text {number}"} | own | about)
    head = {"format": "fundamentallm-tree", "version": 1, "model": None, "settings": {}}
    saved = json.dumps(head | {"history": [None, 61, 9, 40, 3], "position": 4, "nodes": nodes})
    page.evaluate("saved => localStorage.setItem('fundamentallm-tree', saved)", saved)
    page.evaluate("sessionStorage.clear()")
    page.reload()
    page.wait_for_selector("#branches .here")
    for act in ("undo", "undo", "undo", "redo", "redo", "redo"):
        page.evaluate("act => document.querySelector(`[data-do=${act}]`).click()", act)
        page.wait_for_function(IN_LIST)

    # The list stays where it was scrolled to, as long as the same text is in view.
    page.wait_for_timeout(500)  # the list is scrolled over several frames
    page.evaluate("document.querySelector('#branches .list').scrollTop = 1e6")
    page.evaluate("document.querySelector('#branches [data-id=\"59\"] [data-do=fold]').click()")
    page.wait_for_timeout(300)
    assert not page.evaluate(IN_LIST)

    # A row that hides the text in view shows that; whatever goes to a text unfolds it.
    page.evaluate("document.querySelector('#branches [data-id=\"1\"] [data-do=fold]').click()")
    assert rows(page) == ["a"]
    assert page.locator("#branches .hides .name").text_content() == "a"
    press(page, "Undo")
    page.wait_for_function("document.querySelector('#branches .here').dataset.id === '40'")
    page.wait_for_function(IN_LIST)
