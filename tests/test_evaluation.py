"""The results of `evaluate()` against sums made one token at a time, and the inputs that it refuses.

Every model here is tiny and random, or all zeros; nothing is downloaded.
"""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fundamentallm_hf.evaluation import Evaluation, evaluate, read_text, window_spans
from fundamentallm_hf.model_io.tokenizer import build_tokenizer, character_vocabulary
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.model.configuration_fundamentallm import FundamentaLLMConfig
from fundamentallm_hf.portable.model.modeling_fundamentallm import FundamentaLLMForCausalLM

TEXT = "the cat sat on the mat, and the rat ran after the cat: ten tan cats."
START = "<|start|>"


def character_model(window: int = 16, **overrides: Any) -> tuple[FundamentaLLMForCausalLM, PreTrainedTokenizerFast]:
    vocabulary = character_vocabulary([TEXT])
    torch.manual_seed(0)
    config = FundamentaLLMConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        max_position_embeddings=window,
        initializer_range=0.5,
        **overrides,
    )
    return FundamentaLLMForCausalLM(config).eval(), build_tokenizer(vocabulary, window)


def bpe_tokenizer(start_token: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer as GPT-2's, whose unknown, start and end tokens are one and the same."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=[START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT], trainer)
    if start_token:
        backend.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=START, eos_token=START, unk_token=START, model_max_length=16
    )


def gpt2(positions: int = 16) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=280, n_positions=positions, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5, bos_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


def brute_force(model: PreTrainedModel, ids: list[int], window: int, stride: int) -> tuple[float, int]:
    """Nats and hits of every token but the first, each from one forward pass over exactly its context.

    The windows are found here by looking for them: the earliest one that makes the prediction makes it.
    """
    begins = [b for b in range(0, len(ids), stride) if b + window < len(ids) - 1] + [max(0, len(ids) - 1 - window)]
    nats, hits = 0.0, 0
    for target in range(1, len(ids)):
        begin = next(b for b in begins if b < target <= b + window)
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([ids[begin:target]])).logits[0, -1].double()
        nats -= scores.log_softmax(-1)[ids[target]].item()
        hits += int(scores.argmax()) == ids[target]
    return nats, hits


def assert_matches(
    found: Evaluation, model: PreTrainedModel, ids: list[int], characters: int, unscored: int = 1
) -> None:
    nats, hits = brute_force(model, ids, found.window, found.stride)
    tokens = len(ids) - unscored
    assert found.tokens == tokens
    assert found.characters == characters
    assert found.loss == pytest.approx(nats / tokens, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert found.bits_per_character == pytest.approx(nats / math.log(2) / characters, rel=1e-5)
    assert found.accuracy == hits / tokens


@pytest.mark.parametrize(
    ("window", "stride"), [(None, None), (16, 16), (16, 1), (16, 5), (7, 3), (2, 1), (1, 1), (64, 32)]
)
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_characters_as_one_by_one(window: int | None, stride: int | None, positions: str) -> None:
    model, tokenizer = character_model(64 if window == 64 else 16, position_embedding_type=positions)
    found = evaluate(model, tokenizer, TEXT, window=window, stride=stride, batch_size=3)
    assert (found.window, found.stride) == (window or 16, stride or 8)
    assert found.unknown_tokens == 0
    assert_matches(found, model, tokenizer(TEXT).input_ids, characters=len(TEXT) - 1)


@pytest.mark.parametrize(("window", "stride"), [(16, 8), (16, 16), (5, 2)])
@pytest.mark.parametrize(
    ("text", "characters"),
    [
        (TEXT, len(TEXT) - len("the")),
        ("ẞo the “cat”…", 13),  # the first character is three bytes and as many tokens: only one of them is unscored
        ("é", 1),
        (f"the{START} cat", len(f"{START} cat")),  # the start token in a text is not an unknown character
    ],
)
def test_bpe_as_one_by_one(text: str, characters: int, window: int, stride: int) -> None:
    model, tokenizer = gpt2(), bpe_tokenizer()
    found = evaluate(model, tokenizer, text, window=window, stride=stride, batch_size=2)
    assert found.unknown_tokens == 0
    assert_matches(found, model, tokenizer(text).input_ids, characters)


@pytest.mark.parametrize("text", [TEXT, "a"])
def test_a_tokenizer_with_a_start_token_has_its_first_token_scored(text: str) -> None:
    model, tokenizer = gpt2(), bpe_tokenizer(start_token=True)
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert_matches(evaluate(model, tokenizer, text), model, ids, characters=len(text))


def test_start_tokens_are_not_scored_themselves() -> None:
    model, tokenizer = gpt2(), bpe_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} {START} {START} $A {START}", special_tokens=[(START, 0)]
    )
    ids = tokenizer(TEXT).input_ids[:-1]
    for window in (1, 2, 16):
        found = evaluate(model, tokenizer, TEXT, window=window)
        nats, _ = brute_force(model, ids, found.window, found.stride)
        among_themselves, _ = brute_force(model, ids[:3], found.window, found.stride)
        assert found.tokens == len(ids) - 3
        assert found.loss * found.tokens == pytest.approx(nats - among_themselves, rel=1e-5)


def test_a_slow_tokenizer_counts_characters_by_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = gpt2(), bpe_tokenizer()
    texts = (TEXT, "ẞo the cat")
    expected = [evaluate(model, tokenizer, text) for text in texts]
    monkeypatch.setattr("transformers.BatchEncoding.is_fast", False)
    assert [evaluate(model, tokenizer, text) for text in texts] == expected


@pytest.mark.parametrize("window", [1, 5, 16])
def test_a_model_of_zeros_spends_log2_of_its_vocabulary(window: int) -> None:
    model, tokenizer = character_model()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    found = evaluate(model, tokenizer, TEXT, window=window)
    assert found.bits_per_character == pytest.approx(math.log2(len(tokenizer)), rel=1e-6)
    assert found.perplexity == pytest.approx(len(tokenizer), rel=1e-5)
    assert found.accuracy == 0.0  # all are equally likely, and <PAD> comes first


def test_neither_batches_nor_a_window_longer_than_the_text_change_anything() -> None:
    model, tokenizer = character_model(128)
    whole = evaluate(model, tokenizer, TEXT, window=128)
    assert evaluate(model, tokenizer, TEXT, window=len(TEXT) - 1).loss == pytest.approx(whole.loss, rel=1e-6)
    one = evaluate(model, tokenizer, TEXT, window=9, stride=2, batch_size=1)
    many = evaluate(model, tokenizer, TEXT, window=9, stride=2, batch_size=100)
    assert one.to_dict() == pytest.approx(many.to_dict(), rel=1e-6)


def test_a_batch_is_all_the_logits_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = character_model()
    shapes = []
    forward = FundamentaLLMForCausalLM.forward

    def recorded(self: FundamentaLLMForCausalLM, *args: Any, logits_to_keep: int = 0, **kwargs: Any) -> Any:
        output = forward(self, *args, logits_to_keep=logits_to_keep, **kwargs)
        assert not output.logits.requires_grad
        shapes.append(tuple(output.logits.shape[:2]))
        return output

    monkeypatch.setattr(FundamentaLLMForCausalLM, "forward", recorded)
    evaluate(model, tokenizer, TEXT, window=16, stride=4, batch_size=3)
    # 67 predictions: 16 by the first window, then thirteen windows with 4 or, at the end, 3 new ones each.
    assert shapes == [(3, 16), (3, 4), (3, 4), (3, 4), (2, 4)]


def test_unknown_characters_are_counted() -> None:
    model, tokenizer = character_model()
    found = evaluate(model, tokenizer, "the @ cat ~ sat @")
    assert (found.unknown_tokens, found.tokens) == (3, 16)
    assert_matches(found, model, tokenizer("the @ cat ~ sat @").input_ids, characters=16)
    assert evaluate(model, tokenizer, "@the@").unknown_tokens == 1  # the first is not scored


def test_progress_reaches_the_total() -> None:
    model, tokenizer = character_model()
    calls: list[tuple[int, int]] = []
    evaluate(model, tokenizer, TEXT, window=16, stride=8, batch_size=2, progress=lambda *call: calls.append(call))
    assert calls == [(24, 67), (40, 67), (56, 67), (67, 67)]


def test_every_module_is_left_in_its_mode() -> None:
    model, tokenizer = character_model(dropout=0.5)
    expected = evaluate(model, tokenizer, TEXT)
    assert not model.training
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    assert evaluate(model, tokenizer, TEXT) == expected  # no dropout while it measures
    assert [module.training for module in model.modules()] == modes

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, tokenizer, TEXT, progress=interrupt)
    assert [module.training for module in model.modules()] == modes


def test_the_default_window_is_the_models_up_to_1024() -> None:
    assert evaluate(gpt2(24), bpe_tokenizer(), TEXT).window == 24
    assert evaluate(gpt2(2000), bpe_tokenizer(), TEXT).window == 1024
    assert evaluate(gpt2(2000), bpe_tokenizer(), TEXT, window=1500).stride == 750


def test_to_dict_is_json() -> None:
    model, tokenizer = character_model()
    found = evaluate(model, tokenizer, TEXT)
    assert Evaluation(**json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "the text is empty: give a text of at least two tokens"),
        ("t", {}, "the text has fewer than two tokens (1)"),
        (TEXT, {"window": 0}, "the window has to be at least 1 token but is 0"),
        (TEXT, {"window": 17}, "the window has to be at most 16 tokens, the model's limit, but is 17"),
        (TEXT, {"stride": 0}, "the stride has to be 1 to 16 tokens, the window, but is 0"),
        (TEXT, {"window": 4, "stride": 5}, "the stride has to be 1 to 4 tokens, the window, but is 5"),
        (TEXT, {"batch_size": 0}, "the batch size has to be at least 1 window but is 0"),
    ],
)
def test_refusals(text: str, options: dict[str, int], message: str) -> None:
    model, tokenizer = character_model()
    with pytest.raises(UserError) as caught:
        evaluate(model, tokenizer, text, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_another_models_tokenizer_is_refused() -> None:
    model, _ = character_model()
    foreign: PreTrainedTokenizerBase = bpe_tokenizer()
    with pytest.raises(UserError, match=r"the tokenizer gives the id \d+ but the model has only \d+ tokens"):
        evaluate(model, foreign, TEXT)


@given(predictions=st.integers(1, 200), window=st.integers(1, 40), data=st.data())
def test_windows_make_every_prediction_once_with_enough_context(
    predictions: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    spans = window_spans(predictions, window, stride)
    made = [at for _, new, end in spans for at in range(new, end)]
    assert made == list(range(predictions))
    assert {end - begin for begin, _, end in spans} == {min(window, predictions)}
    for begin, new, end in spans:
        context = new - begin + 1
        assert begin <= new < end
        assert begin == 0 or window - stride + 1 <= context


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (b"a\r\nb\rc\n", "a\r\nb\rc\n"),
        (b"\xef\xbb\xbfcaf\xc3\xa9\n", "café\n"),
        (b"a\xef\xbb\xbf", "a\ufeff"),
        (b" \n", " \n"),
    ],
)
def test_a_text_is_read_as_it_stands(tmp_path: Any, written: bytes, text: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(written)
    assert read_text(path) == read_text(str(path)) == text


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"", "is empty: give a file with text in it"),
        (b"\xef\xbb\xbf", "is empty: give a file with text in it"),
        (b"ab\xe9", "is not UTF-8 text (byte 2): convert it to UTF-8 first"),
        ("ab".encode("utf-16"), "is not UTF-8 text (byte 0): convert it to UTF-8 first"),
        (None, "does not exist: give a text file"),
    ],
)
def test_a_text_that_cannot_be_read(tmp_path: Any, written: bytes | None, message: str) -> None:
    path = tmp_path / "text.txt"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(UserError) as caught:
        read_text(path)
    assert str(caught.value) == f"{path} {message}"


def test_a_folder_is_not_a_text(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="is a folder: give a text file"):
        read_text(tmp_path)
