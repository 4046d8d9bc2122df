"""The network: every way of calling it gives the same numbers, and transformers' idioms hold."""

import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, DynamicCache, StaticCache

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM, FundamentaLLMModel
from fundamentallm_hf.portable.decoding.cache_names import CACHE

pytestmark = pytest.mark.core

SHAPE = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def tiny(**changes):
    torch.manual_seed(0)
    options = {"max_position_embeddings": 24, "initializer_range": 0.2, **SHAPE, **changes}
    return FundamentaLLMForCausalLM(FundamentaLLMConfig(**options)).eval()


@pytest.fixture(scope="module", params=["learned", "sinusoidal"])
def model(request):
    return tiny(position_embedding_type=request.param)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(4, 40, (2, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


def close(got, expected, tolerance=1e-5):
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("d_model", "hidden_size"),
        ("hidden_dim", "hidden_size"),
        ("model_dim", "hidden_size"),
        ("num_layers", "num_hidden_layers"),
        ("num_heads", "num_attention_heads"),
        ("sequence_length", "max_position_embeddings"),
        ("max_seq_len", "max_position_embeddings"),
    ],
)
def test_fundamentallms_names_are_accepted_and_read(theirs, ours):
    config = FundamentaLLMConfig(**{theirs: 64, "num_heads": 64} if "heads" not in theirs else {theirs: 64})
    assert getattr(config, ours) == getattr(config, theirs) == 64
    assert theirs not in config.to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pos_encoding": "rope"}, "learned, sinusoidal"),
        ({"d_model": 65, "num_heads": 2}, "multiple of num_attention_heads"),
        ({"num_layers": 0}, "at least 1"),
    ],
)
def test_a_config_that_no_model_can_have_is_refused(options, message):
    with pytest.raises(Exception, match=message):
        FundamentaLLMConfig(**options)


def test_the_auto_classes_know_the_model():
    config = AutoConfig.for_model("fundamentallm", **SHAPE)
    assert type(AutoModel.from_config(config)) is FundamentaLLMModel
    assert type(AutoModelForCausalLM.from_config(config)) is FundamentaLLMForCausalLM


@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
def test_attention_backends_agree(model, ids, logits, attention):
    kept = model.config._attn_implementation
    model.set_attn_implementation(attention)
    try:
        with torch.no_grad():
            close(model(ids).logits, logits, 1e-4)
    finally:
        model.set_attn_implementation(kept)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_moves_nobody(model, ids, logits, side):
    padding = torch.zeros(2, 5, dtype=torch.long)
    order = (padding, ids) if side == "left" else (ids, padding)
    padded = torch.cat(order, dim=1)
    mask = (padded > 0).long()
    with torch.no_grad():
        got = model(padded, attention_mask=mask).logits
    close(got[:, 5:] if side == "left" else got[:, :-5], logits)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_caches_agree_with_no_cache_token_by_token(model, ids, logits, kind):
    cache = DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=24)
    with torch.no_grad():
        steps = [model(ids[:, i : i + 1], **{CACHE: cache}, use_cache=True).logits for i in range(12)]
    close(torch.cat(steps, dim=1), logits)


def test_embeddings_may_be_given_instead_of_ids(model, ids, logits):
    with torch.no_grad():
        close(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, logits)
    for wrong in ({}, {"input_ids": ids, "inputs_embeds": torch.zeros(2, 12, 32)}):
        with pytest.raises(ValueError, match="exactly one"):
            model(**wrong)


def test_the_loss_is_the_mean_cross_entropy_of_the_next_token(model, ids, logits):
    labels = ids.clone()
    labels[:, :4] = -100
    with torch.no_grad():
        loss = model(ids, labels=labels).loss
    expected = torch.nn.functional.cross_entropy(logits[:, 3:-1].reshape(-1, 40), ids[:, 4:].reshape(-1))
    close(loss, expected)


def test_logits_hidden_states_and_attentions_on_request(model, ids, logits):
    with torch.no_grad():
        assert model(ids, logits_to_keep=1).logits.shape == (2, 1, 40)
        close(model(ids, logits_to_keep=torch.tensor([3])).logits, logits[:, 3:4])
        model.set_attn_implementation("eager")
        out = model(ids, output_hidden_states=True, output_attentions=True)
        model.set_attn_implementation("sdpa")
    assert [state.shape for state in out.hidden_states] == [(2, 12, 32)] * 3
    assert [weights.shape for weights in out.attentions] == [(2, 4, 12, 12)] * 2
    close(out.attentions[0].sum(-1), torch.ones(2, 4, 12))


def test_gradient_checkpointing_changes_no_gradient(ids):
    gradients = []
    for checkpointing in (False, True):
        model = tiny(dropout=0.0).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(ids, labels=ids).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        close(checkpointed, plain)


def test_output_and_embedding_are_one_tensor_also_after_loading_and_resizing(tmp_path, ids):
    model = tiny()
    with torch.no_grad():
        before = model(ids).logits
    model.save_pretrained(tmp_path)
    loaded = FundamentaLLMForCausalLM.from_pretrained(tmp_path)
    for each in (model, loaded):
        assert each.lm_head.weight is each.model.embed_tokens.weight
    loaded.resize_token_embeddings(45, mean_resizing=False)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits[..., :40], before)


def test_it_compiles_into_one_graph(model, ids, logits):
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        close(compiled(input_ids=ids, use_cache=False).logits, logits)


def test_it_exports(model, ids, logits):
    exported = torch.export.export(model, (), {"input_ids": ids, "use_cache": False})
    close(exported.module()(input_ids=ids, use_cache=False).logits, logits)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.15), (torch.float16, 0.02)])
def test_half_precision_is_near_full_precision(tmp_path, model, ids, logits, dtype, tolerance):
    model.save_pretrained(tmp_path)
    half = FundamentaLLMForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    with torch.no_grad():
        got = half(ids).logits
    assert got.dtype is dtype
    close(got.float(), logits, tolerance * logits.abs().max().item())


def test_device_map_auto_loads_the_model(tmp_path, model, ids, logits):
    model.save_pretrained(tmp_path)
    placed = AutoModelForCausalLM.from_pretrained(tmp_path, device_map="auto")
    with torch.no_grad():
        close(placed(ids.to(placed.device)).logits.cpu(), logits, 1e-4)


def test_a_position_outside_the_window_is_refused(model):
    with pytest.raises(ValueError, match="outside the model's window of 24"):
        model(torch.zeros(1, 25, dtype=torch.long))


TENSOR_PARALLEL = """
import sys, torch
from safetensors.torch import load_file
from fundamentallm_hf import FundamentaLLMForCausalLM
model = FundamentaLLMForCausalLM.from_pretrained(sys.argv[1], tp_plan="auto")
assert model.model.layers[0].self_attn.q_proj.weight.to_local().shape[0] == 16, "the projection is not split"
data = load_file(sys.argv[2])
with torch.no_grad():
    torch.testing.assert_close(model(data["ids"]).logits, data["logits"], atol=1e-4, rtol=1e-4)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def test_two_processes_share_the_work_by_the_tensor_parallel_plan(tmp_path, ids):
    from safetensors.torch import save_file

    model = tiny()
    model.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        save_file({"ids": ids, "logits": model(ids).logits}, tmp_path / "data.safetensors")
    script = tmp_path / "script.py"
    script.write_text(TENSOR_PARALLEL)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29571"]
    run = subprocess.run(
        [*command, script, tmp_path / "model", tmp_path / "data.safetensors"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
