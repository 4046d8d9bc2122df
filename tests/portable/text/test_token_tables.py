"""A table contains the effect of every token."""

import codecs
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from text_matcher import violations

from fundamentallm_hf.portable.text import token_tables
from fundamentallm_hf.portable.text.text_patterns import TextPatterns
from fundamentallm_hf.portable.text.token_tables import CERTAIN, TextState, TokenTables
from fundamentallm_hf.portable.text.vocabulary import Vocabulary, add_piece
from fundamentallm_hf.portable.text.word_counts import WordCounts

COUNTS = WordCounts({"ran": 60, "rang": 30, "rat": 10, "big": 100, "ab": 5, "abba": 3, "bab": 2, "a": 4})
PIECES = ("", "r", "a", "n", "g", " ", ".", "ran", " ra", "n.", "an", "é", b"\xc3", b"\xa9", b"n\xc3", "ra")


def tables_of(entries, pieces=PIECES, size=0, counts=COUNTS):
    return TokenTables(Vocabulary(tuple(pieces)), TextPatterns(entries, True, counts), size)


def place(tables, tokens, start=None):
    state = start or tables.start
    for token in tokens:
        state = tables.advance(state, token)
    return state


def names(tables, tokens):
    return {tables.vocabulary.piece(token) for token in tokens}


def brute_force(tables, state, token):
    """The effect of reading `token`: whether it completes an entry or leaves one complete, and the probability."""
    patterns, piece = tables.patterns, tables.vocabulary.piece(token)
    text, pending = add_piece(state.pending, piece)
    after, hit = patterns.read(state.patterns, text)
    broken, late = patterns.read(after, pending.decode("utf-8", "replace"))
    ends = not hit and (late or patterns.ends(broken))
    chance = 0.0 if hit or pending or not piece else patterns.chance(after)
    if chance and isinstance(piece, str) and tables.vocabulary.longest > 1:
        spellings = [(rest, tables.vocabulary.spell(piece + rest.text)) for rest in patterns.ways(after)]
        chance = min(
            chance, sum(rest.chance for rest, found in spellings if not rest.text or (found or [-1])[0] == token)
        )

    def leads_on_from(place):
        pieces = [piece for piece in tables.vocabulary.pieces if isinstance(piece, str)]
        spaced = [piece for piece in pieces if len(piece) == 2 and piece[0] == " " and piece[1] not in pieces]
        followers = [patterns.read(place, piece) for piece in (*filter(lambda each: len(each) == 1, pieces), *spaced)]
        return any(not found and not patterns.ends(beyond) for beyond, found in followers)

    leads_on = leads_on_from(after)
    if pending and (isinstance(piece, bytes) or (ends and not piece)):
        texts = completions(tables, pending)
        steps = [patterns.read(after, text) for text in texts]
        # The text may be unable to end after this character; then something must be able to follow it.
        leads_on = any(not found and (not patterns.ends(beyond) or leads_on_from(beyond)) for beyond, found in steps)
        shut = hit or (not leads_on and (ends or bool(texts)))
    else:
        shut = hit or (ends and not leads_on)
    return shut, ends, 0.0 if shut else chance


def completions(tables, pending):
    """Every text in which tokens complete a started character without starting another one."""
    found, waiting = set(), [("", pending, 0)]
    while waiting:
        text, started, tokens = waiting.pop()
        for piece in tables.vocabulary.pieces:
            if not isinstance(piece, bytes) or tokens == 4:
                continue
            decoder = codecs.getincrementaldecoder("utf-8")()
            try:
                longer = text + decoder.decode(started + piece)
            except UnicodeDecodeError:
                continue
            rest = decoder.getstate()[0]
            if rest:
                waiting.append((longer, rest, tokens + 1))
            else:
                found.add(longer)
    return found


WHOLE = st.text("abr -é", min_size=1, max_size=3)
PARTS = st.sampled_from([b"\xc3", b"\xa9", b"a\xc3", b"\xa9b", b"\xf0\x9f", b"\x98\x80", b"\xff"])
VOCABULARIES = st.lists(st.one_of(WHOLE, WHOLE, PARTS, st.just("")), min_size=2, max_size=14)
ENTRIES = st.lists(
    st.sampled_from(
        [
            *("a", "ab", "abba", "b*", "a b", "é", "*ba", "a*b", "ab-", "-", "ra é", "bé", "r*", "a b a"),
            *("/a.b/", "/b$/", r"/\bab\b/", "/(?m)^b/", "/a{3}/", "/[^a]é/", "/\ufffd/"),
        ]
    ),
    min_size=1,
    max_size=3,
    unique=True,
)


@given(VOCABULARIES, ENTRIES, st.data())
@settings(max_examples=400, deadline=None)
def test_a_table_is_what_reading_every_token_shows(pieces, entries, data):
    tables = tables_of(entries, pieces, size=len(pieces) + 2)
    tokens = st.lists(st.integers(0, len(pieces) + 1), max_size=5)
    state = tables.forget(place(tables, data.draw(tokens)))._replace(given=False)
    for token in data.draw(tokens):
        state = tables.advance(state, token)
    table = tables.table(state)
    closed, ending, chances = [], [], {}
    for token in range(tables.size):
        shut, ends, chance = brute_force(tables, state, token)
        closed += [token] * shut
        ending += [token] * ends
        chances |= {token: min(CERTAIN, chance)} if chance else {}
    assert table.closed.nonzero()[:, 0].tolist() == closed
    assert sorted(table.ending.tolist()) == ending
    assert dict(zip(table.risky.tolist(), table.chances.tolist(), strict=True)) == pytest.approx(chances)
    expected = [-math.inf if token in closed else math.log1p(-chances.get(token, 0.0)) for token in range(tables.size)]
    assert table.shift.tolist() == pytest.approx(expected, rel=1e-3)


FALLBACK_PIECES = ("", "ran", " ", "g", "r", "n", *"ran g", b"\xc3", b"\xa9", b"\xff", b"\xe4")
FALLBACK = Vocabulary(FALLBACK_PIECES, fallback=frozenset(range(6, len(FALLBACK_PIECES))))


@given(
    st.lists(
        st.sampled_from(["ran", "g", "né", "r*", "*n", "/n$/", "/\ufffdg?r/", "/\ufffd{3}/"]), min_size=1, max_size=2
    ),
    st.lists(st.integers(0, len(FALLBACK_PIECES) - 1), max_size=9),
)
@example(["ran"], [6, 7, 8, 13])
@settings(max_examples=600, deadline=None)
def test_bytes_that_stand_in_for_characters_bring_no_entry_about_when_they_are_given_up(entries, tokens):
    """However the decoder reads the bytes in the end, no text of allowed tokens contains an entry."""
    tables = TokenTables(FALLBACK, TextPatterns(entries, True, COUNTS), 0)
    state, written = tables.start, []
    for token in tokens:
        if tables.table(state).closed[token]:
            continue
        ending = token in tables.table(state).ending.tolist()
        state = tables.advance(state, token)
        written.append(token)
        text = FALLBACK.text(written)
        assert ending == tables.ends(state)
        assert bool(violations(text, 0, entries)) <= ending


@given(VOCABULARIES, ENTRIES, st.data())
@settings(max_examples=100, deadline=None)
def test_a_text_stands_where_its_characters_stand(pieces, entries, data):
    tables = tables_of(entries, pieces)
    tokens = data.draw(st.lists(st.integers(0, len(pieces) - 1), max_size=6))
    state = place(tables, tokens)
    text = tables.vocabulary.text(tokens)
    waiting = len(state.pending.decode("utf-8", "replace"))
    read = tables.patterns.read(tables.start.patterns, text[: len(text) - waiting])[0]
    assert state.patterns == read


@pytest.mark.parametrize(
    ("text", "closed", "ending"),
    [
        ("", set(), {"ran"}),
        (" ra", {"n."}, {"n", b"n\xc3"}),
        ("ran", {" ", ".", " ra", b"\xa9"}, {"", b"\xc3"}),
        ("x", set(), set()),
        (" ", set(), {"ran"}),
        ("g", set(), set()),
    ],
)
def test_tokens_are_closed_that_complete_an_entry(text, closed, ending):
    tables = tables_of(["ran"], size=17)
    patterns = tables.patterns.read(tables.start.patterns, text)[0]
    table = tables.table(TextState(patterns, b""))
    assert names(tables, table.closed.nonzero()[:, 0].tolist()) == closed
    assert names(tables, table.ending.tolist()) == ending
    assert table.shift.shape == table.closed.shape == (17,)


def test_the_chance_of_what_a_token_begins_lowers_its_score():
    tables = tables_of(["ran"])
    table = tables.table(tables.start)
    chances = {
        PIECES[token]: chance for token, chance in zip(table.risky.tolist(), table.chances.tolist(), strict=True)
    }
    # "ran" is a token, so a model does not start it with "r" or "ra". It starts " ran" with " ra": " ran" is none.
    started, whole = 60.5 / 100.5, 60.5 / 90.5
    assert chances == pytest.approx({" ra": started, "ran": whole})
    assert table.shift[PIECES.index(" ra")].item() == pytest.approx(math.log(1 - started))
    assert table.shift[PIECES.index("r")].item() == 0.0
    assert table.shift[PIECES.index("g")].item() == 0.0


def test_a_chance_is_never_taken_for_certain():
    tables = tables_of(["zebra*"], list("zebraq"), counts=WordCounts({"zebra": 1}))
    table = tables.table(tables.start)
    assert table.chances.tolist() == pytest.approx([CERTAIN])
    assert table.shift[0].item() == pytest.approx(math.log(1e-6), rel=0.05)
    assert tables.chance(place(tables, [0])) == CERTAIN
    assert not table.closed.any()


@pytest.mark.parametrize(
    ("pieces", "closed"),
    [
        (["ran", "g", " "], set()),
        (["ran", ".", " "], {"ran"}),
        (["ran", "gs", " "], {"ran"}),
        (["ran", "g", "."], set()),
    ],
)
def test_a_token_is_closed_behind_which_the_text_can_neither_end_nor_go_on(pieces, closed):
    tables = tables_of(["ran"], pieces)
    assert names(tables, tables.table(tables.start).closed.nonzero()[:, 0].tolist()) == closed


def test_nothing_is_closed_by_what_the_prompt_holds():
    tables = tables_of(["ran"])
    state = place(tables, [PIECES.index("ran")])
    assert tables.table(state).closed.any()
    assert tables.ends(state)
    forgotten = tables.forget(state)
    assert not tables.table(forgotten).closed.any()
    assert not tables.ends(forgotten)


def test_a_character_of_two_tokens_is_read_when_it_is_whole():
    tables = tables_of(["né", "n\ufffd"])
    first = place(tables, [PIECES.index("n"), PIECES.index(b"\xc3")])
    assert first.pending == b"\xc3"
    assert tables.ends(first)  # the text would end in a broken character
    assert tables.chance(first) == 0.0
    table = tables.table(first)
    # Any other text breaks the character. After its rest the text must not end, but a letter may follow.
    assert names(tables, table.closed.nonzero()[:, 0].tolist()) == {*PIECES[1:12], b"\xc3", b"n\xc3", "ra"}
    assert dict(zip(table.ending.tolist(), table.needs.tolist(), strict=True))[PIECES.index("")] == 2
    assert not table.closed[PIECES.index(b"\xa9")]
    second = tables.advance(first, PIECES.index(b"\xa9"))
    assert second.pending == b""
    assert tables.ends(second)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(["ran", "."], 2), (["ran", "g", "."], None), ([" ra", "n.", "g"], 2), ([], None), (["ran"], None)],
)
def test_it_counts_the_tokens_that_it_takes_to_complete_an_entry(tokens, expected):
    tables = tables_of(["ran"])
    assert tables.complete(tables.start, [PIECES.index(token) for token in tokens]) == expected


def test_tables_are_kept_and_the_oldest_are_forgotten(monkeypatch):
    monkeypatch.setattr(token_tables, "_KEPT_SCORES", 0)
    monkeypatch.setattr(token_tables, "_KEPT_TABLES", 2)
    tables = tables_of(["ran", "bat", "big ran"])
    first, second, third = (place(tables, [token]) for token in (1, 5, 3))
    table = tables.table(first)
    assert tables.table(second) is not tables.table(first)
    assert tables.table(first) is table
    tables.table(third)
    assert tables.table(first) is table
    assert tables.table(second).shift.equal(tables_of(["ran", "bat", "big ran"]).table(second).shift)


def test_ids_beyond_the_vocabulary_have_scores_that_nothing_changes():
    tables = tables_of(["ran"], size=40)
    table = tables.table(tables.start)
    assert table.shift.shape == (40,)
    assert not table.closed[len(PIECES) :].any()
    assert torch.count_nonzero(table.shift[len(PIECES) :]) == 0


def test_the_patterns_are_asked_once_for_a_state_and_a_character():
    tables = tables_of(["ran", "bat"], [first + second for first in "abcdefgnrt" for second in "0123456789"])
    steps = []
    step = tables.patterns.step_once
    tables.patterns.step_once = lambda *args: steps.append(args) or step(*args)
    tables.table(tables.start)
    tables.table(place(tables, [80]))
    asked = len(steps)
    assert asked - 4 <= len(set(steps)) < 100  # whether a text may go on is asked apart
    tables.table(place(tables, [80, 10]))
    assert len(steps) < asked + 10


def test_letters_behind_nothing_that_was_begun_lead_to_one_state():
    pieces = [first + second + third for first in "abcdefgnrt" for second in "abcdefgnrt" for third in "aefgnrt"]
    tables = tables_of(["ran", "bat"], [*pieces, "n"])
    steps = []
    step = tables.patterns.step_once
    tables.patterns.step_once = lambda *args: steps.append(args) or step(*args)
    table = tables.table(tables.start)
    # The first letters, those behind nothing, and those behind the four beginnings of an entry.
    assert len(steps) < 70
    assert names(tables, table.risky.tolist()) == {"ran", "bat"}
