"""Saved settings are read like typed ones, and errors name what is wrong in them."""

import json

import pytest
import yaml
from command import MODEL, load_once, run

from fundamentallm_hf.cli.saved_settings import read_settings, write_settings
from fundamentallm_hf.portable.errors import UsageError, UserError
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings


@pytest.fixture
def saved(tmp_path):
    def write(text, name="settings.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("temperature: 0.5\ntop-k: 3\n", {"temperature": 0.5, "top_k": 3}),
        ('{"max_tokens": 12, "stop": ["a", "b,c"]}', {"max_tokens": 12, "stop": ("a", "b,c")}),
        ("bad-words: a, b\ncase-sensitive: yes\n", {"bad_words": ("a", "b"), "case_sensitive": True}),
        ("settings:\n  seed: 7\nmodel: x\n", {"seed": 7}),
        ("temperature: null\n", {"temperature": None}),
        ("", {}),
    ],
)
def test_settings_by_name_in_json_or_yaml(saved, text, settings):
    assert read_settings(saved(text)).settings == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temprature: 0.5", "there is no setting 'temprature': did you mean 'temperature'?"),
        ("temperature: warm", "temperature has to be a number from 0 to 100 but is 'warm'"),
        ("a: [", "is neither JSON nor YAML (line 1)"),
        ("!!python/object/apply:os.system [ls]", "is neither JSON nor YAML"),
        ("- 1", "has to hold settings by name but holds list"),
        ("prompt: 3", "prompt has to be text but is 3"),
        ("settings: {seed: 1}\nmodl: x", "there is no setting 'modl': did you mean 'model'?"),
        ('{"seed": 1}\n{"seed": 2}\n', "holds 2 lines of records: give one of them"),
        ('{"settings": {}, "finish_reason": "eos", "sample": "1"}', "sample has to be a whole number"),
    ],
)
def test_what_is_wrong_is_named_and_a_wrong_use(saved, text, message):
    with pytest.raises(UsageError) as caught:
        read_settings(saved(text))
    assert message in str(caught.value)


def test_a_missing_file_is_a_failure_and_no_wrong_use(tmp_path):
    with pytest.raises(UserError, match="No such file") as caught:
        read_settings(str(tmp_path / "missing"))
    assert not isinstance(caught.value, UsageError)


def test_options_win_over_the_file_and_the_file_over_defaults(saved, monkeypatch):
    load_once(monkeypatch)
    content = {"model": MODEL, "prompt": "To\\nbe", "temperature": 0, "max-tokens": 5, "stop": "\\n"}
    file = saved(yaml.safe_dump(content))

    def record(*options):
        result = run("generate", "--config", file, "--format", "json", *options)
        return json.loads(result.stdout)[0]

    plain = record()
    # A file has escapes of its own, so a backslash in it is one.
    assert (plain["prompt"], plain["tokens"], plain["settings"]["stop"]) == ("To\\nbe", 5, ["\\n"])
    changed = record("--prompt", "My", "--max-tokens", 7, "--stop", r"zz\n")
    assert (changed["prompt"], changed["tokens"], changed["settings"]["stop"]) == ("My", 7, ["zz\n"])
    assert record("--max-tokens", 200)["settings"]["max_tokens"] == 200
    piped = run("generate", "--config", "-", stdin=yaml.safe_dump(content))
    assert piped.stdout == plain["text"] + "\n"


def test_what_is_written_is_read_again(tmp_path):
    file = str(tmp_path / "settings.json")
    settings = GenerationSettings(temperature=0.5, stop=["\n", "Ende\u2028"], bad_words=["a, b"], seed=3)
    assert str(write_settings(settings, file)) == file
    assert GenerationSettings(**read_settings(file).settings) == settings
    assert set(json.loads((tmp_path / "settings.json").read_text())) == set(SETTINGS)
    with pytest.raises(UserError, match=r"the file .*settings.json exists: .* replace it with /save --force"):
        write_settings(GenerationSettings(), file)
    assert GenerationSettings(**read_settings(file).settings) == settings
    write_settings(GenerationSettings(), file, force=True)
    assert GenerationSettings(**read_settings(file).settings) == GenerationSettings()
    with pytest.raises(UserError, match=r"the file .* is in .*, which is not a folder"):
        write_settings(settings, str(tmp_path / "missing" / "settings.json"))


def test_the_command_and_the_loop_read_each_others_settings(tmp_path, monkeypatch):
    load_once(monkeypatch)
    options = ("--prompt", "To be", "--max-tokens", 12, "--seed", 3, "--stop", r"\n", "--bad-words", r"the, x\,y")
    written = run("generate", MODEL, *options, "--format", "json")
    (record,) = json.loads(written.stdout)
    for name, content in (("record.json", record), ("settings.json", record["settings"])):
        (tmp_path / name).write_text(json.dumps(content))
        session = f"/load {tmp_path / name}\nTo be\n/save {tmp_path / 'saved'}-{name}\n"
        assert run("generate", MODEL, "--interactive", stdin=session).stdout == record["text"] + "\n"
        again = run("generate", MODEL, "--prompt", "To be", "--config", f"{tmp_path / 'saved'}-{name}")
        assert (again.stdout, again.stderr) == (record["text"] + "\n", "")
    loop = run("generate", "--config", tmp_path / "record.json", "--interactive", stdin="To be\n")
    assert loop.stdout == 2 * (record["text"] + "\n")
