"""Chats on the command line."""

import json

import pytest
from command import MODEL, load_once, run

import fundamentallm_hf.model_io.loading

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
ASKED = [{"role": "user", "content": "To be"}]


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch):
    load_once(monkeypatch)
    tokenizer = fundamentallm_hf.model_io.loading.load_model(MODEL).tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)


def chat(*arguments, **keywords):
    return run("generate", MODEL, "--max-tokens", 12, "--temperature", 0, "--chat", *arguments, **keywords)


def test_only_the_reply_is_written_and_its_record_writes_it_again():
    result = chat("--prompt", "To be", "--system", "Be brief.", "--format", "jsonl")
    record = json.loads(result.stdout)
    assert record["messages"] == [{"role": "system", "content": "Be brief."}, *ASKED]
    text = chat("--prompt", "To be", "--system", "Be brief.").stdout
    assert text == record["text"] + "\n" == record["completion"] + "\n"
    assert run("generate", MODEL, "--config", "-", stdin=result.stdout).stdout == text
    plain = run("generate", MODEL, "--max-tokens", 12, "--temperature", 0, "--prompt", "user: To be\nassistant:")
    assert plain.stdout == "user: To be\nassistant:" + chat("--prompt", "To be").stdout


def test_a_file_holds_one_chat_per_line(tmp_path):
    file = tmp_path / "chats.jsonl"
    longer = [*ASKED, {"role": "assistant", "content": "or not"}, {"role": "user", "content": "Why?"}]
    file.write_text(json.dumps(ASKED) + "\n" + json.dumps({"messages": longer}) + "\n")
    result = chat("--prompts-file", file, "--format", "jsonl")
    assert [json.loads(line)["messages"] for line in result.stdout.splitlines()] == [ASKED, longer]
    assert "To be" in chat("--prompts-file", file, "--probs-only").stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--chat"], "there is no message to answer"),
        (["--system", "Be brief.", "--prompt", "To be"], "add --chat"),
        (["--chat", "--prompts-file", "bad.jsonl"], "line 2 of the prompts file 'bad.jsonl' is not JSON"),
        (["--chat", "--prompts-file", "roles.jsonl"], "one of system, user, assistant but is 'robot'"),
        (["--chat", "--prompts-file", "missing.jsonl"], "cannot read the prompts file 'missing.jsonl'"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text(json.dumps(ASKED) + "\nTo be\n")
    (tmp_path / "roles.jsonl").write_text(json.dumps([{"role": "robot", "content": "To be"}]))
    result = run("generate", MODEL, *arguments)
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.exit_code != 0
    assert not result.stdout


def test_the_loop_answers_messages_as_the_command_does():
    one = chat("--prompt", "To be", "--system", "Be brief.").stdout
    two = chat("--interactive", "--quiet", "--system", "Be brief.", stdin="To be\nWhy?\n/chat off\nTo be\n").stdout
    first, second, plain = two.splitlines()
    assert first + "\n" == one
    file = json.dumps(
        [
            {"role": "system", "content": "Be brief."},
            *ASKED,
            {"role": "assistant", "content": first},
            {"role": "user", "content": "Why?"},
        ]
    )
    assert chat("--prompts-file", "-", stdin=file).stdout == second + "\n"
    assert plain.startswith("To be")
    given = chat("--interactive", "--quiet", "--prompt", "To be", "--system", "Be brief.", stdin="Why?\n").stdout
    assert given == f"{first}\n{second}\n"


def test_a_model_without_a_template_says_so(monkeypatch):
    monkeypatch.setattr(fundamentallm_hf.model_io.loading.load_model(MODEL).tokenizer, "chat_template", None)
    result = chat("--prompt", "To be")
    assert "has no chat template" in result.stderr
    assert (result.stdout, result.exit_code == 0) == ("", False)
    loop = chat("--interactive", "--quiet", stdin="To be\n")
    assert (loop.stdout, loop.stderr.count("\n")) == ("", 1)
    assert "has no chat template" in loop.stderr
