"""The text of tokens equals the tokenizer's decoded text, for every kind of tokenizer."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fundamentallm_hf.model_io.tokenizer import build_tokenizer, character_vocabulary
from fundamentallm_hf.portable.text.pieces import REPLACEMENT, add_piece, as_bytes
from fundamentallm_hf.portable.text.vocabulary import Vocabulary

TEXT = ["the cat ran to the river and the cat rang", "café crème, naïve 😀😀 中文中文 文学", "un two\n\tthree  four"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = ["the", "cat", "ran", "rang", "to", "é", "中文", "."]


def fast(backend, **special):
    """A tokenizer with special tokens and two added tokens, one of which is text."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)
    tokenizer.add_tokens(["<tool>", AddedToken("<|user|>", special=True)])
    return tokenizer


def characters():
    return build_tokenizer(character_vocabulary([*TEXT, "."]), 64)


def byte_level():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    return fast(backend, eos_token="<|end|>", pad_token="<|end|>")


def metaspace_bpe():
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>", "</s>"], show_progress=False)
    backend.train_from_iterator(TEXT, trainer)
    return fast(backend, unk_token="<unk>", eos_token="</s>")


def llama():
    """Like Llama 2's: bytes if no token fits, spaces as ▁, and one space removed from the start."""
    pieces = ["<unk>", "<s>", "</s>", *BYTES, "▁", "▁▁", "a", "t", "h", "e", ".", "é", "▁t", "he", "▁the", "▁a"]
    merges = [("▁", "▁"), ("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "a")]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def unigram():
    pieces = ["<unk>", "</s>", "▁", "▁the", "▁ca", "the", "t", "é", "中", "中文", "▁😀", "ing", ".", "s"]
    backend = Tokenizer(models.Unigram([(piece, -float(index)) for index, piece in enumerate(pieces)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return fast(backend, unk_token="<unk>", eos_token="</s>")


def word_piece():
    pieces = ["[PAD]", "[UNK]", "the", "cat", "a", "é", "中", ".", "##s", "##ing", "##é", "##a", "'"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return fast(backend, unk_token="[UNK]", pad_token="[PAD]")


def word_ends():
    """Like the first GPT's: a token that ends a word is marked, and the decoder adds a space after it."""
    pieces = ["<unk>", "a</w>", "the</w>", ".</w>", "a", "t", "the", "r", "in", "é", "é</w>", "ing</w>"]
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return fast(backend, unk_token="<unk>")


def words():
    """A tokenizer without a decoder, which joins tokens by spaces."""
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(["[UNK]", *WORDS])}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return fast(backend, unk_token="[UNK]")


KINDS = {
    kind.__name__: kind()
    for kind in (characters, byte_level, metaspace_bpe, llama, unigram, word_piece, word_ends, words)
}


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "llama"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_text_of_tokens_is_what_the_tokenizer_decodes(kind, data):
    tokenizer = KINDS[kind]
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=12))
    shown = [
        name for name in tokenizer.convert_ids_to_tokens(ids) if name not in {*tokenizer.all_special_tokens, "<|user|>"}
    ]
    if kind == "word_piece" and shown and shown[0].startswith("##"):
        return  # at the start of the text its decoder keeps the continuation marks
    if kind in ("metaspace_bpe", "unigram") and shown and "▁" in shown[0][1:]:
        return  # at the start of the text its decoder removes all spaces of a token
    assert Vocabulary.of(tokenizer).text(ids) == decoded(tokenizer, ids)


LLAMA_PARTS = st.one_of(
    st.integers(0, len(KINDS["llama"]) - 1).map(lambda token: [token]),
    st.characters(exclude_categories=["Cs"]).map(lambda char: [3 + byte for byte in char.encode()]),
    st.binary(min_size=1, max_size=3).map(lambda raw: [3 + byte for byte in raw]),
)


@given(st.lists(LLAMA_PARTS, max_size=12))
@example([[3 + 0x66, 3 + 0xFF, 259]])
@example([[3 + 0xF0, 3 + 0x9F, 3 + 0x98, 3 + 0xE4, 259]])
@settings(max_examples=300, deadline=None)
def test_bytes_that_stand_in_for_characters_are_what_the_tokenizer_decodes(parts):
    """One invalid byte makes its decoder discard all adjacent bytes."""
    ids = [token for part in parts for token in part]
    assert Vocabulary.of(KINDS["llama"]).text(ids) == decoded(KINDS["llama"], ids)


@pytest.mark.parametrize(
    ("kind", "name", "piece"),
    [
        ("characters", "é", "é"),
        ("characters", "\n", "\n"),
        ("characters", "<EOS>", ""),
        ("characters", "<UNK>", ""),
        ("byte_level", "a", "a"),
        ("byte_level", "Ġthe", " the"),
        ("byte_level", "Ã", b"\xc3"),
        ("byte_level", "Ġca", " ca"),
        ("byte_level", "ĠðŁĺĢ", " 😀"),
        ("byte_level", "<|end|>", ""),
        ("byte_level", "<|user|>", ""),
        ("byte_level", "<tool>", "<tool>"),
        ("metaspace_bpe", "▁the", " the"),
        ("metaspace_bpe", "▁", " "),
        ("metaspace_bpe", "<tool>", "<tool>"),
        ("llama", "<0x41>", "A"),
        ("llama", "<0xC3>", b"\xc3"),
        ("llama", "▁▁", "  "),
        ("llama", "▁the", " the"),
        ("llama", "he", "he"),
        ("llama", "</s>", ""),
        ("unigram", "▁😀", " 😀"),
        ("word_piece", "the", " the"),
        ("word_piece", "##ing", "ing"),
        ("word_piece", ".", "."),
        ("word_piece", "[PAD]", ""),
        ("word_ends", "the</w>", "the "),
        ("word_ends", "the", "the"),
        ("words", "cat", " cat"),
    ],
)
def test_a_piece_is_what_a_token_adds_behind_another(kind, name, piece):
    tokenizer = KINDS[kind]
    vocabulary = Vocabulary.of(tokenizer)
    assert vocabulary.piece(tokenizer.convert_tokens_to_ids(name)) == piece
    assert vocabulary.piece(len(tokenizer) + 7) == ""


@pytest.mark.parametrize(
    ("kind", "leading", "trailing"),
    [
        ("characters", False, False),
        ("byte_level", False, False),
        ("metaspace_bpe", True, False),
        ("llama", True, False),
        ("unigram", True, False),
        ("word_piece", True, False),
        ("word_ends", False, True),
        ("words", True, False),
    ],
)
def test_it_knows_which_spaces_a_decoder_takes_away(kind, leading, trailing):
    vocabulary = Vocabulary.of(KINDS[kind])
    assert (vocabulary.strips_leading_space, vocabulary.strips_trailing_space) == (leading, trailing)


def test_ids_that_a_tokenizer_leaves_out_add_nothing():
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 2, "b": 5}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert Vocabulary.of(tokenizer).pieces == ("", "", "a", "", "", "b")


def test_it_is_made_once_and_again_when_tokens_change():
    tokenizer = byte_level()
    vocabulary = Vocabulary.of(tokenizer)
    assert Vocabulary.of(tokenizer) is vocabulary
    tokenizer.add_tokens(["<new>"])
    grown = Vocabulary.of(tokenizer)
    assert grown.pieces == (*vocabulary.pieces, "<new>")
    assert Vocabulary.of(tokenizer) is grown
    tokenizer.add_special_tokens({"bos_token": "<new>"})
    assert Vocabulary.of(tokenizer).pieces == (*vocabulary.pieces, "")


def test_tokens_are_decoded_in_batches(monkeypatch):
    tokenizer = byte_level()
    calls = []
    batch_decode = type(tokenizer).batch_decode
    monkeypatch.setattr(
        type(tokenizer), "batch_decode", lambda *args, **kwargs: calls.append(args[1]) or batch_decode(*args, **kwargs)
    )
    tokenizer.add_tokens([f"<t{index}>" for index in range(500)])
    vocabulary = Vocabulary.of(tokenizer)
    assert vocabulary.pieces[-1] == "<t499>"
    assert len(calls) < 10
    assert max(map(len, calls)) == len(tokenizer)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("characters", "the cat", list("the cat")),
        ("characters", "", []),
        ("characters", "the ж", None),
        ("byte_level", " the", ["Ġthe"]),
        ("llama", "the", ["t", "he"]),
        ("llama", " the a", ["▁the", "▁a"]),
        ("llama", "A", ["<0x41>"]),
        ("llama", "a", ["a"]),
        ("word_piece", " theing", ["the", "##ing"]),
        ("word_ends", "the a ", ["the</w>", "a</w>"]),
    ],
)
def test_text_is_spelled_with_the_longest_tokens_and_without_bytes_if_possible(kind, text, expected):
    tokenizer = KINDS[kind]
    spelled = Vocabulary.of(tokenizer).spell(text)
    assert (spelled and tokenizer.convert_ids_to_tokens(spelled)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_spelled_reads_as_it_was_asked(kind):
    tokenizer = KINDS[kind]
    vocabulary = Vocabulary.of(tokenizer)
    for text in ("the", " the", "the.", " cat the", "é", "中文", "thething", "\n"):
        spelled = vocabulary.spell(text)
        if spelled is not None:
            assert b"".join(as_bytes(vocabulary.piece(token)) for token in spelled) == text.encode()


def test_a_token_is_found_by_its_text():
    tokenizer = KINDS["llama"]
    vocabulary = Vocabulary.of(tokenizer)
    assert tokenizer.convert_ids_to_tokens(vocabulary.token(" the")) == "▁the"
    assert tokenizer.convert_ids_to_tokens(vocabulary.token("a")) == "a"
    assert tokenizer.convert_ids_to_tokens(vocabulary.token("B")) == "<0x42>"
    assert vocabulary.token("zebra") is None
    assert vocabulary.token("") is None


@pytest.mark.parametrize(
    ("tail", "text", "expected"),
    [
        ("", "he", {"he", "the", "hers"}),
        ("", "s", {"hers", "s"}),
        ("t", "th", {"he", "the", "hers", "h", "h'"}),
        ("xth", "then", {"en"}),
        ("the", "then", {"n", "net"}),
        ("n", "nn", {"n", "net"}),
        ("x", "zz", set()),
        ("", "then", set()),
    ],
)
def test_it_finds_the_tokens_that_complete_a_text(tail, text, expected):
    pieces = ("he", "the", "hers", "h", "h", "en", "n", "net", "s", b"\xc3", "")
    found = {pieces[token] + "'" * (token == 4) for token in Vocabulary(pieces).completing(tail, text)}
    assert found == expected


def test_a_token_that_ends_within_a_character_completes_a_text_too():
    vocabulary = Vocabulary((b" tr\xc3", "a", b"\xc3", b"\xa9. \xe2", b". \xe2"))
    assert {*vocabulary.completing("a", " t")} == {0}
    assert {*vocabulary.completing("a.", ". ")} == {3, 4} | {0}
    assert {*vocabulary.completing("a", "é")} == set()


@given(
    st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=8), st.text("abc"), st.text("abc", min_size=1)
)
def test_the_tokens_that_complete_a_text_are_those_behind_which_it_newly_stands(pieces, tail, text):
    new = range(max(0, len(tail) - len(text) + 1), len(tail) + 3)
    expected = {token for token, piece in enumerate(pieces) if any((tail + piece).startswith(text, at) for at in new)}
    assert set(Vocabulary(tuple(pieces)).completing(tail, text)) == expected


def test_letters_are_the_tokens_of_one_character():
    vocabulary = Vocabulary(("a", "bc", "é", "", b"\xc3", "a", " d"))
    assert vocabulary.letters == ("a", "é")
    assert vocabulary.spaced_letters == (" d",)
    assert vocabulary.longest == 2
    assert Vocabulary(()).longest == 0


@pytest.mark.parametrize(
    ("pending", "piece", "text", "left"),
    [
        (b"", "ab", "ab", b""),
        (b"", "", "", b""),
        (b"", b"\xc3", "", b"\xc3"),
        (b"\xc3", b"\xa9", "é", b""),
        (b"\xc3", b"\xa9\xc3", "é", b"\xc3"),
        (b"\xc3", "a", f"{REPLACEMENT}a", b""),
        (b"\xc3", "", "", b"\xc3"),
        (b"\xc3", b"\xc3", REPLACEMENT, b"\xc3"),
        (b"\xf0\x9f", b"\x98\x80", "😀", b""),
        (b"\xf0\x9f", b" x", f"{REPLACEMENT} x", b""),
        (b"", b"\xff", REPLACEMENT, b""),
    ],
)
def test_bytes_wait_for_the_rest_of_their_character(pending, piece, text, left):
    assert add_piece(pending, piece) == (text, left)


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=3), st.text(max_size=2)), max_size=8))
def test_pieces_make_the_text_of_their_bytes(pieces):
    vocabulary = Vocabulary(tuple(pieces))
    raw = b"".join(piece if isinstance(piece, bytes) else piece.encode() for piece in pieces)
    assert vocabulary.text(range(len(pieces))) == raw.decode("utf-8", "replace")


def test_suppressed_tokens_add_up():
    """What one caller masks stays masked for the next, in whatever order they come."""
    vocabulary = Vocabulary.of(byte_level())
    spelled = vocabulary.spell("the cat ran") or []
    assert len(spelled) > 2
    one, other = frozenset(spelled[:2]), frozenset(spelled[1:3])
    for narrowed in (vocabulary.without(one).without(other), vocabulary.without(other).without(one)):
        assert narrowed.suppressed == one | other
        assert not (one | other).intersection(narrowed.spell("the cat ran") or ())
    assert vocabulary.without(one).without(one) is vocabulary.without(one)
    assert vocabulary.without(one).without(frozenset()) is vocabulary.without(one)
