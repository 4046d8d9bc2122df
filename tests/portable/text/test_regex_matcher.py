# ruff: noqa: RUF001 - that some letters look alike is the point here.
"""The machine finds what `re` finds, and reports it at the first character after which it is certain."""

import functools
import pickle
import re
import warnings

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fundamentallm_hf.portable.text import regex_matcher
from fundamentallm_hf.portable.text.regex_matcher import MAX_NODES, RegexMachine

ALPHABET = "abIKsS1_. \néßıİſ\N{KELVIN SIGN}"
# What can follow a place, one of each kind that an assertion can tell apart: nothing, an ASCII word character, another
# word character, no word character, the last newline, a newline with text behind it.
CONTINUATIONS = ("", "a", "é", " ", "\n", "\na")


def run(machine, text, state=None):
    """The state after `text`, and after how many characters a match was reported."""
    state, hits = machine.start if state is None else state, []
    for index, char in enumerate(text):
        state, hit = machine.step(state, char)
        if hit:
            hits.append(index + 1)
    return state, hits


def finds(pattern, text, ignore_case=False):
    machine = RegexMachine([pattern], ignore_case)
    state, hits = run(machine, text)
    return bool(hits) or machine.ends(state)


@functools.lru_cache(100_000)
def ending(flags, pattern, behind, ignore_case):
    """`pattern`, for a match that ends `behind` characters before the end of the text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(f"{flags}(?:{pattern})(?s:.{{{behind}}})\\Z", re.IGNORECASE if ignore_case else 0)


def ends_of_matches(flags, pattern, ignore_case, text):
    """Where a match of any length can end. Assertions see the whole text: `^` and `\\b` look behind `pos`."""
    return {
        end
        for end in range(1, len(text) + 1)
        if any(ending(flags, pattern, len(text) - end, ignore_case).match(text, begin) for begin in range(end))
    }


def first_certain(flags, pattern, ignore_case, text):
    """After how many characters a match has ended, whatever follows them."""
    for length in range(1, len(text) + 1):
        read = text[:length]
        if all(
            any(end <= length for end in ends_of_matches(flags, pattern, ignore_case, read + more))
            for more in CONTINUATIONS
        ):
            return length
    return None


LETTERS = ["a", "b", "i", "I", "k", "K", "s", "ß", "İ", "ı", "é", "É", " ", "\n"]
SETS = [r"\.", ".", "(?s:.)", r"\w", r"\W", r"\s", "[ab]", "[^a]", "[^a-k]", r"[\W_]", r"[^\d\n]", "[H-L]", "[^i]"]
CHARACTERS = st.sampled_from([*LETTERS, *SETS, r"(?a:\w)", "(?i:k)", "(?-i:S)", "(?ia:K)"])
ASSERTIONS = st.sampled_from(["^", "$", r"\b", r"\B", r"\A", r"\Z", "(?m:^)", "(?m:$)", r"(?a:\b)", r"(?a:\B)"])
REPEATS = st.sampled_from(["", "", "?", "*", "+", "{2}", "{1,2}", "{2,}", "{0,2}?", "+?", "*?", "??"])


def composed(parts):
    return st.one_of(
        st.lists(parts, min_size=2, max_size=3).map("".join),
        st.lists(parts, min_size=2, max_size=3).map(lambda branches: f"(?:{'|'.join(branches)})"),
        st.tuples(st.sampled_from(["(", "(?:", "(?i:", "(?m:"]), parts, REPEATS).map(lambda p: f"{p[0]}{p[1]}){p[2]}"),
    )


PARTS = st.recursive(
    st.one_of(st.tuples(CHARACTERS, REPEATS).map("".join), CHARACTERS, ASSERTIONS), composed, max_leaves=6
)
PATTERNS = st.one_of(PARTS, st.tuples(PARTS, CHARACTERS, PARTS).map("".join), st.tuples(CHARACTERS, PARTS).map("".join))
FLAGS = st.sampled_from(["", "", "", "(?m)", "(?s)", "(?a)", "(?i)"])
TEXTS = st.text(ALPHABET, max_size=7)


def machine_of(flags_and_pattern, ignore_case):
    try:
        return RegexMachine([flags_and_pattern], ignore_case)
    except ValueError:
        # The only reason for which a pattern made here can be refused.
        assume(re._parser.parse(flags_and_pattern).getwidth()[0] > 0)
        raise


@pytest.mark.parametrize(
    ("pattern", "accepted", "rejected"),
    [
        ("cat", ["cat", "a cat.", "concatenate"], ["", "ca", "Cat", "c at"]),
        (r"\bcat\b", ["cat", "a cat.", "cat\n", "(cat)"], ["cats", "tomcat", "cat_", "caté", "écat"]),
        (r"(?a)\bcat\b", ["cat", "caté"], ["cats"]),
        (r"cat\B", ["cats", "caté"], ["cat", "cat!", "cat\n"]),
        ("^cat", ["cat", "cats"], [" cat", "\ncat"]),
        ("(?m)^cat", ["cat", "dog\ncat"], ["a cat"]),
        ("cat$", ["cat", "a cat", "cat\n"], ["cats", "cat\n\n", "cat\na"]),
        (r"cat\Z", ["cat"], ["cat\n", "cats"]),
        ("(?m)cat$", ["cat", "cat\n", "cat\n\n", "cat\na"], ["cats"]),
        ("cat$\n", ["cat\n"], ["cat", "cat\n\n", "cat\na"]),
        ("cat$\n\\Z", ["cat\n"], ["cat", "cat\na"]),
        ("(?m)cat$\n^dog", ["cat\ndog"], ["cat\n dog", "cat\n\ndog"]),
        ("^a$^b", [], ["ab", "a\nb"]),
        ("a.b", ["acb", "a b"], ["a\nb", "ab"]),
        ("(?s)a.b", ["a\nb"], ["ab"]),
        ("[^a-c]", ["d", "abcd", "\n"], ["abc", ""]),
        (r"[\d_-]{3}", ["1-2", "a___"], ["12", "1a2b3"]),
        ("a{2,3}b", ["aab", "aaaaab"], ["ab", ""]),
        ("(?:ab|c)+?d", ["abd", "cabcd"], ["d", "abcab"]),
        ("(?x) a  b # with a comment", ["ab"], ["a b"]),
        ("(?i:k)b", ["kb", "Kb", "\N{KELVIN SIGN}b"], ["kB"]),
        (r"\\|\x41|\u00e9|\N{BULLET}", ["\\", "A", "é", "•"], ["a", "e"]),
    ],
)
def test_accepts_and_rejects(pattern, accepted, rejected):
    for text in accepted:
        assert re.search(pattern, text)
        assert finds(pattern, text), text
    for text in rejected:
        assert not re.search(pattern, text)
        assert not finds(pattern, text), text


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("straße", "STRAßE", True),
        ("ß", "ẞ", True),
        ("ss", "ß", False),
        ("i", "ı", True),
        ("i", "İ", True),
        ("(?a)i", "ı", False),
        ("s", "ſ", True),
        ("[^k]", "\N{KELVIN SIGN}", False),
        ("(?-i:a)b", "aB", True),
        ("(?-i:a)b", "AB", False),
    ],
)
def test_ignores_case_as_re_does(pattern, text, found):
    assert bool(re.search(pattern, text, re.IGNORECASE)) == found
    assert finds(pattern, text, ignore_case=True) == found


@pytest.mark.parametrize(
    ("pattern", "text", "hits", "at_the_end"),
    [
        ("ab", "abab", [2, 4], False),
        ("a+", "aaa", [1, 2, 3], False),
        (r"a\b", "a a", [2], True),
        (r"a\b|a\B", "ab", [1], False),
        ("a$", "a\n", [], True),
        ("a$", "a\n\n", [], False),
        ("(?m)a$", "a\n\n", [2], False),
        (r"a\n\b", "a\n", [], False),
        (r"a\n\b", "a\nb", [3], False),
        (r"\W\b|\W\B", "a.", [2], False),
    ],
)
def test_reports_a_match_when_it_is_certain(pattern, text, hits, at_the_end):
    machine = RegexMachine([pattern], False)
    state, found = run(machine, text)
    assert found == hits
    assert machine.ends(state) == at_the_end


@settings(deadline=None, max_examples=600)
@given(FLAGS, PATTERNS, TEXTS, st.booleans())
@example("", "a$\n", "a\n", False)
@example("", "(?:a$|b)\n", "b\na\n", False)
@example("", "[^i]", "İ", True)
def test_finds_what_re_finds(flags, pattern, text, ignore_case):
    machine = machine_of(flags + pattern, ignore_case)
    state, hits = run(machine, text)
    expected = re.search(flags + pattern, text, re.IGNORECASE if ignore_case else 0)
    assert (bool(hits) or machine.ends(state)) == bool(expected)


@settings(deadline=None, max_examples=150)
@given(FLAGS, PATTERNS, st.text(ALPHABET, max_size=5), st.booleans())
@example("", r"a\b|a\B", "ab", False)
@example("", r"a$|\n\b", "a\nb", False)
def test_reports_at_the_first_character_that_makes_a_match_certain(flags, pattern, text, ignore_case):
    _, hits = run(machine_of(flags + pattern, ignore_case), text)
    assert next(iter(hits), None) == first_certain(flags, pattern, ignore_case, text)


@settings(deadline=None, max_examples=300)
@given(FLAGS, PATTERNS, TEXTS, st.booleans(), st.data())
@example("", "a$\n?", "a\n", False, None)
def test_matches_that_end_before_a_cut_can_be_forgotten(flags, pattern, text, ignore_case, data):
    machine = machine_of(flags + pattern, ignore_case)
    cut = 1 if data is None else data.draw(st.integers(0, len(text)))
    state = machine.forget(run(machine, text[:cut])[0])
    assert not machine.ends(state)
    state, hits = run(machine, text[cut:], state)
    beyond = any(end > cut for end in ends_of_matches(flags, pattern, ignore_case, text))
    assert (bool(hits) or machine.ends(state)) == beyond


@settings(deadline=None, max_examples=150)
@given(PATTERNS, TEXTS, TEXTS)
def test_a_neutral_state_knows_the_last_character_alone(pattern, text, more):
    machine = machine_of(pattern, False)
    state = machine.neutral(run(machine, text)[0])
    assert not machine.alive(state)
    assert state == machine.neutral(run(machine, text[-1:])[0])
    state, hits = run(machine, more, state)
    # Searching from a place on, `re` still sees what stands before it.
    assert (bool(hits) or machine.ends(state)) == bool(re.compile(pattern).search(text + more, len(text)))


@settings(deadline=None, max_examples=150)
@given(st.lists(PATTERNS, min_size=2, max_size=3), TEXTS)
@example([r"a\b", r"a\B"], "ab")
def test_several_patterns_are_one_with_branches(patterns, text):
    for pattern in patterns:
        machine_of(pattern, True)
    together, branches = RegexMachine(patterns, True), RegexMachine(["|".join(patterns)], True)
    (state, hits), (other, expected) = run(together, text), run(branches, text)
    assert hits == expected
    assert (together.ends(state), together.alive(state)) == (branches.ends(other), branches.alive(other))


def test_a_state_is_alive_while_a_match_may_go_on():
    machine = RegexMachine([r"ab", r"cd\b", r"e\Zf"], False)
    alive = {text: machine.alive(run(machine, text)[0]) for text in ("", "a", "ab", "ax", "c", "cd", "cd ", "cdx")}
    assert alive == {"": False, "a": True, "ab": False, "ax": False, "c": True, "cd": True, "cd ": False, "cdx": False}
    assert not machine.alive(machine.forget(run(machine, "cd")[0]))
    assert not machine.alive(run(machine, "e")[0])  # no character can follow the end of the text


def test_no_patterns_find_nothing():
    machine = RegexMachine([], True)
    state, hits = run(machine, "anything\n")
    assert not hits
    assert not machine.ends(state)
    assert not machine.alive(state)


def test_states_are_equal_where_texts_go_on_alike():
    machine = RegexMachine([r"\bcat\b"], False)
    assert run(machine, "a cat or a ca")[0] == run(machine, "my ca")[0]
    assert len({run(machine, text)[0] for text in ("x", "yy", "dog")}) == 1


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(?=b)", "look-ahead is not supported in the regular expression 'a(?=b)': "),
        ("a(?!b)", "look-ahead is not supported in the regular expression 'a(?!b)': "),
        ("a(?!)", "look-ahead is not supported in the regular expression 'a(?!)': "),
        ("(?<=a)b", "look-behind is not supported in the regular expression '(?<=a)b': "),
        ("(?<!a)b", "look-behind is not supported in the regular expression '(?<!a)b': "),
        (r"(a)\1", r"a reference to a group is not supported in the regular expression '(a)\\1': "),
        ("(?P<x>a)(?P=x)", "a reference to a group is not supported in the regular expression '(?P<x>a)(?P=x)': "),
        ("(a)?(?(1)b|c)", "a condition on a group is not supported in the regular expression '(a)?(?(1)b|c)': "),
        ("(?>a)b", "an atomic group is not supported in the regular expression '(?>a)b': "),
        ("a++b", "a possessive repeat is not supported in the regular expression 'a++b': "),
        ("", "the regular expression '' matches the empty text: "),
        ("a*", "the regular expression 'a*' matches the empty text: "),
        (r"\b|a", r"the regular expression '\\b|a' matches the empty text: "),
        ("a(b", "'a(b' is not a valid regular expression: missing ), unterminated subpattern at position 1"),
        ("[b-a]", "'[b-a]' is not a valid regular expression: bad character range b-a at position 1"),
        ("a\n(", r"'a\n(' is not a valid regular expression: missing ), unterminated subpattern at position 2"),
        ("a{99999999999}", "'a{99999999999}' is not a valid regular expression: the repetition number is too large"),
        ("(?au)a", "'(?au)a' is not a valid regular expression: "),
        ("(a{1000}){1000}", "the regular expression '(a{1000}){1000}' expands to more than 10,000 nodes: "),
        (r"(?:\b){1000000000}a", r"the regular expression '(?:\\b){1000000000}a' expands to more than 10,000 nodes: "),
        ("(?:a|){0,1000000000}b", "the regular expression '(?:a|){0,1000000000}b' expands to more than 10,000 nodes: "),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(pattern, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as error:
        RegexMachine(["fine", pattern], False)
    assert "\n" not in str(error.value)


def test_nothing_can_be_repeated_a_billion_times():
    assert finds("(?:){1000000000}a", "a")


def test_deep_nesting_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"is nested too deeply: write it flatter$"):
        RegexMachine(["(" * 5000 + "a" + ")" * 5000], False)


def test_the_limit_on_nodes_is_for_each_pattern():
    almost = f"a{{{MAX_NODES - 1}}}"
    machine = RegexMachine([almost, almost + "b"], False)
    assert run(machine, "a" * 5)[1] == []
    with pytest.raises(ValueError, match="10,000"):
        RegexMachine([f"a{{{MAX_NODES + 1}}}"], False)


def test_a_machine_survives_pickling():
    machine = RegexMachine([r"\b[ck]at\b"], True)
    run(machine, "a kat!")
    assert run(pickle.loads(pickle.dumps(machine)), "a Kat!")[1] == [6]


def test_forgetting_steps_changes_nothing(monkeypatch):
    pattern, text = r"b.{0,20}[xy]\b", "abcb ya xyz. bxbcx\nbbx" * 3
    expected = run(RegexMachine([pattern], False), text)
    monkeypatch.setattr(regex_matcher, "MAX_REMEMBERED", 30)
    machine = RegexMachine([pattern], False)
    assert run(machine, text) == expected
    assert len(machine._steps) < 5


def test_a_thousand_characters_take_few_steps_and_no_new_ones_a_second_time():
    text = ("The quick brown fox jumps over 12 lazy dogs.\nIt was 3 o'clock; she said: never mind! " * 12)[:1000]
    machine = RegexMachine([r"\b(?:sh?e|it)\s+\w{1,8}(?:ed|ing)\b", r"(?m)^\W*\d+(?:,\d{3})*$", r"z.{3,40}q"], True)
    run(machine, text)
    first = len(machine._steps)
    run(machine, text)
    assert len(machine._steps) == first < 500
