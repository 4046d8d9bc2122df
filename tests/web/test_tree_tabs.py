"""Several tabs of a browser share one tree of texts: none loses what another has saved."""

import time
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from test_tree_page import current, kept, press, rows, wait_for_shown
from web_visit import after, browser, fill, served, visit, write  # noqa: F401

from fundamentallm_hf.generation.text_tree import TextTree
from fundamentallm_hf.generation.tree_file import SavedTree, parse_tree, read_tree, tree_text
from fundamentallm_hf.web.panels import script

SCRIPTS = "\n".join([*map(script, ("chat.js", "tree.js", "kept_tree.js")), "Object.assign(window, {KeptTree, Tree});"])
DRAW = Path(__file__).with_name("tabs_at_work.js").read_text(encoding="utf-8")


def test_no_text_is_lost_whatever_the_tabs_do(browser):  # noqa: F811
    page = browser.new_page()
    page.add_script_tag(content=SCRIPTS)
    counts = []
    for seed in range(60):
        found = page.evaluate(DRAW, [seed, 5 + seed % 40, seed % 2 == 1])
        assert not found["lost"], (seed, found)
        assert found["same"], (seed, found)
        assert found["stored"], (seed, found)
        assert found["sound"], (seed, found)
        counts.append(found["count"])
    assert max(counts) > 15
    page.close()


def chats():
    """A tree as the prompt loop saves it: a chat of two replies, and the prompt of its first one as a plain text."""
    tree = TextTree()
    facts = {"seed": 3, "settings": {"max_tokens": 9}, "tokens": 2, "finish_reason": "length"}
    chat, text, parent = (), "", None
    for asked, reply in (("Who are you?", "A king."), ("Why?", "I was born.")):
        chat = (*chat, {"role": "user", "content": asked})
        text += f"<user> {asked}\n<assistant>"
        if parent is None:
            parent = tree.add(None, text, messages=chat).id
        parent = tree.add(parent, text, reply, messages=chat, **facts).id
        chat, text = (*chat, {"role": "assistant", "content": reply}), f"{text}{reply}\n"
    tree.go(parent)
    plain = tree.add_prompt(tree.prompt(1))
    tree.add(plain.id, tree.prompt(1), "A king.", **facts)
    return tree


def test_a_chat_stays_one_in_the_browser(browser):  # noqa: F811
    page = browser.new_page()
    page.add_script_tag(content=SCRIPTS)
    tree = chats()
    text = tree_text(SavedTree(tree))
    assert tree_text(parse_tree(page.evaluate("text => Tree.read(text).toString()", text))) == text
    # Through the storage, into another tab that has the same prompt as a plain text.
    taken = page.evaluate(
        """text => {
          const shared = {};
          const storage = { getItem: (key) => shared[key] ?? null, setItem: (key, value) => { shared[key] = value; } };
          const [one, other] = [new KeptTree(storage), new KeptTree(storage)];
          one.tree = Tree.read(text);
          other.tree.addPrompt(one.tree.nodes.get(1).prompt);
          one.write();
          other.read();
          return other.tree.toString();
        }""",
        text,
    )
    found = parse_tree(taken).tree
    told = [(each.text(node.id), each.chat(node.id)) for each in (tree, found) for node in each]
    assert sorted(told[: len(tree)], key=str) == sorted(told[len(tree) :], key=str)
    # What the browser reads of each text is what the loop reads, also of edited replies and those that are continued.
    reply = {"role": "assistant", "content": "A qu"}
    text = tree.text(1) + "A qu"
    edited = tree.add(2, text, "een", messages=(*tree.chat(1), reply), finish_reason="length", tokens=1)
    tree.add(edited.id, text + "een", " of old", finish_reason="length", tokens=1)
    chats_here = page.evaluate(
        """text => {
          const tree = Tree.read(text);
          return [...tree.nodes.values()].map((node) => [tree.asked(node), tree.chat(node)]);
        }""",
        tree_text(SavedTree(tree)),
    )
    assert chats_here == [[tree.asked(node.id), tree.chat(node.id)] for node in tree]
    assert tree.chat(len(tree))[-1]["content"] == "A queen of old"
    page.close()


def test_a_file_with_a_chat_goes_through_a_page_that_cannot_answer_it(visit, tmp_path):  # noqa: F811
    page = visit()
    assert page.locator("#field-chat").count() == 0
    assert page.get_by_role("button", name="New chat").count() == 0
    file = tmp_path / "chats.json"
    file.write_text(tree_text(SavedTree(chats())))
    page.locator("#branches input[type=file]").set_input_files(file)
    wait_for_shown(page, "I was born.")
    page.get_by_text("this model has no chat template: they can be read here, not answered").wait_for()
    assert page.locator(".turn p").all_inner_texts() == ["Who are you?", "A king.", "Why?"]
    with page.expect_download() as download:
        press(page, "Download")
    download.value.save_as(tmp_path / "back.json")
    assert list(read_tree(str(tmp_path / "back.json")).tree) == list(chats())
    press(page, "Retry")
    page.get_by_text("the model's tokenizer has no chat template").wait_for()
    assert list(kept(page)) == list(chats())
    fill(page, "max_tokens", 5)
    assert write(page).startswith("Once upon a time")


def wait_for_same_rows(one, other):
    """A list that is drawn anew while it is read has rows without text."""
    patience, (first, second) = time.monotonic() + 10, (rows(one), rows(other))
    while first != second and time.monotonic() < patience:
        time.sleep(0.1)
        first, second = rows(one), rows(other)
    assert first == second


def test_two_tabs_have_one_tree_and_each_its_text(visit, browser):  # noqa: F811
    context = browser.new_context()
    one = visit(context=context)
    fill(one, "max_tokens", 10)
    first = write(one)
    other = visit(context=context)
    wait_for_shown(other, first)
    fill(other, "max_tokens", 12)
    after(other, lambda: press(other, "Retry"))
    second = current(other)
    after(one, lambda: press(one, "Continue"))
    third = current(one)
    for page in (one, other):
        page.wait_for_function("document.querySelectorAll('#branches .name').length >= 5")
        tree = kept(page)
        assert {first, second, third} <= {tree.text(node.id) for node in tree}
    wait_for_same_rows(one, other)
    # Each tab shows its own text, also after a reload.
    wait_for_shown(one, third)
    wait_for_shown(other, second)
    one.reload()
    wait_for_shown(one, third)
    other.reload()
    wait_for_shown(other, second)

    count = len(kept(one))
    one.get_by_role("button", name="delete").first.click()
    other.wait_for_function("count => document.querySelectorAll('#branches .name').length === count - 1", arg=count)
    press(one, "Bring back")
    other.wait_for_function("count => document.querySelectorAll('#branches .name').length === count", arg=count)
    wait_for_shown(one, third)
    wait_for_same_rows(one, other)
    context.close()


def test_an_uploaded_file_takes_the_place_of_the_texts_and_they_can_be_brought_back(visit, tmp_path):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 10)
    first = write(page)
    file = tmp_path / "texts.json"
    tree = TextTree()
    tree.go(tree.add_prompt("b").id)
    file.write_text(tree_text(SavedTree(tree)))
    page.locator("#branches input[type=file]").set_input_files(file)
    wait_for_shown(page, "b")
    assert [node.prompt for node in kept(page)] == ["b"]
    press(page, "Bring back")
    wait_for_shown(page, first)
    assert {"b", first} <= {kept(page).text(node.id) for node in kept(page)}
