"""Any combination of options ends in texts that follow all of them, or in one line and exit code 2."""

import json
import os

import pytest
from command import MODEL, load_once, run
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fundamentallm_hf.settings import SETTINGS, GenerationSettings

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


@st.composite
def command_lines(draw):
    """Options as they would be typed."""
    typed = ["--max-tokens", draw(st.sampled_from(["1", "6", "12", "30"]))]
    known = [setting for setting in SETTINGS.values() if not setting.name.endswith("_file")]
    for setting in draw(st.lists(st.sampled_from(known), max_size=4, unique_by=lambda found: found.name)):
        if setting.kind is bool:
            typed.append(draw(st.sampled_from([f"--{setting.label}", f"--no-{setting.label}"])))
        else:
            typed += [f"--{setting.label}", draw(values_of(setting))]
    for prompt in draw(st.lists(st.sampled_from(["", "To be", "KING: the", "é", "-", r"a\nb"]), max_size=2)):
        typed += ["--prompt", prompt]
    typed += draw(st.sampled_from([[], [], ["--show-probs"], ["--probs-only"], ["--batch-size", "2"], ["--no-escape"]]))
    typed += draw(st.sampled_from([[], [], ["--quiet"], ["--dtype", "float16"], ["--nonsense"], ["--force"]]))
    return typed


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
                asked[setting.name] = True
            if setting.name == "stop" and "--no-escape" in typed:
                asked[setting.name] = [value]
    wanted = GenerationSettings(**asked)
    prompts = max(1, typed.count("--prompt"))
    assert len(records) == prompts * (wanted.best or wanted.num_samples)
    for record in records:
        _follows(record, wanted)
        assert ("probabilities" in record) == ("--show-probs" in typed)


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
