"""Past the window: the visible context depends only on the text, whatever the cache, the batch or the mode."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM
from fundamentallm_hf.portable.decoding.context_window import window_start

pytestmark = pytest.mark.core

WINDOW = 16
CACHES = [{}, {"cache_implementation": "static"}, {"use_cache": False}]


def tiny(positions="learned"):
    torch.manual_seed(0)
    config = FundamentaLLMConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=WINDOW,
        position_embedding_type=positions,
        initializer_range=0.3,  # large enough for the likeliest tokens to be far apart
    )
    model = FundamentaLLMForCausalLM(config).eval()
    model.generation_config = GenerationConfig(pad_token_id=0, bos_token_id=2, eos_token_id=3)
    return model


@pytest.fixture(scope="module", params=["learned", "sinusoidal"])
def model(request):
    return tiny(request.param)


@pytest.fixture(scope="module")
def prompt():
    return torch.randint(4, 40, (1, 5), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def batch():
    """Rows of five lengths, shorter and longer than the window, padded on the left."""
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(4, 40, (length,), generator=generator) for length in (3, 9, 30, 16, 17)]
    ids = torch.stack([torch.nn.functional.pad(row, (30 - len(row), 0)) for row in rows])
    return rows, ids, (ids > 0).long()


@given(st.integers(1, 10_000), st.integers(2, 600))
def test_at_least_half_a_window_and_never_more_than_one_is_in_sight(length, window):
    start = window_start(length, window)
    assert length - start <= window
    assert start == 0 or length - start > window - window // 2 - 1
    assert start <= window_start(length + 1, window)
    assert (start == 0) == (length <= window)


@pytest.mark.parametrize("cache", CACHES)
def test_greedy_text_is_that_of_encoding_what_is_in_sight_at_every_step(model, prompt, cache):
    expected = prompt
    with torch.no_grad():
        for _ in range(60):
            seen = expected[:, window_start(expected.shape[1], WINDOW) :]
            logits = model(seen).logits[:, -1]
            expected = torch.cat([expected, logits.argmax(-1, keepdim=True)], dim=1)
    got = model.generate(prompt, max_new_tokens=60, do_sample=False, eos_token_id=None, **cache)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("mode", [{"do_sample": False}, {"do_sample": True, "seed": 9, "top_k": 5}])
def test_every_row_of_a_batch_is_continued_as_it_is_alone(model, batch, cache, mode):
    rows, ids, mask = batch
    together = model.generate(ids, attention_mask=mask, max_new_tokens=50, **mode, **cache)[:, ids.shape[1] :]
    for row, got in zip(rows, together, strict=True):
        alone = model.generate(row[None], max_new_tokens=50, **mode)[0, len(row) :]
        assert torch.equal(got[: len(alone)], alone)
        assert (got[len(alone) :] == 0).all()


def test_beams_find_the_same_text_with_every_cache(model, prompt):
    found = [model.generate(prompt, max_new_tokens=40, num_beams=3, do_sample=False, **cache) for cache in CACHES]
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_until_the_window_is_full_sliding_changes_nothing(model, prompt):
    slid = model.generate(prompt, max_new_tokens=40, do_sample=False)
    stopped = model.generate(prompt, max_new_tokens=40, do_sample=False, overflow="stop")
    assert stopped.shape[1] <= WINDOW
    assert torch.equal(slid[:, : stopped.shape[1]], stopped)


@pytest.mark.parametrize("beams", [1, 3])
def test_stop_ends_each_row_when_its_own_window_is_full(model, batch, beams):
    rows, ids, mask = (part[:2] for part in batch)
    out = model.generate(ids, attention_mask=mask, max_new_tokens=50, do_sample=False, overflow="stop", num_beams=beams)
    for row, got in zip(rows, out[:, ids.shape[1] :], strict=True):
        written = ~torch.isin(got, torch.tensor([0, 3]))  # beam search fills up with the end-of-text token
        assert written.sum() <= WINDOW - len(row)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overflow": "error"}, "5 prompt tokens and 40 new ones do not fit .* at most 11 tokens"),
        ({"overflow": "wrap"}, "overflow has to be one of slide, stop, error but is 'wrap'"),
        ({"prompt_lookup_num_tokens": 3}, "assisted decoding cannot"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(model, prompt, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        model.generate(prompt, max_new_tokens=40, **arguments)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_fills_the_window_leaves_no_room_to_stop_in(model, batch):
    with pytest.raises(ValueError, match="fills the model's window"):
        model.generate(batch[0][3][None], max_new_tokens=5, overflow="stop")


def test_prompts_that_cannot_be_read_again_work_within_the_window_only(model, prompt):
    embeds = model.get_input_embeddings()(prompt)
    short = model.generate(inputs_embeds=embeds, max_new_tokens=8, do_sample=False)
    assert torch.equal(short[0], model.generate(prompt, max_new_tokens=8, do_sample=False)[0, 5:])
    assert model.generate(prompt, max_new_tokens=8, do_sample=False, prompt_lookup_num_tokens=3).shape[1] <= 13
    with pytest.raises(ValueError, match="inputs_embeds cannot be read again"):
        model.generate(inputs_embeds=embeds, max_new_tokens=40)


def test_the_mode_is_kept_in_the_generation_config(tmp_path, prompt):
    model = tiny()
    model.generation_config.overflow = "error"
    model.save_pretrained(tmp_path)
    loaded = FundamentaLLMForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="do not fit"):
        loaded.generate(prompt, max_new_tokens=40)
    assert loaded.generate(prompt, max_new_tokens=40, overflow="stop").shape[1] <= WINDOW
    assert loaded.generate(prompt, GenerationConfig(max_new_tokens=8)).shape[1] <= 13


@pytest.mark.parametrize("cache", CACHES[:2])
def test_the_work_is_linear_in_the_number_of_tokens(model, prompt, cache):
    encoded, keys = [], []

    def count(module, args, kwargs, output):
        encoded.append(args[0].shape[1])
        keys.append(kwargs["earlier"].layers[0].max_cache_len if cache else 0)

    hook = model.model.layers[0].register_forward_hook(count, with_kwargs=True)
    work = []
    try:
        for tokens in (400, 800):
            encoded.clear()
            model.generate(prompt, max_new_tokens=tokens, do_sample=False, eos_token_id=None, **cache)
            work.append(sum(encoded))
    finally:
        hook.remove()
    assert work[1] < 2.3 * work[0]
    assert max(keys) <= WINDOW
