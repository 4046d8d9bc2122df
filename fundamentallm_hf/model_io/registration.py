"""Importing this module registers FundamentaLLM with transformers' Auto classes."""

import sys

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from fundamentallm_hf.portable.model.configuration_fundamentallm import FundamentaLLMConfig
from fundamentallm_hf.portable.model.modeling_fundamentallm import FundamentaLLMForCausalLM, FundamentaLLMModel

AutoConfig.register("fundamentallm", FundamentaLLMConfig, exist_ok=True)
AutoModel.register(FundamentaLLMConfig, FundamentaLLMModel, exist_ok=True)
AutoModelForCausalLM.register(FundamentaLLMConfig, FundamentaLLMForCausalLM, exist_ok=True)
# `transformers serve` looks up an architecture by its name in the transformers module. A part of transformers executes
# that module again when it is imported, so only now it is known which module object that will be.
sys.modules["transformers"].FundamentaLLMForCausalLM = FundamentaLLMForCausalLM  # type: ignore[attr-defined]
