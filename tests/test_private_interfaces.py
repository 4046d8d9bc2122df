"""Non-public interfaces of other libraries: each one used is listed, and works as expected.

A test that fails here under a new version of a library names the interface that changed.
"""

import ast
import inspect
import logging
import re
from pathlib import Path

import pytest
import torch
import transformers
from small_models import byte_level_gpt2
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel, StoppingCriteria
from transformers.generation import GenerationMode, LogitsProcessorList, MaxLengthCriteria, StoppingCriteriaList

import fundamentallm_hf
from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM
from fundamentallm_hf.private_interfaces import PRIVATE

pytestmark = pytest.mark.core
PACKAGE = Path(fundamentallm_hf.__file__).parent
CHECKS = {}


def relied_on(of, name):
    def enter(check):
        CHECKS[(of, name)] = check
        return check

    return enter


@pytest.mark.parametrize("entry", PRIVATE, ids=lambda entry: f"{entry.of}.{entry.name}")
def test_it_is_there_as_it_is_relied_on(entry):
    assert (entry.of, entry.name) in CHECKS, "an entry without a test"
    CHECKS[(entry.of, entry.name)]()


def test_every_test_is_of_an_entry():
    assert CHECKS.keys() == {(entry.of, entry.name) for entry in PRIVATE}


# Loops


@relied_on("transformers", "generation.utils.GENERATION_MODES_MAPPING")
def modes():
    from transformers.generation.utils import GENERATION_MODES_MAPPING as loops

    assert {*GenerationMode} == loops.keys()
    for mode, loop in loops.items():
        assert "/" in loop or callable(getattr(GenerationMixin, loop)), mode


def prepared(loop):
    """What a loop gives with what `generate()` prepares for a callable, what `generate()` gives, and the mode."""
    model = byte_level_gpt2()
    ids = model.tokenizer("once upon a a a", return_tensors="pt").input_ids
    caught = {}

    def catch(model, input_ids, logits_processor, stopping_criteria, generation_config, **rest):
        assert isinstance(logits_processor, LogitsProcessorList)
        assert isinstance(stopping_criteria, StoppingCriteriaList)
        assert any(isinstance(each, MaxLengthCriteria) for each in stopping_criteria)
        caught["mode"] = generation_config.get_generation_mode()
        more = {"inputs_tensor": input_ids} if loop == "_assisted_decoding" else {}
        return getattr(type(model), loop)(
            model,
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            synced_gpus=False,
            **more,
            **rest,
        )

    how = {"_sample": {}, "_beam_search": {"num_beams": 3}, "_assisted_decoding": {"prompt_lookup_num_tokens": 3}}[loop]
    how |= {"max_new_tokens": 8, "do_sample": False}
    return model.generate(ids, custom_generate=catch, **how), model.generate(ids, **how), caught["mode"]


def loop_check(loop):
    def check():
        ours, theirs, mode = prepared(loop)
        assert torch.equal(ours, theirs)
        assert transformers.generation.utils.GENERATION_MODES_MAPPING[mode] == loop

    return check


for each in ("_sample", "_assisted_decoding"):
    relied_on("transformers", f"GenerationMixin.{each}")(loop_check(each))


@relied_on("transformers", "GenerationMixin._beam_search")
def beams():
    loop_check("_beam_search")()
    model, beams, shown = byte_level_gpt2(), 3, []
    ids = model.tokenizer("once upon a a a", return_tensors="pt").input_ids

    class Looking(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            shown.append(input_ids)
            return torch.zeros(len(input_ids), dtype=torch.bool)

    criteria = StoppingCriteriaList([Looking()])
    model.generate(ids, max_new_tokens=6, num_beams=beams, do_sample=False, stopping_criteria=criteria)
    assert len(shown) == 6
    for rows in shown:
        assert len(rows) > beams
        with torch.no_grad():
            logs = model(rows[:, :-1]).logits[:, ids.shape[1] - 1 :].log_softmax(-1)
        sums = logs.gather(-1, rows[:, ids.shape[1] :, None]).sum((1, 2))
        assert torch.all(sums[:-1] >= sums[1:] - 1e-4)  # the best first
        assert sums[0] > sums[-1] + 1e-3


@relied_on("transformers", "GenerationMixin._get_candidate_generator")
def candidates():
    asked = []

    class Looking(transformers.generation.candidate_generator.CandidateGenerator):
        def get_candidates(self, input_ids, **kwargs):
            asked.append(input_ids.shape[1])
            return torch.cat([input_ids, input_ids[:, -1:]], dim=1), None

    model = byte_level_gpt2()
    model._get_candidate_generator = lambda **given: Looking()
    ids = model.tokenizer("once upon a a a", return_tensors="pt").input_ids
    model.generate(ids, max_new_tokens=4, do_sample=False, prompt_lookup_num_tokens=2)
    assert asked[0] == ids.shape[1]


@relied_on("transformers", "generation.candidate_generator.CandidateGenerator")
def candidate_class():
    found = transformers.generation.candidate_generator.CandidateGenerator()
    assert found.requires_model_outputs is False
    found.update_candidate_strategy(None, None, 0)


@relied_on("transformers", "PreTrainedModel._is_stateful")
def stateful():
    assert byte_level_gpt2()._is_stateful is False
    assert transformers.MambaForCausalLM._is_stateful is True


@relied_on("transformers", "GenerationMixin._get_top_k_continuations")
def continuations():
    scores = torch.tensor([[0.0, -1.0, -5.0, -2.0, -3.0, -4.0]])
    torch.manual_seed(0)
    found = byte_level_gpt2()._get_top_k_continuations(
        accumulated_log_probs=scores,
        running_sequences=torch.zeros(1, 2, 4, dtype=torch.long),
        running_beam_indices=torch.zeros(1, 2, 4, dtype=torch.int32),
        cur_len=1,
        decoder_prompt_len=1,
        do_sample=True,
        beams_to_keep=4,
        num_beams=2,
        batch_size=1,
    )
    assert len(found) == 3
    assert all(each.shape[:2] == (1, 4) for each in found)
    # The first are the scores of the others: what was written last says which they belong to.
    places = found[2][0, :, 0] * 3 + found[1][0, :, 1]
    assert torch.equal(scores[0, places], found[0][0])


@relied_on("transformers", "generation.MaxLengthCriteria.max_position_embeddings")
def limit():
    criterion = MaxLengthCriteria(5, max_position_embeddings=3)
    assert criterion.max_position_embeddings == 3
    criterion.max_position_embeddings = None
    assert bool(criterion(torch.zeros(1, 5, dtype=torch.long), None).all())


@relied_on("transformers", "cache_utils.DynamicLayer.keys")
def layers():
    cache = transformers.DynamicCache()
    keys = torch.randn(2, 1, 3, 4)
    cache.update(keys, keys, 0)
    (layer,) = cache.layers
    before = layer.keys
    assert torch.equal(before, keys)
    assert not cache.offloading
    cache.update(keys, keys, 0)
    assert layer.keys is not before  # so a copy of a layer keeps what it had
    assert torch.equal(before, keys)


@relied_on("transformers", "cache_utils.DynamicLayer.lazy_initialization")
def lent_layers():
    from transformers.cache_utils import DynamicLayer

    keys, values = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)
    layer = DynamicLayer()
    assert not layer.is_initialized
    layer.lazy_initialization(keys, values)
    assert layer.is_initialized
    layer.keys, layer.values = keys, values
    cache = transformers.DynamicCache()
    cache.layers = [layer]
    assert cache.get_seq_length() == 3
    longer, _ = cache.update(keys[:, :, :1], values[:, :, :1], 0)
    assert torch.equal(longer, torch.cat([keys, keys[:, :, :1]], dim=2))


@relied_on("torch", "nn.Module._forward_hooks")
def hooks():
    module, calls = torch.nn.Linear(2, 2), []
    module.register_forward_hook(lambda *given: calls.append("after"))
    module.register_forward_pre_hook(early := lambda *given: calls.append("before"))
    assert len(module._forward_hooks) == 1
    assert list(module._forward_pre_hooks.values()) == [early]
    everywhere = torch.nn.modules.module
    handles = [
        everywhere.register_module_forward_hook(lambda *given: calls.append("any")),
        everywhere.register_module_forward_pre_hook(lambda *given: calls.append("any before")),
    ]
    assert len(everywhere._global_forward_hooks) == len(everywhere._global_forward_pre_hooks) == 1
    module(torch.zeros(1, 2))
    assert calls == ["any before", "before", "any", "after"]
    for handle in handles:
        handle.remove()
    assert not everywhere._global_forward_hooks
    assert not everywhere._global_forward_pre_hooks


@relied_on("torch", "nn.Module._compiled_call_impl")
def compiled():
    module = torch.nn.Linear(2, 2)
    assert module._compiled_call_impl is None
    module.compile(backend="eager")
    assert module._compiled_call_impl is not None


@relied_on("transformers", "GenerationMixin._update_model_kwargs_for_generation")
def step_methods():
    model, calls = byte_level_gpt2(), []
    update = model._update_model_kwargs_for_generation
    model._update_model_kwargs_for_generation = lambda *given, **more: calls.append(1) or update(*given, **more)
    model.generate(torch.tensor([[1, 2]]), max_new_tokens=3, min_new_tokens=3)
    assert len(calls) == 3


@relied_on("transformers", "cache_utils.StaticLayer.max_cache_len")
def static():
    config = FundamentaLLMConfig(vocab_size=10, num_hidden_layers=2)
    cache = transformers.StaticCache(config=config, max_cache_len=7, offloading=False)
    assert [layer.max_cache_len for layer in cache.layers] == [7, 7]
    assert cache.offloading is False


# The model


@relied_on("transformers", "PreTrainedConfig._attn_implementation")
def attention():
    model = FundamentaLLMForCausalLM(FundamentaLLMConfig(vocab_size=10, num_hidden_layers=1))
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    assert model.model.layers[0].self_attn.config._attn_implementation == "eager"


@relied_on("transformers", "PreTrainedModel class attributes")
def attributes():
    text = inspect.getsource(transformers.modeling_utils)
    (file,) = PACKAGE.rglob("modeling_fundamentallm.py")
    ours = re.findall(r"^    (_[a-z_]+) = ", file.read_text(), re.MULTILINE)
    assert len(ours) >= 10
    for name in {*ours, "_init_weights"}:
        assert name in text or hasattr(PreTrainedModel, name), name


@relied_on("transformers", "PreTrainedConfig._commit_hash")
def commit():
    config = FundamentaLLMConfig(vocab_size=10)
    config._commit_hash = "abc"
    assert "_commit_hash" not in config.to_dict()


@relied_on("transformers", "utils.hub.resolve_revision")
def revision():
    from transformers.utils.hub import resolve_revision

    known = inspect.signature(resolve_revision).parameters
    assert {"token", "local_files_only", "cache_dir"} <= known.keys() or "kwargs" in known
    assert getattr(resolve_revision(str(PACKAGE), "main"), "resolved", None) is None  # a folder is of no commit


# Commands


@relied_on("transformers", "models.auto.configuration_auto.CONFIG_MAPPING")
def mapping():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    assert "gpt2" in CONFIG_MAPPING
    assert "no-such-model" not in CONFIG_MAPPING


@relied_on("transformers", "cli.transformers.main")
def command():
    pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
    from transformers.cli.transformers import main

    assert callable(main)


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


# Others


@relied_on("huggingface_hub", "utils._http._GLOBAL_CLIENT_FACTORY")
def factory():
    from huggingface_hub.utils import _http, set_client_factory

    before = _http._GLOBAL_CLIENT_FACTORY

    def made():
        return before()

    set_client_factory(made)
    try:
        assert _http._GLOBAL_CLIENT_FACTORY is made
    finally:
        set_client_factory(before)
    client = before()
    assert "request" in client.event_hooks
    with _http._CLIENT_LOCK:
        assert hasattr(_http, "_GLOBAL_CLIENT")
    client.close()


@relied_on("huggingface_hub", "log lines")
def log_lines():
    import huggingface_hub

    lines = (
        "HTTP Error ",
        " thrown while requesting ",
        "Retrying in ",
        "Rate limited. Waiting ",
        "Trying to resume download",
        "Skipping to prevent empty commit",
        "Max retries exceeded",
        "Consistency check failed",
    )
    text = "".join(file.read_text() for file in Path(huggingface_hub.__file__).parent.rglob("*.py"))
    assert [line for line in lines if line not in text] == []
    assert logging.getLogger("huggingface_hub") is logging.getLogger(huggingface_hub.__name__)


@relied_on("torch", "cpu._is_amx_tile_supported")
def matrix_units():
    assert torch.cpu._is_amx_tile_supported() in (True, False)


@relied_on("huggingface_hub", "repocard.REGEX_YAML_BLOCK")
def metadata():
    from huggingface_hub.repocard import REGEX_YAML_BLOCK
    from huggingface_hub.utils import yaml_dump

    assert REGEX_YAML_BLOCK.search("---\nlicense: mit\n---\n# Card")[2].strip() == "license: mit"
    assert yaml_dump({"b": 1, "a": ["é"]}, sort_keys=False) == "b: 1\na:\n- é\n"


@relied_on("huggingface_hub", "HfApi._validate_yaml")
def card_check():
    from huggingface_hub import HfApi

    assert "/api/validate-yaml" in inspect.getsource(HfApi._validate_yaml)
    assert "_validate_yaml(" in inspect.getsource(HfApi.create_commit)


@relied_on("huggingface_hub", "file_download.repo_folder_name")
def cache_layout():
    from huggingface_hub import file_download

    assert file_download.repo_folder_name(repo_id="user/stories", repo_type="model") == "models--user--stories"
    assert '"refs" / revision' in inspect.getsource(file_download)


@relied_on("gradio", "EventData._data")
def event():
    gradio = pytest.importorskip("gradio")
    assert gradio.EventData(None, {"index": 3})._data == {"index": 3}


@relied_on("re", "_parser")
def parser():
    from re import _parser

    parsed = _parser.parse(r"a[b-d]{2,3}|(?i:e)\d$")
    ((kind, (_, ways)),) = parsed
    assert kind is _parser.BRANCH
    assert [str(node[0]) for node in ways[0]] == ["LITERAL", "MAX_REPEAT"]
    assert [str(node[0]) for node in ways[1]] == ["SUBPATTERN", "IN", "AT"]
    assert _parser.MAXREPEAT > 1 << 20
    with pytest.raises(re.error):
        _parser.parse("(")


@relied_on("re", "_compiler.compile")
def compiler():
    from re import _compiler, _parser

    parsed = _parser.parse("[b-d]x")
    test = _compiler.compile(_parser.SubPattern(parsed.state, [parsed[0]]))
    assert test.fullmatch("c")
    assert not test.fullmatch("x")


# What is used is entered


def uses(tree, own):
    """(line, name) of every private name of others in a module's syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            path = [*node.module.split("."), *(name.name for name in node.names)]
            yield from ((node.lineno, part) for part in path if part.startswith("_") and not part.startswith("__"))
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            if node.attr not in own:
                yield node.lineno, node.attr
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "getattr"
            and isinstance(node.args[1], ast.Constant)
            and re.match("_(?!_)", str(node.args[1].value))
            and node.args[1].value not in own
        ):
            yield node.lineno, node.args[1].value


def test_what_is_used_is_entered():
    trees = {file: ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py")}
    own = {"_replace", "_asdict"}  # of named tuples, and documented
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
    # Set or defined here, and not ours.
    own -= {"_commit_hash", "_cb", "_cb_config", "_get_top_k_continuations", "_GLOBAL_CLIENT_FACTORY"}
    entered = " ".join(f"{entry.name} {entry.why}" for entry in PRIVATE)
    missing = [
        f"{file.relative_to(PACKAGE)}:{line} uses {name}"
        for file, tree in trees.items()
        for line, name in uses(tree, own)
        if not re.search(rf"\b{re.escape(name)}\b", entered)
    ]
    assert missing == []


def test_the_config_of_a_call_takes_no_stop_strings_over():
    """Public, and yet what much depends on: the class of a config survives the copy that `generate()` makes."""
    from fundamentallm_hf.portable.decoding.decoding_loop import WithoutStopStrings

    model = byte_level_gpt2()
    model.generation_config.stop_strings = ["x"]
    seen = []

    def catch(model, input_ids, logits_processor, stopping_criteria, generation_config, **rest):
        seen.append(generation_config)
        return input_ids

    config = WithoutStopStrings.of(GenerationConfig(max_new_tokens=1, stop_strings=["y"]))
    model.generate(torch.tensor([[1, 2]]), config, custom_generate=catch)
    assert seen[0].stop_strings is None
