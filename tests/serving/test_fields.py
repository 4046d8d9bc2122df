"""Requests of the openai client: controls as plain fields, refusals, the key, the lists of models and metrics."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving_process import CHAT, PROMPT, Server, bundled_generator, chat_generator  # noqa: F401

from fundamentallm_hf.model_io.loading import DEMO_MODEL

openai = pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
KEY = "secret"


@pytest.fixture(scope="module")
def server():
    running = Server("--api-key", KEY, "--limit-tokens", "400", "--limit-entries", "5")
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


def complete(client, prompt=PROMPT, stream=False, model=DEMO_MODEL, max_tokens=24, **fields):
    """The text of a completion, asked for with fields of the client and others."""
    known = {name: fields.pop(name) for name in list(fields) if name in ("temperature", "top_p", "seed", "stop")}
    found = client.completions.create(
        model=str(model), prompt=prompt, stream=stream, max_tokens=max_tokens, extra_body=fields, **known
    )
    if not stream:
        return found.choices[0].text
    return "".join(part.choices[0].text for part in found if part.choices)


REQUESTS = [
    {"temperature": 0},
    {"temperature": 0.8, "top_p": 0.9, "seed": 5},
    {"temperature": 1.2, "top_k": 7, "min_p": 0.05, "seed": 8},
    {"must_include": ["dragon"], "temperature": 0.8, "seed": 1},
    {"bad_words": ["the", "was"], "stop": [","], "temperature": 0.9, "seed": 2},
    {"guide_attribute": ["positive_sentiment"], "guide_strength": 2.0, "temperature": 0.8, "seed": 3},
    {"pattern": "[a-z, ]{5,20}\\.", "seed": 1},
    {"json_schema": {"enum": ["once", "twice"]}, "seed": 1},
    {"repetition_penalty": 1.3, "no_repeat_ngram": 3, "speculate": False, "seed": 6},
    {"beam_size": 3},
    {"beam_size": 2, "temperature": 1.6, "seed": 4},
    {"length_penalty": 2.0, "temperature": 0.9, "seed": 4, "min_tokens": 5},
    {"end_at": "word", "temperature": 0.8, "seed": 2},
    {"words": "2-3", "temperature": 0.8, "seed": 3},
    {"starts_with": "there was", "ends_with": ["The end.", "a cat"], "max_tokens": 60, "temperature": 0.8, "seed": 5},
    {"sentences": 1, "max_tokens": 120, "temperature": 0.8, "seed": 4},
]


@pytest.mark.parametrize("fields", REQUESTS, ids=lambda fields: "+".join(fields) or "none")
@pytest.mark.parametrize("stream", [False, True])
def test_every_control_is_a_plain_field_and_gives_the_text_of_the_command(client, demo, fields, stream):
    expected = demo.complete(PROMPT, **{"max_tokens": 24} | fields)[0].completion
    assert complete(client, stream=stream and "beam_size" not in fields, **fields) == expected


def test_requests_at_once_get_their_own_texts(client, demo):
    asked = [fields | {"prompt": prompt} for fields in REQUESTS for prompt in (PROMPT, "The dragon")]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda fields: complete(client, **fields), asked))
    expected = []
    for fields in asked:
        given = {"max_tokens": 24} | fields
        expected.append(demo.complete(given.pop("prompt"), **given)[0].completion)
    assert found == expected


def test_a_config_and_plain_fields_add_up(client, demo):
    config = json.dumps({"do_sample": True, "temperature": 0.8, "top_k": 0})
    found = complete(client, generation_config=config, seed=5, bad_words=["the"])
    assert found == demo.complete(PROMPT, max_tokens=24, temperature=0.8, seed=5, bad_words=["the"])[0].completion


def test_a_schema_may_come_as_the_response_format(client, demo):
    schema = REQUESTS[7]["json_schema"]
    told = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    found = complete(client, response_format=told, seed=1)
    assert json.loads(found) in ("once", "twice")
    assert found == demo.complete(PROMPT, max_tokens=24, seed=1, json_schema=schema)[0].completion


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", [{"temperature": 0}, {"temperature": 0.9, "seed": 3, "bad_words": ["/[a-m]/"]}])
def test_chats_and_responses_get_the_reply_of_the_command(client, chatty, fields, stream):
    generator, name = chatty
    expected = generator.complete([CHAT], max_tokens=12, **fields)[0].completion.rstrip("\ufffd")
    found = client.chat.completions.create(model=name, messages=CHAT, max_tokens=12, stream=stream, extra_body=fields)
    if stream:
        text = "".join(part.choices[0].delta.content or "" for part in found if part.choices)
    else:
        text = found.choices[0].message.content
    assert text.rstrip("\ufffd").strip() == expected.strip()
    answer = client.responses.create(
        model=name, input="Tell a story.", max_output_tokens=12, stream=stream, extra_body=fields
    )
    if stream:
        text = "".join(event.delta for event in answer if event.type == "response.output_text.delta")
    else:
        text = answer.output_text
    assert text.rstrip("\ufffd").strip() == expected.strip()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"temperature": -1}, "temperature has to be a number from 0"),
        ({"must_include": ["a" * 100]}, "must.include|required"),
        ({"must_inclde": ["dragon"]}, "there is no field 'must_inclde': did you mean 'must_include'?"),
        ({"bad_words": 7}, "bad-words has to be"),
        ({"bad_words": ["a"] * 6}, "bad-words has to have at most 5 entries here but has 6"),
        ({"bad_words_file": "/etc/passwd"}, "bad-words-file is not available here"),
        ({"max_tokens": 401}, "max-tokens has to be at most 400 here but is 401"),
        ({"max_tokens": "many"}, "max-tokens has to be a whole number"),
        ({"num_samples": 30}, "num-samples has to be at most 16 here but is 30"),
        ({"echo": True}, "echo is not supported here but is True"),
        ({"frequenzy_penalty": 1}, "did you mean 'frequency_penalty'?"),
        ({"guide_attribute": ["no_such"]}, "no_such"),
        ({"pattern": "["}, "pattern"),
        ({"json_schema": "{"}, "json-schema"),
        ({"response_format": {"type": "json_object"}}, "response_format has to be"),
        ({"generation_config": "{"}, "generation_config has to be a JSON object but cannot be read"),
        ({"generation_config": '{"temprature": 1}'}, "no field 'temprature': did you mean 'temperature'?"),
        ({"generation_config": '{"max_new_tokens": 500}'}, "max-new-tokens has to be at most 400"),
        ({"generation_config": '{"seed": 1}', "seed": 2}, "seed is in the request and in its generation_config"),
        ({"model": "no/such"}, "no/such"),
        ({"model": None}, "model has to be the name of a model"),
        ({"prompt": {"a": 1}}, "prompt"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_field_is_refused_with_one_line(client, fields, line, stream):
    body = {"model": str(DEMO_MODEL), "prompt": PROMPT, "stream": stream, "max_tokens": 8} | fields
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/completions", body=body, cast_to=object)
    detail = caught.value.response.json()["detail"]
    assert detail in str(caught.value)
    assert re.search(line, detail) or line in detail
    assert "\n" not in detail


@pytest.mark.parametrize("path", ["completions", "chat/completions", "responses"])
def test_a_request_without_a_prompt_is_refused(client, path):
    for body in ({}, {"messages": []}, {"messages": ["hello"]}, {"messages": [{"role": "user"}]}, {"messages": CHAT}):
        with pytest.raises(openai.BadRequestError):  # the bundled model has no template for chats
            client.post(f"/{path}", body={"model": str(DEMO_MODEL), "stream": False} | body, cast_to=object)


def test_the_key_is_needed(server, client):
    with pytest.raises(openai.AuthenticationError, match="API key is missing or wrong"):
        complete(openai.OpenAI(base_url=f"{server.url}/v1", api_key="other", max_retries=0))
    assert json.loads(server.get("/health"))["status"] == "ok"


def test_it_lists_its_models(client):
    complete(client, max_tokens=1)
    assert str(DEMO_MODEL) in [each.id for each in client.models.list()]


def metrics(server):
    page = server.get("/metrics", Authorization=f"Bearer {KEY}")
    lines = [line for line in page.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def metrics_at_rest(server):
    """The metrics once nothing runs; after 10 seconds, those of then. An answer arrives before its place is free."""
    patience = time.monotonic() + 10
    while (found := metrics(server))["fundamentallm_running"] and time.monotonic() < patience:
        time.sleep(0.1)
    return found


def test_metrics_count_requests_and_tokens(server, client):
    complete(client, max_tokens=1)
    before = metrics(server)
    complete(client, max_tokens=24)
    with pytest.raises(openai.BadRequestError):
        complete(client, temperature=-1)
    after = metrics(server)
    assert after["fundamentallm_tokens_total"] - before["fundamentallm_tokens_total"] == 24
    for status in (200, 400):
        name = f'fundamentallm_requests_total{{path="/v1/completions",status="{status}"}}'
        assert after[name] - before.get(name, 0) == 1
    at_rest = metrics_at_rest(server)
    assert at_rest["fundamentallm_running"] == at_rest["fundamentallm_waiting"] == 0


def test_a_client_that_leaves_ends_its_text(server, client):
    stream = client.completions.create(model=str(DEMO_MODEL), prompt=PROMPT, max_tokens=400, stream=True)
    next(iter(stream))
    stream.close()
    assert metrics_at_rest(server)["fundamentallm_running"] == 0
