"""Regular expressions in Rust's syntax match the same texts here as in llguidance."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import byte_level_gpt2

from fundamentallm_hf.portable.structured.grammar_states import GrammarAutomaton
from fundamentallm_hf.portable.structured.grammars import read_grammar
from fundamentallm_hf.portable.structured.rust_patterns import python_pattern
from fundamentallm_hf.portable.structured.shortest_match import Expression

LETTERS = "abAB01 -_é日½]\n."
ATOMS = [
    *(
        "a",
        "b",
        "0",
        ".",
        r"\d",
        r"\W",
        "[ab]",
        "[^a]",
        r"\p{L}",
        r"\pN",
        r"\P{Lu}",
        r"[\p{Ll}0]",
        r"[^\p{L}]",
        r"[\d-z]",
    ),
    *(
        "[[:alpha:]]",
        "[^[:digit:][:space:]]",
        r"\x{41}",
        r"\u{e9}",
        r"[\x{61}-b]",
        "[]a]",
        "[^]a]",
        r"\-",
        "(?s:.)",
        "(?i)",
    ),
    *("(?P<n>a)", "(?<n>b)", "(?i-s)", "(?i:A)", r"\p{Uppercase_Letter}", r"\p{^N}", "[a-]"),
]


@pytest.fixture(scope="module")
def model():
    return byte_level_gpt2()


@st.composite
def expressions(draw, depth=2):
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        if depth and draw(st.integers(0, 3)) == 0:
            inner = draw(expressions(depth=depth - 1))
            parts.append(f"({'?:' * draw(st.integers(0, 1))}{inner}|{draw(st.sampled_from(ATOMS))})")
        else:
            parts.append(draw(st.sampled_from(ATOMS)))
        if not parts[-1].endswith(("(?i)", "(?i-s)")):
            parts[-1] += draw(st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}", "*?", "++"]))
    return draw(st.sampled_from(["", "|"])).join(parts)


def accepts(pattern, text, model):
    grammar = read_grammar({"json_schema": {"type": "string", "pattern": f"^({pattern})$"}})
    matcher = GrammarAutomaton(grammar, model.tokenizer, model.config.vocab_size)
    return matcher.matches('"' + text.replace("\n", r"\n") + '"')


@settings(deadline=None, max_examples=150)
@given(pattern=expressions(), texts=st.lists(st.text(LETTERS, max_size=4), min_size=4, max_size=8))
def test_they_match_what_llguidance_matches(model, pattern, texts):
    try:
        read_grammar({"json_schema": {"type": "string", "pattern": f"^({pattern})$"}})
    except ValueError:
        return  # two groups with one name, or syntax that llguidance rejects
    here = Expression(f"^({pattern})$", LETTERS, search=True, ascii_only=True)
    shortest = here.completion(here.start)
    for text in [*texts, *([] if shortest is None else [shortest])]:
        assert here.accepts(here.read(text)) == accepts(pattern, text, model), (text, python_pattern(pattern)[0])


@pytest.mark.parametrize("pattern", [r"\p{L}+", "(?i)abc", r"\x{41}[[:alpha:]]", r"\A\d\z", "a++b", r"[^\p{Lu}]{3}"])
def test_what_they_need_is_known_without_a_search(model, pattern):
    for fields in ({"pattern": pattern}, {"json_schema": {"type": "string", "pattern": pattern}}):
        automaton = GrammarAutomaton(
            read_grammar(fields), model.tokenizer, model.config.vocab_size, pattern=fields.get("pattern")
        )
        start = automaton.prompt_end(automaton.before)
        assert automaton.make_plan(start, effort=0) is not None
        assert automaton.bound(start) < 40


@pytest.mark.parametrize("pattern", ["[a-z&&[^b]]", "[a[bc]]", r"\p{Script=Han}", "[abc", "[[:nothing:]]", "[a--b]"])
def test_what_cannot_be_said_in_pythons_syntax_is_told(pattern):
    with pytest.raises(ValueError, match=r"is not known|has no end"):
        python_pattern(pattern)
