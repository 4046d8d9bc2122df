"""The effects of input lines on a session, without a terminal."""

import json
import re
from contextlib import contextmanager, nullcontext

import pytest
from conftest import FIXTURES
from small_models import byte_level_gpt2

from fundamentallm_hf import Generator, load_model
from fundamentallm_hf.cli.interactive.session import Session
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings


class Recorder:
    """An output that remembers: texts, and the rest as lines marked by their kind."""

    def __init__(self):
        self.texts, self.talk, self.contexts, self.interrupt_at = [], [], [], None

    def given(self, text):
        self.texts.append(text)

    def written(self, text):
        self.texts[-1:] = ["".join([*self.texts[-1:], text])]
        if self.interrupt_at is not None and len(self.texts[-1]) >= self.interrupt_at:
            self.stop()

    def context(self, text):
        self.contexts.append(text)
        self.texts.append("")

    def end_text(self):
        self.talk.append("text")

    def reply(self, text):
        self.talk.append(text)

    def predictions(self, found, more):
        self.talk.append(([(each.label, each.probability, each.model_probability) for each in found], more))

    def done(self, text):
        self.talk.append(text)

    def aside(self, text):
        self.talk.append(f"({text})")

    def note(self, text):
        self.talk.append(f"note: {text}")

    def error(self, text):
        self.talk.append(f"Error: {text}")

    def clear(self):
        self.talk.append("cleared")

    def recall(self, text):
        self.talk.append(f"text: {text}")

    def differences(self, parts):
        self.talk.append(parts)

    def edit(self, text):
        return self.editor(text)

    @contextmanager
    def on_interrupt(self, stop):
        self.stop = stop
        yield

    def busy(self, text):
        return nullcontext()


@pytest.fixture
def session(shakespeare):
    def load(name):
        return load_model(name, device="cpu") if name else shakespeare

    return Session(load, None, GenerationSettings(max_tokens=12, seed=42), Recorder())


def told(session, *entries):
    """What the session says to entries."""
    session.output.talk.clear()
    for entry in entries:
        assert session.handle(entry)
    return session.output.talk


def text_of(session, *entries):
    session.output.texts.clear()
    told(session, *entries)
    (text,) = session.output.texts
    return text


def expected(model, prompt, **settings):
    return Generator(model, **({"max_tokens": 12, "seed": 42} | settings)).generate(prompt)


def test_a_prompt_is_continued_with_the_settings_of_the_session(session, shakespeare):
    assert text_of(session, "To be") == expected(shakespeare, "To be")
    assert text_of(session, "/set temperature=0", "To be") == expected(shakespeare, "To be", temperature=0)
    assert text_of(session, "/reset", "To be") == expected(shakespeare, "To be")


def test_speed_and_end_are_told(session):
    assert re.fullmatch(r"\(12 tokens, \d+ tokens/s, seed 42, /more goes on\)", told(session, "To be")[-1])


def test_escapes_and_slashes_in_prompts(session, shakespeare):
    assert text_of(session, r"To be\nor") == expected(shakespeare, "To be\nor")
    assert text_of(session, "//set x=3").startswith("/set x=3")
    session.escape = False
    assert text_of(session, r"To be\nor").startswith(r"To be\nor")


def test_a_first_prompt_is_taken_as_it_is(session, shakespeare):
    session.output.texts.clear()
    for prompt in ("", r"/quit\n"):
        assert session.begin(prompt)
    assert session.output.texts == [expected(shakespeare, ""), expected(shakespeare, r"/quit\n", notice=str)]


def test_setting_and_unsetting(session):
    assert told(session, "/set temperature=0.5", "/set top_k=50", "/set bad-words=a, b", "/set stop=END") == [
        "Updated: temperature=0.5",
        "Updated: top-k=50",
        "Updated: bad-words=a, b",
        "Updated: stop=END",
    ]
    assert told(session, "/set top-k=", "/unset stop", "/unset bad_words", "/unset max-tokens") == [
        "Updated: top-k is not set",
        "Updated: stop is not set",
        "Updated: bad-words is not set",
        "Updated: max-tokens=200",
    ]


def test_what_is_refused_changes_nothing(session):
    before = session.settings
    assert told(session, "/set temperature=500", "/set nothing=1", "/unset nothing", "/set min-tokens=13", "/nope") == [
        "Error: temperature has to be a number from 0 to 100 but is '500'",
        *2 * [str_of(UserError, "nothing")],
        "Error: min-tokens is 13, but max-tokens ends the text at 12: lower the one or raise the other",
        "Error: there is no command /nope: /help lists them, and // begins a prompt with a slash",
    ]
    assert session.settings == before


def str_of(kind, name):
    with pytest.raises(kind) as refused:
        GenerationSettings().but(**{name: 1})
    return f"Error: {refused.value}"


def test_arguments_that_lack_or_are_too_many(session):
    assert told(session, "/clear all", "/unset", "/save", "/save --force", "/load missing.json", "/more 1") == [
        "Error: /clear takes nothing but got 'all'",
        "Error: /unset NAME needs NAME",
        "Error: /save FILE needs FILE",
        "Error: /save --force needs FILE",
        "Error: cannot read the config 'missing.json': No such file or directory",
        "Error: there is no text yet: type a prompt",
    ]


def test_status_marks_what_differs_from_the_defaults(session):
    (status,) = told(session, "/status")
    assert status.startswith("Model: the bundled story model (fundamentallm, 112.5k parameters, window of 128 tokens")
    marked = [line for line in status.splitlines() if line.startswith("* ")]
    assert marked == [
        "* max-tokens            12  (default: 200)",
        "* seed                  42  (default: not set)",
        "* differs from the default",
    ]
    assert "\n  temperature           not set\n" in status
    assert told(session, "/set") == [status]


def test_help_of_commands_and_settings(session):
    (text,) = told(session, "/help")
    assert "/set [NAME=VALUE]" in text
    assert "Ctrl-C stops the text" in text
    assert told(session, "/help set", "/help /more")[1].startswith("/more [N]\n")
    described = f"top-p=not set\n{SETTINGS['top_p'].help}"
    assert told(session, "/help top-p", "/set top_p") == [f"{described}\nIt takes a number above 0 and at most 1."] * 2


def test_more_goes_on_from_the_text(session, shakespeare):
    whole = text_of(session, "To be")
    assert text_of(session, "/more") == expected(shakespeare, whole).removeprefix(whole)
    assert session.output.contexts == [whole]
    assert session.completions[0].text == expected(shakespeare, whole)


def test_more_goes_past_the_end_that_the_model_chose():
    session = Session(
        lambda name: load_model(device="cpu"), None, GenerationSettings(max_tokens=1000, temperature=0), Recorder()
    )
    told(session, "Once upon a time")
    assert session.completions[0].finish_reason == "eos"
    told(session, "/set max-tokens=5", "/more")
    assert session.completions[0].tokens == 5


def test_retry_takes_another_seed(session, shakespeare):
    told(session, "To be")
    assert text_of(session, "/retry") == expected(shakespeare, "To be", seed=43)
    assert text_of(session, "/retry") == expected(shakespeare, "To be", seed=44)
    assert text_of(session, "/set seed=7", "/retry") == expected(shakespeare, "To be", seed=7)
    told(session, "/unset seed", "To be")
    seeds = [session.completions[0].seed]
    for _ in range(2):
        told(session, "/retry")
        seeds.append(session.completions[0].seed)
    assert len(set(seeds)) == 3
    notes = told(session, "/set temperature=0", "/retry")
    assert "note: nothing is left to chance, so the same settings write the same text" in notes


def test_retry_of_more_writes_the_continuation_again(session, shakespeare):
    whole = text_of(session, "To be")
    told(session, "/more")
    assert text_of(session, "/retry") == expected(shakespeare, whole, seed=43).removeprefix(whole)


def test_several_samples_are_all_shown_and_any_of_them_goes_on(session, shakespeare):
    session.output.texts.clear()
    talk = told(session, "/set num-samples=3", "To be")
    texts = list(session.output.texts)
    assert texts == [expected(shakespeare, "To be", seed=seed) for seed in (42, 43, 44)]
    assert [line for line in talk if "---" in line] == [
        f"(--- sample {i} of 3, seed {seed} ---)" for i, seed in enumerate((42, 43, 44), 1)
    ]
    assert re.fullmatch(r"\(36 tokens, \d+ tokens/s, /more 1 to /more 3 goes on\)", talk[-1])
    assert told(session, "/more", "/more 4") == [
        "Error: there are 3 texts: choose one, /more 1 to /more 3",
        "Error: N has to be a whole number from 1 to 3 but is '4'",
    ]
    assert text_of(session, "/set num-samples=1", "/more 2") == expected(shakespeare, texts[1]).removeprefix(texts[1])


def test_beams_come_at_once(session, shakespeare):
    assert text_of(session, "/set beam-size=3", "To be") == expected(shakespeare, "To be", beam_size=3)


def test_an_interrupt_stops_the_text_and_keeps_it(session):
    session.output.interrupt_at = 20
    talk = told(session, "/set max-tokens=100000", "To be")
    completion = session.completions[0]
    assert completion.finish_reason == "interrupted"
    assert any(line.endswith("stopped, /more goes on)") for line in talk)
    assert session.output.texts == [completion.text]
    told(session, "/set max-tokens=3", "/more")
    assert session.completions[0].prompt == completion.text


def test_what_is_out_of_sight_is_told(session):
    talk = told(session, "/set max-tokens=128", "To be")
    assert talk[-1] == (
        "note: the text has 133 tokens and the model's window holds 128: the first 64 are out of its sight"
    )
    assert told(session, "/set overflow=stop", "To be")[-1] == (
        "note: the text fills the model's window; /set overflow=slide goes on from its last part"
    )


def test_a_model_of_another_kind_ends_at_its_window():
    model = byte_level_gpt2()
    session = Session(lambda name: model, "gpt2", GenerationSettings(max_tokens=100, bad_words=["cat"]), Recorder())
    model.generation_config.eos_token_id = None
    assert told(session, "once upon a time")[-1] == "note: the text fills the model's window"
    assert session.completions[0].finish_reason == "window"
    assert told(session, "/more")[-1].startswith("Error: ")
    assert told(session, "/status")[0].startswith("Model: gpt2 (gpt2, ")


def test_a_text_that_cannot_be_written_is_an_error(session):
    talk = told(session, "/set overflow=error", "/set max-tokens=500", "To be")
    assert talk[-1].startswith("Error: 5 prompt tokens and 500 new ones do not fit into the model's window of 128")
    assert session.output.texts == []


def test_unknown_characters_are_named_once(session):
    note = "note: the model has no token for '#': it reads <UNK> instead, and cannot write it"
    assert told(session, "# #")[0] == note
    assert note not in told(session, "a #")


def test_saved_settings_can_be_loaded(session, tmp_path):
    file = tmp_path / "my settings.json"
    assert told(session, "/set top-k=5", f"/save {file}", "/reset", f"/load {file}") == [
        "Updated: top-k=5",
        f"Saved: {file}",
        "Settings are those of the start",
        "Updated: max-tokens=12\nUpdated: top-k=5\nUpdated: seed=42",
    ]
    assert told(session, f"/save {file}") == [
        f"Error: the file {file} exists: choose another name, or replace it with /save --force {file}"
    ]
    assert told(session, f"/save --force {file}") == [f"Saved: {file}"]
    assert told(session, "/load -") == ["Error: /load takes a file: stdin is where the entries come from"]


def test_a_record_of_a_text_is_loaded_for_its_settings(session, tmp_path):
    record = {"model": "x", "prompt": "a", "finish_reason": "eos", "settings": {"top_k": 5}, "text": "abc"}
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert told(session, f"/load {tmp_path / 'record.json'}") == [
        "Updated: top-k=5",
        f"note: only its settings are taken from {tmp_path / 'record.json'}, not its model, prompt",
    ]
    before = session.settings
    (tmp_path / "settings.yaml").write_text("min-tokens: 300")
    assert told(session, f"/load {tmp_path / 'settings.yaml'}")[0].startswith(
        "Error: min-tokens is 300, but max-tokens"
    )
    assert session.settings == before


def test_another_model_takes_over_or_the_present_one_stays(session, shakespeare, tmp_path):
    other = FIXTURES / "sinusoidal" / "final_model.pt"
    broken = tmp_path / "config.json"
    broken.write_text("{")
    assert told(session, f"/model {tmp_path / 'missing.pt'}")[0].startswith("Error: ")
    assert told(session, f"/model {tmp_path}")[0].startswith("Error: ")
    assert told(session, "/model") == ["Model: the bundled story model"]
    assert session.generator.model is shakespeare
    assert told(session, f"/model {other}") == [f"Model: {other}"]
    assert text_of(session, "To be") == expected(load_model(other, device="cpu"), "To be")
    assert told(session, "/model bundled") == ["Model: the bundled story model"]
    assert session.generator.model is shakespeare


def test_probabilities_behind_the_last_text_or_a_given_one(session, shakespeare):
    (nothing,) = told(session, "/probs")
    (((first, *_), more),) = told(session, "/probs To be")
    assert first[0] == '" " (space)'
    assert more
    assert nothing != told(session, "/probs To be")[0]
    told(session, "/set temperature=0", "/set max-tokens=1", "To be")
    assert session.completions[0].completion == " "
    assert told(session, "/probs") == told(session, f"/probs {session.completions[0].text}")


def test_probabilities_follow_the_settings_and_tell_the_models_own(session, shakespeare):
    told(session, "/set bad-words=/ /", "/set temperature=0")
    ((found, _),) = told(session, "/probs To be")
    named = {label: (probability, own) for label, probability, own in found}
    assert named['" " (space)'] == (0, pytest.approx(0.32, abs=0.01))
    assert named['"a"'] == (1, pytest.approx(0.17, abs=0.01))
    predictions = Generator(shakespeare, bad_words=["/ /"], temperature=0, max_tokens=12).next_tokens("To be")
    assert found == [(each.label, each.probability, each.model_probability) for each in predictions]


def test_a_setting_that_changes_nothing_is_named_where_it_is_set(session):
    assert told(session, "/set temperature=0", "/set top-k=5") == [
        "Updated: temperature=0",
        "Updated: top-k=5",
        "note: top-k has no effect: at temperature 0 nothing is sampled",
    ]


def test_the_best_of_several_samples_are_kept_and_retried_with_fresh_seeds(session, shakespeare):
    def best(**settings):
        kept = Generator(shakespeare, max_tokens=12, num_samples=5, **settings).complete("To be")
        return [each.text for each in kept]

    session.output.texts.clear()
    talk = told(session, "/set num-samples=5", "/set best=2", "To be")
    assert session.output.texts == best(seed=42, best=2)
    assert re.fullmatch(r"\(\d+ tokens, the best of 5 samples, /more 1 to /more 2 goes on\)", talk[-1])
    assert text_of(session, "/set best=1", "/retry") == best(seed=47, best=1)[0]
    talk = told(session, "/retry")
    assert re.fullmatch(r"\(12 tokens, the best of 5 samples, seed 5[2-6], /more goes on\)", talk[-1])


def test_the_batch_size_changes_no_sample(session):
    session.output.texts.clear()
    told(session, "/set num-samples=5", "To be")
    session.batch_size = 2
    told(session, "To be")
    assert session.output.texts[:5] == session.output.texts[5:]


def test_leaving(session):
    assert [session.handle(entry) for entry in ("/quit", "/exit", "/q")] == [False] * 3
    assert told(session, "", "   ", "/clear") == ["cleared"]


def test_settings_that_contradict_each_other_are_refused_before_a_model_is_loaded():
    with pytest.raises(UserError, match="min-tokens"):
        Session(lambda name: pytest.fail("loaded"), None, GenerationSettings(min_tokens=300), Recorder())
