"""The page's computations: texts equal those of the library, stops, and time limits."""

import dataclasses
import pickle
import threading
import time

import pytest
from toy_tokenizers import FAMILIES, toy_model

from fundamentallm_hf import GenerationSettings, Generator, load_model
from fundamentallm_hf.generation.chat import ChatPrompt
from fundamentallm_hf.generation.probabilities import TokenNames
from fundamentallm_hf.web import runner
from fundamentallm_hf.web.growing_text import GrowingText, find_shifts
from fundamentallm_hf.web.limits import LIMITS
from fundamentallm_hf.web.runner import Wanted, Writer
from fundamentallm_hf.web.stops import Stops


@pytest.fixture
def writer(shakespeare):
    return Writer(Generator(shakespeare, notice=lambda text: None))


def settings(**changes):
    return GenerationSettings(**{"max_tokens": 30, "temperature": 0.8, "seed": 5} | changes)


KINDS = [{}, {"num_samples": 3}, {"num_samples": 3, "best": 2}, {"beam_size": 3}, {"beam_size": 3, "num_samples": 2}]


def told(completion):
    return completion.text, completion.finish_reason, completion.seed, completion.tokens, completion.sample


@pytest.mark.parametrize("changes", KINDS)
def test_texts_are_those_of_the_library(writer, changes):
    *_, last = writer.write("To be", settings(**changes))
    expected = writer.generator.complete("To be", **settings(**changes).to_dict())
    assert [told(each.completion) for each in last] == [told(each) for each in expected]
    assert all(len(each.completion.probabilities) == 30 for each in last)


def test_texts_grow(writer):
    for before, after in zip(*[list(writer.write("To be", settings(num_samples=2)))[i:] for i in (0, 1)], strict=False):
        assert len(before) == len(after) == 2
        assert all(later.text.startswith(earlier.text) for earlier, later in zip(before, after, strict=True))


@pytest.mark.parametrize("changes", KINDS)
def test_what_is_not_wanted_is_not_computed_and_changes_no_text(writer, changes):
    *_, expected = writer.write("To be", settings(**changes))
    *before, last = writer.write("To be", settings(**changes), wanted=Wanted(growing=False, probabilities=False))
    assert [told(each.completion) for each in last] == [told(each.completion) for each in expected]
    scores = [each.completion.log_probability for each in last]
    assert scores == pytest.approx([each.completion.log_probability for each in expected], abs=1e-3)
    assert all(each.completion.probabilities is None for each in last)
    if writer.generator.settings.replace(**changes).beam_size == 1:
        assert not any(each.text for texts in before for each in texts if each.completion is None)


def test_the_first_characters_are_shown_at_once_and_the_end_waits_for_no_pace(writer, slow_model, monkeypatch):
    monkeypatch.setattr(runner, "PACE", 60)
    began = time.monotonic()
    (waiting,), (started,), (finished,) = writer.write("To be", settings(speculate=False))
    assert time.monotonic() - began < 50
    assert waiting.text == ""
    assert waiting.completion is started.completion is None
    assert 0 < len(started.text) < len(finished.text) == 30


@pytest.mark.parametrize("changes", [{}, {"num_samples": 3}, {"num_samples": 3, "best": 2}, {"beam_size": 2}])
def test_a_text_takes_as_long_as_its_passes_however_short_it_is(writer, slow_model, changes):
    *_, last = writer.write("To be", settings(max_tokens=1, **changes))
    assert all(0.03 <= each.seconds < 10 for each in last)


@pytest.mark.parametrize("changes", [{}, {"num_samples": 2}])
def test_the_best_beam_is_shown_while_it_may_still_change(writer, slow_model, changes):
    updates = list(writer.write("To be", settings(beam_size=3, max_tokens=40, temperature=None, seed=None, **changes)))
    growing = [texts[0] for texts in updates if texts[0].completion is None and texts[0].text]
    assert len(growing) > 3
    for each in growing:
        assert updates[-1][0].text.startswith(each.text[: each.settled])
    assert any(each.settled < len(each.text) for each in growing)
    *parts, (written, branches) = writer.search("To be", settings(beam_size=3, max_tokens=40))
    assert any(part.text and not found for part, found in parts)
    assert branches[0].text == written.text


def test_where_controls_shift_a_text_is_known_while_it_grows(writer, slow_model):
    changes = settings(bad_words=["the", "a*"], must_include=["king"], max_tokens=60)
    updates = [texts[0] for texts in writer.write("To be", changes)]
    last, growing = updates[-1], [each for each in updates if each.completion is None and each.shifts]
    assert growing
    assert last.shifts
    assert {each.phase for each in last.shifts} <= {"ban", "require"}
    for each in growing:
        assert each.shifts == tuple(shift for shift in last.shifts if shift.start < len(each.text))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_growing_text_is_marked_as_the_finished_one(family):
    """Also where the text of one token begins with that of another."""
    model = toy_model(family)
    generator = Generator(model, model.tokenizer, notice=lambda text: None)
    names, found = TokenNames(model.tokenizer), 0
    controls = {"bad_words": ["the", "/[a-r]/"], "must_include": ["xyz*"], "temperature": 1.5, "max_tokens": 25}
    for seed in range(4):
        growing, stream = GrowingText(names), generator.stream("The cat", seed=seed, probabilities=3, **controls)
        for piece in stream:
            growing.take(piece)
        told = [dataclasses.replace(each, start=0) for each in growing.fields()["shifts"]]
        marked = [dataclasses.replace(each, start=0) for each in find_shifts(stream.result.probabilities, names)]
        # Bytes at the end that make no character are in no piece.
        assert told == marked[: len(told)]
        found += len(told)
    assert found > 20


def test_a_stop_ends_all_texts_of_a_request(writer, slow_model):
    writer.stops.open("me")
    updates = writer.write("To be", settings(max_tokens=400, num_samples=3), "me")
    next(updates)
    next(updates)
    writer.stops.stop("me")
    *_, last = updates
    assert [each.completion.finish_reason for each in last] == ["interrupted"] * 3
    assert all(each.completion.tokens < 400 for each in last)
    assert len(last[0].completion.probabilities) == last[0].completion.tokens
    assert len(writer.stops) == 0


def test_a_request_that_is_stopped_while_it_waits_ends_at_once(writer):
    writer.stops.open("me")
    writer.stops.stop("me")
    *_, last = writer.write("To be", settings(max_tokens=400, num_samples=2), "me")
    assert len(last) == 2
    assert all(each.completion.tokens <= 1 for each in last)


def test_a_generator_that_is_left_ends_the_computation(writer, slow_model):
    list(writer.write("To be", settings(max_tokens=1)))  # starts the thread that computes
    before = threading.active_count()
    updates = writer.write("To be", settings(max_tokens=500), "me")
    next(updates)
    next(updates)
    updates.close()
    ended = time.monotonic() + 1
    while writer.batcher.counts.running and time.monotonic() < ended:
        time.sleep(0.01)
    assert not writer.batcher.counts.running
    assert threading.active_count() == before
    assert len(writer.stops) == 0


def test_time_is_limited(shakespeare, slow_model):
    limits = dataclasses.replace(LIMITS, seconds=0.2)
    writer = Writer(Generator(shakespeare, notice=lambda text: None), limits=limits)
    *_, last = writer.write("To be", settings(max_tokens=2000))
    assert last[0].completion.finish_reason == "interrupted"
    *_, last = writer.write("To be", settings(max_tokens=2000, num_samples=2, best=1))
    assert last[0].completion.finish_reason == "interrupted"
    *_, (written, branches) = writer.search("To be", settings(max_tokens=2000, beam_size=3))
    assert written.completion.finish_reason == "interrupted"
    assert branches


def test_the_pull_of_a_guide_is_there_while_the_text_grows(slow_model):
    writer = Writer(Generator(load_model(device="cpu"), notice=lambda text: None))
    guided = settings(guide_attribute=["positive_sentiment"], guide_strength=3, max_tokens=60)
    *parts, (last,) = writer.write("She was", guided)
    growing = [written for (written,) in parts if written.completion is None and written.pulls]
    assert growing
    for each in growing:
        # The last word may still become a longer one.
        whole = [pull for pull in each.pulls if pull.end < len(each.text)]
        final = {(pull.start, pull.end): pull.nats for pull in last.pulls}
        assert [final[pull.start, pull.end] for pull in whole] == pytest.approx([pull.nats for pull in whole])


def test_a_chat_is_answered_as_by_the_library(shakespeare, monkeypatch):
    monkeypatch.setattr(shakespeare.tokenizer, "chat_template", "{{ messages[-1].content }}:")
    writer = Writer(Generator(shakespeare, notice=lambda text: None))
    asked = [{"role": "user", "content": "To be"}, {"role": "assistant", "content": "or"}]
    for chat in (asked[:1], asked):
        prompt = writer.read_prompt("", chat)
        *_, (written,) = writer.write(prompt, settings())
        assert written.completion.text == writer.generator.generate(chat, **settings().to_dict())
        *_, (found, _) = writer.search(prompt, settings(beam_size=2))
        assert found.completion.prompt.messages == chat


def test_a_comparison_writes_a_text_for_each(writer):
    columns = [settings(temperature=each) for each in (0.2, 1.4)]
    *_, last = writer.compare("To be", columns)
    expected = [writer.generator.generate("To be", **each.to_dict()) for each in columns]
    assert [each.prompt + each.text for each in last] == expected


def test_slides_of_the_window_are_counted(writer):
    *_, (written,) = writer.write("x" * 100, settings(max_tokens=120))
    assert written.slides == 2  # of 128 tokens, by half of it


def test_what_goes_to_another_process_and_comes_back_can_be_sent(shakespeare, slow_model):
    """A stand-in for ZeroGPU's decorator: all that goes in and out is sent, and an event of ours stays here."""

    def apart(function):
        def call(*arguments):
            found = function(*pickle.loads(pickle.dumps(arguments)))
            return pickle.loads(pickle.dumps(found))

        def stream(*arguments):
            prompt, settings, _, *wanted = pickle.loads(pickle.dumps(arguments))
            for each in function(prompt, settings, "", *wanted):  # the ticket means nothing over there
                yield pickle.loads(pickle.dumps(each))

        return stream if function.__name__ in ("_write", "_compare", "search") else call

    writer = Writer(Generator(shakespeare, notice=lambda text: None), apart=apart)
    *_, last = writer.write("To be", settings())
    assert last[0].completion.finish_reason == "length"
    chat = ChatPrompt("To be", [{"role": "user", "content": "To be"}])
    *_, last = writer.write(chat, settings())
    assert last[0].completion.prompt.messages == chat.messages
    assert list(writer.search("To be", settings(beam_size=2), ""))[-1][0].completion.tokens == 30
    assert writer.next_tokens("To be", settings(), 3)
    writer.stops.open("me")
    updates = writer.write("To be", settings(max_tokens=500), "me")
    next(updates)
    next(updates)
    writer.stops.stop("me")
    *_, last = updates
    assert last[0].completion.finish_reason == "interrupted"
    assert len(writer.stops) == 0


def test_a_new_request_of_a_visitor_ends_the_one_before():
    stops = Stops()
    stops.open("me")
    before = stops.find("me")
    stops.open("me")
    assert before.is_set()
    assert not stops.find("me").is_set()
    stops.close("me", before)
    assert len(stops) == 1
