"""What a visitor of the page does in a browser: the fixtures and steps that tests of the page share.

With PICTURES set to a folder, the pictures of the documentation are written there.
"""

import os
from pathlib import Path

import pytest
from web_server import open_browser, start

PICTURES = os.environ.get("PICTURES")
SECONDS = 60_000  # of Playwright, in its milliseconds; a busy machine takes long to open a page


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
    assert not complaints, complaints


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
    # An earlier alert stays until the page has registered the request.
    page.evaluate("document.querySelectorAll('#alert p').forEach(each => (each.dataset.earlier = ''))")
    act()
    page.wait_for_function(
        f"before => document.querySelector('#alert p:not([data-earlier])') || ![before, ''].includes({RUN})", arg=before
    )
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
