"""The web demo in a browser: a text is written, stopped, shown with its characters, and refused."""

import re
import time

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from web_visit import after, browser, example, fill, picture, served, shown_text, visit, write  # noqa: F401

from fundamentallm_hf.web.actions import WAITING
from fundamentallm_hf.web.examples import EXAMPLES, PRESETS
from fundamentallm_hf.web.limits import LIMITS


def test_a_text_comes_as_it_is_written_and_is_that_of_the_library(visit, served):  # noqa: F811
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


def test_the_status_names_characters_that_the_model_cannot_read(visit):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 20)
    for prompt, notice in (
        ("Once upon a time in Paris", None),
        ("Śliwka ate <b>", "'Ś' '<' '>'"),
        ("".join(map(chr, range(0x4E00, 0x4E20))), " ".join(f"'{chr(each)}'" for each in range(0x4E00, 0x4E0A)) + " …"),
    ):
        page.fill("#field-prompt textarea", prompt)
        write(page)
        status = page.locator("#status [role=status]").inner_text()
        assert (" · the model has no token for " in status) == bool(notice)
        assert notice is None or f"the model has no token for {notice}: it reads <UNK> instead" in status


def test_stop_ends_the_computation_and_the_model_is_free_again(visit, served, slow_model):  # noqa: F811
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


def test_a_visitor_who_leaves_ends_what_was_asked_for(visit, served, slow_model):  # noqa: F811
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


def test_several_samples_stand_side_by_side(visit, served):  # noqa: F811
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


def test_the_die_casts_another_seed(visit):  # noqa: F811
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


def test_a_character_shows_what_it_was_chosen_from_and_the_text_goes_on_from_another(visit, served):  # noqa: F811
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


def test_required_words_are_marked_and_white_space_shows(visit):  # noqa: F811
    page = visit()
    example(page, "Words that always appear")
    page.wait_for_selector(".tok.required")
    assert "✓ dragon" in page.locator(".words").first.inner_text().lower()
    page.get_by_label("show white space").check()
    picture(page, "required")
    colours = page.evaluate("getComputedStyle(document.querySelector('.spaces .tok .blank'), '::before').content")
    assert colours == '"·"'


def test_every_example_and_preset_writes(visit):  # noqa: F811
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
def test_what_cannot_be_is_told_beside_its_field(visit, name):  # noqa: F811
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


def test_a_place_that_cannot_be_branched_at_says_so(visit):  # noqa: F811
    page = visit("?prompt=It+was+on+&pattern=Monday|Tuesday&max_tokens=9")
    assert shown_text(page).startswith("It was on ")
    page.locator(".tok").first.click()
    page.locator(".go").first.click()
    page.get_by_text("cannot be continued from its middle").wait_for()


def test_who_comes_when_too_many_wait_is_told_so(visit, served):  # noqa: F811
    page, stops = visit(), served[2].stops
    for number in range(WAITING):
        stops.open(f"waiting{number}")
    page.click("#write")
    page.get_by_text("The model is busy").wait_for()
    for number in range(WAITING):
        stops.close(f"waiting{number}", stops.find(f"waiting{number}"))
    fill(page, "max_tokens", 5)
    assert len(write(page)) == 21
