"""What is relied on of models and commands of transformers, and of other libraries."""

import inspect
import logging
import re
from pathlib import Path

import pytest
import torch
import transformers
from private_checks import relied_on
from transformers import PreTrainedModel

import fundamentallm_hf
from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM

PACKAGE = Path(fundamentallm_hf.__file__).parent


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


@relied_on("torch", "ops.quantized.linear_dynamic_fp16")
def half_weights():
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return  # processors without it multiply in float32
    weight, given = torch.randn(8, 16).half().float(), torch.randn(3, 16)
    packed = torch.ops.quantized.linear_prepack_fp16(weight, None)
    found = torch.ops.quantized.linear_dynamic_fp16.default(given, packed)
    torch.testing.assert_close(found, given @ weight.t(), rtol=1e-5, atol=1e-5)


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
