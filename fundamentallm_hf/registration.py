"""Importing this module registers FundamentaLLM with transformers' Auto classes."""

import sys

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration_fundamentallm import FundamentaLLMConfig
from .modeling_fundamentallm import FundamentaLLMForCausalLM, FundamentaLLMModel

AutoConfig.register("fundamentallm", FundamentaLLMConfig, exist_ok=True)
AutoModel.register(FundamentaLLMConfig, FundamentaLLMModel, exist_ok=True)
AutoModelForCausalLM.register(FundamentaLLMConfig, FundamentaLLMForCausalLM, exist_ok=True)
# Every saved model carries its code, so that it loads with trust_remote_code=True where this package is missing.
FundamentaLLMConfig.register_for_auto_class("AutoConfig")
FundamentaLLMModel.register_for_auto_class("AutoModel")
FundamentaLLMForCausalLM.register_for_auto_class("AutoModelForCausalLM")
# `transformers serve` looks an architecture up by its name among transformers' own. A part of transformers executes it
# anew when it is imported, so only now it is known which module that will be.
sys.modules["transformers"].FundamentaLLMForCausalLM = FundamentaLLMForCausalLM  # type: ignore[attr-defined]
