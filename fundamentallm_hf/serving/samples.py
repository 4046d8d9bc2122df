"""Answers with several texts or with log-probabilities, put together from the answers of transformers to each text."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from .logprobs import Forms, TokenLogProb
from .manager import SAMPLE, Sample
from .request_fields import Asked

# Answers one text: called with the fields of a request and the id of the answer.
Answer = Callable[[dict, str], Coroutine[Any, Any, Any]]


async def answer_samples(answer: Answer, body: dict, request_id: str, asked: Asked, endpoint: str) -> Any:
    """The answer to a request.

    Args:
        answer: of transformers; what it returns is kept if it needs no change.
        body: the fields.
        request_id: id of the answer.
        asked: what they ask for.
        endpoint: "completions", "chat" or "responses".
    """
    from fastapi.responses import JSONResponse, StreamingResponse

    shared: list = []
    samples = [Sample(asked, index, shared) for index in range(asked.settings.num_samples)]
    ids = [request_id, *(f"{request_id}-{index}" for index in range(1, len(samples)))]
    tasks = [
        asyncio.ensure_future(_answer_one(answer, dict(body), each, sample))
        for each, sample in zip(ids, samples, strict=True)
    ]
    try:
        found = await asyncio.gather(*tasks)
        streams, plain = isinstance(found[0], StreamingResponse), len(samples) == 1 and asked.alternatives is None
        if streams:
            events = found[0].body_iterator
            if not plain:
                parts = [_Stream(sample, endpoint, len(samples)) for sample in samples]
                events = _merged(parts, [each.body_iterator for each in found])
            return _streaming(events, samples)
        if plain:
            return found[0]
        whole = [
            await _whole(json.loads(each.body), sample, endpoint) for each, sample in zip(found, samples, strict=True)
        ]
        kept = await _best(whole, samples)
        return JSONResponse(_joined(kept, whole) if len(samples) > 1 else kept[0])
    except BaseException:
        for task, sample in zip(tasks, samples, strict=True):
            task.cancel()
            sample.stop()
        raise


def _streaming(events: AsyncIterator, samples: Sequence[Sample]) -> Any:
    """The answer with these events; however it ends, its texts end with it.

    A generator of events cannot see to that: one that was never begun ends without running anything.
    """
    from fastapi.responses import StreamingResponse

    class EndsItsTexts(StreamingResponse):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await super().__call__(scope, receive, send)
            finally:
                for sample in samples:
                    sample.stop()

    return EndsItsTexts(events, media_type="text/event-stream")


async def _answer_one(answer: Answer, body: dict, request_id: str, sample: Sample) -> Any:
    SAMPLE.set(sample)
    body["sample"] = sample.index
    response = await answer(body, request_id)
    if sample.request is not None:  # so that a stream does not begin before the request is known to be possible
        await asyncio.wrap_future(sample.request.accepted)
    return response


async def _whole(answer: dict, sample: Sample, endpoint: str) -> dict:
    """A whole answer, with log-probabilities where they are asked for; changed **in place**."""
    if sample.asked.alternatives is None:
        return answer
    tokens, forms = (await sample.read()).logprobs, Forms(sample.tokenizer)
    if endpoint == "responses":
        _set_output(answer, forms.content(tokens))
    else:
        _set_choice(answer["choices"][0], tokens, forms, endpoint)
    return answer


async def _best(answers: list[dict], samples: Sequence[Sample]) -> list[dict]:
    """The answers with the most probable texts, the most probable first, if only some are wanted."""
    best = samples[0].asked.settings.best
    if best is None:
        return answers
    scores = [(await sample.read()).score for sample in samples]
    order = sorted(range(len(answers)), key=lambda index: -scores[index])
    return [answers[index] for index in order[:best]]


def _joined(kept: Sequence[dict], answers: Sequence[dict]) -> dict:
    """One answer with the choices of several; tokens are counted for all that were generated."""
    choices = [each["choices"][0] | {"index": index} for index, each in enumerate(kept)]
    return answers[0] | {"choices": choices, "usage": _sum([each["usage"] for each in answers])}


def _sum(usages: Sequence[dict]) -> dict:
    prompt, completion = usages[0]["prompt_tokens"], sum(each["completion_tokens"] for each in usages)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _set_choice(choice: dict, tokens: Sequence[TokenLogProb], forms: Forms, endpoint: str) -> None:
    chat = endpoint == "chat"
    choice["logprobs"] = {"content": forms.content(tokens), "refusal": None} if chat else forms.completion(tokens)


def _set_output(response: dict, content: list[dict]) -> None:
    """Put log-probabilities into the messages of a response, or of a part of one."""
    for item in response.get("output") or [response.get("item") or response]:
        for part in [*(item.get("content") or ()), *([item["part"]] if "part" in item else ())]:
            if part.get("type") == "output_text":
                part["logprobs"] = content


class _Stream:
    """The events of one text.

    Args:
        sample: the text.
        endpoint: as in `answer_samples`.
        count: texts of the request.

    Attributes:
        usage: of the text, once it is known.
    """

    def __init__(self, sample: Sample, endpoint: str, count: int) -> None:
        self.sample, self.endpoint, self.count = sample, endpoint, count
        self.usage: dict | None = None
        self._forms = None if sample.asked.alternatives is None else Forms(sample.tokenizer)
        self._shown = self._given = 0  # characters, and tokens with log-probabilities

    async def edit(self, event: dict) -> dict:
        """An event with what is missing in it, changed **in place**."""
        if self.endpoint == "responses":
            await self._edit_response(event)
        elif event.get("choices"):
            choice = event["choices"][0]
            choice["index"] = self.sample.index
            text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            if self._forms is not None:
                ended = choice.get("finish_reason") is not None
                tokens = await self._rest() if ended else self._next(text)
                if tokens:
                    _set_choice(choice, tokens, self._forms, self.endpoint)
            if self.count > 1:
                self.usage = event.pop("usage", None) or self.usage
        return event

    async def _edit_response(self, event: dict) -> None:
        assert self._forms is not None  # a response has one text
        kind = event.get("type", "")
        if kind == "response.output_text.delta":
            event["logprobs"] = self._forms.content(self._next(event["delta"]))
        elif kind.endswith(".done") or kind == "response.completed":
            content = self._forms.content((await self.sample.read()).logprobs)
            if kind == "response.output_text.done":
                event["logprobs"] = content
            _set_output(event.get("response") or event, content)

    def _next(self, text: str) -> list[TokenLogProb]:
        """The tokens of the next characters that are shown."""
        assert self.sample.logprobs is not None
        self._shown += len(text)
        first, found = self._given, self.sample.logprobs.found
        while self._given < len(found):
            each = found[self._given]
            # One without text, such as an end token, may not belong to the text, which only its end shows.
            if each.end > self._shown or each.start == self._shown:
                break
            self._given += 1
        return found[first : self._given] if text else []

    async def _rest(self) -> list[TokenLogProb]:
        """The tokens that have not been given yet."""
        first, tokens = self._given, (await self.sample.read()).logprobs
        self._given = len(tokens)
        return tokens[first:]


def _event(data: str) -> dict:
    """The data of an event. In that of an error, transformers puts the message between quotes as it is."""
    try:
        return json.loads(data)
    except ValueError:
        return {"error": data.removeprefix('{"error": "').removesuffix('"}')}


async def _merged(parts: Sequence[_Stream], streams: Sequence[AsyncIterator]) -> AsyncIterator[str]:
    """The events of several texts as they come. The last one has the tokens of all."""
    queue: asyncio.Queue = asyncio.Queue()

    async def follow(part: _Stream, stream: AsyncIterator) -> None:
        async for piece in stream:
            text = piece if isinstance(piece, str) else bytes(piece).decode()
            for line in text.split("\n\n"):
                if line.startswith("data: "):
                    await queue.put(await part.edit(_event(line.removeprefix("data: "))))

    tasks = [asyncio.ensure_future(follow(*each)) for each in zip(parts, streams, strict=True)]
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    left, ended, first_id = len(tasks), 0, None
    try:
        while left:
            event = await queue.get()
            if isinstance(event, asyncio.Future):
                event.result()
                left -= 1
                continue
            if event.get("choices"):
                first_id = event["id"] = first_id or event["id"]
                ended += event["choices"][0].get("finish_reason") is not None
                if ended == len(parts) > 1:
                    event["usage"] = _sum([each.usage for each in parts if each.usage is not None])
            yield f"data: {json.dumps(event)}\n\n"
    finally:
        for task in tasks:
            task.cancel()
