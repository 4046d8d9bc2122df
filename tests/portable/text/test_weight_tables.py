"""What each token is worth: over a text, the weights of its entries and nothing else, whatever its tokens."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_tokenizers import FAMILIES, toy_tokenizer

from fundamentallm_hf.portable.text.vocabulary import Vocabulary
from fundamentallm_hf.portable.text.weight_tables import WeightTables
from fundamentallm_hf.portable.text.weighted_patterns import WeightedPatterns
from fundamentallm_hf.portable.text.word_counts import WordCounts

LISTS = {
    "words": {"cat": 2.0, "ran": -3.0, "the cat": 1.0, "café": 0.5, "日本": 1.5},
    "stems": {"c*": 1.0, "*an": -0.5, "very *": 2.0, "ran.": 1.0, "++": 3.0},
    "expressions": {"/[0-9]+/": 1.0, r"/\bt[a-z]*\b/": -0.5, "/[^\\x00-\\x7f]/": 2.0, "cat": 1.0, r"/an\b/": 0.25},
}


@functools.cache
def tables_of(family, name):
    vocabulary = Vocabulary.of(toy_tokenizer(family))
    counts = WordCounts({"the": 9, "cat": 5, "cats": 2, "ran": 4, "rang": 1, "very": 2, "can": 3, "42": 1, "café": 1})
    return WeightTables(vocabulary, WeightedPatterns(LISTS[name], True, counts), len(vocabulary.pieces))


def rows_of_tokens(family):
    tokenizer = toy_tokenizer(family)
    text = tokenizer("the cat ran. café 日本 very can cats ++ 42", add_special_tokens=False).input_ids
    anything = st.integers(0, len(Vocabulary.of(tokenizer).pieces) - 1)
    return st.lists(st.sampled_from(text) | anything, max_size=12)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_over_a_text_tokens_pay_the_weights_of_its_entries(family, name, data):
    tables = tables_of(family, name)
    row = data.draw(rows_of_tokens(family))
    state, paid = tables.beginning, 0.0
    for token in row:
        table = tables.worths(state.text)
        if tables.vocabulary.piece(token):
            paid += float(table.worth[token]) - state.paid
        state = tables.follow(state, token)
    paid += tables.worths(state.text).end - state.paid
    # Read without tokens; but for the space that some decoders take away, which no entry here looks at.
    text = tables.vocabulary.text(row)
    final = tables.weighted.read(tables.weighted.start, text)[0]
    assert paid == pytest.approx(final.regex.due + tables.weighted.due_at_end(final), abs=1e-3), text


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=6, deadline=None)
@given(st.data())
def test_a_table_holds_what_each_token_is_worth_by_itself(family, name, data):
    tables = tables_of(family, name)
    state = tables.beginning
    for token in data.draw(rows_of_tokens(family)):
        state = tables.follow(state, token)
    table = tables.worths(state.text)
    for token in range(tables.size):
        expected = 0.0
        if tables.vocabulary.piece(token):
            _, due = tables.settled(tables.advance(state.text, token))
            expected = due + tables.follow(state, token).paid
        assert float(table.worth[token]) == pytest.approx(expected, abs=1e-4), tables.vocabulary.piece(token)


def test_tokens_by_which_a_word_is_not_spelled_are_not_its_beginning():
    tables = tables_of("byte_level", "words")
    vocabulary = tables.vocabulary
    spelled = vocabulary.spell(" cat")
    assert len(spelled) == 1, "the word has a token of its own"
    worth = tables.worths(tables.start).worth
    assert worth[spelled[0]] > 0
    assert worth[vocabulary.token(" c")] == worth[vocabulary.token("q")] == 0


def test_a_list_for_fewer_scores_leaves_the_rest_out():
    tables = tables_of("characters", "words")
    fewer = tables.of_size(20)
    assert type(fewer) is WeightTables
    assert torch.equal(fewer.worths(fewer.start).worth, tables.worths(tables.start).worth[:20])
