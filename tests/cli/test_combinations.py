"""Any combination of options either gives texts that satisfy all of them, or one line and exit code 2."""

import json
import os

import pytest
from command import MODEL, load_once, run
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings

# FUNDAMENTALLM_EXAMPLES=500 looks further.
EXAMPLES = int(os.environ.get("FUNDAMENTALLM_EXAMPLES", "100"))
WORDS = ("the", "king|queen", "be*", "/[a-e]{2}/", "very good", "é", "*", "/(/", "a,b", " ", "zebra")
TEXTS = ("", "e", "th", "\\n", "the king", "~", "/", "zzz")


def values_of(setting):
    """Values to type for a setting: most of them possible, some not."""
    if setting.choices:
        return st.sampled_from([*setting.choices, "wrong"])
    if setting.kind in (int, float):
        low = 0 if setting.low is None else int(setting.low)
        near = st.integers(low, low + 6).map(str)
        odd = st.sampled_from(["-1", "0", "2.5", "0.5", "nan", "inf", "x", "", "1e3", "2000000000000000000000"])
        if setting.name in ("max_tokens", "min_tokens", "num_samples", "beam_size"):  # or it would take its time
            odd = st.sampled_from(["-1", "0", "2.5", "x", ""])
        fractions = st.floats(0, 1.2).map(str) if setting.kind is float else near
        return st.one_of(near, fractions, fractions, odd)
    if setting.comma_separated:
        return st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(",".join)
    return st.sampled_from(TEXTS)


def typed_settings():
    """Settings that are no files, each once."""
    known = [setting for setting in SETTINGS.values() if not setting.name.endswith("_file")]
    return st.lists(st.sampled_from(known), max_size=4, unique_by=lambda found: found.name)


@st.composite
def command_lines(draw, prompts=True):
    """Options as they would be typed; without prompts, only those that go with --interactive, too."""
    typed = ["--max-tokens", draw(st.sampled_from(["1", "6", "12", "30"]))]
    for setting in draw(typed_settings()):
        if setting.kind is bool:
            typed.append(draw(st.sampled_from([f"--{setting.label}", f"--no-{setting.label}"])))
        else:
            typed += [f"--{setting.label}", draw(values_of(setting))]
    if not prompts:
        return typed + draw(st.sampled_from([[], ["--batch-size", "2"], ["--no-escape"], ["--nonsense"]]))
    for prompt in draw(st.lists(st.sampled_from(["", "To be", "KING: the", "é", "-", r"a\nb"]), max_size=2)):
        typed += ["--prompt", prompt]
    typed += draw(st.sampled_from([[], [], ["--show-probs"], ["--probs-only"], ["--batch-size", "2"], ["--no-escape"]]))
    typed += draw(st.sampled_from([[], [], [], ["--interactive"]]))
    typed += draw(st.sampled_from([[], [], ["--quiet"], ["--dtype", "float16"], ["--nonsense"], ["--force"]]))
    return typed


@st.composite
def entries(draw):
    """What could be typed in the prompt loop, so long as it tells nothing."""
    if draw(st.booleans()):
        return draw(st.sampled_from(["To be", "//", "é", r"a\nb", "", "   "]))
    settings = draw(typed_settings().filter(bool))
    setting = settings[0]
    value = draw(st.sampled_from(["true", "off", "x"]) if setting.kind is bool else values_of(setting))
    return f"/set {setting.label}{draw(st.sampled_from(['=', '+=', '-=']))}{value}"


@pytest.fixture(scope="module", autouse=True)
def _loaded_once():
    with pytest.MonkeyPatch.context() as patch:
        load_once(patch)
        yield


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(command_lines(), st.sampled_from(["text", "json", "jsonl"]))
def test_texts_that_follow_every_option_or_one_line(typed, form):
    result = run("generate", MODEL, "--format", form, *typed, stdin="from stdin")
    event(f"exit code {result.exit_code}")
    notes = [line for line in result.stderr.splitlines() if not line.startswith(("note: ", "--- "))]
    if result.exit_code:
        assert result.exit_code == 2, result.stderr
        assert len(notes) == 1
        assert notes[0].startswith("Error: ")
        assert result.stdout == ""
        return
    if "--interactive" in typed:
        assert form == "text"
        assert not {"--show-probs", "--probs-only"} & set(typed)
        assert "--quiet" not in typed or all(line.startswith("Error: ") for line in notes)
        return
    assert notes == []
    if "--quiet" in typed:
        assert result.stderr == ""
    if form == "text":
        assert result.stdout.endswith("\n")
        assert ("--show-probs" in typed or "--probs-only" in typed) == ("Next token probabilities:" in result.stdout)
        return
    records = json.loads(result.stdout) if form == "json" else list(map(json.loads, result.stdout.splitlines()))
    asked = {}
    for name, value in zip(typed, [*typed[1:], ""], strict=True):
        setting = SETTINGS.get(name.replace("--", "", 1).replace("-", "_")) if name.startswith("--") else None
        if setting is not None:
            asked[setting.name] = [value.replace(r"\n", "\n")] if setting.name == "stop" else value
            if setting.kind is bool:
                asked[setting.name] = not name.startswith("--no-")
            if setting.name == "stop" and "--no-escape" in typed:
                asked[setting.name] = [value]
    wanted = GenerationSettings(**asked)
    prompts = max(1, typed.count("--prompt"))
    assert len(records) == prompts * (wanted.best or wanted.num_samples)
    for record in records:
        _follows(record, wanted)
        assert ("probabilities" in record) == ("--show-probs" in typed)


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(command_lines(prompts=False), st.sampled_from(["To be", "KING: the", "é", "/", r"a\nb"]))
def test_the_prompt_loop_writes_what_the_command_writes(typed, prompt):
    typed += ["--quiet", "--seed", "3"]
    command = run("generate", MODEL, "--prompt", prompt, *typed)
    stdin = f"/{prompt}" if prompt.startswith("/") else prompt
    loop = run("generate", MODEL, "--interactive", *typed, stdin=stdin)
    event(f"exit codes {command.exit_code} and {loop.exit_code}")
    assert loop.stdout == command.stdout
    # What only the prompt brings to light is an error of one entry, which ends no session.
    assert command.exit_code == 0 if not loop.stderr else command.exit_code == 2
    assert loop.stderr.count("\n") == (command.exit_code != 0)


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(entries(), max_size=6))
def test_no_entry_ends_the_prompt_loop_and_what_is_refused_is_one_line(typed):
    result = run("generate", MODEL, "--interactive", "--quiet", "--max-tokens", "6", stdin="\n".join(typed))
    assert result.exit_code == 0, result.stderr
    assert all(line.startswith("Error: ") for line in result.stderr.splitlines())
    settings = [entry for entry in typed if entry.startswith("/set")]
    assert len(result.stderr.splitlines()) <= len(typed)
    if not settings:
        assert result.stderr == ""


def _follows(record, wanted):
    """Whether a text was written by these settings, as far as a text can show it."""
    # A record has the settings of its own text alone: one sample, and the seed that it was given.
    own = {"best", "num_samples", "seed"}
    for name, value in wanted.to_dict().items():
        if name not in own:
            found = record["settings"][name]
            assert (tuple(found) if isinstance(found, list) else found) == value
    assert record["tokens"] <= wanted.max_tokens
    if record["finish_reason"] not in ("blocked", "window"):
        assert record["tokens"] >= wanted.min_tokens
    for stop in wanted.stop:
        assert wanted.min_tokens or stop not in record["completion"]
    if wanted.seed is not None and wanted.sampled and wanted.beam_size == 1:
        assert wanted.seed <= record["seed"] < wanted.seed + wanted.num_samples
