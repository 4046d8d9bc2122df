"""Values typed after /set, and their display."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings
from fundamentallm_hf.settings.typed_values import list_settings, read_assignment, read_value, show_value


def typed(text, **settings):
    setting, changed = read_assignment(GenerationSettings(**settings), text)
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
        ("bad-words=[0]", ("[0]",)),
        ("bad-words-file=[0]", "[0]"),
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
    for name in ("my words.txt", "[0]"):
        (tmp_path / name).write_text("ran\n")
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


def _values(setting):
    if setting.is_range:
        return st.sampled_from(["3", "40-60"])
    return st.sampled_from(setting.choices) if setting.choices else VALUES[setting.kind]


PAIRS = st.sampled_from(list(SETTINGS.values())).flatmap(lambda setting: st.tuples(st.just(setting), _values(setting)))


@given(PAIRS, st.booleans())
@example((SETTINGS["stop"], ("\\n",)), True)
@example((SETTINGS["bad_words"], ("not set",)), True)
@example((SETTINGS["bad_words"], ("a, b", "/a,b/", "a\\,b")), True)
@example((SETTINGS["bad_words_file"], '"a"'), True)
def test_what_is_shown_can_be_typed_again(pair, escape):
    setting, value = pair
    assert read_value(setting, show_value(setting, value), escape) == value


def test_escapes_stay_as_they_are_where_none_are_read():
    settings = GenerationSettings()
    assert read_assignment(settings, r"stop=\n", escape=False)[1].stop == (r"\n",)
    assert read_assignment(settings, r"bad-words=\n")[1].bad_words == (r"\n",)


def test_every_setting_is_listed_and_what_differs_is_marked():
    plain = list_settings(GenerationSettings())
    assert [line.split()[0] for line in plain if line.startswith("  ")] == [
        setting.label
        for group in dict.fromkeys(each.group for each in SETTINGS.values())
        for setting in SETTINGS.values()
        if setting.group == group
    ]
    assert not any(line.startswith("*") for line in plain)
    marked = [line for line in list_settings(GenerationSettings(stop=["\n"])) if line.startswith("*")]
    assert [" ".join(line.split()) for line in marked] == [
        r'* stop ["\n"] (default: not set)',
        "* differs from the default",
    ]
