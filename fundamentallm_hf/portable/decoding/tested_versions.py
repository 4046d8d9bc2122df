"""The versions of transformers that this library was tested with, and the check that runs on others.

A new version may change what a model receives while it generates; the text is then garbage and nothing fails. So the
first generation with a model on an untested version computes one step twice: as `generate()` computes it, and from the
whole text at once. If the results differ, it raises an error. On tested versions nothing is computed.
"""

import re
import weakref
from typing import Any

import torch
import transformers
from transformers import GenerationMixin
from transformers.utils import logging

from .decoding_loop import WithoutStopStrings

logger = logging.get_logger(__name__)

# The first and the last minor version, the same range as in `pyproject.toml`.
TESTED = ((5, 23), (5, 24))
# By how much of the probability two computations of one step may differ: in float32, and in lower precision.
_SAME, _ROUGHLY_SAME = 1e-3, 0.1
_SHOWN = 16
_CHECKED: "weakref.WeakSet[Any]" = weakref.WeakSet()


class UntestedVersionError(RuntimeError):
    """A model does not work on this version of transformers."""


def is_tested(version: str) -> bool:
    """Whether a version of transformers is among those that were tested.

    Example:

    ```python
    >>> from fundamentallm_hf.portable.decoding.tested_versions import is_tested
    >>> [is_tested(version) for version in ("5.22.2", "5.23.0", "5.24.1", "5.25.0.dev0")]
    [False, True, True, False]

    ```
    """
    numbers = re.findall(r"\d+", version)[:2]
    return TESTED[0] <= tuple(map(int, numbers)) <= TESTED[1]


_UNTESTED = not is_tested(transformers.__version__)


def check_version(model: Any, input_ids: torch.Tensor) -> None:
    """Check that a model generates correctly if the version of transformers is untested; once for each model.

    Args:
        model: about to generate.
        input_ids: (rows, length) its prompts.

    Raises:
        UntestedVersionError: a step with a cache gives other probabilities than the whole text.
    """
    if not _UNTESTED or model in _CHECKED:
        return
    tested = " to ".join(f"{major}.{minor}" for major, minor in TESTED)
    about = f"transformers {transformers.__version__} is not among the versions that were tested ({tested})"
    if not _CHECKED:
        logger.warning(f"{about}.")
    apart = step_difference(model, input_ids)
    whole = next(model.parameters()).dtype == torch.float32
    if not apart <= (_SAME if whole else _ROUGHLY_SAME):
        raise UntestedVersionError(
            f"{about}, and with it a step of {type(model).__name__} differs from the same step without a cache in "
            f"{apart:.1%} of the probability, so its text would be garbage: install one of those versions"
        )
    _CHECKED.add(model)


@torch.no_grad()
def step_difference(model: Any, input_ids: torch.Tensor) -> float:
    """The difference between the second step of `generate()`, which reads the cache, and a step over the whole text.

    Args:
        model: any causal language model.
        input_ids: (rows, length) prompts; the end of the first one is used.

    Returns:
        The total variation distance between the two distributions over the next token, from 0 to 1.
    """
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None) or _SHOWN + 2
    shown = max(1, min(_SHOWN, window - 2))
    prompt = input_ids[:1, -shown:]
    if not prompt.shape[1]:  # it was given as embeddings
        prompt = torch.zeros(1, 1, dtype=torch.long, device=input_ids.device)
    config = WithoutStopStrings(
        max_new_tokens=2,
        min_new_tokens=2,
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        use_cache=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    # The `generate()` of the model would check again.
    found = GenerationMixin.generate(model, prompt, config, attention_mask=torch.ones_like(prompt))
    read = found.sequences[:, :-1]
    again = model(input_ids=read, attention_mask=torch.ones_like(read), use_cache=False, return_dict=True).logits[:, -1]
    one, other = found.logits[1].float().softmax(dim=-1), again.float().softmax(dim=-1)
    return float((one - other).abs().sum(dim=-1).max() / 2)
