"""The tree beside the text in a browser: branches, undo and redo, edits, comparisons, files, and reloads."""

import json

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from command import run as run_command
from web_visit import RUN, after, browser, fill, picture, served, shown_text, visit, write  # noqa: F401

from fundamentallm_hf.generation.tree_file import parse_tree, read_tree, tree_text

KEPT = "localStorage.getItem('fundamentallm-tree')"


def kept(page):
    """The tree in the browser's storage, read as strictly as a file."""
    return parse_tree(page.evaluate(KEPT)).tree


def current(page):
    tree = kept(page)
    return tree.text(tree.current.id)


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def wait_for_shown(page, text):
    page.wait_for_function("text => document.querySelector('#texts .text')?.textContent === text", arg=text)


def rows(page):
    return page.locator("#branches .name").all_text_contents()


def test_the_first_text_comes_without_a_click_and_is_in_sight(visit, served):  # noqa: F811
    page = visit(height=800)
    options = {"max_tokens": 200, "temperature": 0.8, "top_p": 0.9, "seed": 7}
    assert shown_text(page) == served[2].generator.generate("Once upon a time", **options)
    box = page.locator("#texts .see .text").bounding_box()
    assert box["y"] + box["height"] < 800
    for name in ("prompt", "temperature", "max_tokens", "bad_words", "must_include", "guide_attribute"):
        assert page.locator(f"#field-{name}").bounding_box()["y"] < 800
    assert not page.locator("#field-top_k").is_visible()


def test_a_session_of_branches(visit, served):  # noqa: F811
    """Branch from the middle, undo, redo, retry, go on, edit, compare, rename, delete, and reload."""

    def written(prompt, **settings):
        options = {"max_tokens": 30, "temperature": 0.8, "top_p": 0.9, "seed": 7} | settings
        return served[2].generator.generate(prompt, **options)

    page = visit()
    fill(page, "max_tokens", 30)
    first = write(page)
    assert first == written("Once upon a time") == current(page)

    # From another choice in the middle.
    page.locator(".tok").nth(4).click()
    row = page.locator(".panel .row:not(.same)").first
    choice = row.locator(".name").inner_text().split('"')[1]
    after(page, row.locator(".go").click)
    branch = shown_text(page)
    assert branch == written(first[:20] + choice) == current(page)

    # Keys, and buttons.
    page.locator("#texts .tok").first.focus()
    page.keyboard.press("Control+z")
    wait_for_shown(page, first)
    page.keyboard.press("Control+Shift+Z")
    wait_for_shown(page, branch)
    press(page, "Undo")
    wait_for_shown(page, first)
    assert page.locator("#texts .tok").count() == 30  # as live as before

    after(page, lambda: press(page, "Retry"))
    retried = shown_text(page)
    assert retried == written("Once upon a time", seed=8)
    after(page, lambda: press(page, "Continue"))
    longer = shown_text(page)
    assert longer == written(retried, seed=8)
    tree = kept(page)
    assert tree[tree.current.parent].completion == retried.removeprefix("Once upon a time")

    # By hand.
    press(page, "Edit")
    page.get_by_label("the text", exact=True).fill(longer.replace("Once", "Never"))
    press(page, "Keep")
    edited = longer.replace("Once", "Never")
    wait_for_shown(page, edited)
    assert current(page) == edited
    assert page.locator("#branches .here .name").inner_text().startswith("Never")
    after(page, lambda: press(page, "Continue"))
    assert shown_text(page) == written(edited, seed=8)

    # Differences between any two.
    press(page, f"compare with {tree.current.name}")
    assert page.locator(".differences del").count() + page.locator(".differences ins").count() > 0
    parts = page.locator(".differences .text")
    assert "".join(
        parts.evaluate("p => [...p.childNodes].filter(n => n.nodeName !== 'DEL').map(n => n.textContent)")
    ) == (longer)
    picture(page, "differences")
    press(page, "Close")
    wait_for_shown(page, written(edited, seed=8))

    # Names, and what goes away.
    page.get_by_role("button", name="rename", exact=False).first.click()
    page.get_by_label("name of the text").fill("the last one")
    page.keyboard.press("Enter")
    assert "the last one" in rows(page)
    before = len(kept(page))
    press(page, "delete the last one")
    wait_for_shown(page, edited)
    assert len(kept(page)) == before - 1
    assert "the last one" not in rows(page)
    press(page, "Bring back")
    assert "the last one" in rows(page)
    press(page, "delete the last one")
    wait_for_shown(page, edited)

    # All of it is there after a reload, and nothing is written anew.
    names = rows(page)
    page.reload()
    wait_for_shown(page, edited)
    assert rows(page) == names
    press(page, "Undo")
    page.locator("#branches .name").get_by_text(tree.current.name, exact=True).first.click()
    wait_for_shown(page, longer)
    page.wait_for_function("document.querySelectorAll('#texts .tok').length === 30")  # as live as before

    # Where the browser keeps no database, one click writes the text again.
    page.evaluate("new Promise(done => { indexedDB.deleteDatabase('fundamentallm-views').onblocked = done; })")
    page.reload()
    wait_for_shown(page, longer)
    after(page, lambda: page.get_by_text("Show the probabilities").click())
    assert shown_text(page) == longer
    assert page.locator("#texts .tok").count() == 30
    assert len(kept(page)) == before - 1  # it is the same text


def test_the_file_goes_to_the_prompt_loop_and_back(visit, tmp_path):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    fill(page, "bad_words", "there, lil*")
    write(page)
    after(page, lambda: press(page, "Retry"))
    with page.expect_download() as download:
        press(page, "Download")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    tree = read_tree(str(file)).tree
    assert tree.current.settings["bad_words"] == ("there", "lil*")

    session = f"/load {file}\n/set max-tokens=10\n/set temperature=0\n/more\n/save --tree {tmp_path / 'back.json'}\n"
    result = run_command("generate", "--interactive", stdin=session)
    assert result.exit_code == 0, result.stderr
    assert "Error" not in result.stderr
    back = read_tree(str(tmp_path / "back.json"))
    assert len(back.tree) == len(tree) + 1

    other = visit()
    other.evaluate("localStorage.clear()")
    other.locator("#branches input[type=file]").set_input_files(tmp_path / "back.json")
    text = back.tree.text(back.tree.current.id)
    wait_for_shown(other, text)
    assert tree_text(parse_tree(other.evaluate(KEPT))) == tree_text(back)
    (tmp_path / "bad.json").write_text('{"format": "fundamentallm-tree", "version": 7}')
    other.locator("#branches input[type=file]").set_input_files(tmp_path / "bad.json")
    other.get_by_text("it has version 7, and this program reads up to 1").wait_for()
    assert shown_text(other) == text


def test_an_action_among_two_hundred_branches_draws_few_rows(visit, served):  # noqa: F811
    page = visit()
    nodes = [{"id": 1, "parent": None, "name": "a", "prompt": "Once upon a time", "completion": ""}]
    for number in range(2, 202):
        parent = 1 if number % 3 else number - 1
        own = {"prompt": None, "completion": f" there was a dog{number}", "finish_reason": "length"}
        nodes.append({"id": number, "parent": parent, "name": f"text {number}", "seed": number, **own})
    head = {"format": "fundamentallm-tree", "version": 1, "model": None, "settings": {}}
    saved = json.dumps(head | {"history": [None, 5], "position": 1, "nodes": nodes})
    parse_tree(saved)
    page.evaluate("saved => localStorage.setItem('fundamentallm-tree', saved)", saved)
    page.reload()
    page.wait_for_selector("#branches .here")
    drawn = page.evaluate(
        """async () => {
          const frame = () => new Promise(requestAnimationFrame);
          const rows = () => [...document.querySelectorAll("#branches [data-id]")];
          const drawn = {};
          for (const [what, find] of [
            ["go", () => document.querySelector("#branches [data-id='150'] .name")],
            ["compare", () => document.querySelector("#branches [data-id='40'] [data-do=compare]")],
            ["close", () => document.querySelector("#texts [data-do=cancel]")],
            ["undo", () => document.querySelector("[data-do=undo]")],
            ["redo", () => document.querySelector("[data-do=redo]")],
            ["fold", () => document.querySelector("#branches [data-id='8'] [data-do=fold]")],
            ["delete", () => document.querySelector("#branches .here [data-do=delete]")],
          ]) {
            const before = new Set(rows());
            find().click();
            await frame();
            drawn[what] = [rows().filter((row) => !before.has(row)).length, before.size - rows().length];
          }
          return drawn;
        }"""
    )
    removed = {what: gone for what, (_, gone) in drawn.items()}
    # Below text 8 stands text 9; the text that was gone to has one below it, too.
    assert removed == dict.fromkeys(drawn, 0) | {"fold": 1, "delete": 1}
    assert max(new for new, _ in drawn.values()) <= 3, drawn
    assert len(served[2].stops) == 0


def test_what_differs_is_seen_and_taken_back(visit):  # noqa: F811
    page = visit()
    assert page.locator("#chips li").count() == 0
    fill(page, "bad_words", "ran")
    fill(page, "top_k", "5")
    page.wait_for_function("document.querySelectorAll('#chips li').length === 2")
    press(page, "remove bad-words")
    page.wait_for_function("document.querySelectorAll('#chips li').length === 1")
    assert page.locator("#field-bad_words").locator("textarea, input").first.input_value() == ""
    page.get_by_placeholder("a name, or a word of the help").fill("nucleus")
    assert page.locator("#field-top_p").is_visible()
    assert not page.locator("#field-top_k").is_visible()
    assert not page.get_by_text("(nucleus sampling)").is_visible()
    page.get_by_text("explain the settings").click()
    assert page.get_by_text("(nucleus sampling)").is_visible()


def test_colours_are_switched_off_and_stay_off(visit):  # noqa: F811
    page = visit()
    page.get_by_label("colours", exact=True).uncheck()
    colour = "getComputedStyle(document.querySelector('.tok.p0, .tok.p1, .tok.p2')).backgroundColor"
    assert page.evaluate(colour) == "rgba(0, 0, 0, 0)"
    write(page)
    assert page.evaluate(colour) == "rgba(0, 0, 0, 0)"
    page.get_by_label("colours", exact=True).check()
    assert page.evaluate(colour) != "rgba(0, 0, 0, 0)"


def test_enter_in_a_field_writes_and_the_same_text_is_said_to_be_the_same(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    fill(page, "bad_words", "there")
    after(page, lambda: page.locator("#field-bad_words").locator("textarea, input").first.press("Enter"))
    assert kept(page).current.settings["bad_words"] == ("there",)
    count = len(kept(page))
    write(page)
    page.get_by_text("This text was here already").wait_for()
    assert len(kept(page)) == count
    after(page, lambda: press(page, "Retry"))
    assert len(kept(page)) == count + 1
    assert page.get_by_text("This text was here already").count() == 0


def test_a_refused_text_leaves_the_one_that_was_there(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    text = write(page)
    fill(page, "must_include", "extraordinarily long words")
    page.click("#write")
    page.wait_for_selector("#alert [role=alert]")
    wait_for_shown(page, text)
    assert page.evaluate(RUN) == ""
    assert current(page) == text


def test_nothing_takes_the_place_of_a_text_that_is_written(visit, slow_model):  # noqa: F811
    page = visit()
    first = shown_text(page)
    slow_model.seconds = 0.2  # all of the following takes seconds, where others compute beside it
    fill(page, "max_tokens", 500)
    fill(page, "num_samples", 4)
    page.click("#write")
    page.wait_for_selector("#texts .card[aria-busy=true] .caret")
    for name in ("Undo", "Retry", "Continue", "Edit"):
        press(page, name)
    page.keyboard.press("Control+z")
    page.get_by_text("A text is being written: wait for its end, or stop it.").wait_for()
    assert page.locator("#texts .card[aria-busy=true]").count() == 4
    assert page.locator("#texts .editing").count() == 0
    assert current(page) == first
    press(page, "fold Once upon a time")  # the list is not in its way
    page.click("#stop")
    page.wait_for_selector("#texts .run[data-run]")
    page.wait_for_selector("#write:not([disabled])")
    assert len(kept(page)) == 6  # the prompt, the first text and four more
    press(page, "Undo")
    page.wait_for_function("document.querySelectorAll('#texts .tok').length === 200")
    assert current(page) == shown_text(page) == first
