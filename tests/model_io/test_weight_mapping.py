"""FundamentaLLM's names and shapes become Hugging Face's, and contradictions are refused by name."""

import pytest
import torch

from fundamentallm_hf.model_io.weight_mapping import quote_some, translate_config, translate_weights
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.model.modeling_fundamentallm import (
    FundamentaLLMForCausalLM,
    FundamentaLLMSinusoidalPositions,
)

SHAPE = {"vocab_size": 7, "d_model": 8, "num_heads": 2, "num_layers": 2, "sequence_length": 6, "ffn_expansion": 3}
ORIGIN, SHOWN = "'model.yaml'", "'final_model.pt'"


def upstream_weights(positions="learned"):
    """Random weights under FundamentaLLM's names for SHAPE, written out by hand."""
    shapes = {"token_embedding.weight": (7, 8), "output_norm.weight": (8,)}
    for i in range(2):
        shapes |= {f"blocks.{i}.norm{n}.weight": (8,) for n in (1, 2)}
        shapes |= {f"blocks.{i}.attention.W_{w}.weight": (8, 8) for w in "qkvo"}
        shapes |= {f"blocks.{i}.attention.W_{w}.bias": (8,) for w in "qkvo"}
        shapes |= {f"blocks.{i}.ffn.linear1.weight": (24, 8), f"blocks.{i}.ffn.linear1.bias": (24,)}
        shapes |= {f"blocks.{i}.ffn.linear2.weight": (8, 24), f"blocks.{i}.ffn.linear2.bias": (8,)}
    if positions == "learned":
        shapes["positional_encoding.embeddings.weight"] = (6, 8)
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if positions == "sinusoidal":
        weights["positional_encoding.pe"] = FundamentaLLMSinusoidalPositions.compute(6, 8)
    return weights


def refused(call, *parts):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_the_names_are_exactly_those_of_the_model(positions):
    config = translate_config({**SHAPE, "pos_encoding": positions}, ORIGIN)
    state = translate_weights(upstream_weights(positions), config, SHOWN, ORIGIN)
    model = FundamentaLLMForCausalLM(config).state_dict()
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in model.items() if name != "lm_head.weight"
    }


def test_aliases_mean_the_same_and_unknown_names_and_empty_values_are_ignored():
    plain = translate_config(SHAPE, ORIGIN)
    for d_model in ("d_model", "hidden_dim", "model_dim"):
        for length in ("sequence_length", "max_seq_len"):
            renamed = {"vocab_size": 7, "num_heads": 2, "num_layers": 2, "ffn_expansion": 3, d_model: 8, length: 6}
            renamed |= {"tie_weights": "?", "dropout": None, 3: 4, "architectures": ["Other"], "use_cache": "?"}
            assert translate_config(renamed, ORIGIN).to_dict() == plain.to_dict()
    assert translate_config({**SHAPE, "hidden_dim": 8}, ORIGIN).hidden_size == 8


def test_what_the_config_leaves_out_is_fundamentallms_default():
    config = translate_config({"vocab_size": 7}, ORIGIN)
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (128, 2, 6)
    assert (config.max_position_embeddings, config.dropout, config.intermediate_size) == (256, 0.1, 512)
    assert config.position_embedding_type == "learned"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"hidden_dim": 16}, ["d_model and hidden_dim", "different values"]),
        ({"vocab_size": None}, ["no vocab_size"]),
        ({"pos_encoding": "rope"}, ["rope", "learned or sinusoidal"]),
        ({"pos_encoding": "alibi"}, ["alibi", "learned, sinusoidal"]),
        ({"num_heads": 3}, ["multiple", "8 with 3 heads"]),
        ({"num_layers": 0}, ["at least 1"]),
        ({"vocab_size": "7"}, ["vocab_size", "expected int"]),
        ({"dropout": "much"}, ["dropout", "much"]),
        ({"ffn_expansion": "4"}, ["ffn_expansion", "'4'"]),
        ({"ffn_expansion": True}, ["ffn_expansion"]),
        ({"ffn_expansion": float("inf")}, ["infinity"]),
    ],
)
def test_a_config_that_no_model_can_have_is_refused(change, parts):
    refused(lambda: translate_config({**SHAPE, **change}, ORIGIN), ORIGIN, *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"d_model": 16}, ["token_embedding.weight", "(7, 8)", "(7, 16)"]),
        ({"vocab_size": 9}, ["token_embedding.weight", "(7, 8)", "(9, 8)"]),
        ({"sequence_length": 5}, ["positional_encoding.embeddings.weight", "(6, 8)", "(5, 8)"]),
        ({"ffn_expansion": 4}, ["blocks.0.ffn.linear1.weight", "(24, 8)", "(32, 8)"]),
        ({"num_layers": 3}, ["2 layers", "num_layers is 3"]),
        # Has to be refused before anything is done a billion times.
        ({"num_layers": 10**9}, ["2 layers"]),
        ({"pos_encoding": "sinusoidal"}, ["holds", "positional_encoding.embeddings.weight", "no place"]),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused_by_name(change, parts):
    config = translate_config({**SHAPE, **change}, ORIGIN)
    refused(lambda: translate_weights(upstream_weights(), config, SHOWN, ORIGIN), ORIGIN, SHOWN, *parts)


def test_missing_and_superfluous_tensors_are_named():
    config = translate_config(SHAPE, ORIGIN)
    weights = upstream_weights()
    fewer = {name: value for name, value in weights.items() if ".W_q." not in name}
    refused(
        lambda: translate_weights(fewer, config, SHOWN, ORIGIN), "lacks", "'blocks.0.attention.W_q.weight'", "1 more"
    )
    more = weights | {"lora\n.A": torch.zeros(1)}
    refused(lambda: translate_weights(more, config, SHOWN, ORIGIN), "holds 'lora\\n.A'")
    tied = weights | {"output_proj.weight": torch.zeros(6, 8)}
    refused(lambda: translate_weights(tied, config, SHOWN, ORIGIN), "output_proj.weight", "(6, 8)", "(7, 8)")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_table_of_positions_is_dropped_in_any_precision_and_may_be_absent(dtype):
    config = translate_config({**SHAPE, "pos_encoding": "sinusoidal"}, ORIGIN)
    weights = upstream_weights("sinusoidal")
    bare = translate_weights(upstream_weights("none"), config, SHOWN, ORIGIN)
    weights["positional_encoding.pe"] = weights["positional_encoding.pe"].to(dtype)
    assert translate_weights(weights, config, SHOWN, ORIGIN).keys() == bare.keys()


def test_another_table_of_positions_is_refused():
    config = translate_config({**SHAPE, "pos_encoding": "sinusoidal"}, ORIGIN)
    weights = upstream_weights("sinusoidal")
    for error in (2e-3, float("nan")):
        table = FundamentaLLMSinusoidalPositions.compute(6, 8)
        table[3, 2] += error
        changed = weights | {"positional_encoding.pe": table}
        refused(
            lambda state=changed: translate_weights(state, config, SHOWN, ORIGIN), "positional_encoding.pe", "sines"
        )
    shorter = weights | {"positional_encoding.pe": weights["positional_encoding.pe"][:5]}
    refused(lambda: translate_weights(shorter, config, SHOWN, ORIGIN), "positional_encoding.pe", "(5, 8)", "(6, 8)")


def test_an_output_layer_of_its_own_is_kept_and_a_tied_one_is_not():
    weights = upstream_weights()
    weights["output_proj.weight"] = 2 * weights["token_embedding.weight"]
    untied = translate_config(SHAPE, ORIGIN, tie_word_embeddings=False)
    kept = translate_weights(weights, untied, SHOWN, ORIGIN)["lm_head.weight"]
    assert torch.equal(kept, weights["output_proj.weight"])
    assert "lm_head.weight" not in translate_weights(weights, translate_config(SHAPE, ORIGIN), SHOWN, ORIGIN)


def test_long_lists_are_cut():
    assert quote_some("abcde") == "'a', 'b', 'c' and 2 more"
    assert quote_some([]) == "nothing"
