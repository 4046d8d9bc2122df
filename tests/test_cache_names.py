"""A cache has the name that transformers uses, and is accepted under either name, by models of any age."""

import inspect
import warnings
from types import SimpleNamespace

import pytest
import torch
from tiny_model import tiny
from transformers import DynamicCache, GPT2LMHeadModel

from fundamentallm_hf.portable.decoding.cache_names import (
    CACHE,
    NAMES,
    cache_name,
    cache_of,
    given_cache,
    under_one_name,
)

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def ids():
    return torch.randint(4, 40, (2, 12), generator=torch.Generator().manual_seed(1))


def test_the_name_is_the_one_of_transformers_own_models():
    assert CACHE in inspect.signature(GPT2LMHeadModel.forward).parameters


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_model_takes_its_cache_under_either_name_and_warns_of_none(model, ids, name):
    whole = model(ids).logits[:, -1]
    cache = DynamicCache(config=model.config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = model(ids[:, :-1], use_cache=True, **{name: cache})
        second = model(ids[:, -1:], use_cache=True, **{name: cache_of(first)})
    assert cache_of(first) is cache
    torch.testing.assert_close(second.logits[:, -1], whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_generate_takes_a_cache_under_either_name(model, ids, name):
    how = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    expected = model.generate(ids, **how)
    cache = DynamicCache(config=model.config)
    assert torch.equal(model.generate(ids, **how, **{name: cache}), expected)
    assert cache.get_seq_length() >= ids.shape[1]


def test_two_caches_are_refused(model, ids):
    two = {name: DynamicCache(config=model.config) for name in NAMES}
    for call in (model.generate, model.forward):
        with pytest.raises(ValueError, match="two names of one argument"):
            call(ids, **two)


def test_what_a_call_does_not_have_is_not_added():
    given = {"max_new_tokens": 3}
    assert under_one_name(given) is given
    assert under_one_name(dict.fromkeys(NAMES)) == {}


def test_code_that_came_with_a_model_may_have_the_other_name():
    (old,) = [name for name in NAMES if name != CACHE]
    assert cache_name({"input_ids", old}) == old
    assert cache_name({"input_ids", *NAMES}) == CACHE
    assert cache_of(SimpleNamespace(**{old: 5, CACHE: None})) == 5
    assert cache_of(SimpleNamespace(logits=1)) is None


def test_a_paged_cache_goes_where_this_version_reads_it():
    paged, arguments = object(), {}
    found = given_cache(paged, None, arguments)
    assert [found, arguments] in ([paged, {}], [None, {"cache": paged}])


@torch.no_grad()
def test_gradient_checkpointing_changes_nothing_but_what_is_kept(ids):
    model = tiny(dropout=0.0)
    expected = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)
    model.gradient_checkpointing_enable()
    model.train()
    assert torch.equal(model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None), expected)
    with torch.enable_grad():
        cache = DynamicCache(config=model.config)
        model(ids, labels=ids, **{CACHE: cache}).loss.backward()
    assert cache.get_seq_length() == 0
