"""The other tabs in a browser: beams, comparisons, and how a text is written again elsewhere."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from web_visit import browser, example, fill, picture, served, shown_text, tab, visit, write  # noqa: F401


def test_the_tree_of_beams_marks_the_chosen_path(visit, served):  # noqa: F811
    page = visit()
    example(page, "Beams")
    text = shown_text(page)
    tab(page, "Beams")
    page.click("#search")
    page.wait_for_selector("#tree svg")
    chosen = page.locator("#tree svg g.chosen text").first.text_content()
    assert "Once upon a time" + chosen.replace("↵", "\n") == text
    assert page.locator("#tree svg g.dropped").count() > 3
    page.wait_for_selector("#write:not([disabled])")
    picture(page, "beams")
    page.get_by_text("The same as a table").click()
    assert page.locator("#tree tbody tr").count() == page.locator("#tree svg g").count()


def test_temperatures_are_compared_side_by_side(visit, served):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 80)
    tab(page, "Compare")
    page.click("#compare")
    page.wait_for_selector("#columns .card:nth-child(4) .foot")
    assert page.locator("#columns h3").all_inner_texts() == [
        f"temperature {each}" for each in ("0.3", "0.7", "1", "1.5")
    ]
    options = {"max_tokens": 80, "top_p": 0.9, "seed": 7}
    texts = page.locator("#columns .text").all_inner_texts()
    assert texts[3] == served[2].generator.generate("Once upon a time", temperature=1.5, **options)
    page.wait_for_selector("#write:not([disabled])")
    picture(page, "compare")


def test_a_text_is_compared_with_those_that_lack_a_control(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 60)
    fill(page, "bad_words", "there, was")
    fill(page, "must_include", "dragon*")
    tab(page, "Compare")
    page.get_by_label("with and without each control").check()
    page.click("#compare")
    page.wait_for_selector("#columns .card:nth-child(4) .foot")
    titles = page.locator("#columns h3").all_inner_texts()
    assert titles == ["with everything", "without bad-words", "without must-include", "without top-p"]
    first, without_ban, without_word, _ = page.locator("#columns .text").all_inner_texts()
    assert not re.search(r"\b(there|was)\b", first)
    assert re.search(r"\b(there|was)\b", without_ban)
    assert "dragon" in first
    assert "dragon" not in without_word
    page.wait_for_selector("#write:not([disabled])")
    picture(page, "controls")


def test_a_link_restores_the_settings_and_says_what_is_wrong_with_it(visit):  # noqa: F811
    page = visit("?prompt=A+cat&temperature=0.3&bad_words=ran,+lil*&stop=%22.%22&max_tokens=12&seed=5&utm_source=x")
    assert page.locator("#field-prompt textarea").input_value() == "A cat"
    assert page.locator("#field-bad_words").locator("textarea, input").first.input_value() == "ran, lil*"
    text = write(page)
    tab(page, "Export")
    link = page.locator("#link").locator("textarea, input").first.input_value()
    again = visit(link.partition("/?")[2].join(["?", ""]))
    assert shown_text(again) == text  # written by itself
    wrong = visit("?top_p=7")
    wrong.wait_for_selector("#alert [role=alert]")
    assert "The link cannot be followed: top-p has to be" in wrong.locator("#alert").inner_text()


def test_what_is_taken_away_writes_the_text_again(visit, served):  # noqa: F811
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    fill(page, "max_tokens", 40)
    fill(page, "bad_words", r"ran, /x{1,2}/, a\, b")
    text = write(page)
    tab(page, "Export")
    page.wait_for_selector("#as-python .cm-content")
    page.get_by_role("button", name="Copy Python").click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(copied, {})
    assert printed.getvalue() == text + "\n"
    picture(page, "take-away")
    with page.expect_download() as download:
        page.click("#download button, #download")
    saved = Path(download.value.path()).read_text(encoding="utf-8")
    assert download.value.suggested_filename == "fundamentallm.json"
    assert json.loads(saved)["text"] == text
