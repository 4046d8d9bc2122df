"""`fundamentallm serve`: `transformers serve` with checked requests, an API key, metrics, and texts computed together.

transformers reads its options, loads the models, and forms the answers of its three endpoints for texts.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fundamentallm_hf.files import first_line
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.settings.typed_values import short_repr

from .departures import EndsWithClient
from .guard import Guard, error_answer
from .metrics import Metrics
from .request_fields import Asked, read_fields
from .server_limits import ServerLimits
from .shared_counts import TEXT_PATHS, SharedCounts


def prepare(limits: ServerLimits, api_key: str | None, metrics: Metrics | None = None) -> None:
    """Make `transformers serve`, started in this process, answer as described in this module.

    Args:
        limits: of every request.
        api_key: that requests have to carry; None if they need none.
        metrics: of this process, where it is one of several; None if it is the only one.
    """
    from transformers.cli.serving import model_manager as models
    from transformers.cli.serving import server, utils
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.completion import CompletionHandler
    from transformers.cli.serving.response import ResponseHandler

    from .common_batch import Batched
    from .manager import Together, release

    utils.GenerateManager = Together
    release_unloaded(models.TimedModel, release)
    utils.CBGenerateManager = Batched
    handlers = {"chat": ChatCompletionHandler, "completions": CompletionHandler, "responses": ResponseHandler}
    for endpoint, handler in handlers.items():
        _check_requests(handler, endpoint, limits)
    build = server.build_server

    def build_server(model_manager: Any, *args: Any, **kwargs: Any) -> Any:
        app = build(model_manager, *args, **kwargs)
        _complete(app, model_manager, limits, api_key, metrics)
        return app

    server.build_server = build_server


def release_unloaded(kind: Any, release: Callable[[Any], None]) -> None:
    """Change the class of loaded models **in place**: what is unloaded is released here as well."""
    delete = kind.delete_model

    def delete_model(self: Any) -> None:
        if getattr(self, "model", None) is not None:
            release(self.model)
        delete(self)

    kind.delete_model = delete_model


def _check_requests(handler: type, endpoint: str, limits: ServerLimits) -> None:
    """Change the class of an endpoint **in place**: it checks every field first, and answers 400 instead of 500."""
    from fastapi import HTTPException

    from .samples import answer_samples

    answer, resolve = handler.handle_request, handler._resolve_model  # type: ignore[attr-defined]

    async def handle_request(self: Any, body: dict, request_id: str) -> Any:
        try:
            _check_prompt(body)
            body["asked"] = asked = read_fields(body, limits, endpoint)
            return await answer_samples(partial(answer, self), body, request_id, asked, endpoint)
        except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
            logging.getLogger(__name__).info("refused", exc_info=True)
            raise HTTPException(status_code=400, detail=_line(error)) from error

    def validate(self: Any, body: dict) -> None:
        """All fields have been checked already."""

    def make_config(self: Any, body: Mapping[str, Any], own: Any, use_cb: bool = False) -> Any:
        asked: Asked = body["asked"]
        config = asked.make_config(body["loaded"], body["sample"])
        config.use_cache = not use_cb
        return config

    def resolve_model(self: Any, body: dict) -> Any:
        if not isinstance(body.get("model"), str | None) or (
            body.get("model") is None and self.model_manager.force_model is None
        ):
            raise UserError('model has to be the name of a model, as "model": "name"', setting="model")
        try:
            found = resolve(self, body)
        except (OSError, ValueError) as error:
            raise UserError(f"the model {body['model']!r} cannot be loaded: {_line(error)}", setting="model") from error
        body["loaded"] = found[1]
        return found

    handler.handle_request = handle_request  # type: ignore[attr-defined]
    handler._validate_request = validate  # type: ignore[attr-defined]
    handler._build_generation_config = make_config  # type: ignore[attr-defined]
    handler._resolve_model = resolve_model  # type: ignore[attr-defined]


def _check_prompt(body: Mapping[str, Any]) -> None:
    """Raises: UserError: no prompt is where transformers looks for one."""
    if "messages" in body:
        messages = body["messages"]
        if not isinstance(messages, list) or not messages:
            raise UserError("messages has to be a list of messages, each with a role and a content", setting="messages")
        for number, message in enumerate(messages, 1):
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise UserError(
                    f'message {number} has to be {{"role": ..., "content": ...}} but is {short_repr(message)}'
                )
    elif not isinstance(body.get("prompt", body.get("input")), str | list):
        raise UserError("the request has no prompt: give messages, prompt or input", setting="prompt")


def _complete(app: Any, model_manager: Any, limits: ServerLimits, api_key: str | None, metrics: Metrics | None) -> None:
    """Add the key, the limit of waiting requests, metrics and the list of models to an app, **in place**."""
    from fastapi import HTTPException
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import PlainTextResponse

    if metrics is not None:
        _refuse_reset(app)
    else:
        counts = SharedCounts()
        counts.rows[0].ready = 1
        metrics = Metrics(counts, counts.rows[0])

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Any, error: Any) -> Any:
        return error_answer(400, "the request has to be a JSON object")

    @app.exception_handler(HTTPException)
    async def refused(request: Any, error: Any) -> Any:
        return error_answer(error.status_code, str(error.detail))

    @app.get("/metrics")
    def page() -> Any:
        return PlainTextResponse(metrics.page(), media_type="text/plain; version=0.0.4")

    app.add_middleware(Guard, paths=TEXT_PATHS, api_key=api_key, most_waiting=limits.waiting, metrics=metrics)
    app.add_middleware(EndsWithClient, paths=TEXT_PATHS)
    model_manager.get_gen_models = lambda cache_dir=None: served_models(model_manager, cache_dir)


def _refuse_reset(app: Any) -> None:
    """Refuse the request that unloads the models, which would reach one of several processes."""
    from starlette.routing import Route

    def reset(request: Any) -> Any:
        return error_answer(400, "/reset would reach one of the workers only: start the server with --workers 1 for it")

    app.router.routes.insert(0, Route("/reset", reset, methods=["POST"]))


def served_models(manager: Any, cache_dir: str | None = None) -> list[dict[str, Any]]:
    """The models of a server: the one it was started with, those that are loaded, and those in the cache."""
    from huggingface_hub.errors import CacheNotFound

    names = [manager.force_model] if manager.force_model else []
    names += [name.removesuffix("@main") for name in manager.loaded_models]
    found = {name: {"id": name, "object": "model", "created": 0, "owned_by": ""} for name in names}
    if manager.force_model is None:
        try:
            for each in type(manager).get_gen_models(cache_dir):
                found.setdefault(each["id"], each | {"created": int(each["created"])})
        except CacheNotFound:
            pass
    return list(found.values())


def _line(error: BaseException) -> str:
    line = first_line(error)
    return f"the field {line} is missing" if isinstance(error, KeyError) else line
