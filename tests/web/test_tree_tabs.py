"""Several tabs of a browser share one tree of texts: none loses what another has saved."""

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from test_page import after, browser, fill, served, visit, write  # noqa: F401
from test_tree_page import current, kept, press, rows, wait_for_shown

from fundamentallm_hf.generation.text_tree import TextTree
from fundamentallm_hf.generation.tree_file import SavedTree, tree_text
from fundamentallm_hf.web.panels import script

DRAW = Path(__file__).with_name("tabs_at_work.js").read_text(encoding="utf-8")


def test_no_text_is_lost_whatever_the_tabs_do(browser):  # noqa: F811
    page = browser.new_page()
    shared = "window.KeptTree = KeptTree; window.Tree = Tree;"
    page.add_script_tag(content="\n".join([script("tree.js"), script("kept_tree.js"), shared]))
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
    assert rows(one) == rows(other)
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
    assert rows(one) == rows(other)
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
