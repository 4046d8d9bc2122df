"""Every token on the page is shown as the text that it is, and can be pointed at."""

import random
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

from web_visit import browser  # noqa: F401

import fundamentallm_hf.web.panels as panels
from fundamentallm_hf import GenerationSettings
from fundamentallm_hf.generation.completion import Completion
from fundamentallm_hf.generation.probabilities import Prediction
from fundamentallm_hf.web.runner import Written
from fundamentallm_hf.web.text_view import tokens_html

STYLE = (Path(panels.__file__).parent / "style.css").read_text(encoding="utf-8")
PIECES = [
    *("a", "b", " ", "  ", ".", "<b>", "${x}", "{{y}}", '"', "&amp;"),
    *("\n", "\r", "\r\n", "\t", "\n\n", "\u2028", "\x07", "\x85"),
    *("e", "\u0301", "שלום", "مرحبا", "\u05b0", "\u202b", "漢", "\u00ad", "\u200b", "\ufeff"),
    *("👍", "🏽", "👩", "\u200d", "💻", "\ufe0f", "🇩", "🇪", ""),
]
# The text as it is shown, and the tokens at none of whose points they are what is pointed at.
LOOK = """() => {
  const found = [...document.querySelectorAll(".tok")].map((token) => {
    token.scrollIntoView({ block: "center" });
    return [...token.getClientRects()].some(({ left, top, width, height }) => {
      const at = width > 2 && document.elementFromPoint(left + width / 2, top + height / 2);
      return at && at.closest(".tok") === token;
    });
  });
  return [document.querySelector(".text").textContent, found.flatMap((is, index) => (is ? [] : [index]))];
}"""


def drawn_tokens(seed):
    rng = random.Random(seed)
    tokens = ["".join(rng.choices(PIECES, k=rng.choice([1, 1, 1, 2]))) for _ in range(rng.randrange(1, 40))]
    return rng.choice(["", "Once", "a\r\nb", "שלום\n"]), tokens


def view(prompt, tokens):
    chances = [0.01, 0.05, 0.2, 0.5, 0.9]
    predictions = tuple(
        Prediction(2, text, f'"{text}"', chances[index % len(chances)], 0.5) for index, text in enumerate(tokens)
    )
    text = "".join(tokens)
    fields = {"finish_reason": "length", "tokens": len(tokens), "seed": 3, "log_probability": -1.0}
    completion = Completion(prompt, text, probabilities=predictions, **fields)
    return tokens_html([Written(prompt, text, completion, 0.5, 0)], GenerationSettings())


def test_every_token_is_exact_and_can_be_pointed_at(browser):  # noqa: F811
    page = browser.new_page(viewport={"width": 700, "height": 900})
    page.set_content(f'<style>{STYLE}</style><div id="texts"></div>')
    for seed in range(40):
        prompt, tokens = drawn_tokens(seed)
        page.evaluate("html => { document.querySelector('#texts').innerHTML = html; }", view(prompt, tokens))
        text, hidden = page.evaluate(LOOK)
        assert text == prompt + "".join(tokens), seed
        assert not hidden, (seed, [tokens[index] for index in hidden])
    page.close()


def test_a_line_break_has_its_sign_where_white_space_is_shown(browser):  # noqa: F811
    page = browser.new_page()
    html = view("Once", ["\n", "\t", "\u200b", "a"])
    page.set_content(f'<style>{STYLE}</style><div id="texts">{html}</div>')
    signs = "[...document.querySelectorAll('.sign')].map(each => getComputedStyle(each, '::before').content)"
    assert page.evaluate(signs) == ['"  "', "none", '"  "']
    page.evaluate("document.querySelector('#texts').classList.add('spaces')")
    assert page.evaluate(signs) == ['"↵"', '"⇥"', '"\\"\u200b\\""']
    page.close()
