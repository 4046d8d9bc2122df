"""The controls as a recipe of `generate()` that lies in a repository of its own, for any causal language model.

`fundamentallm push-controls` copies this file there as `custom_generate/generate.py`, with all that it imports, so it
needs nothing but torch and transformers:

    model.generate(**inputs, custom_generate="user/name", trust_remote_code=True, must_include=["dragon"])

This file knows nothing of how a control works, or of how the repository is made.
"""

from functools import partial
from typing import Any

from ..decoding.sidecar_files import own_tokenizer
from .controlled_generate import controlled_generate

# transformers finds the repository by these, and hands them on with the arguments of `generate()`.
_LOADING = ("revision", "token", "cache_dir", "force_download", "local_files_only", "proxies", "repo_type")
# It takes these away from a callable, and the last but one from the arguments of a decoding loop.
_BOUND = ("streamer", "assistant_model", "assistant_tokenizer")


def generate(model: Any, *, tokenizer: Any = None, **arguments: Any) -> Any:
    """Write text with controls; called by `generate()`, with what it was called with.

    Args:
        model: any causal language model. One that has these controls of its own writes with its own.
        tokenizer: reads tokens as text; by default the one that lies where the model came from.
        arguments: what `generate()` takes, and the controls.

    Returns:
        What `generate()` returns: token ids `(rows, length)`, or an output object.

    Raises:
        ValueError: a control has a value it cannot have, or no tokenizer is found for it.
    """
    arguments = {name: value for name, value in arguments.items() if name not in _LOADING}
    if model.config.model_type == "fundamentallm":
        return model.generate(tokenizer=tokenizer, **arguments)
    bound = {name: value for name in _BOUND if (value := arguments.pop(name, None)) is not None}
    bound["tokenizer"] = own_tokenizer(model) if tokenizer is None else tokenizer
    return model.generate(custom_generate=partial(controlled_generate, **bound), **arguments)
