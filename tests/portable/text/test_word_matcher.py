# ruff: noqa: RUF001 - that some letters look alike is the point here.
"""Words and phrases are found where a reader sees them, and nowhere else."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from text_matcher import violations

from fundamentallm_hf.portable.text import word_matcher
from fundamentallm_hf.portable.text.word_matcher import Entry, LiteralMachine

SHY, ZWSP, NBSP = "\u00ad", "\u200b", "\u00a0"


def machine_of(entries, ignore_case=True):
    return LiteralMachine([Entry.parse(entry) for entry in entries], ignore_case)


def run(machine, text, state=None):
    """The state after `text`, and after how many characters something was reported."""
    state, hits = machine.start if state is None else state, []
    for index, char in enumerate(text):
        state, hit = machine.step(state, char)
        if hit:
            hits.append(index + 1)
    return state, hits


def finds(entries, text, ignore_case=True):
    machine = machine_of(entries, ignore_case)
    state, hits = run(machine, text)
    return bool(hits) or machine.ends(state)


def completes(machine, prompt, text):
    """Whether `text` completes an entry behind `prompt`."""
    state, hits = run(machine, text, machine.forget(run(machine, prompt)[0]))
    return bool(hits) or machine.ends(state)


TABLE = [
    (
        "ass",
        ["ass", "Ass", "ASS", "an ass.", "(ass)", "ass-like", "ass's", "ass\n", "“ass”", "ass…", f"a{SHY}ss", "ａｓｓ"],
        ["class", "asset", "ass_", "_ass", "ass7", "as s", "a-ss", "assé", "éass", "ass\u0301", "", "as", "assж"],
    ),
    ("straße", ["straße", "STRASSE", "Strasse", "STRAẞE"], ["strase", "straßen", "strassee"]),
    ("STRASSE", ["straße", "strasse"], ["strase"]),
    ("fine", ["ﬁne", "FINE", "ｆine", f"f{ZWSP}ine", f"fi\u2060ne{SHY}"], ["ﬁnes", "ﬀine", "finé"]),
    ("ﬁne", ["fine", "ﬁne"], ["ine"]),
    ("caf\u00e9", ["caf\u00e9", "cafe\u0301", "CAFÉ", "CAFE\u0301"], ["cafe", "café\u0302", "cafés"]),
    ("cafe\u0301", ["caf\u00e9", "cafe\u0301"], ["cafe"]),
    ("cafe", ["cafe", "Cafe!"], ["caf\u00e9", "cafe\u0301", "cafe\u0308"]),
    ("curs*", ["curs", "curse", "Cursed!", "cursor", "a curs\u0301e"], ["cur", "concurs", "excursion", "cur se"]),
    ("*ing", ["ing", "sing", "He was running.", "ring", "7ing"], ["singer", "ingot", "in g", "sing\u0301"]),
    ("*art*", ["art", "party", "start", "ARTS", "Bart."], ["a r t", "arrt", "at"]),
    ("f*k", ["fk", "folk", "FrankFunk", "fork!", "f\u0301k"], ["fork7", "forks", "of folks", "f k", "f-k", "ffolks"]),
    ("f*k*", ["forks", "fk", "fxkx"], ["f k", "xfk"]),
    ("un*ed *ing", ["united king", "uned\ning", "unwanted  thing!"], ["unitedking", "united kings", "reunited king"]),
    (
        "two words",
        ["two words", "Two  Words", "two\nwords", f"two{NBSP}words", "two \t\r\n words.", "two\u3000words"],
        ["twowords", "two, words", "two wordsy", "stwo words", f"two{ZWSP}words", "two-words", "two"],
    ),
    (" two\twords ", ["two words", "two words!"], ["two wordsy"]),
    ("a * b", ["a  b", "a xx b", "a\n\nb"], ["a b", "ab", "a x y b", "a b7"]),
    ("c++", ["c++", "C++17", "(c++)", "c+++"], ["c+", "objc++", "c + +", "_c++"]),
    (".net", [".net", "asp.net", "A .NET!"], [".nets", "net", ". net"]),
    ("'s", ["it's", "'s"], ["'sx", "'"]),
    ("😀", ["😀", "a😀b", "😀😀", "😀\ufe0f"], ["😁", ":)"]),
    ("☺\ufe0f", ["☺", "☺\ufe0f", "x☺x"], ["☹"]),
    ("中文", ["中文", "我学中文了。", "a中文b", "中文中文"], ["中", "文中", "中 文", "中，文"]),
    ("カ", ["カ", "ｶ", "アカア", "ガ"], ["か"]),
    ("中x", ["我中x。", "a中x"], ["中xy", "中"]),
    ("한국", ["한국", "한국!"], ["한국어", "대한국"]),
    (r"\*", ["*", "a*b"], ["a", ""]),
    (r"f\*k", ["f*k", "F*K!"], ["folk", "fk", "f*ks", "af*k"]),
    (r"\*ing", ["*ing", "x*ing"], ["sing", "*ings"]),
    (r"a\\b", [r"a\b"], ["ab", r"a\\b"]),
    (r"a\b", [r"a\b"], ["ab", r"a\\b"]),
    (r"\/x\/", ["/x/", "a/x/b"], ["x"]),
    ("**ing**", ["sing", "ingot"], ["in"]),
    (f"{ZWSP}ass{ZWSP}", ["ass", "an ass"], ["class", "asset"]),
    (f"a{SHY}ss", ["ass"], ["class"]),
    ("™", ["tm", "TM", "™", "x ™"], ["atm", "t m"]),
]


@pytest.mark.parametrize(("entry", "accepted", "rejected"), TABLE, ids=[entry for entry, _, _ in TABLE])
def test_an_entry_is_found_where_it_stands_and_nowhere_else(entry, accepted, rejected):
    assert [text for text in accepted if not finds([entry], text)] == []
    assert [text for text in rejected if finds([entry], text)] == []


@pytest.mark.parametrize(("entry", "accepted", "rejected"), TABLE, ids=[entry for entry, _, _ in TABLE])
def test_an_entry_is_found_in_the_middle_of_a_text(entry, accepted, rejected):
    assert [text for text in accepted if not finds([entry], f"So, {text} - and")] == []
    assert [text for text in rejected if finds([entry], f"So, {text} - and")] == []


@pytest.mark.parametrize(
    ("entry", "accepted", "rejected"),
    [
        ("Will", ["Will", "Will!", "Ｗill", f"W{SHY}ill"], ["will", "WILL"]),
        ("É", ["É", "E\u0301"], ["é", "E"]),
        ("ß", ["ß"], ["ss", "ẞ"]),
        ("U*", ["US", "Up"], ["us", "up"]),
    ],
)
def test_case_is_matched_on_demand(entry, accepted, rejected):
    assert [text for text in accepted if not finds([entry], text, ignore_case=False)] == []
    assert [text for text in rejected if finds([entry], text, ignore_case=False)] == []


@pytest.mark.parametrize(
    ("entries", "accepted", "rejected"),
    [
        (["f*k", "fast"], ["fast", "fk", "folk"], ["fxast", "faste", "fas"]),
        (["fast", "f*k"], ["fast", "folk"], ["fxast", "fastx"]),
        (["cat", "cats", "category"], ["cat", "cats", "category"], ["catsy", "categ", "ca"]),
        (["cat", "cat*"], ["cat", "cats"], ["scat"]),
        (["cat*", "cat"], ["cat", "cats"], ["scat"]),
        (["a b", "a*b"], ["a b", "ab", "axb"], ["a  bx", "a x b"]),
        (["a b", "a  c"], ["a b", "a c", "a \n c"], ["a bc", "ab"]),
        (["*ing", "ing"], ["sing", "ing"], ["ings"]),
        (["ing", "ing*"], ["ings", "ing"], ["sing"]),
        (["he", "she", "his", "hers"], ["he", "she", "hers", "ushe he"], ["ushers", "shehe", "hi"]),
        ([], [], ["", "anything"]),
    ],
)
def test_entries_that_share_a_beginning_keep_to_themselves(entries, accepted, rejected):
    assert [text for text in accepted if not finds(entries, text)] == []
    assert [text for text in rejected if finds(entries, text)] == []


@pytest.mark.parametrize(
    ("entry", "text", "hits"),
    [
        ("ass", "class: Ass!", [11]),
        ("ass", "ass ass ", [4, 8]),
        ("ass", f"ass{SHY}.", [5]),
        ("curs*", "cursed", [4, 5, 6]),
        ("*art*", "party", [4, 5]),
        ("c++", "c+++", [3]),
        ("中文", "学中文中文", [3, 5]),
        ("ing", "ﬁng ing.", [8]),
        ("a b", "a  b.", [5]),
        ("fi", "ﬁ.", [2]),
        ("f*", "ﬁ.", [1]),
    ],
)
def test_what_is_complete_is_reported_as_soon_as_nothing_can_undo_it(entry, text, hits):
    assert run(machine_of([entry]), text)[1] == hits


@pytest.mark.parametrize("source", ["", " ", "*", " ** ", SHY, f"{ZWSP}*\u3164", "\ufe0f"])
def test_an_entry_without_a_visible_character_is_refused(source):
    with pytest.raises(ValueError, match="an entry has to hold a character that can be seen but is"):
        Entry.parse(source)


@pytest.mark.parametrize(
    ("source", "plain", "stem"),
    [
        ("ran", True, False),
        ("two words", True, False),
        ("curs*", True, True),
        ("two curs*", True, True),
        (r"f\*", True, False),
        ("*ing", False, False),
        ("*art*", False, True),
        ("f*k", False, False),
    ],
)
def test_an_entry_knows_whether_it_is_plain_or_a_stem(source, plain, stem):
    entry = Entry.parse(source)
    assert (entry.is_plain, entry.is_stem) == (plain, stem)


@pytest.mark.parametrize(
    ("entry", "prompt", "text", "expected"),
    [
        ("ass", "an ass", "", False),
        ("ass", "an ass", ".", False),
        ("ass", "an ass", " ass", True),
        ("ass", "an as", "s", True),
        ("ass", "an as", "set", False),
        ("ass", "a cl", "ass", False),
        ("asset", "an ass", "et", True),
        ("two words", "two", " words", True),
        ("two words", "two words", "!", False),
        ("two words", "two ", "\n words", True),
        ("curs*", "curs", "", False),
        ("curs*", "curs", "ed", True),
        ("curs*", "cursed", " on", False),
        ("curs*", "cursed", "ly", True),
        ("*art*", "a part", "y", True),
        ("*art*", "a part", " of", False),
        ("*ing", "sing", "", False),
        ("*ing", "sing", "ing", True),
        ("c++", "c++", "+", False),
        ("c++", "c+", "+", True),
        ("中", "中", "国", False),
        ("中国", "中", "国", True),
    ],
)
def test_what_lies_in_the_prompt_is_left_alone_and_what_goes_on_from_it_is_not(entry, prompt, text, expected):
    assert completes(machine_of([entry]), prompt, text) is expected
    assert bool(violations(prompt + text, len(prompt), [entry])) is expected


def test_an_entry_without_effect_leads_through_the_places_of_others():
    machine = machine_of(["ran"])
    path = machine.add(Entry.parse("rang"), completes=False)
    assert path[:4] == machine.paths[0]
    assert run(machine, "rang! ran!")[1] == [10]
    assert path[4] in run(machine, "a rang")[0].threads


def test_an_entry_can_be_added_to_a_machine_that_has_read_before():
    machine = machine_of(["ran"])
    assert run(machine, "a cat!")[1] == []
    machine.add(Entry.parse("cat"))
    assert run(machine, "a cat!")[1] == [6]


def test_neutral_knows_only_whether_a_word_goes_on():
    machine = machine_of(["ass", "*art*", "two words"])
    assert machine.neutral(run(machine, "two as")[0]) == machine.neutral(run(machine, "x")[0])
    assert machine.neutral(run(machine, "two ")[0]) == machine.start


def test_steps_are_forgotten_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(word_matcher, "_KEPT_STEPS", 10)
    machine = machine_of(["ran", "f*k"])
    assert run(machine, "He ran to the folk of yore.")[1] == [7, 19]
    assert len(machine._steps) <= 10


CHARS = "abAß *+中é\u0301\u00ad\u200b\n_ﬁfi"
ENTRIES = st.lists(
    st.text("abA*+ 中éß\\ﬁ\u0301\u00ad", min_size=1, max_size=5).filter(
        lambda entry: entry.replace("*", "").replace("\\", "").replace("\u00ad", "").strip()
    ),
    min_size=1,
    max_size=3,
)


@given(ENTRIES, st.text(CHARS, max_size=14), st.integers(0, 14), st.booleans())
@example(["f*k", "fast"], "fxast", 0, True)
@example(["a*"], "ab", 1, True)
@settings(max_examples=600, deadline=None)
def test_it_agrees_with_regular_expressions_over_the_folded_text(entries, text, prompt, ignore_case):
    prompt = min(prompt, len(text))
    found = violations(text, prompt, entries, ignore_case)
    assert completes(machine_of(entries, ignore_case), text[:prompt], text[prompt:]) is bool(found)


@given(ENTRIES, st.text(CHARS, max_size=14))
@settings(max_examples=200, deadline=None)
def test_no_report_comes_late(entries, text):
    """At every character: reported so far, or complete if the text ends here, exactly if it holds an entry so far."""
    machine, state, found = machine_of(entries), LiteralMachine.start, False
    for index, char in enumerate(text):
        state, hit = machine.step(state, char)
        found = found or hit
        held = bool(violations(text[: index + 1], 0, entries))
        assert (found or machine.ends(state)) is (held or found)
        assert not hit or violations(text[: index + 1], 0, entries) or violations(text[:index], 0, entries)
