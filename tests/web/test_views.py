"""The display of texts: marks, colours, trees. No text is ever used as markup."""

import html
import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundamentallm_hf import GenerationSettings
from fundamentallm_hf.generation.beam_tree import Branch
from fundamentallm_hf.generation.chat import ChatPrompt
from fundamentallm_hf.generation.completion import Completion
from fundamentallm_hf.generation.probabilities import Prediction, step_of
from fundamentallm_hf.generation.streaming import TextPiece, visible_from
from fundamentallm_hf.portable.decoding.control_effects import Shift
from fundamentallm_hf.web.beam_view import lanes_of, tree_html
from fundamentallm_hf.web.escaping import escape
from fundamentallm_hf.web.growing_text import GrowingText, PlacedShift, Pull, find_pulls
from fundamentallm_hf.web.highlights import find_entry, find_required
from fundamentallm_hf.web.runner import Written
from fundamentallm_hf.web.text_view import status_text, texts_html, tokens_html
from fundamentallm_hf.web.word_list import words_html

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
    ("text", "entries", "found"),
    [
        ("The dog r", ["rag", "sad"], "rag"),
        ("The dog ra", ["rag", "ran*"], "rag"),
        ("The dog ran", ["rag", "ran*"], "ran*"),
        ("The dog ran ", ["ran"], "ran"),
        ("The dog r ", ["ran"], None),
        ("The clas", ["ass"], None),
        ("The clas", ["*ass"], "*ass"),
        ("It was Very  h", ["hat", "very happy"], "very happy"),
        ("A quee", ["king|queen", "que*"], "king|queen"),
        ("A queen", ["king|queen", "que*"], "king|queen"),
        ("In 2024", ["/[0-9]{4}/"], "/[0-9]{4}/"),
        ("In 202", ["/[0-9]{4}/"], None),
        ("(", ["(", "a"], "("),
        ("", ["a"], None),
        ("a", ["*"], None),
    ],
)
def test_the_end_of_a_text_says_which_word_it_starts(text, entries, found):
    assert find_entry(text, entries) == found


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=8), max_size=3))
def test_what_a_text_starts_is_an_entry_or_nothing(text, entries):
    assert find_entry(text, entries) in (None, *entries)


@given(st.from_regex(r"[a-z]{1,6}( [a-z]{1,6})?", fullmatch=True), st.text("ab c.", max_size=9), st.data())
def test_every_start_of_a_word_is_found(entry, before, data):
    length = data.draw(st.integers(1, len(entry)))
    start = entry[:length]
    if not start.endswith(" "):
        assert find_entry(f"{before} {start}", [entry]) == entry


def test_the_words_of_the_controls_are_listed_with_where_they_shifted_the_text():
    settings = GenerationSettings(bad_words=["ran", "sat"], must_include=["dragon*", "castle"], guide_attribute="joy")
    shifts = (
        PlacedShift(4, "ban", "r", "w"),
        PlacedShift(11, "ban", "n", "t"),
        PlacedShift(15, "require", "x", "d"),
        PlacedShift(17, "ban", "q", "r"),
    )
    added = "dog walk ra. A dragons x"
    listed = words_html("The ", added, settings, shifts, [Pull(0, 3, 0.5), Pull(4, 8, -1.0)], busy=True)
    items = re.findall(r'<li class="(\w+)">(?:<button[^>]*data-at="([^"]*)">)?<b>([^<]*)</b>([^<]*)', listed)
    assert items == [
        ("written", "15 16 17 18 19 20 21", "✓ dragons", " appears"),
        ("missing", "", "castle", " still missing"),
        ("kept", "4 11", "ran", " kept away twice"),
        ("kept", "", "sat", " banned, not added"),
        ("other", "17", "bad-words", " changed the text at 1 position"),
        ("pull", "0 1 2 4 5 6 7", "joy", " made 1 word likelier, 1 less likely"),
    ]
    assert "not written" in words_html("The ", added, settings, shifts)
    assert words_html("The ", added, GenerationSettings(), ()) == ""


def test_a_growing_text_shows_what_may_still_change_and_where_it_was_shifted():
    written = Written(
        "a", "bcdef", settled=3, shifts=(PlacedShift(1, "ban", "x", "y"), PlacedShift(2, "guide", "x", "y"))
    )
    assert '>b<span class="shifted ban" data-c="1">c</span>' in texts_html([written]).replace("</span>b", ">b")
    assert '<span class="unsettled">ef</span>' in texts_html([written])


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
    assert view.count('class="tok p1 m3"') == 3
    assert view.count('tabindex="0"') == 1
    spoken = 'He shifted to "tok shifted" style="--pull:1"'  # the words of the marks are in the text alone
    for plain in (view, tokens_html([finished(spoken, spoken)], GenerationSettings())):
        assert "a control changed the text" not in plain
        assert "made likelier by the guide" not in plain
    shifted = replace(finished(), shifts=(PlacedShift(1, "ban", "x", "y"),))
    token = replace(shifted.completion.probabilities[1], shifts=(Shift("ban", 0.5, 1, 2),), effects={"ban": 1.5})
    tokens = (shifted.completion.probabilities[0], token, shifted.completion.probabilities[2])
    shifted = replace(shifted, completion=replace(shifted.completion, probabilities=tokens))
    view = tokens_html([shifted], GenerationSettings(bad_words=["ran"]))
    assert view.count('class="tok p1 m3 shifted ban"') == 1
    assert "a control changed the text" in view
    # Marks in the legend are of the classes, and so the colours, of those in the text.
    marks = re.search(r'<span class="key">([^/]*)</span> a control changed the text here</span>', view)[1]
    assert re.findall(r'class="([^"]*)"', marks) == ["shifted ban"]


def test_a_growing_text_shows_the_pull_of_a_guide():
    growing = GrowingText(SimpleNamespace(text=str))
    pieces = [("H", 1.0), ("e ", 1.0), ("was ", None), ("sa", 2.0), ("d", 3.0), (" so", 0.5), ("<b", 1.01)]
    for text, factor in pieces:
        effects = {"guide": factor, "ban": 9.0}
        growing.take(TextPiece(text, 1.0, (), ((visible_from(text), effects),) if factor else ()))
    pulls = (Pull(7, 10, pytest.approx(math.log(6))), Pull(11, 13, math.log(0.5)))
    assert growing.fields()["pulls"] == pulls
    tokens = [
        Prediction(2, text, text, 0.5, 0.5, effects={"guide": factor} if factor else {}) for text, factor in pieces
    ]
    assert find_pulls(tokens) == pulls
    settings = GenerationSettings(guide_attribute=["sad"])
    view = texts_html([Written("", **growing.fields())], settings=[settings])
    assert '<span class="towards" data-c="7" style="--pull:0.90">sad</span>' in view
    assert '<span class="away" data-c="11" style="--pull:0.35">so</span>&lt;b' in view
    assert "made 1 word likelier, 1 less likely" in view


def test_a_chat_is_shown_as_turns_and_its_words_are_those_of_the_reply():
    messages = [{"role": "user", "content": "a dragon <b>?"}, {"role": "assistant", "content": "A dragon "}]
    prompt, settings = ChatPrompt("user: a dragon?\nA dragon ", messages), GenerationSettings(must_include=["dragon"])
    done = finished(prompt, "ran")
    for view in (texts_html([done], settings=[settings]), tokens_html([done], settings)):
        assert view.count('class="turn user"') == 1
        assert "a dragon &lt;b&gt;?" in view
        assert view.count('<span class="prompt">A dragon </span>') == 1
        assert "not written" in view  # the start of the reply was given
    node = json.loads(html.unescape(re.search(r'data-node="([^"]*)"', tokens_html([done], settings))[1]))
    assert node["messages"] == messages
    empty = finished(ChatPrompt("user: a dragon?\n", [*messages[:1], {"role": "assistant", "content": ""}]), "ran")
    assert texts_html([empty]).count('class="turn ') == 1  # a reply that is not started yet is no turn
    several = texts_html([done, done], ["a", "b"])
    assert several.count('class="turns"') == 1


def test_what_is_shared_with_the_first_text_is_paler():
    view = texts_html([Written("a", "bcd"), Written("a", "bcx")], ["1", "2"], common=True)
    assert view.count('<span class="same">bc</span>x') == 1
    assert view.count("same") == 1


def test_the_status_line_tells_tokens_speed_reason_and_slides():
    assert status_text([]) == "waiting…"
    assert status_text([Written("a", "bcd")]) == "writing… 3 characters"
    line = "3 characters · 6 characters/s · length reached"
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
