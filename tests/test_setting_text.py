"""What is typed behind /set, and what is shown of it."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fundamentallm_hf.cli import unescape
from fundamentallm_hf.errors import UserError
from fundamentallm_hf.setting_text import load_settings, read_assignment, read_value, save_settings, show_value
from fundamentallm_hf.settings import SETTINGS, GenerationSettings


def typed(text, **settings):
    setting, changed = read_assignment(GenerationSettings(**settings), text, unescape)
    return getattr(changed, setting.name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("temperature=0.5", 0.5),
        ("top-k=50", 50),
        ("top_k = 50", 50),
        ("top-k 50", 50),
        ("top-k=", None),
        ("max-tokens=", 200),
        ("overflow=stop", "stop"),
        ("overflow=not set", None),
        ("case-sensitive=on", True),
        ("bad-words=ran, lil*, very happy", ("ran", "lil*", "very happy")),
        ("bad-words=/[0-9]{2,4}/, ran", ("/[0-9]{2,4}/", "ran")),
        ('bad-words=["a, b", "c"]', ("a, b", "c")),
        ('bad-words="a, b"', ("a, b",)),
        ("bad-words=[0-9]", ("[0-9]",)),
        ("must-include=", ()),
        ("stop=The end", ("The end",)),
        (r"stop=\n", ("\n",)),
        (r'stop=["\n\n", "END"]', ("\n\n", "END")),
        ('stop=" a "', (" a ",)),
        ("stop=a=b", ("a=b",)),
        ("bad-words-file=my words.txt", "my words.txt"),
    ],
)
def test_an_assignment(text, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my words.txt").write_text("ran\n")
    assert typed(text) == value


def test_lists_grow_and_shrink():
    assert typed("bad-words+=c, a", bad_words=("a", "b")) == ("b", "c", "a")
    assert typed("bad-words -= a", bad_words=("a", "b")) == ("b",)
    assert typed("stop+=END", stop=("\n",)) == ("\n", "END")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature=500", "temperature has to be a number from 0 to 100 but is '500'"),
        ("top-k=0", "top-k has to be a whole number of at least 1 but is '0'"),
        ("overflow=jump", "overflow has to be one of slide, stop, error but is 'jump'"),
        ("tempature=1", "there is no setting 'tempature': did you mean 'temperature'?"),
        ("=1", "a setting is written name=value but is '=1'"),
        ("temperature+=1", "temperature is no list: write temperature=value"),
        ("stop-=END", "stop does not hold 'END': it is not set"),
        ("bad-words=/(/", "bad-words: '(' is not a valid regular expression"),
        ("min-tokens=500", "min-tokens is 500, but max-tokens ends the text at 200"),
        ("bad-words-file=missing.txt", "bad-words-file: cannot read the list 'missing.txt'"),
        ("stop=[]x", None),
    ],
)
def test_what_cannot_be_is_refused(text, message):
    if message is None:
        assert typed(text) == ("[]x",)
        return
    with pytest.raises(UserError) as refused:
        typed(text)
    assert message in str(refused.value)


VALUES = {
    int: st.integers(1, 200),
    float: st.floats(0.01, 1),
    bool: st.booleans(),
    str: st.text(min_size=1),
    tuple: st.lists(st.text(min_size=1), max_size=3).map(tuple),
}
PAIRS = st.sampled_from(list(SETTINGS.values())).flatmap(
    lambda setting: st.tuples(
        st.just(setting), st.sampled_from(setting.choices) if setting.choices else VALUES[setting.kind]
    )
)


@given(PAIRS)
@example((SETTINGS["stop"], ("\\n",)))
@example((SETTINGS["bad_words"], ("not set",)))
@example((SETTINGS["bad_words"], ("a, b", "/a,b/", "a\\,b")))
def test_what_is_shown_can_be_typed_again(pair):
    setting, value = pair
    assert read_value(setting, show_value(setting, value), unescape) == value


def test_settings_survive_a_file(tmp_path):
    file = str(tmp_path / "settings.json")
    settings = GenerationSettings(temperature=0.5, stop=["\n", "Ende"], bad_words=["a, b"], seed=3)
    save_settings(settings, file)
    assert load_settings(file) == settings
    assert json.loads((tmp_path / "settings.json").read_text())["temperature"] == 0.5
    with pytest.raises(UserError, match=r"settings.json exists: .* replace it with /save --force"):
        save_settings(GenerationSettings(), file)
    assert load_settings(file) == settings
    save_settings(GenerationSettings(), file, replace=True)
    assert load_settings(file) == GenerationSettings()
    with pytest.raises(UserError, match=r"cannot write .*: No such file"):
        save_settings(settings, str(tmp_path / "missing" / "settings.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "has to hold settings as JSON but does not"),
        ("[1]", "has to hold settings as JSON, .* but holds"),
        ('{"temperature": "hot"}', "temperature has to be a number from 0 to 100 but is 'hot'"),
        ('{"heat": 1}', "there is no setting 'heat'"),
        ('{"min_tokens": 300}', "min-tokens is 300"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(content, message, tmp_path):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_settings(str(tmp_path / "settings.json"))


def test_what_a_file_does_not_name_has_its_default(tmp_path):
    (tmp_path / "settings.json").write_text('{"top-k": 5}')
    assert load_settings(str(tmp_path / "settings.json")) == GenerationSettings(top_k=5)
