"""The controls as a `custom_generate` recipe in a separate repository, for any causal language model.

`fundamentallm push-controls` copies this file there as `custom_generate/generate.py`, with everything that it imports,
so it needs only torch and transformers:

    model.generate(**inputs, custom_generate="user/name", trust_remote_code=True, must_include=["dragon"])

It only passes arguments on; `controlled_generate` applies the controls.
"""

from functools import partial
from typing import Any

from ..decoding.sidecar_files import own_tokenizer
from .controlled_generate import controlled_generate

# transformers finds the repository by these, and passes them on with the arguments of `generate()`.
_LOADING = ("revision", "token", "cache_dir", "force_download", "local_files_only", "proxies", "repo_type")
# It withholds these from a callable, and the last but one from the arguments of a decoding loop.
_BOUND = ("streamer", "assistant_model", "assistant_tokenizer")


def generate(model: Any, *, tokenizer: Any = None, **arguments: Any) -> Any:
    """Generate text with controls; called by `generate()` with its arguments.

    Args:
        model: any causal language model. One with these controls built in uses those.
        tokenizer: reads tokens as text; by default loaded from where the model was loaded from.
        arguments: the arguments of `generate()`, and the controls.

    Returns:
        The return value of `generate()`: token ids `(rows, length)`, or an output object.

    Raises:
        ValueError: a control has an invalid value, or no tokenizer is found for it.
    """
    arguments = {name: value for name, value in arguments.items() if name not in _LOADING}
    if model.config.model_type == "fundamentallm":
        return model.generate(tokenizer=tokenizer, **arguments)
    bound = {name: value for name in _BOUND if (value := arguments.pop(name, None)) is not None}
    bound["tokenizer"] = own_tokenizer(model) if tokenizer is None else tokenizer
    return model.generate(custom_generate=partial(controlled_generate, **bound), **arguments)
