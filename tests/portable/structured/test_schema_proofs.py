"""Proofs that a schema has no value, or none that ends."""

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import byte_level_gpt2
from writing import written

from fundamentallm_hf.portable.structured.grammar_states import GrammarAutomaton
from fundamentallm_hf.portable.structured.grammars import read_grammar
from fundamentallm_hf.portable.structured.structured_output import WholeTextLogitsProcessor

LONG_DATE = {"type": "string", "format": "date", "maxLength": 3}
IMPOSSIBLE = [
    {"type": "object", "properties": {}, "required": ["z"], "additionalProperties": False},
    {"type": "object", "minProperties": 2, "maxProperties": 1},
    LONG_DATE,
    {"type": "string", "pattern": "^[a-z]{5}$", "maxLength": 3},
    {"type": "string", "minLength": 5, "maxLength": 3},
    {"type": "integer", "minimum": 5, "maximum": 4},
    {"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 6},
    {"type": "integer", "minimum": 5, "maximum": 6, "multipleOf": 4},
    {"type": "array", "minItems": 3, "maxItems": 2},
    {"type": "array", "items": False, "minItems": 1},
    {"type": "array", "items": LONG_DATE, "minItems": 1},
    {"type": "object", "properties": {"a": LONG_DATE}, "required": ["a"]},
    {"type": "object", "additionalProperties": LONG_DATE, "minProperties": 1},
    {"type": "object", "patternProperties": {"^a": LONG_DATE}, "additionalProperties": False, "minProperties": 1},
    {"allOf": [{"type": "string", "pattern": "^a+$"}, {"pattern": "^b+$"}]},
    {"allOf": [{"type": "string", "pattern": "^(aa)+$", "maxLength": 5}, {"pattern": "^(aaa)+$"}]},
    {"anyOf": [LONG_DATE, {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 1}]},
    {"const": "a", "pattern": "^b$"},
    {"const": 1, "minimum": 2},
]
POSSIBLE = [
    {"type": "array", "items": LONG_DATE},
    {"enum": ["a", "b"], "pattern": "^b$"},
    {"type": "number", "exclusiveMinimum": 5, "exclusiveMaximum": 6},
    {"type": "object", "properties": {"a": LONG_DATE}},
    {"anyOf": [LONG_DATE, {"type": "null"}]},
    {"type": "integer", "minimum": 10**17},
    {"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1},
    {"allOf": [{"type": "string", "pattern": "^(aa)+$"}, {"pattern": "^(aaa)+$"}]},
    # The sign of the unit kelvin is no letter of ASCII, but is a "k" in any case.
    {"allOf": [{"type": "string", "pattern": "(?i)^k$"}, {"pattern": "^[^a-zA-Z]$"}]},
]


@pytest.fixture(scope="module")
def model():
    return byte_level_gpt2()


def automaton_of(schema, model):
    automaton = GrammarAutomaton(read_grammar({"json_schema": schema}), model.tokenizer, model.config.vocab_size)
    return automaton, automaton.prompt_end(automaton.before)


def enters(automaton, start, text):
    tokens = automaton.tokens.spell(text.encode())
    return start.matcher.validate_tokens(tokens) == len(tokens)


@pytest.mark.parametrize("schema", [*IMPOSSIBLE, *POSSIBLE])
def test_llguidance_leads_to_no_value_that_is_proven_impossible_and_the_bound_heeds_the_others(model, schema):
    automaton, start = automaton_of({"type": "object", "properties": {"t": schema, "u": {"type": "integer"}}}, model)
    assert enters(automaton, start, '{"t":') == (schema in POSSIBLE)
    assert automaton.bound(start) < 120 or "(?i)" in str(schema)


LIMITS = st.none() | st.sampled_from([-3, -1, 0, 0.5, 1, 2, 2.5, 4, 7])


@settings(deadline=None)
@given(
    kind=st.sampled_from(["integer", "number"]),
    limits=st.fixed_dictionaries(
        dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), LIMITS)
        | {"multipleOf": st.sampled_from([None, None, 1, 2, 3, 0.5, 2.5])}
    ),
)
def test_numbers_are_proven_impossible_where_llguidance_sees_it(model, kind, limits):
    schema = {"type": kind} | {name: limit for name, limit in limits.items() if limit is not None}
    whole = {"type": "object", "properties": {"t": schema, "u": {"type": "integer"}}}
    automaton, start = automaton_of(whole, model)
    texts = automaton.guide.texts
    value = texts.reader.root.ways[0].child("t")
    assert enters(automaton, start, '{"t":') == (value not in texts.proofs.impossible)
    assert automaton.bound(start) < math.inf


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"b": {"$ref": "#"}}, "required": ["b"]},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {"type": "object", "additionalProperties": {"$ref": "#"}, "minProperties": 1},
        {"$ref": "#"},
        {"type": "object", "properties": {"b": {"anyOf": [{"$ref": "#"}, LONG_DATE]}}, "required": ["b"]},
    ],
)
def test_what_has_no_end_is_refused_at_once(model, schema):
    begin = time.thread_time()
    with pytest.raises(
        ValueError, match="json_schema: no text that matches has an end: some part of it requires itself"
    ):
        written(model, ["once"], json_schema=schema, max_new_tokens=40)
    assert time.thread_time() - begin < 1


def test_what_has_no_end_is_not_entered_where_something_else_will_do(model):
    """llguidance does not detect this, so our mask must be narrower than its mask."""
    endless = {"type": "object", "properties": {"b": {"$ref": "#/$defs/e"}}, "required": ["b"]}
    schema = {"anyOf": [{"$ref": "#/$defs/e"}, {"type": "integer"}], "$defs": {"e": endless}}
    automaton, start = automaton_of(schema, model)
    assert enters(automaton, start, '{"b":')
    row = torch.tensor([model.tokenizer("once").input_ids])
    processor = WholeTextLogitsProcessor(
        automaton, remaining=lambda ids: [50], end_tokens=[0], prompt_columns=row.shape[1]
    )
    kept = processor(row, torch.zeros(1, model.config.vocab_size))[0]
    assert not any(kept[token] == 0 for token in range(len(kept)) if model.tokenizer.decode([token]).startswith("{"))
