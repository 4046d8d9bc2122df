"""Structured output together with required and banned words: both hold, and neither makes a step slow."""

import json
import re

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from json_schema_cases import ARRAYS, TEXTS
from small_models import json_gpt2
from writing import written

from fundamentallm_hf.portable.controls.bad_words import compile_bad_words
from fundamentallm_hf.portable.controls.must_include_plan import Requirements
from fundamentallm_hf.portable.controls.whole_text_words import WordPartner
from fundamentallm_hf.portable.structured.grammar_plans import GrammarState, PlanMaker
from fundamentallm_hf.portable.structured.grammar_states import GrammarAutomaton
from fundamentallm_hf.portable.structured.grammars import read_grammar

WORDS = ["red", "green", "blue", "redder", "the end", "yes", "no"]
FREE = {"type": "string"}
STRINGS = st.one_of(
    st.just(FREE),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True).map(lambda values: {"enum": values}),
    st.sampled_from(["^(red|green)$", "^[a-e]{1,5}$", "^(re|gre)[a-z]*$", "^.{2,9}$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.sampled_from([3, 4, 12]).map(lambda most: {"type": "string", "maxLength": most}),
)
VALUES = st.recursive(
    STRINGS | st.sampled_from([{"type": "integer"}, {"type": "boolean"}]),
    lambda inner: st.one_of(
        inner.map(lambda item: {"type": "array", "items": item, "maxItems": 3}),
        st.lists(inner, min_size=1, max_size=2).map(lambda ways: {"anyOf": ways}),
        st.dictionaries(st.sampled_from(["name", "color", "blue"]), inner, min_size=1, max_size=2).map(
            lambda parts: {
                "type": "object",
                "properties": parts,
                "required": sorted(parts)[:1],
                "additionalProperties": False,
            }
        ),
    ),
    max_leaves=3,
)
SCHEMAS = VALUES.map(
    lambda value: {
        "type": "object",
        "properties": {"a": value, "b": FREE},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
)
HOW = st.sampled_from([{"do_sample": False}, {"do_sample": True, "temperature": 2.0, "top_k": 0}, {"num_beams": 3}])
BANNED = [
    *("red", "green", "blue", "the *", "yes", "about", "after", "again", "hell", "damn", "little"),
    *("money", "night", "often", "people", "place", "really", "should", "think", "under", "water", "while", "young"),
]


@pytest.fixture(scope="module")
def model():
    return json_gpt2([*TEXTS, *WORDS, "once upon a story"])


def holds(word, text):
    return re.search(rf"(?<!\w){word}(?!\w)", text, re.IGNORECASE) is not None


@settings(deadline=None, max_examples=60)
@given(
    schema=SCHEMAS,
    banned=st.lists(st.sampled_from(["red", "green", "blue", "yes", "a", "e"]), max_size=3, unique=True),
    required=st.sampled_from([[], [], ["story"], ["green"], ["end", "once"]]),
    more=st.sampled_from([0, 1, 5, 60]),
    how=HOW,
    seed=st.integers(0, 1000),
)
def test_texts_are_valid_and_keep_to_both_lists(model, schema, banned, required, more, how, seed):
    banned = [word for word in banned if f'"{word}"' not in json.dumps(list(names_of(schema)))]
    words = {"bad_words": banned, "must_include": required}
    words = {field: of_field for field, of_field in words.items() if of_field and set(banned).isdisjoint(required)}

    def write(room):
        torch.manual_seed(seed)
        return written(model, ["say: "], max_new_tokens=room, json_schema=schema, **words, **how)

    try:
        write(1)
        room = 1
    except ValueError as error:
        needed = re.search(r"needs? (?:about|at least) (\d+) tokens", str(error))
        if needed is None:
            return  # no such text, or none is known
        room = int(needed[1]) + (12 if required else 0)  # the refusal of required words does not count the schema
    try:
        texts = write(room + more)
    except ValueError as error:
        refused = str(error)
        texts = []
    assert texts or required or "without a bad word" in refused, refused
    for text in texts:
        jsonschema.validate(json.loads(text), schema)
        assert not any(holds(word, text) for word in words.get("bad_words", ())), text
        assert all(holds(word, text) for word in words.get("must_include", ())), text


def names_of(schema):
    for part in schema.get("properties", {}).values():
        yield from names_of(part)
    for part in [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]:
        yield from names_of(part)
    yield from schema.get("properties", {})


def automaton_of(schema, model, banned=(), required=()):
    size = model.config.vocab_size
    automaton = GrammarAutomaton(read_grammar({"json_schema": schema}), model.tokenizer, size)
    barred = compile_bad_words(banned, model.tokenizer, size) if banned else None
    requirements = Requirements(required, model.tokenizer, size, barred=barred) if required else None
    return automaton.with_partner(WordPartner(requirements, barred)) if banned or required else automaton


def start_of(automaton, model):
    state = automaton.before
    for token in model.tokenizer("say: ").input_ids:
        state = automaton.advance(state, token)
    return automaton.prompt_end(state)


@settings(deadline=None, max_examples=40)
@given(
    schema=SCHEMAS,
    banned=st.sampled_from([[], ["red", "yes"]]),
    required=st.sampled_from([[], ["story"]]),
    data=st.data(),
)
def test_a_plan_that_is_kept_holds_and_is_as_short_as_one_made_anew(model, schema, banned, required, data):
    automaton, fresh = automaton_of(schema, model, banned, required), automaton_of(schema, model, banned, required)
    state = start_of(automaton, model)
    for _ in range(data.draw(st.integers(0, 15))):
        tokens = automaton.open(state).nonzero().flatten().tolist()
        if not tokens:
            break
        for token, plan in automaton.plans_behind(state, tokens[:40], 100).items():
            assert automaton._holds(state, plan, token)
        state = automaton.advance(state, data.draw(st.sampled_from(tokens)))
        state.hint = None
        fresh._made.clear()
        again = GrammarState(state.matcher, position=state.position, beside=state.beside)
        kept, anew = automaton.make_plan(state, 0), fresh.make_plan(again, 0)
        assert kept is None or automaton._holds(state, kept)
        # Kept may also be the rest of another state's plan.
        assert anew is None or (kept is not None and len(kept) == len(anew))


@pytest.mark.parametrize("case", ARRAYS[:8], ids=lambda case: case.name)
def test_a_step_beside_words_makes_few_plans(model, case, monkeypatch):
    """Structure repeats, and most of the text is free: plans are looked up, not made for each token of each step."""
    made = []
    ending = PlanMaker._ending
    monkeypatch.setattr(PlanMaker, "_ending", lambda *arguments: made.append(1) or ending(*arguments))
    torch.manual_seed(0)
    tokens = 120
    (text,) = written(
        model, ["say: "], max_new_tokens=tokens, do_sample=True, json_schema=case.schema, bad_words=BANNED
    )
    jsonschema.validate(json.loads(text), case.schema)
    written_tokens = len(model.tokenizer(text).input_ids)
    # Within a date or a number, each character may lead to another position.
    assert len(made) <= 24 * max(10, written_tokens)
