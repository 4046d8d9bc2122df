"""The differences between two texts, as the browser finds them."""

import random
import time
from itertools import pairwise

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from web_visit import browser  # noqa: F401

from fundamentallm_hf.web.panels import script

WORDS = ["a", "boy", " ", "\n", "ran", ".", "🙂", "👩\u200d💻", "שלום", "e\u0301", "\r\n", "漢字"]


@pytest.fixture(scope="module")
def page(browser):  # noqa: F811
    page = browser.new_page()
    page.add_script_tag(content=f"{script('tree.js')}\nwindow.compare = compare;")
    yield page
    page.close()


def test_the_parts_make_up_both_texts(page):
    rng = random.Random(3)
    pairs = []
    for _ in range(300):
        one = rng.choices(WORDS, k=rng.randrange(12))
        other = [rng.choice(WORDS) if rng.random() < 0.3 else each for each in one if rng.random() < 0.9]
        pairs.append(["".join(one), "".join(other)])
    compared = page.evaluate("pairs => pairs.map(([one, other]) => compare(one, other))", pairs)
    for (one, other), parts in zip(pairs, compared, strict=True):
        assert "".join(text for sign, text in parts if sign != "+") == one
        assert "".join(text for sign, text in parts if sign != "-") == other
        assert all(before[0] != after[0] for before, after in pairwise(parts))


def test_long_texts_with_little_in_common_are_compared_at_once(page):
    began = time.monotonic()
    signs = page.evaluate(
        """() => {
          const [one, other] = ["!", "?"].map((sign) => "start " + (sign + ";").repeat(100000) + " end");
          return compare(one, other).map(([sign, text]) => [sign, text.length]);
        }"""
    )
    assert [sign for sign, _ in signs] == list("=-+=")
    assert time.monotonic() - began < 10
