"""Words and expressions are found together, and every state has the probability that it completes an entry."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from text_matcher import violations

from fundamentallm_hf.portable.text.text_patterns import Rest, TextPatterns
from fundamentallm_hf.portable.text.word_counts import WordCounts

COUNTS = WordCounts({"ran": 60, "rang": 30, "rat": 10, "big": 99, "c": 1})


def patterns_of(entries, ignore_case=True, counts=COUNTS):
    return TextPatterns(entries, ignore_case, counts)


def completes(patterns, prompt, text):
    """Whether `text` completes an entry behind `prompt`."""
    state, hit = patterns.read(patterns.forget(patterns.read(patterns.start, prompt)[0]), text)
    return hit or patterns.ends(state)


def chance(entries, text, counts=COUNTS):
    patterns = patterns_of(entries, counts=counts)
    return patterns.chance(patterns.read(patterns.start, text)[0])


@pytest.mark.parametrize(
    ("entries", "prompt", "accepted", "rejected"),
    [
        (["ran", "/[0-9]{2}/"], "", ["ran", "Ran 7", "x42", "ran 42"], ["rang", "4 2", ""]),
        (["/ran/"], "", ["rang", "gran", "RAN", "r\u00adan"], ["ra n", "rn"]),
        ([r"/a\/b/"], "", ["a/b"], ["ab", r"a\b"]),
        ([r"/a\\b/"], "", [r"a\b"], ["a/b", "ab"]),
        ([r"/a\\\/b/"], "", ["a\\/b"], ["a/b", r"a\b"]),
        ([r"/a\\/"], "", ["a\\"], ["a", "a/"]),
        ([" /ran/ ", "  cat\n"], "", ["rang", "cat"], ["/rn/", "cats"]),
        ([r"\/ran\/"], "", ["/ran/"], ["ran", "rang"]),
        (["//"], "", ["//", "http://x"], ["/"]),
        (["/ran/"], "ran", [" ran", "ran"], ["", "g", " r"]),
        (["/ran$/"], "ran", ["\nran", " ran"], ["", "g", " rang"]),
        (["/a+/"], "a", ["a", "ba"], ["", "b"]),
        ([r"/\bran\b/", "curs*"], "He ra", ["n", "n.", " curse"], ["ng", "t"]),
        ([], "", [], ["ran", ""]),
    ],
)
def test_entries_of_both_kinds_are_found(entries, prompt, accepted, rejected):
    patterns = patterns_of(entries)
    assert [text for text in accepted if not completes(patterns, prompt, text)] == []
    assert [text for text in rejected if completes(patterns, prompt, text)] == []


def test_case_is_matched_on_demand():
    patterns = patterns_of(["Will", "/Us/"], ignore_case=False)
    assert [text for text in ("Will", "will", "WILL", "Use", "use") if completes(patterns, "", text)] == ["Will", "Use"]


def test_a_flag_in_an_expression_speaks_for_it_alone():
    patterns = patterns_of(["/(?-i:US)/", "/em/", "ran"])
    assert [text for text in ("us", "US", "EM", "Ran") if completes(patterns, "", text)] == ["US", "EM", "Ran"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["ran", "/(/"], r"'\(' is not a valid regular expression"),
        (["/a*/"], r"'a\*' matches the empty text"),
        (["/(?=a)b/"], "look-ahead is not supported"),
        (["ran", "*"], r"an entry has to hold a character that can be seen but is '\*'"),
        ([""], "an entry has to hold a character that can be seen but is ''"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(entries, message):
    with pytest.raises(ValueError, match=message):
        patterns_of(entries)


WORDS = st.text("abA* \u00adß", min_size=1, max_size=4).filter(lambda word: set(word) & set("abAß"))
EXPRESSIONS = st.sampled_from(["/a+b/", r"/\ba/", "/b$/", "/(?m)^a/", "/a.b/", r"/[^a]b\b/", "/(?s)b.+a/", "/B{2}/"])


@given(
    st.lists(st.one_of(WORDS, EXPRESSIONS), max_size=3),
    st.text("abA ß\u00ad\n-", max_size=10),
    st.integers(0, 10),
    st.booleans(),
)
@example(["/b$/"], "b\n", 1, True)
@settings(max_examples=400, deadline=None)
def test_it_agrees_with_regular_expressions_over_the_finished_text(entries, text, prompt, ignore_case):
    prompt = min(prompt, len(text))
    found = violations(text, prompt, entries, ignore_case)
    assert completes(patterns_of(entries, ignore_case), text[:prompt], text[prompt:]) is bool(found)


@pytest.mark.parametrize(
    ("entries", "text", "expected"),
    [
        (["ran"], "", 0.0),
        (["ran"], "x", 0.0),
        (["ran"], "r", 60.5 / 100.5),
        (["ran"], "He R", 60.5 / 100.5),
        (["ran"], "ra", 60.5 / 100.5),
        (["ran"], "ran", 60.5 / 90.5),
        (["ran"], "r\u00ada", 60.5 / 100.5),
        (["ran"], "rang", 0.0),
        (["ran"], "ran ", 0.0),
        (["ran"], "gr", 0.0),
        (["ran*"], "r", 90.5 / 100.5),
        (["ra*"], "r", 1.0),
        (["ran", "rat"], "r", 71.0 / 100.5),
        (["ran", "rat"], "ran", 60.5 / 90.5),
        (["zebra"], "z", 0.5 * 0.3**4),
        (["big ran"], "b", 99.5 / 99.5 * 60.5 / 200.5),
        (["big ran"], "big", 99.5 / 99.5 * 60.5 / 200.5),
        (["big ran"], "big ", 60.5 / 200.5),
        (["big ran"], "big \n ", 60.5 / 200.5),
        (["big ran"], "big ra", 60.5 / 100.5),
        (["big ran*"], "big ", 90.5 / 200.5),
        (["c++"], "c", 1.5 / 1.5 * 0.1 * 0.1),
        (["c++"], "c+", 0.1),
    ],
)
def test_the_chance_of_what_was_begun_comes_from_word_counts(entries, text, expected):
    assert chance(entries, text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("entries", "same"),
    [
        (["ran", "Ran", "RAN", "ran"], ["ran"]),
        (["ran*", "ran", "rang", "range*"], ["ran*"]),
        (["ran", "/zzz/"], ["ran"]),
        (["ran*", "/rang/"], ["ran*"]),
        (["ran", "/ran/"], ["ran", "rang"]),
    ],
)
@pytest.mark.parametrize("text", ["r", "ra", "ran"])
def test_what_is_listed_twice_comes_once(entries, same, text):
    assert chance(entries, text) == pytest.approx(chance(same, text))


@pytest.mark.parametrize(
    ("entries", "text", "expected"),
    [
        ([r"/\bra[nt]\b/"], "r", 71.0 / 100.5),
        ([r"/\bra[nt]\b/"], "ran", 60.5 / 90.5),
        (["/g$/"], "r", 0.0),
        (["r*g"], "r", 30.5 / 100.5),
        (["r*g"], "ran", 30.5 / 90.5),
        (["*at"], "r", 10.5 / 100.5),
        (["*i*"], "b", 1.0),
        (["/zzz/"], "z", 0.0),
        (["*zz", "big"], "b", 1.0),
    ],
)
def test_the_words_in_which_stars_and_expressions_are_found_give_their_chances(entries, text, expected):
    assert chance(entries, text) == pytest.approx(expected)


def test_words_that_lend_their_chance_are_not_banned_themselves():
    patterns = patterns_of([r"/\brang!/", "ra*g!"])
    assert not completes(patterns, "", "rang. rat ran")


def test_without_counts_each_missing_letter_makes_a_word_less_likely():
    assert [chance(["ran"], text, WordCounts({})) for text in ("", "r", "ra", "ran")] == [
        0.0,
        pytest.approx(0.5 * 0.3**2),
        pytest.approx(0.5 * 0.3),
        0.5,
    ]


def test_the_ways_to_complete_an_entry_come_with_the_likeliest_first():
    patterns = patterns_of(["rat", "ran", "Big Ran", "curs*"])

    def ways(text):
        return patterns.ways(patterns.read(patterns.start, text)[0])

    assert ways("") == []
    assert ways("r") == [Rest("an", 60.5 / 100.5), Rest("at", 10.5 / 100.5)]
    assert ways("ran") == [Rest("", 60.5 / 90.5)]
    assert ways("big") == [Rest(" Ran", pytest.approx(60.5 / 200.5))]
    assert [way.text for way in ways("cu")] == ["rs"]
    assert [way.text for way in ways("big r")] == ["an", "an", "at"]


def test_the_chance_is_that_of_all_ways_together():
    patterns = patterns_of(["ran", "rat", "ran*", "big ran", "c++"])
    for text in ("r", "ran", "big", "big r", "c", "c+", "x"):
        state = patterns.read(patterns.start, text)[0]
        assert patterns.chance(state) == pytest.approx(min(1.0, sum(way.chance for way in patterns.ways(state))))


def test_neutral_keeps_what_stands_before_and_drops_what_was_begun():
    patterns = patterns_of(["ran", r"/\bcat/"])
    read = patterns.read(patterns.start, "He ra")[0]
    assert patterns.neutral(read) == patterns.neutral(patterns.read(patterns.start, "x")[0])
    assert patterns.neutral(read) != patterns.neutral(patterns.read(patterns.start, " ")[0])
    assert patterns.chance(patterns.neutral(read)) == 0.0


LETTERS = st.text(st.sampled_from("aeigmnrst ."), min_size=1, max_size=6)


@given(
    st.lists(LETTERS.filter(str.strip), min_size=1, max_size=3),
    st.sampled_from(["*{}", "{}*", "*{}*", "{}"]),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_what_only_tells_probabilities_changes_nothing_that_is_found(texts, form, data):
    """The core of a state has fewer nodes; words that stars are expected to match are found as by trying each word."""
    words = data.draw(st.lists(st.text(st.sampled_from("aeigmnrst"), min_size=1, max_size=7), max_size=12))
    entries = [form.format(text.strip()) for text in texts]
    patterns = patterns_of(entries, counts=WordCounts(dict.fromkeys([*words, "singing", "rats"], 3)))
    state = patterns.read(patterns.start, data.draw(LETTERS))[0]
    core = patterns.core(state)
    assert core.literal.threads <= state.literal.threads
    for char in data.draw(LETTERS):
        assert patterns.ends(core) == patterns.ends(state)
        (state, hit), (core, same) = patterns.step(state, char), patterns.step(core, char)
        assert hit == same
    for word in words if "*" in form else ():
        if violations(word, 0, entries):
            assert patterns.chance(patterns.read(patterns.start, f" {word[0]}")[0]) > 0.0


@given(
    words=st.lists(st.text("abcd", min_size=1, max_size=9), max_size=12),
    pattern=st.sampled_from(["a.{3}b", "\\bc[ab]", "b\\b", " ab", "d{2}c?d", "[bc]a |cc", ".{6}", "\\ba.*d\\b"]),
)
@settings(deadline=None, max_examples=150)
def test_the_words_expected_of_an_expression_are_those_that_it_is_found_in(words, pattern):
    counts = WordCounts(dict.fromkeys(words, 1.0))
    found = TextPatterns([f"/{pattern}/"], True, counts)._words_found([], counts)
    assert {entry.source for entry in found} == {word for word in counts.words if re.search(pattern, f" {word} ")}
