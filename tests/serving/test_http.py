"""`fundamentallm serve` over HTTP, with and without a common batch: each request gets the text that it asks for."""

import asyncio
import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import httpx
import pytest
import torch
from serving_process import Server
from small_models import byte_level_gpt2
from transformers import ContinuousBatchingConfig, GenerationConfig

from fundamentallm_hf import controlled_generate, load_model
from fundamentallm_hf.model_io.loading import DEMO_MODEL

pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
import openai

from fundamentallm_hf.serving import common_batch
from fundamentallm_hf.serving.manager import SAMPLE, Sample
from fundamentallm_hf.serving.request_fields import ServerLimits, read_fields

pytestmark = pytest.mark.core
PROMPT, TOKENS = "Once upon a time", 24
GREEDY = {"do_sample": False, "max_new_tokens": TOKENS}


@pytest.fixture(scope="module")
def demo():
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    model = byte_level_gpt2()
    folder = tmp_path_factory.mktemp("other") / "gpt2"
    model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module", params=[(), ("--continuous-batching",)], ids=["one by one", "in a common batch"])
def server(request):
    running = Server(*request.param)
    yield running
    running.close()


def own_text(model, prompt=PROMPT, **config):
    ids = model.tokenizer(prompt, return_tensors="pt").input_ids
    out = model.generate(ids, generation_config=GenerationConfig(**config), tokenizer=model.tokenizer)
    return model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_plain_request_is_answered_with_the_models_own_text(server, demo, stream):
    assert server.ask(DEMO_MODEL, config=GREEDY, stream=stream) == own_text(demo, **GREEDY)


def test_requests_at_once_do_not_change_each_other(server, demo):
    prompts = ["Once upon a time", "Tom had", "The", "One day, a cat"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda prompt: server.ask(DEMO_MODEL, prompt, config=GREEDY), prompts))
    assert found == [own_text(demo, prompt, **GREEDY) for prompt in prompts]


@pytest.mark.parametrize(
    "control",
    [
        {"bad_words": ["the", "was", "there"]},
        {"must_include": ["dragon"]},
        {"guide_attribute": "positive_sentiment:2", "do_sample": True, "seed": 5, "temperature": 0.8},
        {"stop": [","]},
        {"seed": 7, "do_sample": True, "temperature": 0.9, "top_k": 0},
        {"num_beams": 3},
        {"pattern": "[a-z, ]{5,20}\\."},
        {"repetition_penalty": 1.3},
    ],
    ids=lambda control: next(iter(control)),
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_with_a_control_gets_what_generate_writes_with_it(server, demo, control, stream):
    config = GREEDY | control
    found = server.ask(DEMO_MODEL, config=config, stream=stream and "num_beams" not in control)
    assert found == own_text(demo, **config)


def test_a_text_may_outgrow_the_models_window(server, demo):
    window = demo.config.max_position_embeddings
    prompt = ("Once upon a time. " * window)[: window - 20]
    config = GREEDY | {"max_new_tokens": TOKENS + 20}
    assert server.ask(DEMO_MODEL, prompt, config=config) == own_text(demo, prompt, **config)


def test_each_request_has_its_own_sampling(server, demo):
    drawn = {server.ask(DEMO_MODEL, config=GREEDY | {"do_sample": True, "temperature": 1.5}) for _ in range(4)}
    assert len(drawn) > 1
    assert server.ask(DEMO_MODEL, config=GREEDY) == own_text(demo, **GREEDY)
    cold = {"do_sample": True, "temperature": 0.001, "max_new_tokens": TOKENS}
    assert server.ask(DEMO_MODEL, config=cold) == own_text(demo, **GREEDY)


def test_a_control_that_cannot_be_is_refused_with_400(server):
    status, told = server.ask(DEMO_MODEL, config=GREEDY | {"must_include": ["a" * 100]})
    assert status == 400
    assert "must_include" in told or "required" in told


@pytest.mark.parametrize("stream", [False, True])
def test_other_models_have_the_controls_too(server, other, stream):
    model, folder = other
    config = {"do_sample": True, "temperature": 2.0, "seed": 1, "max_new_tokens": TOKENS, "bad_words": ["/[a-m]/"]}
    found = server.ask(folder, "once upon", config=config, stream=stream)
    ids = model.tokenizer("once upon", return_tensors="pt").input_ids
    bound = partial(controlled_generate, tokenizer=model.tokenizer)
    out = model.generate(ids, generation_config=GenerationConfig(**config), custom_generate=bound)
    # A character that is begun with the last token and not ended comes as "\ufffd", or not at all.
    assert found.rstrip("\ufffd") == model.tokenizer.decode(out[0, ids.shape[1] :]).rstrip("\ufffd")
    assert not set("abcdefghijklm") & set(found)


def test_transformers_own_batches_take_plain_configs_and_refuse_controls(demo):
    small = ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=128)
    prompts = [demo.tokenizer(text).input_ids for text in ("Once upon a time", "Tom")]
    config = GenerationConfig(**GREEDY, eos_token_id=3, pad_token_id=0)
    found = demo.generate_batch(prompts, config, continuous_batching_config=small, progress_bar=False)
    texts = [demo.tokenizer.decode(each.generated_tokens, skip_special_tokens=True) for each in found.values()]
    assert texts == [own_text(demo, prompt, **GREEDY) for prompt in ("Once upon a time", "Tom")]
    config.bad_words = ["the"]
    with pytest.raises(ValueError, match="bad_words cannot act in continuous batching"):
        demo.generate_batch(prompts, config, continuous_batching_config=small, progress_bar=False)


@pytest.mark.parametrize("draw", range(12))
def test_a_client_that_leaves_frees_its_place_however_it_leaves(server, draw):
    chance = random.Random(draw)
    prompt, number = chance.choice([PROMPT, "Tom had", "A"]), chance.choice([1, 1, 3])
    config = json.dumps({"do_sample": True, "temperature": 1.0, "top_k": 0, "max_new_tokens": 900})
    body = {"model": str(DEMO_MODEL), "prompt": prompt, "n": number, "generation_config": config}
    way, pieces = chance.choice(["openai", "http", "whole"]), range(chance.randrange(3))
    address = f"{server.url}/v1/completions"
    if way == "whole":
        soon = httpx.Timeout(60, read=chance.choice([0.02, 0.05, 0.1]))
        with httpx.Client(timeout=soon) as client, suppress(httpx.ReadTimeout):  # on a fast machine it may be too late
            client.post(address, json=body)
    elif way == "http":
        with httpx.Client(timeout=60) as client, client.stream("POST", address, json=body | {"stream": True}) as answer:
            list(zip(pieces, answer.iter_text(), strict=False))
    else:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        given = {"model": str(DEMO_MODEL), "prompt": prompt, "n": number, "extra_body": {"generation_config": config}}
        with client.completions.create(**given, stream=True) as stream:
            list(zip(pieces, stream, strict=False))
    assert server.until_idle()


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_of_the_common_batch_ends_with_its_call(demo, stream):
    manager, tokens = common_batch.Batched(), 900
    config = GenerationConfig(do_sample=False, max_new_tokens=tokens)

    async def until(condition):
        while not condition():
            await asyncio.sleep(0.01)

    async def leave():
        SAMPLE.set(sample := Sample(read_fields({}, ServerLimits())))
        given = demo, demo.tokenizer, {"input_ids": demo.tokenizer(PROMPT).input_ids}, config, "a"
        task = None
        if stream:
            manager.generate_streaming(*given)
        else:
            task = asyncio.ensure_future(manager.generate_non_streaming(*given))
        await until(lambda: manager.counts == (1, 0))
        state = manager.scheduler.active_requests["a"]
        await until(lambda: state.generated_tokens)
        if task is None:
            sample.stop()
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: manager.counts == (0, 0))
        sample.stop()  # nothing is left to end
        return len(state.generated_tokens)

    manager.init_cb(demo, config)
    try:
        assert 0 < asyncio.run(asyncio.wait_for(leave(), 60)) < tokens // 2
    finally:
        manager.stop()


@pytest.mark.parametrize(
    ("config", "own", "prompt", "joins"),
    [
        ({"max_new_tokens": 5}, {}, 5, True),
        ({"max_new_tokens": 5, "do_sample": True, "temperature": 0.5, "top_k": 3, "top_p": 0.4}, {}, 5, True),
        ({"max_new_tokens": 6}, {}, 5, False),
        ({}, {}, 5, False),
        ({"max_new_tokens": 5, "min_p": 0.1}, {}, 5, False),
        ({"max_new_tokens": 5, "stop_strings": ["a"]}, {}, 5, False),
        ({"max_new_tokens": 5, "anything": 1}, {}, 5, False),
        ({"max_new_tokens": 5}, {"repetition_penalty": 1.2}, 5, False),
        ({"max_new_tokens": 5}, {"eos_token_id": 3, "pad_token_id": 0}, 5, True),
    ],
)
def test_a_request_joins_the_batch_only_where_that_gives_the_same_text(config, own, prompt, joins):
    configs = (GenerationConfig(**config), GenerationConfig(**own))
    assert common_batch.in_batch(*configs, prompt, window=10) is joins


def test_a_row_samples_as_generate_would():
    own = GenerationConfig(temperature=0.7, do_sample=True)
    assert common_batch.row_sampling(GenerationConfig(), own, 40) == {"temperature": 0.7, "top_k": 40, "top_p": 1.0}
    asked = GenerationConfig(do_sample=True, temperature=2.0, top_k=0, top_p=0.5)
    assert common_batch.row_sampling(asked, own, 40) == {"temperature": 2.0, "top_k": 40, "top_p": 0.5}
    greedy = common_batch.row_sampling(GenerationConfig(do_sample=False, temperature=2.0), own, 40)
    assert greedy == {"temperature": 1.0, "top_k": 1, "top_p": 1.0}
    assert torch.tensor([0.1, 3.0]).topk(greedy["top_k"]).indices.tolist() == [1]
