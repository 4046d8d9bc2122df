"""What controls do to a text, as a visitor sees it: words, shifts, pulls, the best beam, a text with and without."""

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from web_visit import after, browser, fill, picture, served, shown_text, tab, visit  # noqa: F401

# Notes what is on screen whenever it changes.
WATCH = """look => {
  window.seen = [];
  const note = () => {
    const found = new Function("return " + look)();
    const last = window.seen.at(-1);
    if (found !== null && JSON.stringify(found) !== JSON.stringify(last)) window.seen.push(found);
  };
  const watched = { subtree: true, childList: true, characterData: true };
  new MutationObserver(note).observe(document.body, watched);
}"""
WORDS = "[...document.querySelectorAll('#texts .card .words li')].map(each => each.className + ' ' + each.textContent)"


def test_words_are_listed_while_the_text_grows_and_mark_where_they_shifted_it(visit, slow_model):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 160)
    fill(page, "bad_words", "there, was")
    fill(page, "must_include", "dragon*, castle")
    page.evaluate(WATCH, f"(list => list.length ? list : null)({WORDS})")
    page.click("#write")
    item = page.locator("#texts .card .words .kept .show").first
    item.wait_for()
    # With the keyboard, while the text grows: the item keeps the focus, and what it is about stays marked.
    item.focus()
    page.wait_for_selector("#texts .card .marked")
    page.wait_for_selector("#texts .run[data-run]")
    page.wait_for_selector("#write:not([disabled])")
    seen = page.evaluate("window.seen")
    assert seen[0][:2] == ["missing dragon* still missing", "missing castle still missing"]
    assert any("kept away" in each for shown in seen for each in shown)
    assert any(shown[0].startswith("written ✓ dragon") for shown in seen)

    listed = page.locator("#texts .see .words li").all_inner_texts()
    assert listed[0].startswith("✓ dragon")
    kept = page.locator("#texts .see .words .kept .show").first
    kept.hover()
    places = kept.get_attribute("data-at").split(" ")
    marked = page.evaluate("[...document.querySelectorAll('#texts .marked')].map(each => each.dataset.c)")
    assert marked == places
    assert page.locator("#texts .tok.shifted.ban").count() >= len(places)
    picture(page, "words")
    kept.click()
    why = page.locator(".panel .why").first.inner_text()
    assert why.startswith("bad-words changed the text here for “")
    assert "bad-words took it away" in page.locator(".panel .bars").inner_text()


def test_the_pull_of_a_guide_is_a_line_under_its_words(visit):  # noqa: F811
    page = visit(
        "?prompt=She+was&guide_attribute=positive_sentiment&guide_strength=3&max_tokens=120&temperature=0.8&seed=2"
    )
    assert page.locator(".tok.towards").count() > 3
    about = page.locator(".words .pull .show")
    about.focus()
    assert page.locator(".tok.marked").count() == page.locator(".tok.towards, .tok.away").count()
    line = page.evaluate("getComputedStyle(document.querySelector('.tok.towards')).borderBottomWidth")
    assert line == "2px"
    picture(page, "pull")


def test_the_best_beam_is_seen_while_it_may_change(visit, served, slow_model):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 60)
    fill(page, "beam_size", 3)
    fill(page, "temperature", 0)
    loose = "(card.querySelector('.unsettled') || {textContent: ''}).textContent"
    page.evaluate(
        WATCH,
        f"(card => card && {{text: card.textContent, loose: {loose}}})(document.querySelector('#texts .card .text'))",
    )
    after(page, lambda: page.click("#write"))
    seen = [each for each in page.evaluate("window.seen") if each]
    assert any(each["loose"] for each in seen)
    text = shown_text(page)
    for each in seen:
        certain = each["text"].removesuffix("waiting").removesuffix(each["loose"])
        assert text.startswith(certain)
    tab(page, "Beams")
    page.click("#search")
    page.wait_for_selector("#tree .card .unsettled")
    page.wait_for_selector("#tree svg")
    page.wait_for_selector("#write:not([disabled])")


def test_one_click_writes_with_and_without_a_control(visit, served):  # noqa: F811
    page = visit()
    fill(page, "max_tokens", 40)
    fill(page, "bad_words", "there")
    page.wait_for_function("document.querySelectorAll('#chips li').length === 2")
    assert page.locator("#chips .side").count() == 1  # a length cannot be left out
    page.click("#chips .side")
    page.wait_for_selector("#columns .card:nth-child(2) .foot")
    assert page.locator("#columns h3").all_inner_texts() == ["with bad-words", "without bad-words"]
    options = {"max_tokens": 40, "temperature": 0.8, "top_p": 0.9, "seed": 7}
    generate = served[2].generator.generate
    expected = [generate("Once upon a time", **options, **control) for control in ({"bad_words": "there"}, {})]
    assert page.locator("#columns .text").all_text_contents() == expected
    page.wait_for_selector("#write:not([disabled])")
    picture(page, "with-and-without")
