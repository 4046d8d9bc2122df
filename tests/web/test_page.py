"""The web demo in a browser: what a visitor does, sees and hears.

With PICTURES set to a folder, the pictures of the documentation are written there.
"""

import io
import json
import os
import re
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from web_server import open_browser, start

from fundamentallm_hf.web.actions import WAITING
from fundamentallm_hf.web.examples import EXAMPLES, PRESETS
from fundamentallm_hf.web.limits import LIMITS

PICTURES = os.environ.get("PICTURES")
SECONDS = 20_000  # of Playwright, in its milliseconds


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def served():
    return start()


@pytest.fixture
def visit(browser, served):
    """Opens the page; nothing may be written on the console."""
    complaints, pages = [], []

    def visit(query="", width=1280, height=900, dark=False, context=None):
        screen = {"viewport": {"width": width, "height": height}, "color_scheme": "dark" if dark else "light"}
        page = browser.new_page(**screen) if context is None else context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        pages.append(page)
        page.goto(f"{served[1]}/{query}")
        page.wait_for_selector("#write")
        # The page writes its first text by itself.
        page.wait_for_selector("#texts .see, #alert [role=alert]")
        page.wait_for_selector("#write:not([disabled])")
        return page

    yield visit
    for page in pages:
        page.close()
    assert not complaints


def picture(page, name, **options):
    if PICTURES:
        page.wait_for_timeout(400)
        if "phone" not in name and name != "error":
            page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=Path(PICTURES) / f"{name}.png", **options)


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def fill(page, name, value):
    """Enter a value into the field of a setting; sliders have a number beside them."""
    if not page.locator(f"#field-{name}").is_visible():
        page.get_by_text("More settings", exact=True).click()
    field = page.locator(f"#field-{name}").locator("textarea, input[type=number], input[type=text], input:not([type])")
    field.first.fill(str(value))
    field.first.press("Tab")


RUN = "(document.querySelector('#texts .run[data-run]') || {dataset: {}}).dataset.run || ''"


def after(page, act):
    """Do what generates a text, and wait until it is complete or refused."""
    before = page.evaluate(RUN)
    act()
    page.wait_for_function(f"before => document.querySelector('#alert p') || ![before, ''].includes({RUN})", arg=before)
    page.wait_for_selector("#write:not([disabled])")


def write(page):
    after(page, lambda: page.click("#write"))
    return shown_text(page)


def shown_text(page):
    return page.locator("#texts .see .text").first.inner_text()


def example(page, name):
    if not page.locator("#examples").is_visible():
        page.get_by_text("Examples, one for each control").click()
    after(page, lambda: page.locator("#examples").get_by_text(name, exact=True).click())


def test_a_text_comes_as_it_is_written_and_is_that_of_the_library(visit, served):
    page = visit()
    fill(page, "max_tokens", 250)
    page.evaluate(
        """() => {
          window.seen = [];
          const look = () => {
            const text = document.querySelector("#texts .text");
            if (text && window.seen.at(-1) !== text.textContent.length) window.seen.push(text.textContent.length);
          };
          const watched = {subtree: true, childList: true, characterData: true};
          new MutationObserver(look).observe(document.querySelector("#texts"), watched);
        }"""
    )
    text = write(page)
    assert len(set(page.evaluate("window.seen"))) > 3
    assert text == served[2].generator.generate("Once upon a time", max_tokens=250, temperature=0.8, top_p=0.9, seed=7)
    status = page.locator("#status [role=status]").inner_text()
    assert re.fullmatch(r"250 characters · \d+ characters/s · length reached · \d+ passes of the model", status)
    picture(page, "write")


def test_stop_ends_the_computation_and_the_model_is_free_again(visit, served, slow_model):
    page, writer = visit(), served[2]
    fill(page, "max_tokens", 500)
    fill(page, "num_samples", 4)
    began = time.monotonic()
    page.click("#write")
    page.wait_for_function("document.querySelector('#texts .card[aria-busy=true] .caret')", polling=50)
    page.click("#stop")
    page.wait_for_selector("#texts .run[data-run]")
    page.wait_for_selector("#write:not([disabled])")
    took = time.monotonic() - began
    assert "stopped" in page.locator("#status").inner_text()
    texts = page.locator("#texts .see .text").all_inner_texts()
    assert len(texts) == 4
    assert all(len(text) < 516 for text in texts)
    assert len(writer.stops) == 0
    began = time.monotonic()
    fill(page, "max_tokens", 5)
    fill(page, "num_samples", 1)
    assert len(write(page)) == 21
    assert time.monotonic() - began < max(4, took)


def test_a_visitor_who_leaves_ends_what_was_asked_for(visit, served, slow_model):
    page, writer = visit(), served[2]
    fill(page, "max_tokens", 500)
    fill(page, "num_samples", 4)
    page.click("#write")
    page.wait_for_function("document.querySelector('#texts .card[aria-busy=true] .caret')", polling=50)
    assert len(writer.stops) == 1
    page.close()
    began = time.monotonic()
    while len(writer.stops) and time.monotonic() - began < 10:
        time.sleep(0.1)
    assert len(writer.stops) == 0
    assert time.monotonic() - began < 4


def test_several_samples_stand_side_by_side(visit, served):
    page = visit()
    fill(page, "num_samples", 3)
    fill(page, "max_tokens", 30)
    write(page)
    texts = page.locator("#texts .see .text").all_inner_texts()
    expected = served[2].generator.complete(
        "Once upon a time", num_samples=3, max_tokens=30, temperature=0.8, top_p=0.9, seed=7
    )
    assert texts == [each.text for each in expected]
    tops = page.evaluate("[...document.querySelectorAll('#texts .see')].map(each => each.getBoundingClientRect().top)")
    assert tops[0] == tops[1]


def test_the_die_casts_another_seed(visit):
    page = visit()
    page.get_by_text("More settings", exact=True).click()
    seed = page.locator("#field-seed").locator("input, textarea").first
    before = seed.input_value()
    page.click("#die")
    page.wait_for_function(
        "before => document.querySelector('#field-seed').querySelector('input, textarea').value !== before", arg=before
    )
    fill(page, "max_tokens", 5)
    write(page)
    assert f"seed {seed.input_value()}" in page.locator("#texts .see > .foot").inner_text()


def test_a_character_shows_what_it_was_chosen_from_and_the_text_goes_on_from_another(visit, served):
    page = visit()
    fill(page, "max_tokens", 60)
    fill(page, "bad_words", "/,/")
    text = write(page)
    assert "," not in text
    shown = "".join(page.locator(".tok").all_text_contents())
    assert shown == text.removeprefix("Once upon a time")
    # A place where the settings have taken something away.
    page.locator(".tok.shifted").first.click()
    panel = page.locator(".panel")
    assert panel.locator(".row.same").count() == 1
    assert panel.locator(".row.masked").count() >= 1
    picture(page, "see")
    index = int(page.locator(".tok.chosen").get_attribute("data-i"))
    row = panel.locator(".row:not(.same)").filter(has_text=re.compile(r'^"[a-z.!?]"')).first
    choice = row.locator(".name").inner_text().split('"')[1]
    after(page, row.locator(".go").click)
    prompt = text[: 16 + index] + choice
    options = {"max_tokens": 60, "temperature": 0.8, "top_p": 0.9, "seed": 7, "bad_words": "/,/"}
    assert shown_text(page) == served[2].generator.generate(prompt, **options)
    assert page.locator("#field-prompt textarea").input_value() == "Once upon a time"
    picture(page, "branch")


def test_required_words_are_marked_and_white_space_shows(visit):
    page = visit()
    example(page, "Words that always appear")
    page.wait_for_selector(".tok.required")
    assert "✓ dragon" in page.locator(".words").first.inner_text().lower()
    assert not page.locator(".tok .sign").first.is_visible()
    page.get_by_label("show white space").check()
    picture(page, "required")
    colours = page.evaluate("getComputedStyle(document.querySelector('.spaces .tok .blank'), '::before').content")
    assert colours == '"·"'


def test_the_tree_of_beams_marks_the_chosen_path(visit, served):
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


def test_temperatures_are_compared_side_by_side(visit, served):
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


def test_a_text_is_compared_with_those_that_lack_a_control(visit):
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


def test_every_example_and_preset_writes(visit):
    page = visit()
    for each in EXAMPLES:
        example(page, each.name)
        assert page.locator("#alert p").count() == 0
        texts = page.locator("#texts .see .text").all_inner_texts()
        assert len(texts) == each.settings.get("num_samples", 1)
        assert all(text.startswith(each.prompt) for text in texts)
    for each in PRESETS:
        after(page, lambda name=each.name: page.locator("#presets").get_by_text(name, exact=True).click())
        assert shown_text(page).startswith(page.locator("#field-prompt textarea").input_value())


WRONG = {
    "guide_attribute": ("guide_attribute", "nope", "there is no attribute 'nope'"),
    "must_include": ("must_include", "extraordinarily long words", "required words (must-include): "),
    "pattern": ("pattern", "(", "pattern: '(' is not valid"),
    "prompt": ("prompt", "x" * (LIMITS.prompt + 1), f"at most {LIMITS.prompt} characters"),
    "top_k": ("top_k", "-3", "top-k has to be a whole number of at least 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_told_beside_its_field(visit, name):
    field, value, expected = WRONG[name]
    page = visit()
    fill(page, "max_tokens", 10)
    fill(page, field, value)
    if field == "guide_attribute":
        page.locator(f"#field-{field} input").press("Enter")
    page.click("#write")
    page.wait_for_selector("#alert [role=alert]")
    assert expected in page.locator("#alert").inner_text()
    assert expected.split(" ")[0] in page.locator(f"#field-{field}.wrong").inner_text()
    if field == "must_include":
        page.locator("#stop").scroll_into_view_if_needed()
        page.evaluate("window.scrollTo(0, document.querySelector('#alert').offsetTop)")
        picture(page, "error")
    page.wait_for_selector("#write:not([disabled])")
    if field == "prompt":
        fill(page, "prompt", "Once")
        assert write(page).startswith("Once")
        assert page.locator(".wrong").count() == 0
        assert page.locator("#alert p").count() == 0


def test_a_place_that_cannot_be_branched_at_says_so(visit):
    page = visit("?prompt=It+was+on+&pattern=Monday|Tuesday&max_tokens=9")
    assert shown_text(page).startswith("It was on ")
    page.locator(".tok").first.click()
    page.locator(".go").first.click()
    page.get_by_text("cannot be continued from its middle").wait_for()


def test_who_comes_when_too_many_wait_is_told_so(visit, served):
    page, stops = visit(), served[2].stops
    for number in range(WAITING):
        stops.open(f"waiting{number}")
    page.click("#write")
    page.get_by_text("The model is busy").wait_for()
    for number in range(WAITING):
        stops.close(f"waiting{number}", stops.find(f"waiting{number}"))
    fill(page, "max_tokens", 5)
    assert len(write(page)) == 21


def test_a_link_restores_the_settings_and_says_what_is_wrong_with_it(visit):
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


def test_what_is_taken_away_writes_the_text_again(visit, served):
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


def test_the_page_fits_a_phone(visit):
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


def test_the_page_is_readable_in_the_dark(visit):
    page = visit(dark=True)
    example(page, "Words that always appear")
    page.locator(".tok.required").first.click()
    picture(page, "dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background)[:3])) < 60


def test_everything_is_done_with_the_keyboard(visit):
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


def test_text_of_a_visitor_is_never_markup_or_a_template(visit):
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


def test_a_long_text_answers_at_once(visit):
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
def test_nothing_serious_stands_in_the_way_of_anybody(visit, dark):
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
