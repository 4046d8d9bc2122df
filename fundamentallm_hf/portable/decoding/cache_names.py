"""The argument name of the key-value cache: `past_key_values` up to transformers 5.23, `cache` from 5.24 on.

The name is that of an argument of every model's `forward` and of a field of its output. A model that is saved under one
version is loaded under the other, so nothing else in this library writes either name. The name in use is read from
transformers' outputs, not derived from its version.
"""

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

NAMES = ("cache", "past_key_values")
# The name that this version of transformers uses.
CACHE = next(name for name in NAMES if name in {field.name for field in fields(CausalLMOutputWithPast)})


def cache_of(output: Any) -> Any:
    """The cache in a model's output, None if it has none."""
    # Not by attribute: transformers would warn of the name that is out of date.
    return next((found for name in NAMES if (found := vars(output).get(name)) is not None), None)


def cache_name(parameters: Collection[str]) -> str:
    """The name under which a `forward` with these parameters takes a cache."""
    # Code that came with a model may be older than transformers.
    return next((name for name in (CACHE, *NAMES) if name in parameters), CACHE)


def under_one_name(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `generate()` in which the cache, given under either name, has the one that transformers reads.

    Raises:
        ValueError: two caches are given.
    """
    if not any(name in arguments for name in NAMES if name != CACHE):
        return arguments
    cache = _either(*(arguments.get(name) for name in NAMES))
    rest = {name: value for name, value in arguments.items() if name not in NAMES}
    return rest if cache is None else {**rest, CACHE: cache}


def given_cache(cache: Any, past_key_values: Any, attention_arguments: dict[str, Any]) -> Any:
    """The cache that a `forward` with both parameters should extend; None if there is none.

    Args:
        cache: value of one argument, or None.
        past_key_values: value of the other, or None.
        attention_arguments: passed to the attention function. Where that function reads and writes a paged cache
            itself, as up to 5.23, the cache is put in here and None is returned.

    Raises:
        ValueError: two caches are given.
    """
    given = _either(cache, past_key_values)
    if CACHE == "past_key_values" and given is not None and not isinstance(given, Cache):
        attention_arguments["cache"] = given
        return None
    return given


def _either(cache: Any, past_key_values: Any) -> Any:
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise ValueError("cache and past_key_values are two names of one argument, but two values are given: give one")
    return past_key_values if cache is None else cache
