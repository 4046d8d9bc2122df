"""A model that a server unloads is not kept, and the texts that it is generating are finished first."""

import gc
import random
import time
import weakref

import pytest
from small_models import byte_level_gpt2

pytest.importorskip("openai", reason="serving needs fundamentallm-hf[serve]")
from transformers.cli.serving.model_manager import TimedModel

from fundamentallm_hf import Generator, load_model
from fundamentallm_hf.serving.manager import all_counts, batcher_of, release
from fundamentallm_hf.serving.server import release_unloaded


class Timed(TimedModel):
    """As a server has it, without a change to the class that others use."""


release_unloaded(Timed, release)


def wait_until(there):
    ended = time.monotonic() + 60
    while not there():
        assert time.monotonic() < ended
        time.sleep(0.01)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_freed_after_its_texts_and_they_are_counted(seed):
    chance = random.Random(seed)
    model = chance.choice([load_model, byte_level_gpt2])()
    loaded, seen = Timed(model, 3600, model.tokenizer), weakref.ref(model)
    asked = [
        {
            "seed": number,
            "max_tokens": chance.randrange(1, 30),
            "temperature": 1.0,
            "beam_size": chance.choice([1, 1, 2]),
        }
        for number in range(chance.randrange(5))
    ]
    alone = Generator(model, model.tokenizer, notice=lambda line: None)
    expected = [alone.complete("a", **each)[0].text for each in asked]
    before = sum(each.requests for each in all_counts())
    batcher = batcher_of(model, model.tokenizer)
    requests = [batcher.submit("a", **each) for each in asked]
    loaded.delete_model()
    assert [request.future.result(60).text for request in requests] == expected
    wait_until(lambda: sum(each.requests for each in all_counts()) == before + len(asked))

    del model, alone, batcher, requests
    wait_until(lambda: gc.collect() is not None and seen() is None)


def test_a_model_that_was_never_asked_is_unloaded():
    model = byte_level_gpt2()
    loaded = Timed(model, 3600)
    loaded.delete_model()
    loaded.delete_model()
    assert loaded.model is None
