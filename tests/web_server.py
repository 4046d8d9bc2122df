"""The running web demo, and a browser for it; both are started once for all tests that use them."""

import shutil
from contextlib import contextmanager
from functools import cache

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@cache
def start(template=None):
    """The page with the bundled model, and what it holds: (gr.Blocks, address, Writer).

    Args:
        template: the chat template of the tokenizer.
    """
    from fundamentallm_hf import Generator, load_model
    from fundamentallm_hf.web.app import launch_options, serve
    from fundamentallm_hf.web.page import Page
    from fundamentallm_hf.web.runner import Writer

    model = load_model(device="cpu")
    model.tokenizer.chat_template = template
    writer = Writer(Generator(model, notice=lambda text: None))
    blocks = serve(Page(writer))
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    return blocks, address.rstrip("/"), writer


@contextmanager
def open_browser():
    """Debian's Chromium, driven by Playwright; skips where either is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
