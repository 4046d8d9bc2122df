"""Whole texts by JSON schemas that are drawn: none refused, none closed with room to spare, all complete."""

import itertools
import json
import math
import random
import re

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from json_schema_cases import TEXTS
from small_models import json_gpt2

from fundamentallm_hf.portable.structured.grammar_states import GrammarAutomaton
from fundamentallm_hf.portable.structured.grammars import read_grammar
from fundamentallm_hf.portable.structured.pattern_product import Intersection
from fundamentallm_hf.portable.structured.shortest_match import Expression
from fundamentallm_hf.portable.structured.structured_output import WholeTextLogitsProcessor

NAMES = ["a", "name", "id", "é", "x y", 'q"t']
PATTERNS = ["^[0-9]{2}$", "^[a-z]+$", "foo", r"^\+?[0-9]{10}$", "^(ab|c)*d$", r"^.{3,5}$", r"^\p{Lu}+$", "x$", "[^a-z]"]
INTERSECTED = [
    "^(aa)+$",
    "^(aaa)*$",
    "^[a-m]+$",
    "^[^c]*$",
    "foo",
    "m$",
    "^.{3,9}$",
    "^[0-9a]",
    r"\d",
    "^(ab|c)*d?$",
    "é|a",
]
REQUIRED = st.sampled_from([["a"], ["b"], ["a", "b"]])
FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789 -_é")
VALUES = [None, True, False, 0, -3, 2.5, "x", "é", "", 'q"', [], [1, 2], {"a": 1}]
LEAST = st.sampled_from([0, 1, 2, 4])
MORE = st.sampled_from([0, 1, 3, 20])


def optional(draw, schema, share, **fields):
    """Some of the fields, each with a chance."""
    return schema | {field: draw(of) for field, of in fields.items() if draw(st.integers(1, 10)) <= 10 * share}


def limited(draw, schema, least, most):
    """A lower and an upper limit, one, or none."""
    low = draw(LEAST)
    return optional(draw, schema, 0.3, **{least: st.just(low), most: MORE.map(lambda more: low + more)})


@st.composite
def strings(draw):
    schema = {"type": "string"} | draw(
        st.one_of(
            st.just({}),
            st.sampled_from(PATTERNS).map(lambda pattern: {"pattern": pattern}),
            st.sampled_from(FORMATS).map(lambda name: {"format": name}),
        )
    )
    return limited(draw, schema, "minLength", "maxLength")


@st.composite
def numbers(draw):
    low = draw(st.sampled_from([-100, -7.5, -3, 0, 1, 0.25, 999]))
    limits = {
        draw(st.sampled_from(["minimum", "exclusiveMinimum"])): st.just(low),
        draw(st.sampled_from(["maximum", "exclusiveMaximum"])): st.sampled_from([0, 1, 0.5, 30, 5000]).map(low.__add__),
        "multipleOf": st.sampled_from([1, 2, 3, 7, 0.5, 0.25, 2.5, 100]),
    }
    return optional(draw, {"type": draw(st.sampled_from(["integer", "number"]))}, 0.3, **limits)


SCALARS = st.one_of(
    strings(),
    numbers(),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["string", "integer"]}, {}]),
    st.lists(st.sampled_from(VALUES), min_size=1, max_size=3).map(lambda values: {"enum": values}),
)


@st.composite
def containers(draw, inner):
    kind = draw(st.sampled_from(["array", "object", "object", "anyOf", "allOf"]))
    if kind in ("anyOf", "allOf"):
        return {kind: draw(st.lists(inner, min_size=1, max_size=2))}
    if kind == "array":
        schema = optional(draw, {"type": "array"}, 0.7, items=inner)
        schema = optional(draw, schema, 0.3, prefixItems=st.lists(inner, min_size=1, max_size=2))
        return limited(draw, schema, "minItems", "maxItems")
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    schema = {"type": "object", "properties": {name: draw(inner) for name in names}}
    others = st.one_of(st.just(False), st.just(False), inner)
    patterned = st.tuples(st.sampled_from(["^S_", "^[a-z]{2}$", "[0-9]$"]), inner).map(lambda one: dict([one]))
    schema = optional(draw, schema, 0.2, patternProperties=patterned)
    return optional(draw, schema, 0.6, required=st.just(names[:2]), additionalProperties=others)


SCHEMAS = containers(st.recursive(SCALARS, containers, max_leaves=4))
REFERENCES = st.sampled_from(["#", "#/$defs/a", "#/$defs/b"]).map(lambda name: {"$ref": name})


@st.composite
def recursive_schemas(draw):
    """Schemas that refer to themselves: as a whole, to a part, and from one part to the other and back."""
    inner = st.recursive(st.one_of(REFERENCES, REFERENCES, SCALARS), containers, max_leaves=4)
    ends = draw(st.sampled_from([{"type": "null"}, {"type": "integer"}, {"type": "string", "pattern": "^[a-c]{2}$"}]))
    parts = {name: {"anyOf": draw(st.permutations([draw(inner), ends]))} for name in "ab"}
    return draw(containers(inner)) | {"$defs": parts}


@st.composite
def intersected_patterns(draw):
    """Two or three expressions that the same string has to match, next to another string."""
    patterns = draw(st.lists(st.sampled_from(INTERSECTED), min_size=2, max_size=3))
    both = limited(
        draw, {"allOf": [{"type": "string", "pattern": each} for each in patterns]}, "minLength", "maxLength"
    )
    return {"type": "object", "properties": {"a": both, "b": {"type": "integer"}}, "required": draw(REQUIRED)}


@pytest.fixture(scope="module")
def model():
    return json_gpt2(TEXTS)


def is_valid(text, schema):
    validator = jsonschema.Draft202012Validator(schema)
    try:
        return validator.is_valid(json.loads(text))
    except (OverflowError, RecursionError):  # of a multiple of a fraction, or of a value that is itself or another
        return True


class Writer:
    """Writes texts by one schema with random scores."""

    def __init__(self, model, schema):
        self.tokenizer, self.size = model.tokenizer, model.config.vocab_size
        self.automaton = GrammarAutomaton(read_grammar({"json_schema": schema}), self.tokenizer, self.size)
        self.prompt = torch.tensor([self.tokenizer("once").input_ids])
        self.start = self.processor(1).states(self.prompt)[0]

    def processor(self, room):
        columns = self.prompt.shape[1]
        return WholeTextLogitsProcessor(
            self.automaton,
            remaining=lambda ids: [room - (ids.shape[1] - columns)] * len(ids),
            end_tokens=[self.tokenizer.eos_token_id],
            prompt_columns=columns,
        )

    def write(self, room, most, seed, beside=lambda row, kept: None, likely=()):
        processor, row = self.processor(room), self.prompt
        chance = torch.Generator().manual_seed(seed)
        for _ in range(min(room, most)):
            scores = 3 * torch.randn(1, self.size, generator=chance)
            scores[:, list(likely)] += 9
            kept = processor(row, scores)
            beside(row, kept)
            token = torch.multinomial(kept.softmax(dim=-1), 1, generator=chance)
            if int(token) == self.tokenizer.eos_token_id:
                break
            row = torch.cat([row, token], dim=1)
        return processor, row

    def text(self, row):
        return self.tokenizer.decode(row[0, self.prompt.shape[1] :])


@settings(deadline=None, max_examples=30)
@given(schema=SCHEMAS)
def test_whatever_the_schema_texts_are_complete_and_the_mask_is_the_engines_with_room_to_spare(model, schema):
    see_that_texts_hold(model, schema)


@settings(deadline=None, max_examples=30)
@given(schema=recursive_schemas())
def test_schemas_that_refer_to_themselves_have_a_shortest_text_and_a_bound(model, schema):
    see_that_texts_hold(model, schema)


@settings(deadline=None, max_examples=30)
@given(schema=intersected_patterns())
def test_expressions_that_hold_together_have_a_shortest_text_and_a_bound(model, schema):
    see_that_texts_hold(model, schema)


@pytest.mark.parametrize(
    "lengths", [{"minLength": 4}, {"minLength": 4, "maxLength": 4}, {"minLength": 3, "maxLength": 5}]
)
@pytest.mark.parametrize("pattern", ["^[0-9]{2}$", "^(a|b{2})$", "^(aa|aaaaaa)$", "^(a{2}){0,9}$"])
def test_a_string_that_no_allowed_length_fits_is_left_out(model, lengths, pattern):
    item = {"type": "string", "pattern": pattern, **lengths}
    see_that_texts_hold(model, {"type": "array", "items": item})
    see_that_texts_hold(model, {"type": "object", "properties": {"a": item, "b": {"type": "boolean"}}})


@settings(deadline=None, max_examples=200)
@given(patterns=st.lists(st.sampled_from(INTERSECTED), min_size=2, max_size=3), seed=st.integers(0, 10**6))
def test_an_intersection_matches_what_all_of_its_expressions_match(patterns, seed):
    expressions = [Expression(each, LETTERS, search=True, ascii_only=True) for each in patterns]
    both = Intersection(expressions, LETTERS, lambda letter: True)
    chance = random.Random(seed)
    begun = "".join(chance.choices("aabcdfmo0é", k=chance.randrange(6)))
    matched = [each for length in range(5) for each in map("".join, itertools.product("acdm0é", repeat=length))]
    shortest = min((len(each) for each in matched if matches_all(patterns, begun + each)), default=None)
    rest = both.completion(both.read(begun))
    assert both.accepts(both.read(begun)) == matches_all(patterns, begun)
    if rest is not None:
        assert matches_all(patterns, begun + rest)
        assert len(rest) <= both.worst
    assert shortest is None or (rest is not None and len(rest) <= shortest)
    least = chance.randrange(8)
    longer = both.completion(both.read(begun), least, least + 3)
    assert longer is None or (least <= len(longer) <= least + 3 and matches_all(patterns, begun + longer))
    assert longer is not None or rest is None or not least <= len(rest) <= least + 3


def matches_all(patterns, text):
    return all(re.search(each, text, re.ASCII) for each in patterns)


def see_that_texts_hold(model, schema):
    try:
        writer = Writer(model, schema)
    except ValueError:
        return  # llguidance refuses it
    if writer.automaton.endless:
        assert writer.automaton.plan(writer.start) is None
        return
    automaton, start = writer.automaton, writer.start
    plan = automaton.make_plan(start, effort=0)
    assert plan is not None
    assert is_valid(writer.tokenizer.decode(plan), schema)
    assert len(plan) <= automaton.bound(start) < math.inf or beyond_proof(automaton)

    def see_that_nothing_is_closed(row, kept):
        state = automaton.before
        for token in row[0].tolist()[: writer.prompt.shape[1]]:
            state = automaton.advance(state, token)
        state = automaton.prompt_end(state)
        matcher = automaton.tokens.consume(state.matcher, row[0, writer.prompt.shape[1] :].tolist())
        mask = automaton.tokens.masks([matcher])[0]
        mask[writer.tokenizer.eos_token_id] = matcher.is_accepting()
        assert torch.equal(kept[0] > -torch.inf, mask), writer.text(row)

    if automaton.bound(start) < math.inf:
        writer.write(4000, 20, 0, see_that_nothing_is_closed)
    for seed, room in enumerate((len(plan), len(plan) + 1, len(plan) + 12)):
        processor, row = writer.write(room, room, seed)
        assert processor.is_complete(row[0].tolist()), writer.text(row)
        assert is_valid(writer.text(row), schema), writer.text(row)


def beyond_proof(automaton):
    """Whether two rules hold for a string of which one is a format, of which only a wider one is known."""
    texts = automaton.guide.texts
    ways = [way for value in texts._values for way in value.ways]
    return any(way.all_of("format") and len([*way.all_of("format"), *way.all_of("pattern")]) > 1 for way in ways)


@pytest.mark.parametrize("seed", range(20))
def test_escapes_and_parts_of_characters_are_ended_in_the_room_that_is_left(model, seed):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    writer = Writer(model, schema)
    pieces = writer.automaton.tokens.pieces
    likely = [token for token, piece in enumerate(pieces) if b"\\" in piece or any(byte > 0x7F for byte in piece)]
    room = len(writer.automaton.plan(writer.start)) + 8 + seed
    processor, row = writer.write(room, room, seed, likely=likely)
    assert processor.is_complete(row[0].tolist()), writer.text(row)
    assert is_valid(writer.text(row), schema), writer.text(row)
    assert "\\" in writer.text(row) or not writer.text(row).isascii()
