"""What is relied on of transformers' server, and of uvicorn."""

import inspect
import re

import pytest
from private_checks import relied_on


@relied_on("transformers", "cli.serving.utils.CBGenerateManager")
def common_batch():
    pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
    from transformers.cli.serving import utils

    manager = utils.CBGenerateManager
    source = inspect.getsource(manager)
    assert "self._cb = model.init_continuous_batching(" in source
    assert "continuous_batching_config=self._cb_config" in source
    assert "CBGenerateManager(" in inspect.getsource(utils.GenerationState.get_manager)
    assert list(inspect.signature(manager.init_cb).parameters)[:3] == ["self", "model", "gen_config"]
    for each in (manager.generate_streaming, manager.generate_non_streaming):
        names = list(inspect.signature(each).parameters)
        assert names[:6] == ["self", "model", "processor", "inputs", "gen_config", "request_id"]
        assert re.search(r"cb\.add_request\(\s*input_ids,\s*request_id=request_id", inspect.getsource(each))


@relied_on("transformers", "cli.serving.utils.GenerateManager")
def alone():
    pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
    from transformers.cli.serving import utils

    assert "GenerateManager()" in inspect.getsource(utils.GenerationState.get_manager)
    for each in (utils.GenerateManager.generate_streaming, utils.GenerateManager.generate_non_streaming):
        names = list(inspect.signature(each).parameters)
        assert names[:6] == ["self", "model", "processor", "inputs", "gen_config", "request_id"]
    assert 'getattr(processor, "tokenizer", processor)._tokenizer' in inspect.getsource(utils.GenerateManager)
    assert list(inspect.signature(utils.DirectStreamer).parameters) == ["tokenizer", "loop", "queue", "response_parser"]
    assert utils._StreamError("line").msg == "line"


@relied_on("transformers", "cli.serving.utils.BaseHandler")
def handlers():
    pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
    from transformers.cli import serve
    from transformers.cli.serving import chat_completion, completion, response, server

    assert "from .serving.server import build_server" in inspect.getsource(serve.Serve.__init__)
    assert next(iter(inspect.signature(server.build_server).parameters)) == "model_manager"
    for handler in (chat_completion.ChatCompletionHandler, completion.CompletionHandler, response.ResponseHandler):
        source = inspect.getsource(handler.handle_request)
        order = [
            source.index(f"self.{name}(")
            for name in ("_validate_request", "_resolve_model", "_build_generation_config")
        ]
        assert order == sorted(order)
        # The model is kept between these two calls.
        assert "await" not in source[order[1] : order[2]]
