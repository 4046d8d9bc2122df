"""Texts of a file of prompts: those that each prompt gets alone, in their order, whatever they are generated with."""

import json

import pytest
from conftest import FIXTURES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from fundamentallm_hf import Generator, UserError, load_model
from fundamentallm_hf.generation import file_run
from fundamentallm_hf.generation.file_run import FileOptions, run_file
from fundamentallm_hf.generation.prompt_files import PromptsFile
from fundamentallm_hf.generation.resumable_output import StreamOutput
from fundamentallm_hf.generation.run_digests import attribute_digest, run_digests
from fundamentallm_hf.portable.guides.attributes import Attribute
from fundamentallm_hf.portable.text.word_counts import WordCounts

RUN = {"max_tokens": 4, "temperature": 0.9}
OWN = [
    {},
    {"seed": 3},
    {"temperature": 0},
    {"num_samples": 2},
    {"num_samples": 3, "best": 2, "seed": 9},
    {"beam_size": 2, "temperature": None},
    {"bad_words": ["the"]},
    {"must_include": ["I"], "max_tokens": 8},
    {"stop": ["e"]},
]
PROMPTS = ["", "To be", "KING: My lord, what is it that you would have me do?", "O", "\n"]
FAILING = {"must_include": ["abcdefghijklmnopq"]}


@pytest.fixture(scope="module")
def generator(shakespeare):
    return Generator(shakespeare, notice=lambda text: None, **RUN)


def records(generator, rows, tmp_path, options=None, **changes):
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = []
    output = StreamOutput(written.append)
    chosen = generator.settings.replace(**changes)
    run_file(generator, PromptsFile(str(file)), output, chosen, options or FileOptions(rows=4))
    return [json.loads(line) for line in "".join(written).splitlines()]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(PROMPTS), st.sampled_from([*OWN, *OWN, FAILING])), min_size=4, max_size=9),
    st.integers(1, 5),
    st.booleans(),
)
def test_a_prompt_gets_the_text_that_it_gets_alone(generator, tmp_path, cases, rows, unordered):
    lines = [{"prompt": prompt, "id": f"p{index}"} | own for index, (prompt, own) in enumerate(cases)]
    found = records(generator, lines, tmp_path, FileOptions(rows=rows, unordered=unordered), seed=7)
    order = list(dict.fromkeys(each["line"] for each in found))
    assert sorted(order) == list(range(1, len(cases) + 1))
    assert unordered or order == sorted(order)
    for index, (prompt, own) in enumerate(cases):
        of_this = [each for each in found if each["line"] == index + 1]
        assert {each["id"] for each in of_this} == {f"p{index}"}
        if own is FAILING:
            assert "abcdefghijklmnopq" in of_this[0]["error"]
            assert set(of_this[0]) == {"id", "line", "prompt", "error"}
            continue
        alone = generator.complete(prompt, **{"seed": 7} | own)
        assert [(each["text"], each["seed"]) for each in of_this] == [(each.text, each.seed) for each in alone]


def test_prompts_of_the_same_settings_and_of_similar_lengths_are_generated_together(generator, tmp_path, monkeypatch):
    seen = []
    whole = generator.iterate

    def iterate(prompts, **options):
        seen.append((list(prompts), options["seed"]))
        return whole(prompts, **options)

    monkeypatch.setattr(generator, "iterate", iterate)
    rows = [{"prompt": "a" * (1 + index % 2 * 20), "seed": index % 3 // 2} for index in range(12)]
    records(generator, rows, tmp_path)
    assert sorted(len(prompts) for prompts, _ in seen) == [4, 4, 4]
    assert sum(len({len(prompt) for prompt in prompts}) == 1 for prompts, _ in seen) == 2


def test_without_a_seed_all_prompts_have_one_that_the_records_tell(generator, tmp_path):
    first = records(generator, [{"prompt": "To be"}, {"prompt": "O", "seed": None}, {"prompt": "O"}], tmp_path)
    seeds = {each["seed"] for each in first}
    assert len(seeds) == 1
    assert first[1]["text"] == first[2]["text"] == generator.complete("O", seed=seeds.pop())[0].text
    again = records(generator, [{"prompt": "To be"}], tmp_path)
    assert again[0]["seed"] != first[0]["seed"]


def test_one_that_nobody_expected_is_an_error_and_many_in_a_row_end_the_run(generator, tmp_path, monkeypatch):
    whole = generator.iterate

    def iterate(prompts, **options):
        if any(prompt.startswith("bad") for prompt in prompts):
            raise RuntimeError("out of\nmemory")
        return whole(prompts, **options)

    monkeypatch.setattr(generator, "iterate", iterate)
    found = records(generator, [{"prompt": each} for each in ("a", "bad", "b", "c", "bad", "d")], tmp_path)
    wrong = "RuntimeError: out of memory"
    assert [each.get("error") for each in found] == [None, wrong, None, None, wrong, None]
    many = [{"prompt": "bad"}] * file_run.MOST_UNEXPECTED
    with pytest.raises(RuntimeError, match="out of"):
        records(generator, many, tmp_path)
    assert len(records(generator, many[1:], tmp_path)) == file_run.MOST_UNEXPECTED - 1


def test_the_records_hold_probabilities_on_request(generator, tmp_path):
    found = records(
        generator, [{"prompt": "a"}, {"prompt": "b", "bad_words": "x"}], tmp_path, FileOptions(4, True, None, 3)
    )
    for each in found:
        assert [len(of["alternatives"]) for of in each["probabilities"]] == [3] * 4
        assert len(each["next_tokens"]) >= 3


def test_python_continues_a_run_and_says_how_many(generator, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "num_samples": 2}\n{}\n')
    out = str(tmp_path / "out.jsonl")
    summary = generator.complete_file(str(tmp_path / "in.jsonl"), out, max_tokens=2)
    assert (summary.texts, summary.errors, summary.was_complete) == (3, 1, False)
    before = (tmp_path / "out.jsonl").read_text()
    again = generator.complete_file(str(tmp_path / "in.jsonl"), out, max_tokens=2, options=FileOptions(rows=1))
    assert (again.texts, again.errors, again.was_complete) == (3, 1, True)
    with pytest.raises(UserError, match=r"another run \(changed: max-tokens 2 to 3\)"):
        generator.complete_file(str(tmp_path / "in.jsonl"), out, max_tokens=3)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(UserError, match=r"another run \(changed: input\)"):
        generator.complete_file(str(tmp_path / "in.jsonl"), out, max_tokens=2)
    assert (tmp_path / "out.jsonl").read_text() == before


def test_ended_at_any_batch_it_goes_on_as_if_nothing_had_been(generator, tmp_path):
    """A run that is broken off, by an exception at each of its batches, in both orders."""
    lines = [{"prompt": "a" * (1 + index * 7 % 5), "seed": index % 2} for index in range(18)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = PromptsFile(str(tmp_path / "in.jsonl"))
    for unordered in (False, True):
        options = FileOptions(rows=3, unordered=unordered)
        whole = tmp_path / f"whole-{unordered}.jsonl"
        generator.complete_file(file, str(whole), options=options, max_tokens=2)
        out = tmp_path / f"out-{unordered}.jsonl"
        for _ in range(100):
            written = generator.iterate
            calls = iter(range(2))

            def iterate(prompts, calls=calls, written=written, **settings):
                if next(calls, None) is None:
                    raise KeyboardInterrupt
                return written(prompts, **settings)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(generator, "iterate", iterate)
                try:
                    generator.complete_file(file, str(out), options=options, max_tokens=2)
                    break
                except KeyboardInterrupt:
                    continue
        ours, theirs = out.read_text().splitlines(), whole.read_text().splitlines()
        assert sorted(ours) == sorted(theirs)
        assert unordered or ours == theirs


@pytest.fixture
def fresh():
    """A generator with a model that the test may change."""
    return Generator(load_model(FIXTURES / "learned" / "final_model.pt", device="cpu"), notice=lambda text: None)


def happy(weight=1.0, **more):
    return Attribute("words", words={"king": weight}, **more)


def retrain(model):
    model.get_output_embeddings().weight.data.reshape(-1)[1].mul_(1.001)  # a single weight


def replace_tokenizer(model):
    state = json.loads(model.tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"] = {
        {"a": "b", "b": "a"}.get(token, token): number for token, number in state["model"]["vocab"].items()
    }
    model.tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))


def reconfigure(model):
    model.generation_config.temperature = 0.1


def recount(model):
    model.word_counts = WordCounts({"king": 4})


def reweight(model):
    model.attributes = {"happy": happy(2)}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (retrain, "model"),
        (reconfigure, "model"),
        (replace_tokenizer, "tokenizer"),
        (recount, "word-counts"),
        (reweight, "attribute happy"),
    ],
)
def test_a_run_does_not_continue_with_a_changed_model(change, name, fresh, tmp_path):
    fresh.model.word_counts, fresh.model.attributes = WordCounts({"king": 3}), {"happy": happy()}
    (tmp_path / "in.txt").write_text("a\nb\n")
    command = {"max_tokens": 1, "guide_attribute": "happy"}

    def again():
        return fresh.complete_file(str(tmp_path / "in.txt"), str(tmp_path / "out.jsonl"), **command)

    assert not again().was_complete
    fresh.model.attributes = {"happy": happy(description="other"), "unnamed": happy()}
    assert again().was_complete
    change(fresh.model)
    with pytest.raises(UserError, match=rf"another run \(changed: {name}\)"):
        again()


def test_two_copies_of_a_model_have_the_same_digests(fresh, generator, tmp_path):
    fresh.tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)
    fresh.model.save_pretrained(tmp_path)
    first, second = (run_digests(each.model, each.tokenizer, each.settings) for each in (fresh, generator))
    assert first == second
    assert first["attribute"] == {}


def test_the_digest_of_a_classifier_is_that_of_its_files(tmp_path):
    def classifier(name, content):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
        return attribute_digest(Attribute("classifier", classifier=tmp_path / name))

    first, same, other = classifier("a", "{}"), classifier("b", "{}"), classifier("c", "[]")
    assert first == same != other
