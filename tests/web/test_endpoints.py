"""The endpoints of the web demo, and their errors."""

import asyncio
import json
import shutil
import subprocess
import time

import pytest

pytest.importorskip("gradio", reason="the web demo needs gradio")

import httpx
from gradio_client import Client
from gradio_client.exceptions import AppError
from web_server import start

from fundamentallm_hf import GenerationSettings
from fundamentallm_hf.web.export import as_curl
from fundamentallm_hf.web.limits import LIMITS, OPEN

NAMES = ("write", "stream", "see", "next_tokens", "beams", "compare", "attributes")
SAMPLED = {"temperature": 0.8, "seed": 3, "max_tokens": 12}


@pytest.fixture(scope="module")
def served():
    return start()


@pytest.fixture(scope="module")
def client(served):
    return Client(served[1], verbose=False)


def test_every_endpoint_has_typed_arguments_with_the_names_and_defaults_of_the_settings(client):
    info = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(info) == {f"/{name}" for name in NAMES}
    taken = {each["parameter_name"]: each for each in info["/write"]["parameters"]}
    assert set(taken) == {"prompt", "messages", *OPEN}
    assert "bad_words_file" not in taken
    for name, setting in OPEN.items():
        default = taken[name]["parameter_default"]
        assert default == (list(setting.default) if setting.kind is tuple else setting.default)
    assert taken["max_tokens"]["type"] == {"type": "integer"}
    assert taken["bad_words"]["type"] == {"type": "array", "items": {"type": "string"}}


def test_every_endpoint_answers(client, served):
    generator = served[2].generator
    (written,) = client.predict("Once upon", **SAMPLED, bad_words=["time"], api_name="/write")
    assert written["text"] == generator.generate("Once upon", **SAMPLED, bad_words=["time"])
    assert written["finish_reason"] == "length"
    *_, last = client.submit("Once upon", **SAMPLED, num_samples=2, api_name="/stream")
    expected = generator.complete("Once upon", **SAMPLED, num_samples=2)
    assert last == [each.text for each in expected]
    (seen,) = client.predict("Once upon", **SAMPLED, api_name="/see")
    assert "".join(each["text"] for each in seen["probabilities"]) == seen["completion"]
    assert len(seen["probabilities"][0]["alternatives"]) == LIMITS.alternatives
    found = client.predict("Once upon a tim", 3, api_name="/next_tokens")
    assert found[0]["text"] == "e"
    beams = client.predict("Once", beam_size=3, max_tokens=8, api_name="/beams")
    assert beams["branches"][0]["text"] == beams["chosen"]["completion"]
    compared = client.predict("Once", temperatures=[0.2, 1.5], **SAMPLED, api_name="/compare")
    assert [each["title"] for each in compared] == ["temperature 0.2", "temperature 1.5"]
    lacking = client.predict("Once", bad_words=["upon"], **SAMPLED, api_name="/compare")
    assert [each["title"] for each in lacking] == ["with everything", "without bad-words"]
    assert "animals" in {each["name"] for each in client.predict(api_name="/attributes")}


HOSTILE = {
    "a prompt that is too long": {"prompt": "x" * (LIMITS.prompt + 1)},
    "a prompt that is a number": {"prompt": 3},
    "a prompt that is a list": {"prompt": ["a"]},
    "a prompt that is an object": {"prompt": {"a": 1}},
    "no number": {"temperature": "hot"},
    "a truth for a number": {"max_tokens": True},
    "a part of a token": {"max_tokens": 2.5},
    "too many tokens": {"max_tokens": LIMITS.tokens + 1},
    "no tokens": {"max_tokens": 0},
    "too many samples": {"num_samples": LIMITS.samples + 1},
    "too many beams": {"beam_size": LIMITS.beams + 1},
    "too much of everything": {"max_tokens": LIMITS.tokens, "num_samples": LIMITS.samples},
    "a seed below 0": {"seed": -1},
    "an object for a list": {"bad_words": {"a": "b"}},
    "numbers in a list": {"bad_words": [1, 2]},
    "a list that is too long": {"bad_words": ["x"] * (LIMITS.entries + 1)},
    "an entry that is too long": {"bad_words": ["x" * (LIMITS.entry + 1)]},
    "too many required words": {"must_include": [f"word{i}" for i in range(LIMITS.required + 1)]},
    "too many alternatives": {"must_include": ["|".join("abcdefghijkl")]},
    "a word without room": {"must_include": ["extraordinary"], "max_tokens": 3},
    "an unknown attribute": {"guide_attribute": ["nope"]},
    "the path of an attribute": {"guide_attribute": ["/etc"]},
    "the path of an attribute above": {"guide_attribute": ["../../attributes/animals"]},
    "a strength beyond": {"guide_strength": 11},
    "a broken pattern": {"pattern": "("},
    "a pattern that is too long": {"pattern": "a" * (LIMITS.text + 1)},
    "a file for a schema": {"json_schema": "/etc/passwd"},
    "a schema elsewhere": {"json_schema": '{"$ref": "file:///etc/passwd"}'},
    "a grammar and a pattern": {"grammar": 'start: "a"', "pattern": "a"},
    "an unknown choice": {"overflow": "explode"},
    "a broken expression": {"bad_words": ["/(/"]},
    "a chat without a template": {"messages": [{"role": "user", "content": "Hello"}]},
    "a chat of nobody": {"messages": [{"role": "robot", "content": "Hello"}]},
    "a chat that is too long": {"messages": [{"role": "user", "content": "x" * (LIMITS.chat + 1)}]},
    "too many messages": {"messages": [{"role": "user", "content": "x"}] * (LIMITS.messages + 1)},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_cannot_be_is_answered_with_a_sentence(client, case):
    began = time.monotonic()
    with pytest.raises(AppError) as told:
        client.predict(**({"prompt": "Once", "max_tokens": 5} | HOSTILE[case]), api_name="/write")
    message = str(told.value)
    assert "\n" not in message
    assert len(message) < 450
    assert "Traceback" not in message
    assert "/home" not in message
    assert any(part in message for part in (" has to ", " need ", "there is no", ": ", " can match only one"))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", [name for name in NAMES if name != "attributes"])
def test_every_endpoint_checks(client, name):
    for wrong in ({"prompt": "x" * (LIMITS.prompt + 1)}, {"prompt": "a", "bad_words": ["x"] * 50}):
        with pytest.raises(AppError, match=r"prompt has to have|bad-words has to have"):
            client.predict(**wrong, api_name=f"/{name}")


def test_regular_expressions_that_take_others_for_ever_take_a_moment(client):
    for settings in ({"must_include": ["/(a+)+b/"]}, {"bad_words": ["/(x+x+)+y/"]}, {"pattern": "((a|aa)+)+"}):
        began = time.monotonic()
        client.predict("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", max_tokens=40, **settings, api_name="/write")
        assert time.monotonic() - began < 10


def post(address, name, body):
    """The answer to a plain request: ("complete" or "error", data)."""
    made = httpx.post(f"{address}/gradio_api/call/{name}", json=body)
    if made.status_code != 200:
        return str(made.status_code), made.text
    lines = httpx.get(f"{address}/gradio_api/call/{name}/{made.json()['event_id']}", timeout=30).text.splitlines()
    return lines[0].removeprefix("event: "), lines[1].removeprefix("data: ")


def test_plain_requests_open_no_file(served):
    secret = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    default = [list(each.default) if each.kind is tuple else each.default for each in OPEN.values()]
    for prompt in (secret, [secret], None):
        event, data = post(served[1], "write", {"data": [prompt, [], *default]})
        assert event != "complete"
        assert "root:" not in data
    assert post(served[1], "write", {"data": ["Once", [], 5, *default[1:]]})[0] == "complete"
    assert httpx.get(f"{served[1]}/gradio_api/file=/etc/passwd").status_code in (403, 404)


@pytest.mark.parametrize("change", [{"prompt": "x" * 5000}, {"max_tokens": 10**6}, {"bad_words": "x, " * 50}])
def test_what_the_page_itself_calls_checks_as_well(served, change):
    """Its functions are hidden from programs but can be reached by their numbers."""
    config = httpx.get(f"{served[1]}/config").json()
    parts = {each["id"]: each["props"] for each in config["components"]}
    called = 0
    for dependency in config["dependencies"]:
        names = [str(parts[each].get("elem_id")).removeprefix("field-") for each in dependency["inputs"]]
        if (
            dependency["api_visibility"] == "public"
            or not dependency["backend_fn"]
            or not {"prompt", "max_tokens"} <= {*names}
        ):
            continue
        called += 1
        data = [
            change.get(name, parts[each].get("value")) for name, each in zip(names, dependency["inputs"], strict=True)
        ]
        session = f"test{dependency['id']}"
        body = {"data": data, "fn_index": dependency["id"], "session_hash": session}
        assert httpx.post(f"{served[1]}/gradio_api/queue/join", json=body).status_code == 200
        with httpx.stream("GET", f"{served[1]}/gradio_api/queue/data", params={"session_hash": session}) as lines:
            answers = []
            for line in lines.iter_lines():
                answers.append(line)
                if "process_completed" in line:
                    break
        told = "\n".join(answers)
        assert '"success":false' in told or 'role=\\"alert\\"' in told
        assert "<article" not in told
    assert called >= 5
    assert not len(served[2].stops)


def test_a_copied_request_prints_the_text_again(served):
    if not shutil.which("curl"):
        pytest.skip("there is no curl on this machine")
    settings = GenerationSettings(**SAMPLED, bad_words=["it's", "a, b"], stop=['"'])
    prompt = 'It\'s "two"\nlines é \\n $HOME `id`'
    script = as_curl(prompt, settings, served[1])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    event, data = done.stdout.splitlines()[:2]
    assert event == "event: complete"
    (written,) = json.loads(data.removeprefix("data: "))[0]
    assert written["text"] == served[2].generator.generate(prompt, **settings.to_dict())


def test_an_assistant_calls_every_tool(served):
    mcp = pytest.importorskip("mcp", reason="mcp is not installed")
    from mcp.client.streamable_http import streamablehttp_client

    async def talk():
        async with (
            streamablehttp_client(f"{served[1]}/gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name.split("fundamentallm_")[-1]: tool for tool in (await session.list_tools()).tools}
            assert len(tools) == len(NAMES)
            answers = {}
            for name in NAMES:
                tool = next(each for key, each in tools.items() if key.endswith(name))
                assert tool.description
                assert name != "write" or "At most" in tool.inputSchema["properties"]["max_tokens"]["description"]
                extra = {"beam_size": 2} if name == "beams" else {"temperatures": [0.5]} if name == "compare" else {}
                arguments = {} if name == "attributes" else {"prompt": "Once upon", "max_tokens": 6, "seed": 1, **extra}
                answers[name] = await session.call_tool(tool.name, arguments)
            write = next(each.name for key, each in tools.items() if key.endswith("write"))
            refused = [
                await session.call_tool(write, {"prompt": "Once", "max_tokens": 5} | HOSTILE[case])
                for case in ("a prompt that is too long", "no number", "the path of an attribute", "too many beams")
            ]
            return answers, refused

    answers, refused = asyncio.run(talk())
    for name, answer in answers.items():
        assert not answer.isError, (name, answer)
        assert answer.content
    assert "Once upon" in answers["write"].content[0].text
    for answer in refused:
        assert answer.isError
        assert "Traceback" not in answer.content[0].text
        assert "root:" not in answer.content[0].text
