"""Texts of many requests together: each the same as alone, whatever happens to the others."""

import random
import threading
import time

import pytest
from small_models import byte_level_gpt2

from fundamentallm_hf import Generator
from fundamentallm_hf.generation import batch_run
from fundamentallm_hf.generation import batcher as batcher_module
from fundamentallm_hf.generation.batcher import Batcher, Request
from fundamentallm_hf.generation.completion import Completion
from fundamentallm_hf.model_io.loading import load_model
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.training.draft_training import count_ngrams

PROMPTS = ("To be", "KING", "My lord, ", "x" * 100, "What is the matter? " * 8, "")


@pytest.fixture
def generator(shakespeare):
    return Generator(shakespeare, notice=lambda line: None, max_tokens=40)


@pytest.fixture
def batcher(generator):
    running = Batcher(generator, rows=6)
    yield running
    running.close()


def drawn(chance):
    """The settings of a request."""
    sampling = {"temperature": chance.choice([0.5, 0.8, 1.3]), "seed": chance.randrange(1000)}
    settings = chance.choice(
        [{"temperature": 0}, sampling, sampling | {"top_p": 0.9}, sampling | {"top_k": 5, "min_p": 0.02}]
    )
    controls = [
        {},
        {"bad_words": ["the", "and"]},
        {"must_include": ["sword"]},
        {"must_include": ["night|day", "blood"], "bad_words": ["the*", "s*"], "max_tokens": 80},
        {"end_at": "sentence", "max_tokens": 70},
        {"words": "4-9", "must_include": ["king"], "max_tokens": 90},
        {"starts_with": "the king", "ends_with": ["The end.", "my lord"], "max_tokens": 60},
        {"repetition_penalty": 1.2},
        {"no_repeat_ngram": 2},
        {"stop": ["e"], "min_tokens": 4},
        {"pattern": "[a-z ]{3,30}\\."},
        {"speculate": False},
        {"beam_size": 2},
        {"overflow": "stop"},
    ]
    return settings | {"max_tokens": chance.choice([4, 7, 40, 90])} | chance.choice(controls)


@pytest.fixture
def drafts(shakespeare):
    """Makes the model draft from its own samples, so that many drafts are kept."""
    ids = shakespeare.tokenizer("To be", return_tensors="pt").input_ids
    own = shakespeare.generate(ids, max_new_tokens=250, do_sample=True, temperature=0.5, seed=1, top_k=0)[0].tolist()
    shakespeare.draft_table = count_ngrams(own, order=6)
    yield
    shakespeare.draft_table = None


@pytest.mark.parametrize("seed", range(4))
def test_each_text_is_the_same_as_alone(generator, batcher, seed):
    compare_with_alone(generator, batcher, random.Random(seed))


@pytest.mark.parametrize("seed", range(4, 10))
def test_each_text_is_the_same_as_alone_with_many_drafts(drafts, generator, batcher, seed):
    compare_with_alone(generator, batcher, random.Random(seed))


def outcome(function, *given, **more):
    """What it returns, or the text of the error that it raises."""
    try:
        return function(*given, **more)
    except UserError as error:
        return str(error)


def compare_with_alone(generator, batcher, chance):
    asked = [(chance.choice(PROMPTS), drawn(chance)) for _ in range(14)]
    extras = {"scored": True, "probabilities": 3}
    expected = [outcome(generator.complete, prompt, **extras, **settings) for prompt, settings in asked]
    requests = []
    for prompt, settings in asked:
        requests.append(batcher.submit(prompt, **extras, **settings))
        time.sleep(chance.choice([0, 0, 0.03]))  # some join while others run
    found = [outcome(request.future.result, 60) for request in requests]
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, str):  # a prompt that fills the window, for instance
            assert one == other
            continue
        (other,) = other
        assert (one.text, one.finish_reason, one.seed, one.tokens) == (
            other.text,
            other.finish_reason,
            other.seed,
            other.tokens,
        )
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)
        chances = [[each.probability for each in text.probabilities] for text in (one, other)]
        assert chances[0] == pytest.approx(chances[1], abs=1e-4)


def test_texts_of_any_length_are_the_same_as_alone():
    """Keys and values take more columns as texts grow, and the context slides at the window."""
    demo = load_model()
    generator = Generator(demo, notice=lambda line: None, max_tokens=40)
    window = demo.config.max_position_embeddings
    asked = [
        (("Once upon a time. " * window)[:length], {"seed": seed, **controls})
        for seed, length in enumerate((5, 240, 255, 500, window // 2, window - 20, window, window + 30))
        for controls in ({}, {"must_include": ["dragon"]})
    ]
    running = Batcher(generator, rows=6)
    requests = [running.submit(prompt, **settings) for prompt, settings in asked]
    together = [request.future.result() for request in requests]
    running.close()
    assert [each.text for each in together] == [
        generator.complete(prompt, **settings)[0].text for prompt, settings in asked
    ]


def test_texts_share_their_passes(batcher):
    requests = [batcher.submit("To be", seed=seed, temperature=0.8, speculate=False) for seed in range(6)]
    tokens = sum(request.future.result(60).tokens for request in requests)
    assert tokens == 6 * 40
    assert batcher.counts.tokens == tokens
    assert batcher.counts.passes < 60
    assert batcher.counts.advanced > 2 * batcher.counts.passes


@pytest.mark.parametrize("seed", range(6))
def test_a_score_takes_no_further_pass_and_is_that_of_the_text(generator, batcher, seed, monkeypatch):
    chance = random.Random(f"scored {seed}")
    prompt, settings = chance.choice(PROMPTS), drawn(chance) | {"beam_size": 1}
    alone = outcome(lambda: generator.complete(prompt, scored=True, **settings)[0])

    def further_pass(model, row, first):
        assert len(row) == first  # nothing was added, so nothing is computed
        return 0.0

    monkeypatch.setattr(batch_run, "log_probability", further_pass)
    scored = outcome(lambda: batcher.submit(prompt, scored=True, **settings).future.result())
    seen = outcome(lambda: batcher.submit(prompt, scored=True, probabilities=3, **settings).future.result())
    if isinstance(alone, Completion):
        assert alone.text == scored.text == seen.text
        assert scored.log_probability == seen.log_probability == pytest.approx(alone.log_probability, abs=1e-3)
    else:
        assert alone == scored == seen


def test_pieces_arrive_while_a_text_grows(batcher, slow_model):
    pieces = []
    request = batcher.submit("To be", temperature=0.8, seed=1, take=pieces.append)
    while not request.future.done():
        seen = len(pieces)
        time.sleep(0.02)
    assert seen > 0
    assert "".join(pieces) == request.future.result().completion


def test_a_stop_ends_its_text_alone(batcher, slow_model):
    requests = [batcher.submit("To be", temperature=0.8, seed=seed, max_tokens=60) for seed in range(3)]
    while requests[1].began is None:
        time.sleep(0.01)
    began = time.monotonic()
    requests[1].interrupt.set()
    assert requests[1].future.result(1).finish_reason == "interrupted"
    assert time.monotonic() - began < 1
    assert [requests[i].future.result(60).finish_reason for i in (0, 2)] == ["length"] * 2


def test_a_stop_reaches_those_that_wait(batcher, slow_model):
    for seed in range(6):
        batcher.submit("To be", temperature=0.8, seed=seed, max_tokens=300)
    late = [batcher.submit("To be", temperature=0.8, seed=7) for _ in range(2)]
    while batcher.ahead(late[0]) != 0:
        time.sleep(0.01)
    assert batcher.ahead(late[1]) == 1
    late[1].interrupt.set()
    assert late[1].future.result(1).tokens <= 1
    assert batcher.ahead(late[1]) is None


@pytest.mark.parametrize("settings", [{"must_include": ["a" * 100]}, {"guide_attribute": ["no_such"]}])
def test_an_impossible_request_fails_alone(generator, batcher, settings):
    good = [batcher.submit("To be", seed=seed, temperature=0.8) for seed in range(3)]
    bad = batcher.submit("To be", **settings)
    with pytest.raises(UserError) as alone:
        generator.complete("To be", **settings)
    with pytest.raises(UserError) as together:
        bad.future.result(60)
    assert str(together.value) == str(alone.value)
    assert bad.accepted.exception() is together.value
    assert [each.future.result(60).tokens for each in good] == [40] * 3
    assert batcher.counts.failed == 1


def test_an_error_within_a_text_ends_it_alone(generator, batcher):
    expected = [generator.complete("To be", seed=seed, temperature=0.8)[0].text for seed in (0, 2)]

    def fail(piece):
        raise OSError("gone")

    requests = [
        batcher.submit("To be", seed=seed, temperature=0.8, take=fail if seed == 1 else None) for seed in range(3)
    ]
    with pytest.raises(OSError, match="gone"):
        requests[1].future.result(60)
    assert [requests[i].future.result(60).text for i in (0, 2)] == expected


def test_an_error_of_a_common_choice_ends_only_the_text_that_has_it(generator, batcher, monkeypatch):
    expected = [generator.complete("To be", seed=seed, temperature=0.8)[0].text for seed in (0, 2)]
    choose = batcher_module.choose_together

    def failing(loops, logits):
        if any(loop.chooser is not None and loop.chooser.streams[0].initial_seed() == 1 for loop in loops):
            raise ValueError("no number")
        return choose(loops, logits)

    monkeypatch.setattr(batcher_module, "choose_together", failing)
    requests = [batcher.submit("To be", seed=seed, temperature=0.8) for seed in range(3)]
    with pytest.raises(ValueError, match="no number"):
        requests[1].future.result(60)
    assert [requests[i].future.result(60).text for i in (0, 2)] == expected


def test_beams_take_turns_and_keep_their_random_numbers(generator, batcher):
    settings = [{"beam_size": 3, "temperature": 0.9, "seed": seed} for seed in range(5)]
    expected = [generator.complete("To be", **each)[0].text for each in settings]
    plain, pieces = batcher.submit("To be", seed=1, temperature=0.8), []
    requests = [batcher.submit("To be", take=pieces.append, **each) for each in settings]
    assert [each.future.result(60).text for each in requests] == expected
    assert sorted(pieces) == sorted(text.removeprefix("To be") for text in expected)
    assert plain.future.result(60).text == generator.complete("To be", seed=1, temperature=0.8)[0].text


def test_other_models_take_turns():
    model = byte_level_gpt2()
    generator = Generator(model, model.tokenizer, notice=lambda line: None, max_tokens=12)
    settings = [{"temperature": 0.9, "seed": seed, "bad_words": ["/[a-m]/"]} for seed in range(5)]
    expected = [generator.complete("once", **each)[0].text for each in settings]
    running = Batcher(generator)
    assert [each.future.result(60).text for each in [running.submit("once", **each) for each in settings]] == expected
    running.close()


def test_closing_fails_what_is_left(generator, slow_model):
    running = Batcher(generator, rows=2)
    requests = [running.submit("To be", max_tokens=300) for _ in range(3)]
    running.close()
    for each in requests:
        with pytest.raises(RuntimeError, match="being stopped"):
            each.future.result(5)
    with pytest.raises(RuntimeError, match="being stopped"):
        running.submit("To be")


def test_any_other_computation_gets_the_model_for_itself(batcher):
    names = []
    request = batcher.add(Request(lambda turn: names.append(threading.current_thread().name)))
    request.future.result(60)
    assert names == ["fundamentallm-turns"]
