"""What a visitor who has never seen the page relies on: it stays where it is, and shows what belongs together."""

import re

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from test_tree_page import current, kept, press, rows, wait_for_shown
from web_visit import after, browser, fill, served, shown_text, tab, visit, write  # noqa: F401

PHONE = {"width": 390, "height": 844}
FRAME = """() => ["#intro", "#write", "#answer", "#views"].map(id => {
  const { left, width } = document.querySelector(id).getBoundingClientRect();
  return [left, width];
})"""
IN_VIEW = """selector => {
  const { top, bottom } = document.querySelector(selector).getBoundingClientRect();
  return top >= 0 && bottom <= window.innerHeight;
}"""


def value(page, name):
    return page.locator(f"#field-{name}").locator("textarea, input").first.input_value()


def status(page):
    return page.locator("#status").inner_text()


def wait_for_status(page, start):
    page.wait_for_function("start => document.querySelector('#status').textContent.trim().startsWith(start)", arg=start)


def test_a_phone_goes_to_the_text_that_is_written(visit):  # noqa: F811
    page = visit(**PHONE)
    fill(page, "max_tokens", 150)
    page.evaluate("window.scrollTo(0, 0)")
    assert page.evaluate(IN_VIEW, "#jump button")
    assert page.evaluate(IN_VIEW, "#texts .tok")
    page.click("#jump button")
    page.wait_for_function(f"({IN_VIEW})('#write')")
    assert not page.evaluate(IN_VIEW, "#texts .tok")
    for name, words in (("bad_words", "there"), ("must_include", "dragon")):
        fill(page, name, words)
        write(page)
        page.wait_for_function(f"({IN_VIEW})('#texts .see .text')")
    # An error is next to its field, where the visitor is.
    fill(page, "must_include", "extraordinarily long words " * 8)
    page.click("#write")
    page.wait_for_selector("#alert [role=alert]")
    assert page.evaluate(IN_VIEW, "#alert")
    # From another tab, too.
    fill(page, "must_include", "")
    tab(page, "Compare")
    write(page)
    page.wait_for_function(f"({IN_VIEW})('#texts .see .text')")


def test_a_phone_shows_a_character_with_its_alternatives(visit):  # noqa: F811
    page = visit(**PHONE)
    for index in (2, 60, 120, 190):
        page.locator(".tok").nth(index).click()
        page.wait_for_function(f"({IN_VIEW})('.panel') && ({IN_VIEW})('.tok.chosen')")
        token, panel = page.locator(".tok.chosen").bounding_box(), page.locator(".panel").bounding_box()
        assert token["y"] + token["height"] <= panel["y"] + 1
        for each in page.locator(".panel .go").all():
            box = each.bounding_box()
            assert box["x"] + box["width"] <= panel["x"] + panel["width"]
    after(page, lambda: page.locator(".panel .go").first.click())
    page.wait_for_function(f"({IN_VIEW})('#texts .see .tok')")


def test_the_page_stays_where_it_is(visit):  # noqa: F811
    page = visit(height=800)
    frame = page.evaluate(FRAME)
    for name in ("Compare", "Export", "Beams", "For programs", "Text"):
        tab(page, name)
        page.wait_for_timeout(200)
        assert page.evaluate(FRAME) == frame, name
    press(page, "Edit")
    assert page.evaluate(FRAME) == frame
    keep, cancel = (page.get_by_role("button", name=name, exact=True).bounding_box() for name in ("Keep", "Cancel"))
    assert keep["y"] == cancel["y"]
    page.keyboard.press("Escape")
    page.locator(".tok").nth(3).click()
    assert page.evaluate(FRAME) == frame
    # A field does not move while it is filled in.
    top = page.locator("#field-bad_words").bounding_box()["y"]
    fill(page, "bad_words", "happy")
    page.wait_for_selector("#chips li")
    assert page.locator("#field-bad_words").bounding_box()["y"] == top


def test_edit_is_left_with_escape_and_loses_nothing(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    text = write(page)
    press(page, "Edit")
    page.keyboard.press("Escape")
    wait_for_shown(page, text)
    assert page.get_by_role("button", name="Edit them again").count() == 0
    press(page, "Edit")
    page.get_by_label("the text", exact=True).fill(text + " More.")
    page.keyboard.press("Escape")
    wait_for_shown(page, text)
    press(page, "Edit them again")
    assert page.get_by_label("the text", exact=True).input_value() == text + " More."
    press(page, "Keep")
    wait_for_shown(page, text + " More.")


def test_the_alternatives_are_closed_in_every_way(visit):  # noqa: F811
    page = visit()
    token = page.locator(".tok").nth(5)
    rows_shown = page.locator(".panel .row")

    def close_with_escape(selector):
        page.locator(selector).first.focus()
        page.keyboard.press("Escape")

    for close in (
        token.click,
        page.locator(".panel .close").click,
        lambda: page.keyboard.press("Escape"),
        lambda: close_with_escape(".panel .go"),
        lambda: close_with_escape(".panel .close"),
        lambda: page.keyboard.press("Enter"),
    ):
        token.click()
        assert rows_shown.count() > 1
        close()
        assert rows_shown.count() == 0
        assert page.locator(".tok.chosen").count() == 0
        assert page.evaluate("document.activeElement.dataset.i") == "5"


def test_a_given_part_says_why_it_has_no_alternatives(visit):  # noqa: F811
    page = visit()
    page.locator(".tok").nth(3).click()
    page.locator("#texts .prompt").first.click()
    assert page.locator(".panel").inner_text().startswith("This part was given")
    assert page.locator(".tok.chosen").count() == 0
    page.locator(".panel .close").click()
    assert page.locator(".panel").inner_text() == ""
    assert page.evaluate("document.activeElement.dataset.i") == "3"
    # Whoever marks it, to copy it, is told nothing.
    page.locator("#texts .prompt").first.select_text()
    page.locator("#texts .prompt").first.dispatch_event("click")
    assert page.locator(".panel").inner_text() == ""
    page.evaluate("getSelection().removeAllRanges()")


def test_a_phone_has_the_whole_introduction(visit):  # noqa: F811
    page = visit(**PHONE)
    for each in page.locator("#intro p").all():
        assert each.is_visible()
    assert page.evaluate(IN_VIEW, "#texts .tok")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_tab_key_goes_through_the_settings_before_the_branches(visit):  # noqa: F811
    page = visit()
    page.locator("#field-prompt textarea").focus()
    for stop in range(1, 30):  # noqa: B007
        page.keyboard.press("Tab")
        if page.evaluate("Boolean(document.activeElement.closest('#field-bad_words'))"):
            break
    assert stop < 20
    assert not page.evaluate(
        "Boolean(document.querySelector('#branches').compareDocumentPosition(document.activeElement) & 4)"
    )


def test_the_line_above_belongs_to_the_text_in_view(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    first = write(page)
    fill(page, "max_tokens", 30)
    write(page)
    assert status(page).startswith("30 characters")
    press(page, "Undo")
    wait_for_shown(page, first)
    wait_for_status(page, "20 characters · seed 7")
    press(page, "Redo")
    wait_for_status(page, "30 characters · seed 7")
    page.locator("#branches .name").first.click()
    page.wait_for_function("document.querySelector('#status').textContent.trim() === ''")
    tab(page, "Export")
    assert page.get_by_role("button", name="Copy Python").is_visible()


def test_a_reload_has_the_prompt_and_the_settings_of_the_text_in_view(visit):  # noqa: F811
    page = visit()
    fill(page, "prompt", "The cat")
    fill(page, "max_tokens", 20)
    fill(page, "bad_words", "happy, lil*")
    write(page)
    after(page, lambda: press(page, "Retry"))
    text = shown_text(page)
    page.reload()
    wait_for_shown(page, text)
    page.wait_for_function("document.querySelector('#field-prompt textarea').value === 'The cat'")
    page.get_by_text("More settings", exact=True).click()
    assert value(page, "bad_words") == "happy, lil*"
    assert value(page, "max_tokens") == "20"
    assert value(page, "seed") == "8"
    wait_for_status(page, "20 characters · seed 8")
    count = len(kept(page))
    write(page)
    assert len(kept(page)) == count  # it is the same text

    # Those of another text on request, with the prompt that its branches began with.
    fill(page, "bad_words", "")
    after(page, lambda: press(page, "Continue"))
    fill(page, "bad_words", "dog")
    page.get_by_role("button", name="use the settings of").click()
    page.wait_for_function("document.querySelector('#field-bad_words').querySelector('textarea, input').value === ''")
    assert value(page, "prompt") == "The cat"


def test_a_preset_leaves_prompt_and_controls(visit):  # noqa: F811
    page = visit()
    fill(page, "prompt", "The cat")
    fill(page, "bad_words", "happy")
    fill(page, "must_include", "dragon")
    after(page, lambda: page.locator("#presets").get_by_text("Completion", exact=True).click())
    assert shown_text(page).startswith("The cat")
    settings = kept(page).current.settings
    assert settings["bad_words"] == ("happy",)
    assert settings["must_include"] == ("dragon",)
    assert (settings["temperature"], settings["max_tokens"]) == (0.7, 50)
    assert (value(page, "bad_words"), value(page, "must_include")) == ("happy", "dragon")


def test_start_afresh_puts_all_away_and_can_be_taken_back(visit):  # noqa: F811
    page = visit()
    fill(page, "bad_words", "happy")
    fill(page, "max_tokens", 20)
    text = write(page)
    names = rows(page)
    press(page, "Start afresh")
    page.get_by_text("What the model writes appears here.").wait_for()
    page.wait_for_function("document.querySelector('#field-bad_words').querySelector('textarea, input').value === ''")
    assert rows(page) == []
    assert len(kept(page)) == 0
    press(page, "Bring the texts back")
    wait_for_shown(page, text)
    assert rows(page) == names
    assert current(page) == text


def test_branches_are_indented_and_nothing_is_cut_off(visit):  # noqa: F811
    page = visit(height=800)
    fill(page, "max_tokens", 15)
    for _ in range(3):
        after(page, lambda: press(page, "Retry"))
    for _ in range(3):
        after(page, lambda: press(page, "Continue"))
    tree = kept(page)
    lefts = {
        int(row.get_attribute("data-id")): row.locator(".name").bounding_box()["x"]
        for row in page.locator("#branches .branch").all()
    }
    for node, _ in tree.depths():
        if node.parent is not None:
            assert lefts[node.id] > lefts[node.parent]
    page.wait_for_timeout(300)
    list_box, here = (page.locator(f"#branches {each}").bounding_box() for each in (".list", ".here"))
    assert here["y"] >= list_box["y"] - 1
    assert here["y"] + here["height"] <= list_box["y"] + list_box["height"] + 1
    assert list_box["y"] + list_box["height"] <= 800
    for each in page.locator("#branches .here button").all():
        box = each.bounding_box()
        assert box["x"] + box["width"] <= here["x"] + here["width"]


def test_a_required_word_is_gone_to_and_only_changes_are_called_changes(visit):  # noqa: F811
    page = visit()
    fill(page, "must_include", "dragon")
    found = 0
    for seed in (7, 8, 9):
        if not page.locator("#field-seed").is_visible():
            page.get_by_text("More settings", exact=True).click()
        fill(page, "seed", seed)
        text = write(page)
        page.locator(".words .written .show").click()
        index = int(page.locator(".tok.chosen").get_attribute("data-c"))
        assert text.removeprefix("Once upon a time")[index:].lower().startswith("dragon")
        for token in page.locator(".tok.shifted").all():
            if "chosen" not in token.get_attribute("class"):
                token.click()
            chosen = page.locator(".panel .row.same")
            why = page.locator(".panel .why").first.inner_text()
            label = page.locator(".panel .head b").first.inner_text()
            assert f"away from {label}," not in why
            assert "less likely" not in chosen.inner_text().partition("must-include made it")[2].partition(",")[0]
            # What each has done makes up the whole difference.
            raw, final = (float(each.strip("<%")) for each in chosen.locator(".numbers").inner_text().split(" → "))
            # Without a word on it, the token was impossible before that control.
            product, told = 1.0, "made it" in chosen.inner_text()
            for times, way in re.findall(r"made it ([\d.e+]+) times (less likely|likelier)", chosen.inner_text()):
                product *= float(times) if way == "likelier" else 1 / float(times)
            if raw >= 1 and told:
                assert final / raw == pytest.approx(product, rel=0.2)
                found += 1
    assert found
