"""The commands of the prompt loop and their completion."""

import pytest

from fundamentallm_hf.cli.interactive.commands import COMMANDS, find_command, suggestions
from fundamentallm_hf.cli.interactive.session import Session
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.generation_settings import SETTINGS, GenerationSettings


def test_every_command_does_something():
    assert all(name == "quit" or hasattr(Session, f"do_{name}") for name in COMMANDS)


@pytest.mark.parametrize(("name", "found"), [("help", "help"), ("?", "help"), ("EXIT", "quit"), ("bye", "quit")])
def test_a_command_has_other_names(name, found):
    assert find_command(name).name == found


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("statsu", "there is no command /statsu: did you mean /status?"),
        ("mroe", "there is no command /mroe: did you mean /more?"),
        ("xyz", "there is no command /xyz: /help lists them, and // begins a prompt with a slash"),
    ],
)
def test_a_mistyped_command_names_the_nearest(name, hint):
    with pytest.raises(UserError) as refused:
        find_command(name)
    assert str(refused.value) == hint


@pytest.mark.parametrize(
    ("text", "replaced", "found"),
    [
        ("/re", "/re", ["/reset", "/retry", "/redo", "/rename "]),
        ("/sa", "/sa", ["/save "]),
        ("/set temp", "temp", ["temperature="]),
        ("/set top_", "top_", ["top-k=", "top-p="]),
        ("/set overflow=s", "s", ["slide", "stop"]),
        ("/set case-sensitive=", "", ["true", "false"]),
        ("/set show-probs=i", "i", ["inline"]),
        ("/set sh", "sh", ["show-probs="]),
        ("/set bad-words=", "", []),
        ("/set nothing=", "", []),
        ("/unset ", "", ["seed"]),
        ("/help st", "st", ["status", "stop", "starts-with"]),
        ("/clear ", "", []),
        ("//se", "", []),
        ("Once", "", []),
        ("", "", []),
    ],
)
def test_suggestions(text, replaced, found):
    part, suggested = suggestions(text, GenerationSettings(seed=3))
    assert (part, [each[0] for each in suggested]) == (replaced, found)


def test_every_setting_is_suggested_with_its_value():
    suggested = dict(suggestions("/set ", GenerationSettings(seed=3))[1])
    assert list(suggested) == [f"{setting.label}=" for setting in SETTINGS.values()] + ["show-probs="]
    assert suggested["seed="] == "now 3"
