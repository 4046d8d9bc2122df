"""Several texts for one prompt, log-probabilities, and clients that leave, through the openai client."""

import asyncio
import json
import time
from functools import partial

import httpx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from serving_process import CHAT, PROMPT, Server, bundled_generator, chat_generator  # noqa: F401

from fundamentallm_hf.generation.probabilities import raw_log_probabilities
from fundamentallm_hf.model_io.loading import DEMO_MODEL

pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
import openai
from fastapi.responses import StreamingResponse

from fundamentallm_hf.serving.manager import SAMPLE, Sample
from fundamentallm_hf.serving.request_fields import ServerLimits, read_fields
from fundamentallm_hf.serving.samples import _merged, _Stream, answer_samples

TOKENS = 24


@pytest.fixture(scope="module")
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def choices(client, stream=False, prompt=PROMPT, **fields):
    """The choices of a completion: text, finish reason and log-probabilities of each; and the usage."""
    body = {"model": str(DEMO_MODEL), "prompt": prompt, "max_tokens": TOKENS, "stream": stream} | fields
    if not stream:
        found = client.post("/completions", body=body, cast_to=openai.types.Completion)
        assert [each.index for each in found.choices] == list(range(len(found.choices)))
        return [(each.text, each.finish_reason, each.logprobs) for each in found.choices], found.usage
    parts = list(
        client.post(
            "/completions",
            body=body,
            cast_to=openai.types.Completion,
            stream=True,
            stream_cls=openai.Stream[openai.types.Completion],
        )
    )
    assert len({part.id for part in parts}) == 1
    found = {}
    for part in parts:
        (choice,) = part.choices
        text, reason, logprobs = found.get(choice.index, ("", None, None))
        if choice.logprobs is not None:
            new = choice.logprobs.model_dump()
            logprobs = new if logprobs is None else {name: logprobs[name] + new[name] for name in logprobs}
        found[choice.index] = (text + choice.text, choice.finish_reason or reason, logprobs)
    (usage,) = [part.usage for part in parts if part.usage is not None]
    return [found[index] for index in sorted(found)], usage


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.8, "seed": 5},
        {"temperature": 1.0, "seed": 2, "must_include": ["dragon"]},
        {"temperature": 0.9, "seed": 3, "bad_words": ["the", "was"], "stop": [","]},
    ],
    ids=lambda fields: "+".join(fields),
)
@pytest.mark.parametrize("stream", [False, True])
def test_each_of_several_texts_is_that_of_the_command(client, demo, fields, stream):
    found, usage = choices(client, stream, n=3, **fields)
    expected = demo.complete(PROMPT, max_tokens=TOKENS, num_samples=3, **fields)
    assert [text for text, _, _ in found] == [each.completion for each in expected]
    assert [reason for _, reason, _ in found] == [
        "length" if each.finish_reason == "length" else "stop" for each in expected
    ]
    prompt = len(demo.tokenizer(PROMPT).input_ids)
    assert usage.prompt_tokens == prompt
    assert usage.total_tokens == prompt + usage.completion_tokens
    if "stop" not in fields:
        assert usage.completion_tokens == sum(each.tokens for each in expected)


def test_a_search_gives_several_texts_at_once(client, demo):
    for fields in ({"beam_size": 3}, {"beam_size": 3, "temperature": 1.3, "seed": 4}):
        found, _ = choices(client, n=2, **fields)
        expected = demo.complete(PROMPT, max_tokens=TOKENS, num_samples=2, **fields)
        assert [text for text, _, _ in found] == [each.completion for each in expected]


def test_the_best_of_several_are_kept(client, demo):
    found, usage = choices(client, n=2, best_of=4, temperature=1.2, seed=9)
    expected = demo.complete(PROMPT, max_tokens=TOKENS, num_samples=4, best=2, temperature=1.2, seed=9)
    assert [text for text, _, _ in found] == [each.completion for each in expected]
    assert usage.completion_tokens == 4 * TOKENS


def test_texts_of_a_config_have_seeds_of_their_own(client, demo):
    config = '{"do_sample": true, "temperature": 0.8, "top_k": 0, "seed": 5, "max_new_tokens": 24}'
    found, _ = choices(client, n=2, generation_config=config, max_tokens=None)
    expected = demo.complete(PROMPT, max_tokens=TOKENS, num_samples=2, temperature=0.8, seed=5)
    assert [text for text, _, _ in found] == [each.completion for each in expected]


LOGPROBS = [
    {"temperature": 0},
    {"temperature": 0.8, "seed": 5},
    {"temperature": 0, "speculate": False},
    {"temperature": 0.9, "seed": 2, "must_include": ["dragon"], "bad_words": ["the"]},
    {"temperature": 0.8, "seed": 6, "stop": ["a ", "the "]},
    {"temperature": 0.8, "seed": 1, "pattern": "[a-z, ]{5,20}\\."},
    {"generation_config": '{"do_sample": true, "top_k": 5, "seed": 3, "max_new_tokens": 24}', "max_tokens": None},
    {"beam_size": 3},
]


@pytest.mark.parametrize("fields", LOGPROBS, ids=lambda fields: "+".join(fields))
@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_those_of_the_model(client, demo, fields, stream):
    if stream and "beam_size" in fields:
        pytest.skip("beams are not streamed")
    ((text, _, logprobs),), _ = choices(client, stream, logprobs=3, **fields)
    found = logprobs if isinstance(logprobs, dict) else logprobs.model_dump()
    assert "".join(found["tokens"])[: len(text)] == text
    assert found["text_offset"] == list(range(len(found["tokens"])))  # a character each
    ids = demo.tokenizer(PROMPT + "".join(found["tokens"])).input_ids
    start = len(ids) - len(found["tokens"])
    raw = torch.cat(list(raw_log_probabilities(demo.model, ids[:-1], start)))
    expected = raw.gather(-1, torch.tensor(ids[start:])[:, None]).flatten()
    assert torch.allclose(torch.tensor(found["token_logprobs"]), expected, atol=1e-3)
    for row, top, token in zip(raw, found["top_logprobs"], found["tokens"], strict=True):
        values, tokens = row.topk(3)
        names = dict(zip(map(demo.tokenizer.convert_ids_to_tokens, tokens.tolist()), values.tolist(), strict=True))
        assert len(top) == len({*names, token})
        assert all(top[name] == pytest.approx(value, abs=1e-3) for name, value in names.items())


def test_several_texts_have_log_probabilities_each(client):
    whole, _ = choices(client, n=2, logprobs=0, temperature=0.8, seed=1)
    streamed, _ = choices(client, True, n=2, logprobs=0, temperature=0.8, seed=1)
    for (text, _, found), (_, _, in_parts) in zip(whole, streamed, strict=True):
        assert "".join(found.tokens) == text
        assert in_parts["token_logprobs"] == pytest.approx(found.token_logprobs, abs=1e-3)
        assert [list(top) for top in found.top_logprobs] == [[token] for token in found.tokens]


CHATS = [{"temperature": 0}, {"temperature": 0.9, "seed": 3, "bad_words": ["/[a-m]/"]}]


@pytest.mark.parametrize("fields", CHATS, ids=["plain", "controls"])
def test_chats_and_responses_have_log_probabilities_with_bytes(client, chatty, fields):
    generator, name = chatty
    asked = {"model": name, "messages": CHAT, "max_tokens": 12, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked, extra_body=fields).choices[0]
    content = whole.logprobs.content
    assert len(content) == 12
    assert all(len(each.top_logprobs) == 2 for each in content)
    written = bytes(byte for each in content for byte in each.bytes)
    assert written.decode("utf-8", "replace").strip("\ufffd ") == whole.message.content.strip("\ufffd ")
    prompt = generator.tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    ids = generator.tokenizer(prompt).input_ids
    first = next(raw_log_probabilities(generator.model, ids, len(ids)))[0]
    assert [each.logprob for each in content[0].top_logprobs] == pytest.approx(first.topk(2).values.tolist(), abs=1e-3)

    parts = list(client.chat.completions.create(**asked, stream=True, extra_body=fields))
    streamed = [each for part in parts if part.choices[0].logprobs for each in part.choices[0].logprobs.content]
    assert [each.model_dump() for each in streamed] == [each.model_dump() for each in content]

    asked = {"model": name, "input": "Tell a story.", "max_output_tokens": 12, "top_logprobs": 2}
    asked["include"] = ["message.output_text.logprobs"]
    answer = client.responses.create(**asked, stream=False, extra_body=fields)
    expected = [each.model_dump() for each in content]
    assert [each.model_dump() for each in answer.output[0].content[0].logprobs] == expected
    events = list(client.responses.create(**asked, stream=True, extra_body=fields))
    deltas = [each for event in events if event.type == "response.output_text.delta" for each in event.logprobs]
    assert [each.token for each in deltas] == [each["token"] for each in expected][: len(deltas)]
    (done,) = [event for event in events if event.type == "response.completed"]
    assert [each.model_dump() for each in done.response.output[0].content[0].logprobs] == expected


def test_chats_may_ask_for_several_replies(client, chatty):
    generator, name = chatty
    fields = {"temperature": 0.9, "seed": 3}
    found = client.chat.completions.create(model=name, messages=CHAT, max_tokens=12, n=2, extra_body=fields)
    expected = generator.complete([CHAT], max_tokens=12, num_samples=2, **fields)
    texts = [each.message.content.strip("\ufffd ") for each in found.choices]
    assert texts == [each.completion.strip("\ufffd ") for each in expected]
    parts = client.chat.completions.create(
        model=name, messages=CHAT, max_tokens=12, n=2, stream=True, extra_body=fields
    )
    streamed = ["", ""]
    for part in parts:
        streamed[part.choices[0].index] += part.choices[0].delta.content or ""
    assert [each.strip("\ufffd ") for each in streamed] == texts


@pytest.mark.parametrize(
    ("path", "fields", "line"),
    [
        ("completions", {"n": 17}, "num-samples has to be at most 16 here but is 17"),
        ("completions", {"n": 0}, "num-samples has to be a whole number of at least 1"),
        ("completions", {"n": 3, "temperature": 0}, "at temperature 0 all samples are the same"),
        ("completions", {"n": 3, "beam_size": 2, "temperature": 0}, "num-samples is 3, but a beam-size of 2 keeps"),
        ("completions", {"n": 3, "beam_size": 2, "temperature": 1}, "a search with 2 beams gives 2 texts at most here"),
        ("completions", {"n": 3, "generation_config": {"num_beams": 2}}, "with 2 beams gives 2 texts at most here"),
        ("completions", {"n": 3, "num_samples": 3}, "num_samples is given twice"),
        ("completions", {"best_of": 1, "n": 2}, "best is 2, but num-samples writes only 1"),
        ("completions", {"best_of": 3, "stream": True}, "known at the end: leave out stream"),
        ("completions", {"logprobs": True}, "logprobs has to be a whole number from 0 to 20 but is True"),
        ("completions", {"logprobs": 21}, "from 0 to 20 but is 21"),
        ("completions", {"top_logprobs": 2}, "top_logprobs is a field of chats"),
        ("chat/completions", {"logprobs": 2}, "logprobs has to be true or false but is 2"),
        ("chat/completions", {"top_logprobs": 2}, 'top_logprobs needs "logprobs": true'),
        ("responses", {"num_samples": 2}, "num-samples has to be 1 for a response"),
        ("responses", {"include": ["file_search_call.results"]}, "include has to be"),
    ],
)
def test_a_wrong_number_is_refused_with_one_line(client, chatty, path, fields, line):
    prompt = {"completions": {"prompt": PROMPT}, "chat/completions": {"messages": CHAT}, "responses": {"input": "A"}}
    body = {"model": chatty[1], "max_tokens": 4} | prompt[path] | {"stream": False} | fields
    with pytest.raises(openai.BadRequestError) as caught:
        client.post(f"/{path}", body=body, cast_to=object)
    assert line in caught.value.response.json()["detail"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\\"), max_size=20))
def test_an_error_in_a_stream_is_passed_on_whatever_its_message(message):
    """transformers puts it between quotes as it is."""

    async def events(*lines):
        for line in lines:
            yield f"data: {line}\n\n"

    async def collect():
        asked = read_fields({"n": 2}, ServerLimits())
        parts = [_Stream(Sample(asked, index), "completions", 2) for index in range(2)]
        chunk = json.dumps({"id": "a", "choices": [{"index": 0, "text": "b"}]})
        streams = [events(chunk, f'{{"error": "{message}"}}'), events(json.dumps({"error": message}))]
        return [json.loads(event.removeprefix("data: ")) async for event in _merged(parts, streams)]

    found = asyncio.run(collect())
    assert sorted(map(len, found)) == [1, 1, 2]
    assert [event for event in found if "error" in event] == [{"error": message}] * 2


@pytest.mark.parametrize(
    "fields", [{}, {"n": 3}, {"beam_size": 2}, {"stream": True, "n": 3}], ids=lambda fields: "+".join(fields) or "one"
)
def test_a_client_that_leaves_frees_its_place(server, client, fields):
    choices(client, max_tokens=1)  # loads the model
    long = {"model": str(DEMO_MODEL), "prompt": PROMPT, "max_tokens": 4000, "min_tokens": 3990} | fields
    address = f"{server.url}/v1/completions"
    left = 'fundamentallm_requests_total{path="/v1/completions",status="499"}'
    expected = server.metric(left) + ("stream" not in fields)  # the answer to the other one has begun
    with httpx.Client(timeout=httpx.Timeout(60, read=30 if "stream" in fields else 0.5)) as leaving:
        if "stream" in fields:
            with leaving.stream("POST", address, json=long) as answer:
                next(answer.iter_text())
                assert server.running
        else:
            with pytest.raises(httpx.ReadTimeout):
                leaving.post(address, json=long)
    ended = time.monotonic() + 20
    while server.metric(left) != expected and time.monotonic() < ended:
        time.sleep(0.1)
    assert server.until_idle()
    assert server.metric(left) == expected


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("sent", [0, 1, 2])
def test_the_texts_of_a_stream_end_with_it_even_if_it_never_began(number, sent):
    """The client leaves after so many messages; the first one is that of the status and begins no text."""
    started, stopped = [], []

    async def answer(body, request_id):
        async def events():
            started.append(request_id)
            while True:
                await asyncio.sleep(0.001)
                yield f"data: {json.dumps({'id': request_id, 'choices': [{'text': 'a'}]})}\n\n"

        SAMPLE.get().cancel = partial(stopped.append, request_id)
        return StreamingResponse(events(), media_type="text/event-stream")

    async def run():
        left, messages = asyncio.Event(), []

        async def receive():
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if len(messages) == sent:
                left.set()
                await asyncio.sleep(60)
            messages.append(message)

        asked = read_fields({"n": number}, ServerLimits())
        response = await answer_samples(answer, {}, "a", asked, "completions")
        await asyncio.wait_for(response({"type": "http", "asgi": {}}, receive, send), 5)

    asyncio.run(run())
    assert sorted(stopped) == ["a", "a-1", "a-2"][:number]
    assert bool(started) == (sent > 0)
