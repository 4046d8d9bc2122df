"""Small tokenizers of eight families, and near-uniform models for them, on which every text control must work.

A random model at a high temperature generates text that no trained model would: broken characters, words in odd pieces,
punctuation within words. A promise that holds there holds anywhere.
"""

import json
from functools import cache

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

CORPUS = [
    "once upon a time there was a small cat and a big dog, and Paris was not Rome.",
    "the cat said: no! the dog ran to the café, très bien. 日本 猫 😀 Łódź 안녕 42 and 1999.",
    "e.g. Dr. Smith ran, ran and ran again; a happy dog sat in the sun\n\tand slept.",
] * 4
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = sorted(
    {char for text in CORPUS for char in text} | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIRSŁ0123456789?'-\"")
)


def _fast(backend, **special):
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)


def _byte_level():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|end|>", "<|pad|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = _fast(backend, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    return tokenizer


def _byte_fallback(normalizer, decoder):
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizer
    backend.decoder = decoder
    specials = ["<pad>", "<unk>", "<s>", "</s>", *BYTES]
    plain = ["".join(char for char in text if ord(char) < 0x250) for text in CORPUS]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False)
    backend.train_from_iterator(plain, trainer)
    # The trainer marks the byte tokens as special, which they are not.
    description = json.loads(backend.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["id"] < 4]
    backend = Tokenizer.from_str(json.dumps(description))
    return _fast(backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def _llama():
    return _byte_fallback(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    )


def _gemma():
    return _byte_fallback(
        normalizers.Replace(" ", "▁"),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
    )


def _unigram():
    words = ["▁the", "▁cat", "▁dog", "▁ran", "▁and", "▁a", "▁Paris", "▁Rome", "▁big", "ing", "an", "ar", "is", "og"]
    pieces = ["<pad>", "<unk>", "</s>", "▁", *words, *(letter for letter in LETTERS if not letter.isspace())]
    scored = [(piece, -float(index)) for index, piece in enumerate(dict.fromkeys(pieces))]
    backend = Tokenizer(models.Unigram(scored, unk_id=1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return _fast(backend, unk_token="<unk>", eos_token="</s>", pad_token="<pad>")


def _word_piece():
    words = ["the", "cat", "dog", "ran", "and", "big", "very", "Paris", "Rome", "Dr", "Smith", "happy", "##ing", "##og"]
    letters = [letter for letter in LETTERS if not letter.isspace()]
    pieces = ["[PAD]", "[UNK]", "[SEP]", *words, *letters, *(f"##{letter}" for letter in letters if letter.isalnum())]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return _fast(backend, unk_token="[UNK]", eos_token="[SEP]", pad_token="[PAD]")


def _word_ends():
    words = ["the", "cat", "dog", "ran", "and", "Paris", "Rome", "big"]
    letters = [letter for letter in LETTERS if not letter.isspace()]
    pieces = [
        "<pad>",
        "<unk>",
        "</s>",
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *(f"{w}</w>" for w in words),
    ]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return _fast(backend, unk_token="<unk>", eos_token="</s>", pad_token="<pad>")


def _characters():
    vocabulary = {piece: index for index, piece in enumerate(["<pad>", "<unk>", "</s>", *LETTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return _fast(backend, unk_token="<unk>", eos_token="</s>", pad_token="<pad>")


def _byt5():
    return ByT5Tokenizer(extra_ids=4)


FAMILIES = {
    "byte_level": _byte_level,
    "llama": _llama,
    "gemma": _gemma,
    "unigram": _unigram,
    "word_piece": _word_piece,
    "word_ends": _word_ends,
    "characters": _characters,
    "byt5": _byt5,
}


@cache
def toy_tokenizer(family):
    """The tokenizer of a family, padding on the left."""
    tokenizer = FAMILIES[family]()
    tokenizer.padding_side = "left"
    return tokenizer


@cache
def toy_model(family):
    """A random causal model with the tokenizer of a family as its attribute `tokenizer`; scores are near uniform."""
    tokenizer = toy_tokenizer(family)
    torch.manual_seed(0)
    config = GPT2Config(
        # Padded, as many are; ByT5's tokenizer cannot decode what it does not know.
        vocab_size=len(tokenizer) + (0 if family == "byt5" else 3),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=256,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = GPT2LMHeadModel(config).eval()
    model.tokenizer = tokenizer
    return model
