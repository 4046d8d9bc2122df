"""Structured output by fifty JSON schemas: allowed instances are open, outputs are complete, and none is refused."""

import json
import math
import re
import time

import jsonschema
import pytest
import torch
from click.testing import CliRunner
from conftest import FIXTURES
from json_schema_cases import ARRAYS, CASES, DOCUMENTS, TEXTS
from llguidance import LLMatcher
from small_models import byte_level_gpt2, json_gpt2
from writing import written

from fundamentallm_hf import Generator, load_model
from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.portable.structured.grammar_states import GrammarAutomaton
from fundamentallm_hf.portable.structured.grammars import read_grammar
from fundamentallm_hf.portable.structured.structured_output import WholeTextLogitsProcessor

MODES = [
    {"do_sample": False},
    {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": 1},
    {"do_sample": True, "temperature": 2.0, "top_k": 0},
    {"num_beams": 4},
]
ORDER = next(case.schema for case in CASES if case.name == "array_order")
ROOM = 4000
names = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module", params=["json", "letters"])
def model(request):
    return json_gpt2(TEXTS) if request.param == "json" else byte_level_gpt2()


@pytest.fixture(scope="module")
def writer():
    return json_gpt2(TEXTS)


def automaton_of(schema, model, **how):
    return GrammarAutomaton(read_grammar({"json_schema": schema}, **how), model.tokenizer, model.config.vocab_size)


def start_of(automaton, tokenizer, prompt="once"):
    state = automaton.before
    for token in tokenizer(prompt).input_ids:
        state = automaton.advance(state, token)
    return automaton.prompt_end(state)


def needed_by(schema, model):
    automaton = automaton_of(schema, model)
    return len(automaton.plan(start_of(automaton, model.tokenizer)))


def processor_of(automaton, tokenizer, room, columns):
    return WholeTextLogitsProcessor(
        automaton,
        remaining=lambda ids: [room - (ids.shape[1] - columns)] * len(ids),
        end_tokens=[tokenizer.eos_token_id],
        prompt_columns=columns,
    )


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def is_valid(text, schema):
    jsonschema.validate(json.loads(text), schema)
    return True


@names
def test_no_token_of_an_instance_is_closed_and_the_mask_is_the_engines(model, case):
    automaton = automaton_of(case.schema, model)
    prompt = model.tokenizer("once").input_ids
    for value in case.valid:
        tokens = [*model.tokenizer(compact(value)).input_ids, model.tokenizer.eos_token_id]
        row = torch.tensor([prompt + tokens])
        processor = processor_of(automaton, model.tokenizer, ROOM, len(prompt))
        processor.check(row[:, : len(prompt)])
        matcher = start_of(automaton, model.tokenizer).matcher.deep_copy()
        for column, token in enumerate(tokens, len(prompt)):
            kept = processor(row[:, :column], torch.zeros(1, model.config.vocab_size))[0]
            assert kept[token] == 0, (value, model.tokenizer.decode(row[0, len(prompt) : column]), token)
            open_tokens = set((kept == 0).nonzero().flatten().tolist()) - {model.tokenizer.eos_token_id}
            mask = matcher.compute_bitmask()
            assert open_tokens == {id for id in range(automaton.tokens.end) if mask[id >> 3] >> (id & 7) & 1}
            matcher.consume_token(token)
    for value in case.invalid:
        assert not automaton.matches(compact(value)), value


@pytest.mark.parametrize("case", DOCUMENTS, ids=lambda case: case.name)
def test_documents_are_open_and_complete_in_few_tokens_and_their_bound_is_known(writer, case):
    automaton = automaton_of(case.schema, writer)
    start = start_of(automaton, writer.tokenizer)
    assert automaton.make_plan(start, effort=0) is not None
    for value in case.valid:
        state = start
        for token in writer.tokenizer(compact(value)).input_ids:
            assert automaton.open(state)[token], value
            assert automaton.bound(state) < math.inf
            state = automaton.advance(state, token)
        assert automaton.complete(state), value
    assert not any(automaton.matches(compact(value)) for value in case.invalid)
    torch.manual_seed(0)
    room = len(automaton.plan(start)) + 2
    for text in written(writer, ["once"], max_new_tokens=room, json_schema=case.schema, do_sample=True):
        assert is_valid(text, case.schema), text


REFUSED = {
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "if": {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "integer"}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "not": {"not": {"type": "string"}},
    "contains": {"type": "array", "contains": {"type": "integer"}},
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "^a"}},
}


@pytest.mark.parametrize("keyword", REFUSED)
def test_a_keyword_that_llguidance_lacks_is_named(keyword):
    with pytest.raises(ValueError, match=f'^json_schema: it is not valid: Unimplemented keys: .*"{keyword}"'):
        read_grammar({"json_schema": REFUSED[keyword]})


def each_in_a_mode(cases):
    """Every case in one of the modes, and all modes in turn."""
    return [pytest.param(case, MODES[index % 4], id=f"{case.name}-{index % 4}") for index, case in enumerate(cases)]


@pytest.mark.parametrize(("case", "how"), each_in_a_mode(CASES))
def test_texts_are_valid_and_complete_in_as_few_tokens_as_there_may_be(writer, case, how):
    torch.manual_seed(0)
    needed = needed_by(case.schema, writer)
    for room in (needed, needed + 4):
        for text in written(writer, ["once"], max_new_tokens=room, json_schema=case.schema, **how):
            assert is_valid(text, case.schema), text


@pytest.mark.parametrize(("case", "how"), each_in_a_mode(CASES[::-2]))
def test_texts_are_valid_and_complete_with_plenty_of_tokens(writer, case, how):
    torch.manual_seed(0)
    room = needed_by(case.schema, writer) + 60
    for text in written(writer, ["once", "a small cat"], max_new_tokens=room, json_schema=case.schema, **how):
        assert is_valid(text, case.schema), text


@pytest.mark.parametrize(("case", "how"), each_in_a_mode(ARRAYS))
def test_beside_bad_and_required_words_they_are_complete_too(writer, case, how):
    torch.manual_seed(0)
    words = {"bad_words": ["the", "a", "name", "s"], "must_include": ["story"]}
    if not holds_any_text(case.schema):
        words.pop("must_include")
    words["bad_words"] = [word for word in words["bad_words"] if f'"{word}"' not in json.dumps(case.schema)]
    room = needed_by(case.schema, writer) + 40
    for text in written(writer, ["once"], max_new_tokens=room, json_schema=case.schema, **words, **how):
        assert is_valid(text, case.schema), text
        assert "must_include" not in words or re.search(r"\bstory\b", text, re.IGNORECASE), text
        for word in words["bad_words"]:
            assert not re.search(rf"\b{word}\b", text, re.IGNORECASE), text


@names
def test_behind_any_token_a_text_needs_no_more_than_the_bound_says(writer, case):
    automaton = automaton_of(case.schema, writer)
    for seed in range(3):
        chance = torch.Generator().manual_seed(seed)
        state = start_of(automaton, writer.tokenizer)
        for _ in range(40):
            bound, tokens = automaton.bound(state), automaton.open(state).nonzero().flatten()
            if not len(tokens):
                break
            token = int(tokens[torch.randint(len(tokens), (1,), generator=chance)])
            state = automaton.advance(state, token)
            state.hint = None  # the guide alone has to know
            plan = automaton.make_plan(state, effort=0)
            assert plan is not None, (state.position, writer.tokenizer.decode([token]))
            assert len(plan) <= bound, (len(plan), bound, state.position)


def holds_any_text(schema):
    return '{"type": "string"}' in json.dumps(schema)


def test_giving_up_is_not_taken_for_proof(writer):
    automaton = automaton_of(ORDER, writer)
    row = torch.tensor([writer.tokenizer('once{"items":[').input_ids])
    columns = len(writer.tokenizer("once").input_ids)
    brace, end = (writer.tokenizer(mark).input_ids[0] for mark in "{]")
    for room in (300, 60):
        kept = processor_of(automaton, writer.tokenizer, room, columns)(row, torch.zeros(1, writer.config.vocab_size))[
            0
        ]
        assert kept[end] == 0
        assert any(kept[token] == 0 for token in range(len(kept)) if writer.tokenizer.decode([token]).startswith("{"))
        assert automaton.plan(start_of(automaton, writer.tokenizer)) is not None
    assert brace != end


@pytest.mark.parametrize("case", ARRAYS[:6], ids=lambda case: case.name)
def test_what_is_closed_for_want_of_room_has_no_plan(writer, case):
    """In the last tokens of a budget, whatever is closed could not be completed, by a search of its own."""
    automaton = automaton_of(case.schema, writer)
    start = start_of(automaton, writer.tokenizer)
    room = len(automaton.plan(start)) + 1
    columns = len(writer.tokenizer("once").input_ids)
    processor = processor_of(automaton, writer.tokenizer, room, columns)
    row = torch.tensor([writer.tokenizer("once").input_ids])
    kept = processor(row, torch.zeros(1, writer.config.vocab_size))[0]
    for token in automaton.open(start).nonzero().flatten().tolist():
        if kept[token] != 0:
            after = automaton.advance(start, token)
            assert automaton.search(after.matcher, room - 1, 400).plan is None, token


@pytest.mark.parametrize(
    ("schema", "shortest"),
    [
        ({"type": "object", "properties": {f"f{n}": {"type": "boolean"} for n in range(40)}}, "{}"),
        ({"type": "array", "minItems": 3, "items": {"enum": [100, 7]}}, "[7,7,7]"),
        ({"anyOf": [{"type": "string", "minLength": 9}, {"type": "integer", "minimum": 10}]}, "10"),
        ({"type": "string", "pattern": "^(abc|d)+$"}, '"d"'),
        (
            {"type": "object", "required": ["a"], "properties": {"a": {"type": ["null", "boolean", "array"]}}},
            '{"a":[]}',
        ),
    ],
)
def test_plans_are_as_short_as_the_shortest_text(schema, shortest):
    model = byte_level_gpt2()
    automaton = automaton_of(schema, model)
    plan = automaton.plan(start_of(automaton, model.tokenizer))
    assert len(plan) <= len(automaton.tokens.spell(shortest.encode()))


def test_forty_truths_need_no_more_than_they_take():
    model = byte_level_gpt2()
    schema = next(case.schema for case in CASES if case.name == "object_forty_truths")
    text = compact({f"flag{n}": True for n in range(40)})
    assert needed_by(schema, model) <= len(model.tokenizer(text).input_ids)


@pytest.mark.parametrize(
    ("control", "missing"),
    [
        ({"json_schema": {"type": "object"}}, "'{' '}'"),
        ({"json_schema": {"type": "array", "items": {"type": "integer"}}}, "'[' ']'"),
        ({"json_schema": {"const": "naïve"}}, "'ï'"),
        ({"json_schema": {"enum": ["é", "½x"]}}, "'é'"),
        ({"json_schema": {"type": "string", "pattern": "^[a-z]+@[a-z]+$"}}, "'@'"),
        ({"pattern": "[a-z]+@[a-z]+"}, "'@'"),
        ({"pattern": "(é|日本)x+"}, "'é'"),
    ],
)
def test_characters_that_the_model_lacks_are_named_at_once(control, missing):
    demo = load_model(device="cpu")
    begin = time.thread_time()
    with pytest.raises(ValueError, match=re.escape(f"the model's alphabet, which lacks {missing}")):
        written(demo, ["Once"], max_new_tokens=60, **control)
    assert time.thread_time() - begin < 1


NUMBERS = [
    {"type": "integer", "minimum": 10, "maximum": 99},
    {"type": "integer", "maximum": -1},
    {"type": "number", "exclusiveMinimum": 1},
    {"type": "integer", "multipleOf": 3, "minimum": 1},
    {"type": "integer", "multipleOf": 7, "minimum": 100000, "maximum": 9999999},
    {"type": "number", "minimum": 1.05, "maximum": 1.96},
]


@pytest.mark.parametrize("schema", NUMBERS)
def test_numbers_are_written_in_the_digits_that_there_are(shakespeare, schema):
    held = {char for char in shakespeare.tokenizer.get_vocab() if char.isdigit()}
    assert 0 < len(held) < 10
    automaton = automaton_of(schema, shakespeare)
    plan = automaton.plan(start_of(automaton, shakespeare.tokenizer, "To be"))
    assert is_valid(shakespeare.tokenizer.decode(plan), schema)
    for how in MODES:
        torch.manual_seed(0)
        for room in (len(plan), len(plan) + 3, 40):
            assert is_valid(written(shakespeare, ["To be"], max_new_tokens=room, json_schema=schema, **how)[0], schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"enum": ["cat", "dragon"]},
        {"type": "number"},
        {"type": "string", "pattern": "^[A-Z][a-z ]{5,}[.]$"},
        {"type": "string", "format": "date"},
        {"type": ["boolean", "null"]},
        {"type": "integer", "minimum": 100},
    ],
)
@pytest.mark.parametrize("how", MODES)
def test_the_bundled_model_writes_what_its_alphabet_holds(schema, how):
    demo = load_model(device="cpu")
    needed = needed_by(schema, demo)
    for room in (needed, needed + 3, 40):
        for text in written(demo, ["Once upon a time"], max_new_tokens=max(room, needed), json_schema=schema, **how):
            assert is_valid(text, schema), text


def test_json_has_white_space_only_if_asked(writer):
    value = next(case.valid[0] for case in CASES if case.name == "array_order")
    texts = [json.dumps(value), json.dumps(value, indent=2)]
    spaced, tight = automaton_of(ORDER, writer, json_whitespace=True), automaton_of(ORDER, writer)
    assert [spaced.matches(text) for text in [compact(value), *texts]] == [True, True, True]
    assert [tight.matches(text) for text in [compact(value), *texts]] == [True, False, False]
    for how in MODES:
        how = how | {"json_schema": ORDER, "json_whitespace": True, "max_new_tokens": 40}
        assert all(is_valid(text, ORDER) for text in written(writer, ["once"], **how))


def test_tokens_that_are_forced_are_told_beforehand(writer):
    automaton = automaton_of(ORDER, writer)
    prompt = writer.tokenizer("once").input_ids
    processor = processor_of(automaton, writer.tokenizer, 100, len(prompt))
    row = torch.tensor([prompt])
    (forced,) = processor.forced(row)
    assert writer.tokenizer.decode(forced) == compact({"items": []})[: len(writer.tokenizer.decode(forced))]
    assert len(forced) > 0
    for token in forced:  # nothing else was open
        kept = processor(row, torch.zeros(1, writer.config.vocab_size))[0]
        assert (kept == 0).nonzero().flatten().tolist() == [token]
        row = torch.cat([row, torch.tensor([[token]])], dim=1)
    assert processor.forced(row) == [[]]
    assert processor_of(automaton, writer.tokenizer, 1, len(prompt)).forced(torch.tensor([prompt])) == [[]]


def test_a_completion_carries_its_data(writer):
    generator = Generator(writer, writer.tokenizer, temperature=0, max_tokens=30)
    done = generator.complete("once", json_schema=ORDER)[0]
    assert done.data == json.loads(done.completion)
    assert done.to_dict()["data"] == done.data
    null = generator.complete("once", json_schema={"type": "null"})[0]
    assert (null.data, null.to_dict()["data"], null.finish_reason) == (None, None, "complete")
    plain = generator.complete("once")[0]
    assert plain.data is None
    assert "data" not in plain.to_dict()


def test_the_commands_records_carry_the_data(tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "integer", "minimum": 10, "maximum": 99}))
    arguments = ["generate", str(FIXTURES / "learned" / "final_model.pt"), "--prompt", "To be ", "--max-tokens", "5"]
    for more in ([], ["--json-whitespace"]):
        result = CliRunner().invoke(cli, [*arguments, "--json-schema", str(schema), "--format", "json", *more])
        (record,) = json.loads(result.stdout)
        assert record["data"] == int(record["completion"])
        assert record["settings"]["json_whitespace"] == bool(more)
    idle = CliRunner().invoke(cli, [*arguments, "--json-whitespace"])
    assert "json-whitespace has no effect: json-schema is not set" in idle.stderr


def test_a_text_that_has_used_up_its_tokens_is_complete(writer):
    generator = Generator(writer, writer.tokenizer, temperature=0)
    needed = needed_by(ORDER, writer)
    for tokens in (needed, needed + 1, needed + 9):
        assert generator.complete("once", json_schema=ORDER, max_tokens=tokens)[0].finish_reason in ("complete", "eos")
    letters = generator.complete("once", pattern="[a-z]{3,}", max_tokens=5)[0]
    assert (letters.finish_reason, letters.tokens) == ("complete", 5)


def test_a_batch_has_the_masks_of_its_rows(writer):
    schemas = [case for case in CASES if case.name in ("array_order", "array_people")]
    for case in schemas:
        automaton = automaton_of(case.schema, writer)
        text = writer.tokenizer("once" + compact(case.valid[0])).input_ids
        columns = len(writer.tokenizer("once").input_ids)
        rows = [torch.tensor([text[:columns] + text[cut : cut + 3]]) for cut in range(columns, columns + 1)]
        batch = torch.cat([rows[0], rows[0].clone(), rows[0].flip(1)])
        scores = torch.randn(3, writer.config.vocab_size)
        together = processor_of(automaton, writer.tokenizer, 200, columns)(batch, scores)
        for index in range(3):
            alone = processor_of(automaton, writer.tokenizer, 200, columns)(
                batch[index : index + 1], scores[index][None]
            )
            assert torch.equal(alone[0], together[index])


def test_the_engine_reads_the_tokenizer_itself_where_it_can(writer):
    assert automaton_of(ORDER, writer).tokens._machine.is_canonical
    text = compact(CASES[0].valid[0])
    assert automaton_of(ORDER, writer).tokens._machine.tokenize_str(text) == writer.tokenizer(text).input_ids
    assert not LLMatcher(automaton_of(ORDER, writer).tokens._machine, read_grammar({"json_schema": ORDER})).is_error()
