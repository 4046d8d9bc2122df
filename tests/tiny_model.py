"""A FundamentaLLM model of random weights, created quickly."""

import torch

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM

SHAPE = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def tiny(**changes):
    """The model; `changes` are of its config."""
    torch.manual_seed(0)
    options = {"max_position_embeddings": 24, "initializer_range": 0.2, **SHAPE, **changes}
    return FundamentaLLMForCausalLM(FundamentaLLMConfig(**options)).eval()
