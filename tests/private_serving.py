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


@relied_on("transformers", "cli.serving.model_manager.TimedModel")
def unloading():
    pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
    from transformers.cli.serving.model_manager import TimedModel

    assert "del self.model" in inspect.getsource(TimedModel.delete_model)
    assert "self.delete_model()" in inspect.getsource(TimedModel._timeout_reached)


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


@relied_on("transformers", "cli.serve.Serve")
def application():
    pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
    from transformers.cli.serve import Serve
    from transformers.cli.transformers import app

    command = app.commands["serve"]
    values = command.make_context("serve", ["--port", "9", "--non-blocking"]).params
    assert (values["host"], values["port"], values["non_blocking"]) == ("localhost", 9, True)
    source = inspect.getsource(Serve.__init__)
    # The server is made with the application, and started by that method alone.
    assert re.search(r"config = uvicorn\.Config\(app, .*\n\s*self\.server = uvicorn\.Server\(config\)", source)
    assert re.search(r"if non_blocking:\s*self\.start_server\(\)\s*else:\s*self\.server\.run\(\)\s*$", source)
    # A command that is a class returns its instance.
    group = type(app)(help="a group like that of transformers")
    group.command(name="one")(Entry)
    one = group.commands["one"]
    assert isinstance(one.invoke(one.make_context("one", ["--value", "a"])), Entry)


class Entry:
    def __init__(self, value: str = ""):
        self.value = value


@relied_on("uvicorn", "supervisors.Multiprocess")
def supervisor():
    uvicorn = pytest.importorskip("uvicorn", reason="serving needs fundamentallm-hf[serve]")
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess, multiprocess

    assert list(inspect.signature(Multiprocess).parameters) == ["config", "sockets"]
    assert "timeout_worker_healthcheck" in inspect.signature(uvicorn.Config).parameters
    assert STARTUP_FAILURE not in (0, 1)
    run, keep = inspect.getsource(Multiprocess.run), inspect.getsource(Multiprocess.keep_subprocess_alive)
    calls = ("init_processes", "handle_signals", "keep_subprocess_alive", "terminate_all", "join_all")
    order = [run.index(f"self.{each}()") for each in calls]
    assert order == sorted(order)
    assert "self.should_exit.wait(" in run
    assert re.search(r"exitcode == STARTUP_FAILURE:[^=]*self\.should_exit\.set\(\)\s+return", keep)
    assert {"handle_hup", "handle_term", "handle_ttin", "handle_ttou"} <= vars(Multiprocess).keys()
    process = multiprocess.Process(uvicorn.Config(lambda: None, factory=True), [])
    process.child_conn.close()
    process.child_conn.close()  # as `terminate` does once more
    assert process.pid is None
    assert process.ping(0) is False  # the other end is closed, so there is nothing to wait for
