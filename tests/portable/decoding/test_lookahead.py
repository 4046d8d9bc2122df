"""The lookahead's scores of a continuation equal those of the whole text in one pass."""

import inspect

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DynamicCache,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MistralConfig,
    OpenAIGPTConfig,
    StaticCache,
)

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM
from fundamentallm_hf.portable.decoding.cache_names import CACHE
from fundamentallm_hf.portable.decoding.context_window import window_start
from fundamentallm_hf.portable.decoding.lookahead import ModelLookahead, Wishes
from fundamentallm_hf.portable.decoding.texts import Texts

pytestmark = pytest.mark.core

WINDOW = 16
PROMPTS = ([5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17, 18, 19])
CONTINUATIONS = ([20], [21, 22, 23], [24, 25])
TINY = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": None}
LLAMA_LIKE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = {
    "gpt2": GPT2Config(**TINY, n_embd=32, n_layer=2, n_head=4, n_positions=32),
    "llama": LlamaConfig(**TINY, **LLAMA_LIKE, num_key_value_heads=2),
    "mistral": MistralConfig(**TINY, **LLAMA_LIKE, num_key_value_heads=2, sliding_window=6),
    "bloom": BloomConfig(**TINY, hidden_size=32, n_layer=2, n_head=4),
    "openai-gpt": OpenAIGPTConfig(**TINY, n_embd=32, n_layer=2, n_head=4, n_positions=32),
}
CACHELESS = [("openai-gpt", "dynamic"), ("openai-gpt", "static")]


def tiny(config):
    torch.manual_seed(0)
    config.initializer_range = 0.3  # large enough for a wrong position or a wrong row to show
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config = GenerationConfig(pad_token_id=0)
    return model


@pytest.fixture(scope="module", params=["learned", "sinusoidal"])
def model(request):
    torch.manual_seed(0)
    config = FundamentaLLMConfig(
        **(TINY | {"eos_token_id": 3}),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=WINDOW,
        position_embedding_type=request.param,
        initializer_range=0.3,
    )
    model = FundamentaLLMForCausalLM(config).eval()
    model.generation_config = GenerationConfig(pad_token_id=0)
    return model


def in_sight(length):
    return length - window_start(length, WINDOW)


def padded(prompts):
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    return ids, (ids > 0).long(), [width - len(prompt) for prompt in prompts]


class Asking(LogitsProcessor):
    """Asks at every step of a call of `generate()`, and compares with the model reading the whole text at once."""

    def __init__(self, lookahead, prompt_rows):
        self.lookahead = lookahead
        self.prompt_rows = prompt_rows
        self.answered = self.refused = 0

    def __call__(self, input_ids, scores):
        rows = [row for row in range(len(input_ids)) for _ in CONTINUATIONS]
        continuations = list(CONTINUATIONS) * len(input_ids)
        held = self.snapshot()
        answers = self.lookahead.logits(input_ids, rows, continuations)
        assert all(before.equal(after) for before, after in zip(held, self.snapshot(), strict=True))
        assert len(answers) == len(rows)
        for row, continuation, logits in zip(rows, continuations, answers, strict=True):
            padding = self.lookahead.padding[row * self.prompt_rows // len(input_ids)]
            text = input_ids[row, padding:].tolist()
            text = text[len(text) - self.lookahead.in_sight(len(text)) :] + list(continuation)
            if self.lookahead.window is not None and len(text) > self.lookahead.window:
                assert logits is None
                self.refused += 1
                continue
            expected = self.lookahead.model(torch.tensor([text])).logits[0, -len(continuation) :]
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
            self.answered += 1
        return scores

    def snapshot(self):
        layers = getattr(self.lookahead.cache, "layers", [])
        return [tensor.clone() for layer in layers if layer.is_initialized for tensor in (layer.keys, layer.values)]


def ask_along(model, prompts, new_tokens, cache, window=None, sight=lambda length: length, **options):
    """Generates with a processor that asks at every step; returns it. What is written must not change by it."""
    ids, mask, padding = padded(prompts)
    options |= {"max_new_tokens": new_tokens, "do_sample": False, "attention_mask": mask}
    plain = model.generate(ids, **options)
    asking = Asking(ModelLookahead(model, cache, padding, window, sight), len(prompts))
    options |= {"use_cache": False} if cache is None else {CACHE: cache}
    written = model.generate(ids, logits_processor=LogitsProcessorList([asking]), **options)
    assert written.tolist() == plain.tolist()
    return asking


def caches(model, columns):
    return {
        "dynamic": DynamicCache(config=model.config),
        "bare": DynamicCache(),
        "static": StaticCache(config=model.config, max_cache_len=columns),
        "none": None,
    }


@pytest.mark.parametrize("kind", ["dynamic", "bare", "static", "none"])
def test_it_agrees_with_the_whole_text_read_at_once(model, kind):
    cache = caches(model, WINDOW)[kind]
    asking = ask_along(model, PROMPTS, 8, cache, WINDOW, in_sight)
    assert asking.answered >= 3 * 3 * 7


@pytest.mark.parametrize("kind", ["dynamic", "none"])
def test_it_agrees_after_the_window_has_slid(model, kind):
    asking = ask_along(model, PROMPTS, 24, caches(model, WINDOW)[kind], WINDOW, in_sight)
    assert asking.answered > 3 * 3 * 15
    assert asking.refused > 0


@pytest.mark.parametrize("kind", ["dynamic", "none"])
def test_it_agrees_when_beams_change_places(model, kind):
    cache = caches(model, WINDOW)[kind]
    ask_along(model, PROMPTS, 15, cache, WINDOW, in_sight, num_beams=3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in CONFIGS for kind in ("dynamic", "static", "none") if (name, kind) not in CACHELESS],
)
def test_it_agrees_for_other_architectures(name, kind):
    model = tiny(CONFIGS[name])
    prompts = PROMPTS[:1] if name == "openai-gpt" else PROMPTS  # it counts padding as text
    asking = ask_along(model, prompts, 6, caches(model, WINDOW)[kind])
    assert asking.answered == 6 * 3 * len(prompts)
    if kind == "dynamic":
        ask_along(model, prompts, 6, DynamicCache(config=model.config), num_beams=2)


def calls_of(model, monkeypatch):
    """The shapes of what the model is given, other than by the decoding loop."""
    shapes = []
    forward = model.forward

    def listen(input_ids=None, **kwargs):
        output = forward(input_ids=input_ids, **kwargs)
        shapes.append((tuple(input_ids.shape), tuple(output.logits.shape)))
        return output

    listen.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", listen)
    return shapes


@pytest.mark.parametrize(
    ("name", "shape"),
    [("llama", (2, 4)), ("gpt2", (2, 4)), ("mistral", (3, 3)), ("bloom", (3, 3))],
    ids=["side by side", "side by side, gpt2", "its layers slide", "it takes no such mask"],
)
def test_only_the_continuations_are_read_where_the_cache_can_be_borrowed(name, shape, monkeypatch):
    model = tiny(CONFIGS[name])
    ids, mask, padding = padded(PROMPTS)
    cache = DynamicCache(config=model.config)
    model(ids, attention_mask=mask, **{CACHE: cache})
    lookahead = ModelLookahead(model, cache, padding)
    first = lookahead.logits(ids, [0, 0, 2], CONTINUATIONS)  # finds out what the model can do
    shapes = calls_of(model, monkeypatch)
    again = lookahead.logits(ids, [0, 0, 2], CONTINUATIONS)
    assert shapes == [(shape, (*shape, 40))]
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_where_the_rows_are_read_anew_only_the_logits_of_the_continuations_are_computed(monkeypatch):
    model = tiny(CONFIGS["llama"])
    ids, _, padding = padded(PROMPTS)
    shapes = calls_of(model, monkeypatch)
    ModelLookahead(model, None, padding).logits(ids, [1, 2], CONTINUATIONS[:2])
    assert shapes == [((2, 5 + 3), (2, 3, 40))]


def test_the_cache_can_be_borrowed_after_the_window_has_slid(model, monkeypatch):
    ids, mask, padding = padded(PROMPTS)
    cache = DynamicCache(config=model.config)
    ids = model.generate(ids, attention_mask=mask, **{CACHE: cache}, max_new_tokens=22, eos_token_id=None)[:, :-1]
    assert cache.get_seq_length() < ids.shape[1]
    shapes = calls_of(model, monkeypatch)
    answers = ModelLookahead(model, cache, padding, WINDOW, in_sight).logits(ids, [0, 2], [[20], [21, 22]])
    assert shapes == [((2, 2), (2, 2, 40))]
    assert [len(logits) for logits in answers] == [1, 2]


def test_what_does_not_fit_into_the_window_is_not_asked(model, monkeypatch):
    ids = torch.arange(4, 4 + WINDOW - 2)[None]
    shapes = calls_of(model, monkeypatch)
    lookahead = ModelLookahead(model, None, [0], WINDOW, in_sight)
    answers = lookahead.logits(ids, [0, 0, 0], [[1, 2, 3], [1, 2], [1]])
    assert [logits is None for logits in answers] == [True, False, False]
    assert [len(logits) for logits in answers[1:]] == [2, 1]
    assert lookahead.logits(ids, [0], [[1, 2, 3]]) == [None]
    assert lookahead.logits(ids, [], []) == []
    assert len(shapes) == 1


def test_a_prompt_given_as_embeddings_is_read_from_the_cache_or_not_at_all():
    model = tiny(CONFIGS["llama"])
    prompts, mask, _ = padded(PROMPTS[:2])
    embeddings = model.get_input_embeddings()(prompts)
    ids = torch.tensor([[26], [27]])
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    model(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, **{CACHE: cache})
    longer = torch.nn.functional.pad(mask, (0, 1), value=1)
    model(ids, attention_mask=longer, position_ids=mask.sum(-1, keepdim=True), **{CACHE: cache})
    padding = [-len(prompt) for prompt in PROMPTS[:2]]
    answers = ModelLookahead(model, cache, padding).logits(ids, [0, 1], [[20, 21], [22]])
    for prompt, row, continuation, logits in zip(PROMPTS, ids.tolist(), ([20, 21], [22]), answers, strict=False):
        expected = model(torch.tensor([[*prompt, *row, *continuation]])).logits[0, -len(continuation) :]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert ModelLookahead(model, None, padding).logits(ids, [0, 1], [[20, 21], [22]]) == [None, None]


def test_a_text_is_answered_after_those_that_it_begins_with():
    texts = Texts(torch.arange(8)[None], [0] * 4, range(3, 7))
    wishes = Wishes()
    wishes.known[texts.keys[2], (5,)] = torch.zeros(1, 4)
    assert wishes.answer(texts, [0], [[1]], [3]) is None
    assert wishes.answer(texts, [2], [[5]], [5]) is None  # what is asked here may change with the answer above
    assert wishes.wanted == {(texts.keys[0], (1,)): (3, 3)}
    wishes.known[texts.keys[0], (1,)] = torch.ones(1, 4)
    wishes.wanted.clear()
    assert wishes.answer(texts, [0], [[1]], [3]) is not None
    assert wishes.answer(texts, [3], [[1]], [6]) is None
    assert wishes.answer(texts, [2], [[5]], [5]) is not None
