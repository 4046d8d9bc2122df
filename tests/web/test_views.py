"""The display of texts: marks, colours, trees. No text is ever used as markup."""

import html
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf import GenerationSettings
from fundamentallm_hf.generation.beam_tree import Branch
from fundamentallm_hf.generation.completion import Completion
from fundamentallm_hf.generation.probabilities import Prediction, step_of
from fundamentallm_hf.web.beam_view import lanes_of, tree_html
from fundamentallm_hf.web.highlights import find_near_misses, find_required
from fundamentallm_hf.web.runner import Written
from fundamentallm_hf.web.text_view import escape, status_text, texts_html, tokens_html

TEXT = "The class ran to the dragon. Dragons, a King and 2024 rats were very sad."


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("dragon", ["dragon"]),
        ("dragon*", ["dragon", "Dragons"]),
        ("*ing", ["King"]),
        ("king|queen", ["King"]),
        ("/[0-9]{4}/", ["2024"]),
        ("ran to", ["ran to"]),
        ("lion", []),
    ],
)
def test_required_words_are_found_as_the_control_means_them(entry, found):
    marks = find_required(TEXT, 0, [entry])
    assert [TEXT[mark.start : mark.end] for mark in marks] == found
    assert find_required(TEXT, len(TEXT), [entry]) == []


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("ass", ["class"]),
        ("rag", ["ran", "dragon", "Dragons", "rats"]),
        ("very happy", ["very sad"]),
        ("dragonfly", ["dragon", "Dragons"]),
        ("ran", ["rats"]),
        ("curs*", []),
        ("/rat/", []),
        ("*", []),
    ],
)
def test_near_misses_begin_like_a_banned_word_or_hold_it(entry, found):
    marks = find_near_misses(TEXT, 0, [entry])
    assert [TEXT[mark.start : mark.end] for mark in marks] == found


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=8), max_size=3))
def test_near_misses_lie_within_the_text(text, entries):
    for mark in find_near_misses(text, 3, entries):
        assert 3 <= mark.start < mark.end <= len(text)


@given(st.text())
def test_escaped_text_is_no_markup_and_means_the_text(text):
    escaped = escape(text)
    assert not set(escaped) & set("<>\"'${}\0")
    assert html.unescape(escaped) == text.replace("\0", "\ufffd")


HOSTILE = "</p><img src=x onerror=alert(1)>${1}{{x}}"


def finished(prompt="a", text="b c", **more):
    alternatives = (Prediction(1, HOSTILE, HOSTILE, 0.0, 0.6), Prediction(2, "b", '"b"', 0.9, 0.3))
    tokens = [Prediction(2, char, f'"{char}"', 0.05, 0.5, alternatives) for char in text]
    fields = {"finish_reason": "length", "tokens": len(text), "seed": 3, "log_probability": -1.0} | more
    return Written(prompt, text, Completion(prompt, text, probabilities=tuple(tokens), **fields), 0.5, 0)


def test_no_view_lets_markup_through():
    settings = GenerationSettings(must_include=[HOSTILE], bad_words=["onerrors"])
    views = [
        texts_html([finished(HOSTILE, HOSTILE), Written(HOSTILE, HOSTILE)], [HOSTILE, "b"], common=True),
        tokens_html([finished(HOSTILE, HOSTILE)], settings),
        tree_html(HOSTILE, [Branch(HOSTILE, 0, None, -1.0, 3, True), Branch(HOSTILE, 1, 0, -2.0, 3, False)]),
    ]
    for view in views:
        assert "<img" not in view
        assert "${" not in view
        assert "{{" not in view
        assert "onerror=alert" in html.unescape(view)


def test_tokens_have_the_class_of_their_probability():
    assert [step_of(each) for each in (0, 0.019, 0.02, 0.1, 0.3, 0.7, 1)] == [0, 0, 1, 2, 3, 4, 4]
    view = tokens_html([finished()], GenerationSettings())
    assert view.count('class="tok p1 m3 turned') == 3
    assert view.count('tabindex="0"') == 1
    assert "first choice was masked" in view


def test_what_is_shared_with_the_first_text_is_paler():
    view = texts_html([Written("a", "bcd"), Written("a", "bcx")], ["1", "2"], common=True)
    assert view.count('<span class="same">bc</span>x') == 1
    assert view.count("same") == 1


def test_the_status_line_tells_tokens_speed_reason_and_slides():
    assert status_text([]) == "waiting…"
    assert status_text([Written("a", "bcd")]) == "writing… 3 characters"
    line = "3 tokens · 6 tokens/s · max-tokens is reached · no context slide"
    assert status_text([finished()]) == line
    counted = finished()
    counted = replace(counted, completion=replace(counted.completion, passes=2))
    assert status_text([counted]) == f"{line} · 2 passes of the model"
    ended = Written("a", "b", Completion("a", "b", "eos", 1, 1), 0.5, 2)
    assert status_text([finished(), ended]).endswith("; the model ended the text · the context slid 2 times")
    assert status_text([finished(), Written("a")]).endswith("writing…")


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20)), min_size=1, max_size=20))
def test_no_branch_is_drawn_over_another(shapes):
    branches = [Branch("x" * 60, 0, None, 0.0, 60, True)]
    branches += [Branch("y" * length, start, 0, -1.0, length, False) for start, length in sorted(shapes)]
    lanes = lanes_of(branches)
    for one, (branch, lane) in enumerate(zip(branches, lanes, strict=True)):
        for other, same in list(zip(branches, lanes, strict=True))[one + 1 :]:
            assert lane != same or branch.start + len(branch.text) < other.start
    assert lanes[0] == 0
    assert all(lane > 0 for lane in lanes[1:])


def test_a_tree_marks_the_chosen_path_and_repeats_it_as_a_table():
    view = tree_html("a", [Branch("bc\n", 0, None, -1.5, 3, True), Branch("d", 1, 0, -2, 1, False)])
    assert re.search(r'<g class="chosen"><text [^>]*>bc↵</text><text class="score"[^>]*>-1.5</text>', view)
    assert view.count("<tr><td>") == 2
    assert tree_html("a", []) == ""
