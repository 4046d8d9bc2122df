"""Structured output: the whole added text matches, in every mode and within its token budget."""

import json
import re
import sys

import jsonschema
import pytest
import torch
from click.testing import CliRunner
from conftest import FIXTURES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import byte_level_gpt2, sentencepiece_llama
from transformers import GenerationConfig, LogitsProcessorList
from writing import written

from fundamentallm_hf import Generator, UserError, WholeTextLogitsProcessor, load_model
from fundamentallm_hf.cli.main import cli
from fundamentallm_hf.portable.structured.grammar_states import GrammarAutomaton
from fundamentallm_hf.portable.structured.grammars import read_grammar
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings

pytestmark = pytest.mark.core

PROMPT = "Once upon a time"
DATE = "(Monday|Tuesday), the [0-9]{1,2}(st|nd|rd|th) of (May|June)"
MODES = [
    {"do_sample": False},
    {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": 1},
    {"do_sample": True, "temperature": 2.0, "top_k": 0},
    {"num_beams": 4},
    {"num_beams": 2, "do_sample": True},
    {"do_sample": True, "num_return_sequences": 2, "seed": 5},
    {"do_sample": False, "use_cache": False},
]
SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "string"},
        "b": {"enum": ["cat", "story"]},
        "c": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        "d": {
            "type": "object",
            "properties": {"e": {"type": "number"}, "f": {"type": "boolean"}},
            "required": ["e"],
            "additionalProperties": False,
        },
    },
    "required": ["a", "b", "c", "d"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


@pytest.fixture(scope="module", params=[byte_level_gpt2, sentencepiece_llama])
def small(request):
    return request.param()


def is_valid(text, schema=SCHEMA):
    jsonschema.validate(json.loads(text), schema)
    return True


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize(
    ("pattern", "tokens"),
    [
        ("[0-9]{4}-[0-9]{2}-[0-9]{2}", 10),
        (DATE, 60),
        (DATE, 23),
        ("[A-Z][a-z ,.]{40,300}", 41),
        ("[A-Z][a-z ,.]{40,300}", 90),
        (r"(There|It) (was|is) [a-z ]+\.", 20),
        ("(a{3}|b{100})", 50),
        ("x[a-z]{0,60}(a{3}|b{100})", 90),
        ("(?i:once) [^e]{5,}e", 25),
        ("(no){2,}!?", 9),
    ],
)
def test_the_added_text_matches_as_a_whole_in_every_mode(demo, how, pattern, tokens):
    torch.manual_seed(0)
    for text in written(demo, [PROMPT], max_new_tokens=tokens, pattern=pattern, **how):
        assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize(
    ("pattern", "tokens"),
    [
        ("[a-z]{20}", 20),
        ("(日本|é)+ (😀|x)", 12),
        (r"(once|twice) upon [^ ]+ [a-zé]+\.", 25),
        ('"[^"]*"', 8),
        (" *[A-Z]+", 6),
        (r"(?s).{9,}The end\.", 20),
    ],
)
def test_any_causal_model_takes_patterns(small, how, pattern, tokens):
    torch.manual_seed(0)
    for prompt in ("once upon", ""):
        prompts = [prompt] if prompt or small.config.model_type == "gpt2" else ["<s>"]
        if not prompt and small.config.model_type == "gpt2":
            prompts = ["<eos>"]
        for text in written(small, prompts, max_new_tokens=tokens, pattern=pattern, **how):
            assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("spare", [0, 1, 5])
def test_json_parses_and_validates_down_to_the_tightest_budget(small, how, spare):
    automaton = GrammarAutomaton(read_grammar({"json_schema": SCHEMA}), small.tokenizer, small.config.vocab_size)
    prompt = small.tokenizer("once", return_tensors="pt").input_ids[0].tolist()
    state = automaton.before
    for token in prompt:
        state = automaton.advance(state, token)
    needed = len(automaton.plan(automaton.prompt_end(state)))
    assert needed < 60
    torch.manual_seed(0)
    for text in written(small, ["once"], max_new_tokens=needed + spare, json_schema=SCHEMA, **how):
        assert is_valid(text)


PARTS = st.recursive(
    st.sampled_from(["a", "the ", "[a-z]", "[A-Z ]", "[0-9]", ".", "dog", "é"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{3}", "{2,}", "{5,30}"])).map(lambda of: f"({of[0]}){of[1]}"),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(pattern=PARTS, tokens=st.integers(1, 60), how=st.sampled_from(MODES))
def test_any_pattern_is_matched_within_any_budget_or_refused(demo, pattern, tokens, how):
    torch.manual_seed(0)
    try:
        texts = written(demo, [PROMPT], max_new_tokens=tokens, pattern=pattern, **how)
    except ValueError as error:
        texts = []
        if not re.search("needs about [0-9]+ tokens|can be written with the model's alphabet", str(error)):
            raise
    for text in texts:
        assert re.fullmatch(pattern, text), (pattern, text)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(pattern=PARTS, tokens=st.integers(1, 40), how=st.sampled_from(MODES[:5]))
def test_any_pattern_is_matched_by_tokens_that_are_parts_of_characters(small, pattern, tokens, how):
    torch.manual_seed(0)
    try:
        texts = written(small, ["once"], max_new_tokens=tokens, pattern=pattern, **how)
    except ValueError as error:
        texts = []
        if not re.search("needs about [0-9]+ tokens", str(error)):
            raise
    for text in texts:
        assert re.fullmatch(pattern, text), (pattern, text)


def test_a_batch_of_prompts_of_different_lengths(demo, small):
    texts = written(demo, [PROMPT, "The", "A big dog"], max_new_tokens=23, pattern=DATE, do_sample=True)
    assert all(re.fullmatch(DATE, text) for text in texts)
    texts = written(
        small, ["once", "once upon a time there was"], max_new_tokens=50, json_schema=SCHEMA, do_sample=True
    )
    assert all(is_valid(text) for text in texts)


def test_a_row_comes_out_in_a_batch_as_alone(demo):
    how = {"max_new_tokens": 60, "do_sample": True, "seed": 4, "pattern": "[A-Z][a-z ]+[.!]"}
    prompts = [PROMPT, "The big"]
    assert written(demo, prompts, **how) == [written(demo, [prompt], **how)[0] for prompt in prompts]


@pytest.mark.parametrize(
    ("grammar", "accepted"),
    [
        ('start: "a" start? "b"', r"(a{1}b{1}|a{2}b{2}|a{3}b{3}|a{4}b{4})"),
        ('start: SIDE | SIDE " and " start\nSIDE: /[a-z]{3}/', r"[a-z]{3}( and [a-z]{3})*"),
    ],
)
def test_a_grammar_is_followed(demo, grammar, accepted):
    for seed in range(5):
        text = written(demo, [PROMPT], max_new_tokens=9, grammar=grammar, do_sample=True, seed=seed)[0]
        assert re.fullmatch(accepted, text), text


def test_a_schema_may_be_text_or_a_field_of_the_stored_config(small):
    how = {"max_new_tokens": 50, "do_sample": False}
    expected = written(small, ["once"], json_schema=SCHEMA, **how)
    assert written(small, ["once"], json_schema=json.dumps(SCHEMA), **how) == expected
    config = GenerationConfig(**how, json_schema=SCHEMA, pad_token_id=0)
    assert json.loads(config.to_json_string())["json_schema"] == SCHEMA


def test_json_comes_without_white_space_unless_the_schema_asks_for_it(small):
    compact = written(small, ["once"], json_schema=SCHEMA, max_new_tokens=60, do_sample=True, temperature=3.0)[0]
    assert json.dumps(json.loads(compact), separators=(",", ":"), ensure_ascii=False)[:5] == compact[:5]
    assert not re.search(r"[{,:]\s", re.sub(r'"(\\.|[^"\\])*"', "", compact))
    spaced = SCHEMA | {"x-guidance": {"whitespace_flexible": True}}
    assert is_valid(written(small, ["once"], json_schema=spaced, max_new_tokens=60, do_sample=True)[0])


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ({"pattern": "a("}, "pattern: 'a(' is not valid: unclosed group"),
        ({"pattern": r"\bfoo"}, r"lookarounds not supported"),
        ({"pattern": 5}, "pattern has to be a regular expression but is 5"),
        ({"pattern": "a{2}é"}, "pattern: no text that matches can be written with the model's alphabet"),
        ({"pattern": "a{20}"}, "pattern: a text that matches needs about 20 tokens but 10 may be added: allow more"),
        ({"pattern": "a", "grammar": 'start: "a"'}, "pattern and grammar are set, but a text can match only one"),
        ({"json_schema": "{"}, "json_schema: not valid JSON: EOF while parsing"),
        ({"json_schema": {"type": "strin"}}, "json_schema: it is not valid: Invalid type: strin"),
        ({"json_schema": 5}, "json_schema has to be a JSON schema, as a dict or as text, but is 5"),
        ({"json_schema": SCHEMA}, "json_schema: no text that matches can be written with the model's alphabet"),
        ({"grammar": "start: foo"}, 'grammar: it is not valid: at 1(8): unknown name: "foo"'),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_computed(demo, control, message, monkeypatch):
    monkeypatch.setattr(demo.model, "forward", lambda *args, **kwargs: pytest.fail("the model was run"))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        written(demo, [PROMPT], max_new_tokens=10, **control)
    assert "\n" not in str(caught.value)


def test_without_the_package_one_line_says_how_to_get_it(demo, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    line = r"pattern needs the package llguidance: pip install 'fundamentallm-hf\[structured\]'"
    with pytest.raises(ValueError, match=line):
        written(demo, [PROMPT], max_new_tokens=10, pattern="a")
    result = CliRunner().invoke(cli, ["generate", "missing.pt", "--pattern", "a"])
    assert result.exit_code == 1
    assert re.search(line, result.stderr)
    assert result.stderr.count("\n") == 1


def test_the_settings_take_content_and_the_command_takes_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "integer", "minimum": 10, "maximum": 99}))
    model = str(FIXTURES / "learned" / "final_model.pt")

    def run(*arguments):
        return CliRunner().invoke(cli, ["generate", *map(str, arguments)], prog_name="fundamentallm")

    bad = tmp_path / "bad.lark"
    bad.write_text("start: foo")
    missing = run(model, "--json-schema", "none.json")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "Invalid value for '--json-schema': cannot read 'none.json': No such file or directory" in missing.stderr
    wrong = run("missing.pt", "--grammar", bad)
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert 'grammar: it is not valid: at 1(8): unknown name: "foo"' in wrong.stderr
    both = run("missing.pt", "--grammar", bad, "--pattern", "a")
    assert "pattern and grammar are set" in both.stderr
    assert "--json-schema FILE" in run("--help").stdout
    number = run(model, "--json-schema", schema, "--prompt", "To be ", "--max-tokens", 5)
    assert re.fullmatch(r"To be [1-9][0-9]\n", number.stdout)
    good = run(model, "--pattern", "[a-z]{3}", "--prompt", "To be", "--max-tokens", 5)
    assert re.fullmatch(r"To be[a-z]{3}\n", good.stdout)
    # In Python the value is what it says, never a path.
    with pytest.raises(UserError, match="json-schema: not valid JSON"):
        GenerationSettings(json_schema=str(schema)).check()
    assert GenerationSettings(json_schema={"type": "integer"}).json_schema == '{"type": "integer"}'
    assert [name for name, setting in SETTINGS.items() if setting.from_file] == ["json_schema", "grammar"]


def test_a_model_without_an_end_of_text_token_ends_where_the_text_is_complete(shakespeare, caplog):
    generator = Generator(shakespeare, seed=1)
    for how in ({"temperature": 0}, {"temperature": 1.5}, {"beam_size": 3}):
        done = generator.complete("To be", pattern="(yes|no), my lord", max_tokens=40, **how)[0]
        assert done.completion in ("yes, my lord", "no, my lord")
        assert (done.finish_reason, done.tokens) == ("complete", len(done.completion))
    several = generator.complete(["To be", "KING:"], pattern="[A-Z]{2,5}!", max_tokens=40, num_samples=3)
    assert all(re.fullmatch("[A-Z]{2,5}!", done.completion) for done in several)
    assert {done.finish_reason for done in several} == {"complete"}
    assert "leave no continuation" not in caplog.text
    # What can go on is not ended: it is complete when its tokens are used up, and said to be.
    done = generator.complete("To be", pattern="[a-z]+", max_tokens=9)[0]
    assert (len(done.completion), done.finish_reason) == (9, "complete")


def test_a_complete_text_that_ends_by_a_token_is_told_as_complete(demo):
    done = Generator(demo, temperature=0).complete(PROMPT, pattern=DATE, max_tokens=60)[0]
    assert re.fullmatch(DATE, done.completion)
    assert done.finish_reason == "complete"


def test_streamed_text_is_the_same(demo):
    generator = Generator(demo, pattern=DATE, seed=3, max_tokens=60)
    with generator.stream(PROMPT) as stream:
        pieces = "".join(stream)
    assert pieces == stream.result.completion == generator.complete(PROMPT)[0].completion


def test_a_full_window_is_a_budget_too(shakespeare):
    done = Generator(shakespeare, seed=0).complete(
        "To be, or not to be. " * 5, pattern=r"[A-Z][a-z ]*\.", max_tokens=500, overflow="stop"
    )[0]
    assert re.fullmatch(r"[A-Z][a-z ]*\.", done.completion)
    assert done.tokens <= 23


@pytest.mark.parametrize("how", MODES)
def test_it_combines_with_words_that_must_and_must_not_appear(demo, how):
    torch.manual_seed(0)
    pattern = "[A-Z][a-z ,.]{40,300}"
    control = {"pattern": pattern, "must_include": ["dog"], "bad_words": ["the", "was"], "repetition_penalty": 1.2}
    for text in written(demo, [PROMPT], max_new_tokens=80, **control, **how):
        assert re.fullmatch(pattern, text), text
        assert re.search(r"\bdog\b", text, re.IGNORECASE), text
        assert not re.search(r"\b(the|was)\b", text, re.IGNORECASE), text


def test_a_stop_text_ends_the_text_only_where_it_matches(demo):
    generator = Generator(demo, seed=0, max_tokens=60)
    for stop in (".", "e"):
        done = generator.complete(PROMPT, pattern=r"[A-Z][a-z ]{9,}[a-z. ]*", stop=[stop])[0]
        assert re.fullmatch(r"[A-Z][a-z ]{9,}[a-z. ]*", done.completion)
    # Where the text matches only with the stop text, which the completion is given without, it cannot end there.
    done = generator.complete(PROMPT, pattern=r"[a-z ]+\.", stop=["."])[0]
    assert "." not in done.completion
    assert done.finish_reason == "blocked"


def test_what_is_closed_by_another_control_is_told(demo):
    with pytest.raises(UserError, match="nothing that the other controls allow can be written without a bad word"):
        Generator(demo, temperature=0).complete(PROMPT, pattern="the dog", bad_words=["dog"], max_tokens=20)
    done = Generator(demo, temperature=0).complete(PROMPT, pattern="a cat", min_tokens=10, max_tokens=20)[0]
    assert (done.completion, done.finish_reason) == ("a cat", "blocked")


def test_a_model_without_an_end_does_not_end_before_what_must_be_there(shakespeare):
    done = Generator(shakespeare, seed=0).complete(
        "To be", pattern="(to )?(cat|dog)", must_include=["dog"], max_tokens=20
    )[0]
    assert done.finish_reason == "blocked" or done.completion.endswith("dog")


def test_assisted_decoding_gives_the_greedy_text(demo):
    how = {"max_new_tokens": 60, "do_sample": False, "pattern": r"[A-Z][a-z ]+, the [a-z ]+\."}
    text = written(demo, [PROMPT], **how)
    assert re.fullmatch(how["pattern"], text[0])
    assert written(demo, [PROMPT], prompt_lookup_num_tokens=4, **how) == text


def test_a_place_follows_from_the_tokens_and_is_not_changed_by_looking_ahead(demo):
    automaton = GrammarAutomaton(read_grammar({"pattern": "ab(c|d)"}), demo.tokenizer, len(demo.tokenizer))
    start = automaton.prompt_end(automaton.before)
    a, b, c, z = (demo.tokenizer(letter).input_ids[0] for letter in "abcz")
    assert automaton.plan(start) is not None
    assert automaton.plans_behind(start, [a], limit=2) == {a: automaton.plan(automaton.advance(start, a))}
    assert automaton.plans_behind(start, [a], limit=1) == {}
    assert automaton.open(start).nonzero().flatten().tolist() == [a]
    behind = automaton.advance(automaton.advance(start, a), b)
    assert [automaton.complete(state) for state in (start, behind, automaton.advance(behind, c))] == [
        False,
        False,
        True,
    ]
    assert automaton.advance(start, z).matcher is None
    assert (automaton.matches("abc"), automaton.matches("ab"), automaton.matches("abé")) == (True, False, False)


@pytest.mark.parametrize("whole", [{"pattern": DATE}, {"json_schema": SCHEMA["properties"]["d"]}])
@pytest.mark.parametrize("make", [byte_level_gpt2, sentencepiece_llama])
def test_the_processor_works_alone_in_a_list_of_processors(make, whole):
    model = make()
    ids = model.tokenizer(PROMPT, return_tensors="pt").input_ids.expand(3, -1)
    processor = WholeTextLogitsProcessor(whole, model.tokenizer, max_new_tokens=50)
    torch.manual_seed(0)
    output = model.generate(ids, logits_processor=LogitsProcessorList([processor]), do_sample=True, max_new_tokens=50)
    for row in output:
        text = model.tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True).strip()
        if "pattern" in whole:
            assert re.fullmatch(DATE, text)
        else:
            jsonschema.validate(json.loads(text), whole["json_schema"])


def test_alone_it_has_to_know_its_budget_and_refuses_what_does_not_fit():
    tokenizer = byte_level_gpt2().tokenizer
    with pytest.raises(ValueError, match="pass max_new_tokens="):
        WholeTextLogitsProcessor({"pattern": DATE}, tokenizer)
    short = WholeTextLogitsProcessor({"pattern": DATE}, tokenizer, max_new_tokens=2)
    ids = tokenizer("He", return_tensors="pt").input_ids
    with pytest.raises(ValueError, match=r"needs about \d+ tokens but 2 may be added"):
        short(ids, torch.zeros(1, len(tokenizer)))
