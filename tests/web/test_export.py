"""Everything copied from the page has the same prompt and settings."""

import json
import re
import subprocess
from urllib.parse import parse_qsl, urlsplit

import pytest
from click.testing import CliRunner
from command import load_once, run
from hypothesis import given, settings
from hypothesis import strategies as st

import fundamentallm_hf.cli.generate
import fundamentallm_hf.cli.main
from fundamentallm_hf import GenerationSettings, Generator, load_model
from fundamentallm_hf.cli.generate_request import read_request
from fundamentallm_hf.generation.chat import ChatPrompt
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.web.export import as_command, as_json, as_link, as_python, read_link

# Records a call of the command with its stdin.
SHELL = r"""fundamentallm() { printf '%s\x1f' "$@"; printf '\x1e'; case "$*" in *--config*) cat;; esac; }"""
ENTRIES = [
    "ran",
    "a, b",
    "/x{1,2}, y/",
    "it's",
    'say "hi"',
    "very happy",
    "-x",
    "a/b",
    r"\*",
    "$HOME",
    "`id`",
    "é",
    r"c\\d",
]
PROMPTS = st.one_of(
    st.sampled_from(["", "-", "--help", 'it\'s\n"two"\\n lines', "END\n", "a\0b", "\r\n", "${x} `id` !! \\"]),
    st.text(max_size=20),
)
CONTENTS = st.one_of(
    st.sampled_from(["-", "--help", 'it\'s\n"two"\\n', "END\n", "a\0b", "${x} `id` !!"]), st.text(max_size=9)
)


@st.composite
def chats(draw):
    """A chat through a template: with or without a system message and earlier turns, and the start of a reply."""
    turns = draw(st.lists(CONTENTS, min_size=1, max_size=4))
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(turns)]
    if draw(st.booleans()):
        messages.insert(0, {"role": "system", "content": draw(CONTENTS)})
    return ChatPrompt("".join(map(str, messages)), messages)


SETTINGS = st.builds(
    GenerationSettings,
    max_tokens=st.integers(1, 500),
    temperature=st.one_of(st.none(), st.floats(0, 100, allow_subnormal=False)),
    top_p=st.one_of(st.none(), st.floats(0.01, 1)),
    top_k=st.one_of(st.none(), st.integers(1, 50)),
    seed=st.one_of(st.none(), st.integers(0, 2**62)),
    bad_words=st.lists(st.sampled_from(ENTRIES), max_size=3),
    must_include=st.lists(st.sampled_from(ENTRIES), max_size=3),
    stop=st.lists(st.sampled_from(["The end", "\n", "\\n", " ", "a,b", "'", "-"]), max_size=2),
    case_sensitive=st.booleans(),
    guide_strength=st.floats(-10, 10, allow_subnormal=False),
    overflow=st.sampled_from([None, "slide", "stop"]),
    pattern=st.sampled_from([None, "[a-z]+ '\"$", "-x*"]),
)


def played(script, monkeypatch):
    """The request that a copied command makes."""
    done = subprocess.run(["bash", "-c", f"{SHELL}\n{script}"], capture_output=True, text=True, check=True)
    arguments, _, stdin = done.stdout.partition("\x1e")
    requests = []
    monkeypatch.setattr(
        fundamentallm_hf.cli.generate, "run", lambda options, given: requests.append(read_request(options, given))
    )
    result = CliRunner().invoke(fundamentallm_hf.cli.main.cli, arguments.split("\x1f")[:-1], input=stdin)
    assert result.exit_code == 0, (script, result.output)
    return requests[0]


def given_in(prompt):
    """What a call is given: the prompt, or the messages of a chat."""
    return prompt.messages if isinstance(prompt, ChatPrompt) else prompt


@settings(max_examples=80, deadline=None)
@given(st.one_of(PROMPTS, chats()), SETTINGS)
def test_a_command_means_what_it_was_made_of(prompt, chosen):
    with pytest.MonkeyPatch.context() as monkeypatch:
        request = played(as_command(prompt, chosen), monkeypatch)
    assert request.prompts == [given_in(prompt)]
    assert request.settings == chosen


@settings(max_examples=60, deadline=None)
@given(st.one_of(PROMPTS, chats()), SETTINGS)
def test_a_program_means_what_it_was_made_of(prompt, chosen):
    seen = {}

    class Recorder:
        def generate(self, prompt, **given):
            seen.update(prompt=prompt, settings=GenerationSettings(**given))

    program = as_python(prompt, chosen)
    program = re.sub(r"^from .*\n", "", program).replace("Generator(load_model())", "Recorder()")
    exec(program, {"Recorder": Recorder, "print": lambda value: None})
    assert seen == {"prompt": given_in(prompt), "settings": chosen}


@settings(max_examples=60, deadline=None)
@given(st.one_of(PROMPTS, chats()), SETTINGS)
def test_a_link_means_what_it_was_made_of(prompt, chosen):
    query = urlsplit(as_link(prompt, chosen, "http://localhost:7860")).query
    values = dict(parse_qsl(query, keep_blank_values=True))
    if (
        isinstance(prompt, ChatPrompt)
        and prompt.messages[-1]["role"] == "user"
        and not prompt.messages[-1]["content"].strip()
    ):
        with pytest.raises(UserError, match="the message is empty"):
            read_link(values)
        return
    read_prompt, values = read_link(values)
    assert read_prompt == given_in(prompt)
    assert GenerationSettings(**values) == chosen


def test_a_link_ignores_the_names_of_others_and_refuses_what_cannot_be():
    assert read_link({"__theme": "dark", "bad_words_file": "/etc/passwd"}) == (None, {})
    with pytest.raises(UserError, match="top-p has to be"):
        read_link({"top_p": "7"})


@pytest.mark.parametrize(
    "chosen",
    [
        {"temperature": 0.8, "seed": 7, "bad_words": ("ran", "a, b")},
        {"temperature": 0.8, "seed": 7, "num_samples": 3},
        {"temperature": 0.0, "beam_size": 3},
        {"json_schema": '{"type": "boolean"}', "seed": 1},
    ],
)
def test_what_is_copied_writes_the_same_texts(chosen, monkeypatch, capsys):
    load_once(monkeypatch)
    chosen, prompt = GenerationSettings(max_tokens=25, **chosen), "It's\n"
    expected = [each.text for each in Generator(load_model(device="cpu")).complete(prompt, **chosen.to_dict())]
    script = as_command(prompt, chosen)
    done = subprocess.run(["bash", "-c", f"{SHELL}\n{script}"], capture_output=True, text=True, check=True)
    arguments, _, stdin = done.stdout.partition("\x1e")
    assert run(*arguments.split("\x1f")[:-1], stdin=stdin).stdout == "".join(f"{text}\n" for text in expected)
    exec(as_python(prompt, chosen), {})
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in expected)


def test_one_message_is_an_option_and_a_longer_chat_a_file():
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    command = as_command(ChatPrompt("", asked), GenerationSettings(seed=1))
    options = ["fundamentallm generate", "--chat", "--prompt 'Why?'", "--system 'Be brief.'", "--seed 1"]
    assert command == " \\\n    ".join(options) + "\n"
    longer = [*asked, {"role": "assistant", "content": "So"}]
    assert '"messages"' in as_command(ChatPrompt("", longer), GenerationSettings(seed=1))


def test_the_model_is_named_where_it_is_not_the_bundled_one():
    chosen = GenerationSettings(seed=1)
    assert "load_model('user/name')" in as_python("a", chosen, "user/name")
    assert as_command("a", chosen, "it's/x").startswith("fundamentallm generate 'it'\"'\"'s/x' ")


def test_a_downloaded_text_is_written_again(tmp_path, monkeypatch):
    load_once(monkeypatch)
    chosen = GenerationSettings(seed=4, max_tokens=20, temperature=0.9)
    completions = Generator(load_model(device="cpu")).complete("The", scored=True, probabilities=2, **chosen.to_dict())
    file = tmp_path / "text.json"
    file.write_text(as_json(completions, chosen), encoding="utf-8")
    assert json.loads(file.read_text(encoding="utf-8"))["probabilities"]
    assert run("generate", "--config", file).stdout == completions[0].text + "\n"
    assert len(json.loads(as_json(completions * 2, chosen))) == 2
