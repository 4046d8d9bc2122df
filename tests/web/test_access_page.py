"""The page in a browser for everybody: on a phone, in the dark, with the keyboard, quick, and safe from its texts."""

import re

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from web_visit import after, browser, example, fill, picture, served, tab, visit, write  # noqa: F401

from fundamentallm_hf.web.limits import LIMITS


def test_the_page_fits_a_phone(visit):  # noqa: F811
    page = visit(width=390, height=844)
    example(page, "Words that never appear")
    page.evaluate("window.scrollTo(0, 0)")
    picture(page, "phone")
    # The text stands first, in sight without scrolling, then what is asked for, then the settings.
    assert page.locator("#texts .see .text").bounding_box()["y"] < 700
    tops = page.evaluate(
        "['answer', 'asked', 'settings'].map(id => document.getElementById(id).getBoundingClientRect().top)"
    )
    assert tops == sorted(tops)
    page.locator(".tok").nth(5).click()
    page.wait_for_selector(".panel .row")
    page.locator(".see").scroll_into_view_if_needed()
    picture(page, "phone-see")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_page_is_readable_in_the_dark(visit):  # noqa: F811
    page = visit(dark=True)
    example(page, "Words that always appear")
    page.locator(".tok.required").first.click()
    picture(page, "dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background)[:3])) < 60


def test_everything_is_done_with_the_keyboard(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    page.locator("#write").focus()
    after(page, lambda: page.keyboard.press("Enter"))
    page.locator(".tok").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "Home", "ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.dataset.i") == "1"
    assert page.locator(".panel .row").count() > 1
    # Only one character of a text is a stop on the way through the page.
    assert page.locator(".tok[tabindex='0']").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "go"


def test_a_long_text_answers_at_once(visit):  # noqa: F811
    page = visit()
    fill(page, "prompt", ("Once upon a time there was a cat. " * 40)[:700])
    fill(page, "max_tokens", LIMITS.tokens)
    write(page)
    page.wait_for_selector(f".tok[data-i='{LIMITS.tokens - 1}']")
    took = page.evaluate(
        """async () => {
          const began = performance.now();
          for (const index of [3, 250, 499]) document.querySelector(`.tok[data-i='${index}']`).click();
          await new Promise(requestAnimationFrame);
          return performance.now() - began;
        }"""
    )
    assert took < 500
    assert "slid 1 time" in page.locator("#status").inner_text()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_anybody(visit, dark):  # noqa: F811
    """axe-core's rules, on every view of the page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page = visit(dark=dark)
    example(page, "Words that always appear")
    found = {}
    # What differs in the dark are colours.
    views = ("Text", "Compare", "Export") if dark else ("Text", "Beams", "Compare", "Export", "For programs")
    fill(page, "max_tokens", 20)
    for name in views:
        tab(page, name)
        if name == "Text":
            page.locator(".tok").nth(3).click()
        if name in ("Beams", "Compare"):
            page.click("#search" if name == "Beams" else "#compare")
            page.wait_for_selector("#tree svg" if name == "Beams" else "#columns .card:nth-child(4) .foot")
            page.wait_for_selector("#write:not([disabled])")
        page.wait_for_timeout(300)
        for violation in axe.run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [(each["target"], each.get("failureSummary", "")[:200]) for each in violation["nodes"][:3]]
                found.setdefault(violation["id"], (name, len(violation["nodes"]), nodes))
    assert not found


def test_text_of_a_visitor_is_never_markup_or_a_template(visit):  # noqa: F811
    page = visit()
    hostile = "<img src=x onerror=window.hit=1>${window.hit=1}{{hit}}{{#if}}</p><script>window.hit=1</script>"
    fill(page, "prompt", hostile)
    fill(page, "max_tokens", 4)
    fill(page, "must_include", "/[a-z<>]/")
    assert write(page).startswith(hostile)
    assert page.locator(".see .prompt").inner_text() == hostile
    page.locator(".tok").first.click()
    tab(page, "Beams")
    page.click("#search")
    page.wait_for_selector("#tree svg")
    assert hostile in page.locator("#tree").inner_text()
    assert page.evaluate("window.hit") is None
    page.wait_for_selector("#write:not([disabled])")
    fill(page, "must_include", "")
    fill(page, "guide_attribute", "<img/onerror=window.hit=1>")
    page.locator("#field-guide_attribute input").press("Enter")
    page.click("#write")
    page.wait_for_selector("#alert [role=alert]")
    assert page.locator("#alert img, .wrong img").count() == 0
