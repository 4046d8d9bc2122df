"""Attention in blocks of queries is attention."""

import pytest
import torch

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM
from fundamentallm_hf.training import blockwise_attention


@pytest.mark.parametrize(("least", "most"), [(16, 8), (2, 3), (1, 40)])
@pytest.mark.parametrize("length", [1, 5, 16, 37])
def test_it_gives_the_logits_and_gradients_of_eager_attention(length, least, most, monkeypatch):
    monkeypatch.setattr(blockwise_attention, "LEAST_BLOCK", least)
    monkeypatch.setattr(blockwise_attention, "MOST_BLOCKS", most)
    blockwise_attention.register()
    torch.manual_seed(0)
    config = FundamentaLLMConfig(vocab_size=20, d_model=16, num_layers=2, num_heads=2, sequence_length=40, dropout=0.0)
    model = FundamentaLLMForCausalLM(config)
    ids = torch.randint(4, 20, (3, length))
    found = []
    for name in ("eager", "blockwise"):
        model.set_attn_implementation(name)
        model.zero_grad()
        logits = model(ids, use_cache=False).logits
        logits.square().sum().backward()
        found.append((logits.detach(), model.model.layers[0].self_attn.k_proj.weight.grad.clone()))
    for eager, blockwise in zip(*found, strict=True):
        assert torch.allclose(eager, blockwise, atol=1e-5)


def test_it_refuses_what_it_would_get_wrong():
    query = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="for training"):
        blockwise_attention.blockwise_attention_forward(None, query, query, query, torch.zeros(1, 1, 2, 2), 1.0)
    with pytest.raises(ValueError, match="for training"):
        blockwise_attention.blockwise_attention_forward(None, query, torch.zeros(1, 1, 3, 4), query, None, 1.0)
