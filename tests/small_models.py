"""Random models of other architectures with tokenizers of other kinds, created quickly and without a network."""

import json

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = ["once upon a time there was a small cat é in the café 日本 😀. the end of the story!"] * 3


def byte_level_gpt2() -> GPT2LMHeadModel:
    """GPT-2 with byte-level BPE, whose tokens may be parts of a character; `tokenizer` is an attribute."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64, eos_token_id=0, bos_token_id=0
    )
    return _with_tokenizer(GPT2LMHeadModel(config), tokenizer)


def json_gpt2(texts, positions=1024) -> GPT2LMHeadModel:
    """GPT-2 with byte-level BPE learnt from JSON, so that many tokens hold several quotation marks and brackets."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([*TEXT, *texts], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=positions, eos_token_id=0, bos_token_id=0
    )
    return _with_tokenizer(GPT2LMHeadModel(config), tokenizer)


def sentencepiece_llama() -> LlamaForCausalLM:
    """Llama with the tokenizer of Llama 2: BPE over "▁", bytes for what it lacks, a leading space that is stripped."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>", *byte_tokens]
    plain = [text.replace("日本", "").replace("😀", "") for text in TEXT]
    backend.train_from_iterator(plain, trainers.BpeTrainer(vocab_size=360, special_tokens=specials))
    # The trainer marks the byte tokens as special, which they are not.
    description = json.loads(backend.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["id"] < 3]
    backend = Tokenizer.from_str(json.dumps(description))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 5,  # padded, as many are
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
    )
    return _with_tokenizer(LlamaForCausalLM(config), tokenizer)


def _with_tokenizer(model, tokenizer):
    tokenizer.padding_side = "left"
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.tokenizer = tokenizer
    return model.eval()
