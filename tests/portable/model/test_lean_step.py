"""`LeanStep` gives the same logits as `forward()` for various shapes, positions, padding, types and caches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM
from fundamentallm_hf.portable.decoding.network_step import Run
from fundamentallm_hf.portable.model import lean_step, lean_weights
from fundamentallm_hf.portable.model.lean_step import LeanStep, plain_network

WINDOW = 24
# Logits of these models reach 4, where neighbouring numbers of bfloat16 are 0.03 apart.
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 0.2, torch.float16: 0.02}


def small_model(
    hidden=16, heads=2, layers=2, positions="learned", activation="gelu", dtype=torch.float32, window=WINDOW, **more
):
    torch.manual_seed(0)
    config = FundamentaLLMConfig(
        vocab_size=11,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=2 * hidden,
        max_position_embeddings=window,
        position_embedding_type=positions,
        hidden_act=activation,
        initializer_range=0.3,
        **more,
    )
    return FundamentaLLMForCausalLM(config).eval().to(dtype)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(16, 2, 2), (24, 3, 1), (32, 1, 3), (8, 8, 1)]),
    positions=st.sampled_from(["learned", "sinusoidal"]),
    activation=st.sampled_from(["gelu", "relu", "silu"]),
    dtype=st.sampled_from(list(CLOSE)),
    rows=st.integers(1, 3),
    parts=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    data=st.data(),
)
@torch.no_grad()
def test_it_gives_the_logits_of_forward(shape, positions, activation, dtype, rows, parts, data):
    model = small_model(*shape, positions=positions, activation=activation, dtype=dtype)
    length = sum(parts)
    padding = data.draw(st.lists(st.integers(0, parts[0] - 1), min_size=rows, max_size=rows))
    tokens = torch.randint(11, (rows, length), generator=torch.Generator().manual_seed(length))
    mask = (torch.arange(length) >= torch.tensor(padding)[:, None]).long()
    places = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    step, cache, start = LeanStep(model, rows, length), DynamicCache(config=model.config), 0
    for part in parts:
        end = start + part
        new, at = tokens[:, start:end], places[:, start:end]
        expected = model(new, attention_mask=mask[:, :end], position_ids=at, past_key_values=cache).logits
        kept = data.draw(st.integers(1, part))
        found = step(new, at, mask[:, :end] if any(padding) else None, kept=kept)
        real, expected = mask[:, end - kept : end].bool(), expected[:, -kept:]
        assert (found[real].float() - expected[real].float()).abs().max() <= CLOSE[dtype]
        assert found.isfinite().all()
        start = end


@torch.no_grad()
def test_columns_that_are_taken_back_leave_no_trace():
    model, tokens, places = small_model(), torch.arange(10)[None], torch.arange(10)[None]
    step = LeanStep(model, 1, WINDOW)
    step(tokens[:, :4], places[:, :4])
    step(torch.full((1, 3), 9), places[:, 4:7])
    step.length = 4
    found = step(tokens[:, 4:], places[:, 4:], kept=6)
    torch.testing.assert_close(found, model(tokens).logits[:, 4:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_rows_are_copied_and_left_out():
    model, prompts, places = small_model(), torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.arange(4)[None]
    step = LeanStep(model, 4, WINDOW)
    step(prompts, places[:, :3])
    step.spread(2)
    step.keep_rows([1, 2])
    found = step(torch.tensor([[7], [8]]), places[:, 3:])[:, 0]
    whole = torch.tensor([[1, 2, 3, 7], [4, 5, 6, 8]])
    torch.testing.assert_close(found, model(whole).logits[:, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@torch.no_grad()
def test_large_models_are_not_copied(activation, monkeypatch):
    model, tokens, places = small_model(activation=activation), torch.arange(8)[None], torch.arange(8)[None]
    monkeypatch.setattr(lean_weights, "MOST_COPIED", 0)
    step = LeanStep(model, 1, WINDOW)
    assert step.layers.many[0].up.weight.data_ptr() == model.model.layers[0].mlp.fc1.weight.data_ptr()
    found = torch.cat([step(tokens[:, :5], places[:, :5], kept=5), step(tokens[:, 5:], places[:, 5:], kept=3)], dim=1)
    torch.testing.assert_close(found, model(tokens).logits, atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(16, 2, 2), (24, 3, 1), (32, 1, 3), (8, 8, 1)]),
    activation=st.sampled_from(["gelu", "relu", "silu"]),
    rows=st.integers(1, 3),
    parts=st.lists(st.integers(1, 12), min_size=1, max_size=2),
    few=st.sampled_from([0, 4, 100]),
    steered=st.booleans(),
)
@torch.no_grad()
def test_weights_in_float16_are_multiplied_as_exactly(shape, activation, rows, parts, few, steered):
    plain = small_model(*shape, activation=activation)
    model = small_model(*shape, activation=activation).half().float()
    assert not torch.equal(plain.lm_head.weight, model.lm_head.weight)
    vectors = {0: torch.randn(shape[0], generator=torch.Generator().manual_seed(1))} if steered else None
    tokens = torch.randint(11, (rows, sum(parts)), generator=torch.Generator().manual_seed(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean_step, "FEW", few)
        expected = LeanStep(model, rows, WINDOW, vectors)
        patch.setattr(lean_weights, "LEAST_PACKED", 0)
        lean_weights._COPIES.clear()
        step = LeanStep(model, rows, WINDOW, vectors)
        assert step.layers.few is not step.layers.many
        assert type(step.layers.few[0].down) is lean_weights.HalfAffine
        other = LeanStep(plain, rows, WINDOW, vectors).layers
        assert [type(each.down) for each in other.few] == [lean_weights.Affine] * len(other.few)
        for part in parts:
            at = torch.arange(step.length, step.length + part)[None]
            wanted = expected(tokens[:, at[0]], at, kept=part)
            torch.testing.assert_close(step(tokens[:, at[0]], at, kept=part), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("broken", ["missing", "coarse", "refused"])
@torch.no_grad()
def test_without_an_exact_product_weights_stay_in_float32(broken, monkeypatch):
    model = small_model().half().float()
    monkeypatch.setattr(lean_weights, "LEAST_PACKED", 0)

    def of(weight, bias):
        if broken == "coarse":
            return lambda given: torch.nn.functional.linear(given.bfloat16(), weight.bfloat16()).float() + bias
        raise {"missing": AttributeError, "refused": RuntimeError}[broken]

    monkeypatch.setattr(lean_weights.HalfAffine, "of", of)
    layers = LeanStep(model, 1, WINDOW).layers
    assert layers.few is layers.many
    assert type(layers.many[0].down) is lean_weights.Affine


def test_copied_weights_are_shared_until_they_change():
    model = small_model()
    first = LeanStep(model, 1, 3).layers
    assert LeanStep(model, 2, 3).layers is first
    with torch.no_grad():
        halve(model)
    assert LeanStep(model, 1, 3).layers is not first


def halve(model):
    model.model.layers[1].self_attn.k_proj.weight.mul_(0.5)


def halve_data(model):
    model.model.layers[0].self_attn.v_proj.bias.data.add_(0.5)


def replace(model):
    model.model.layers[0].self_attn.q_proj.weight = torch.nn.Parameter(torch.ones(16, 16))


def load(model):
    model.load_state_dict({name: value + 0.1 for name, value in model.state_dict().items()})


@pytest.mark.parametrize("change", [halve, halve_data, replace, load])
@torch.no_grad()
def test_weights_that_have_changed_are_noticed(change):
    model, tokens, places = small_model(), torch.tensor([[1, 2, 3]]), torch.arange(3)[None]

    def logits():
        # Only the second pass uses the copied weights.
        step = LeanStep(model, 1, 3)
        return torch.cat([step(tokens[:, :2], places[:, :2]), step(tokens[:, 2:], places[:, 2:])], dim=1)

    before = logits()
    change(model)
    after = logits()
    assert not torch.allclose(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1])
    torch.testing.assert_close(after, model(tokens).logits[:, 1:], atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.integers(1, 9), min_size=1, max_size=6), columns=st.integers(1, 4), aside=st.integers(1, 9))
@torch.no_grad()
def test_the_cache_grows_with_the_text(parts, columns, aside):
    model, length = small_model(window=64), sum(parts)
    tokens, places = torch.arange(length + aside)[None] % 11, torch.arange(length + aside)[None]
    step = LeanStep(model, 1, length)
    step.cache = step.cache[..., :columns, :].clone()
    for part in parts:
        here = slice(step.length, step.length + part)
        found = step(tokens[:, here], places[:, here])
    torch.testing.assert_close(found[:, 0], model(tokens[:, :length]).logits[:, -1], atol=1e-5, rtol=0)
    seen = torch.ones(1, 1, aside, length + aside, dtype=torch.bool).tril(length)
    found = step.aside(tokens[:, length:], places[:, length:], seen)
    torch.testing.assert_close(found, model(tokens).logits[:, length:], atol=1e-5, rtol=0)


def hook(model):
    model.model.layers[0].register_forward_hook(lambda *given: None)


def early_hook(model):
    model.lm_head.register_forward_pre_hook(lambda *given: None)


def other_forward(model):
    model.model.forward = model.model.forward


def train(model):
    model.train()


def train_a_part(model):
    model.model.layers[0].mlp.fc1 = torch.nn.Sequential(model.model.layers[0].mlp.fc1)


def parametrise(model):
    torch.nn.utils.parametrizations.weight_norm(model.model.layers[0].mlp.fc1)


def eager(model):
    model.set_attn_implementation("eager")


def mixed(model):
    model.model.norm.to(torch.bfloat16)


def train_one_module(model):
    model.model.dropout.train()


def compile_a_part(model):
    model.model.layers[0].mlp.compile(backend="eager")


def replace_a_method(model):
    model.prepare_inputs_for_generation = model.prepare_inputs_for_generation


def clip_embeddings(model):
    model.model.embed_tokens.max_norm = 1.0


def drop_a_bias(model):
    model.model.layers[0].self_attn.k_proj.bias = None


def change_a_norm(model):
    model.model.norm.eps = 0.5


def halve_precision(model):
    model.to(torch.bfloat16)


@pytest.mark.parametrize(
    "change",
    [
        *(hook, early_hook, other_forward, train, train_a_part, parametrise, eager, mixed, train_one_module),
        *(compile_a_part, replace_a_method, clip_embeddings, drop_a_bias, change_a_norm, halve_precision),
    ],
    ids=lambda f: f.__name__,
)
def test_what_forward_does_otherwise_is_left_to_it(change):
    model = small_model()
    assert plain_network(model)
    change(model)
    assert not plain_network(model)


def test_autocast_and_hooks_on_all_modules_are_left_to_forward():
    model = small_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not plain_network(model)
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *given: None)
    try:
        assert not plain_network(model)
    finally:
        handle.remove()
    assert plain_network(model)


def test_a_subclass_is_left_to_forward():
    class Other(FundamentaLLMForCausalLM):
        pass

    assert not plain_network(Other(small_model().config).eval())


@pytest.mark.parametrize("kind", [FundamentaLLMForCausalLM, torch.nn.Linear, torch.nn.RMSNorm])
def test_another_function_in_the_place_of_a_class_method_is_left_to_forward(kind, monkeypatch):
    model, forward = small_model(), kind.forward
    assert plain_network(model)
    monkeypatch.setattr(kind, "forward", lambda self, *given, **more: forward(self, *given, **more))
    assert not plain_network(model)


def test_a_hook_that_only_watches_states_is_no_hindrance():
    from fundamentallm_hf.portable.guides.output_states import OutputStates

    model = small_model()
    states = OutputStates(model, [0], lambda length: length)
    assert plain_network(model)
    assert states.model is model


@torch.no_grad()
def test_what_is_computed_aside_is_as_if_it_stood_alone_and_leaves_no_trace():
    from fundamentallm_hf.portable.decoding.lookahead import Branches

    model, prompts = small_model(), torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    step = LeanStep(model, 2, 4)
    step(prompts, torch.arange(4)[None])
    rows, asked = [0, 0, 1], [[9, 1], [2], [3, 3, 3]]
    # After three of the four tokens: the last was drafted and is masked.
    branches = Branches.of(rows, asked, [3, 3, 3], [3, 3, 3], 4)
    found = branches.apart(step.aside(branches.tokens, branches.positions, branches.visible))
    for row, each, logits in zip(rows, asked, found, strict=True):
        whole = torch.cat([prompts[row, :3], torch.tensor(each)])[None]
        torch.testing.assert_close(logits, model(whole).logits[0, 3:], atol=1e-5, rtol=0)
    # The same of the second row alone.
    branches = Branches.of([0, 0], [[3, 9], [5]], [3, 3], [3, 3], 4)
    found = branches.apart([step.packed(branches.runs([1]))])
    for each, part in zip(([3, 9], [5]), found, strict=True):
        whole = torch.cat([prompts[1, :3], torch.tensor(each)])[None]
        torch.testing.assert_close(part, model(whole).logits[0, 3:], atol=1e-5, rtol=0)
    after = step(torch.tensor([[7], [8]]), torch.full((2, 1), 4))[:, 0]
    whole = torch.cat([prompts, torch.tensor([[7], [8]])], dim=1)
    torch.testing.assert_close(after, model(whole).logits[:, -1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_rows_of_different_lengths_are_packed_into_one_pass():
    model, prompts, padding = small_model(), torch.tensor([[1, 2, 3], [9, 5, 6]]), torch.tensor([0, 1])
    step = LeanStep(model, 2, WINDOW)
    mask = (torch.arange(3) >= padding[:, None]).long()
    step(prompts, (mask.cumsum(dim=-1) - 1).clamp(min=0), mask)
    texts = [[1, 2, 3, 7, 8, 4], [9, 5, 6, 2]]
    found = step.packed([Run(0, [7, 8, 4], 3, [3, 4, 5]), Run(1, [2], 3, [2], padding=1)])
    for row, after in ((0, slice(0, 3)), (1, slice(3, 4))):
        whole = torch.tensor([texts[row][int(padding[row]) :]])
        expected = model(whole).logits[0, -(after.stop - after.start) :]
        torch.testing.assert_close(found[after], expected, atol=1e-5, rtol=0)
    # The second row continues at its own column, over the first row's drafts.
    found = step.packed([Run(0, [3], 4, [4]), Run(1, [1, 5], 4, [3, 4], padding=1)])
    expected = model(torch.tensor([[5, 6, 2, 1, 5]])).logits[0, -2:]
    torch.testing.assert_close(found[1:], expected, atol=1e-5, rtol=0)
