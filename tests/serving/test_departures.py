"""A call whose client leaves before the answer is cancelled; any other is left alone."""

import asyncio

import pytest

from fundamentallm_hf.serving.departures import EndsWithClient

BODY = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}]
GONE = {"type": "http.disconnect", "reason": "a field that a server may add"}


def call(app, leaves_after=None, path="/v1"):
    """What was sent, with a client that leaves after so many seconds."""
    sent, messages = [], list(BODY)

    async def receive():
        if messages:
            return messages.pop(0)
        await asyncio.sleep(3600 if leaves_after is None else leaves_after)
        return GONE

    async def send(message):
        sent.append(message)

    async def run():
        await asyncio.wait_for(EndsWithClient(app, {"/v1"})({"type": "http", "path": path}, receive, send), 5)

    asyncio.run(run())
    return sent


def slow(log, before=0.0, after=0.0):
    async def app(scope, receive, send):
        try:
            body = [(await receive())["body"] for _ in BODY]
            await asyncio.sleep(before)
            await send(body)
            await asyncio.sleep(after)
            await send("end")
            log.append("complete")
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    return app


def test_a_call_whose_client_leaves_is_cancelled():
    log = []
    assert call(slow(log, before=60), leaves_after=0.05) == []
    assert log == ["cancelled"]


@pytest.mark.parametrize(
    ("times", "leaves", "path"),
    [
        ({}, None, "/v1"),
        ({"after": 0.2}, 0.05, "/v1"),  # it has begun to answer: a stream looks after itself
        ({"before": 0.2}, 0.05, "/other"),
    ],
)
def test_any_other_call_is_left_alone(times, leaves, path):
    log = []
    assert call(slow(log, **times), leaves, path) == [[b"a", b"b"], "end"]
    assert log == ["complete"]


def test_an_application_is_told_that_the_client_has_left_as_often_as_it_asks():
    async def app(scope, receive, send):
        await send("begin")
        assert [await receive() for _ in range(4)] == [*BODY, GONE, GONE]
        await send("end")

    assert call(app, leaves_after=0.05) == ["begin", "end"]


def test_an_error_of_the_application_is_raised():
    async def app(scope, receive, send):
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        call(app)
