"""Writes Hugging Face model folders with all files that belong to a model.

`files.py` makes the write atomic.
"""

import os
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fundamentallm_hf.files import check_target, in_one_step, one_line
from fundamentallm_hf.portable.errors import UserError


def write_model_folder(
    target: str | os.PathLike[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    force: bool = False,
    max_shard_size: int | str = "50GB",
) -> Path:
    """Write a model and its tokenizer as a Hugging Face folder, atomically.

    Besides config, generation config, weights and tokenizer the folder of a FundamentaLLM model contains its code, so
    it loads with `trust_remote_code=True` where this package is missing. As in `save_pretrained`, `architectures`,
    `dtype` and `auto_map` are set in the model's config.

    Args:
        target: the folder to write; parents are created as needed.
        model: any model of transformers.
        tokenizer: the tokenizer that belongs to it.
        force: replace a folder that is not empty. It is moved aside when the new one is complete, deleted when that is
            in place, and restored if that fails.
        max_shard_size: of a file of weights.

    Returns:
        `target` as a path.

    Raises:
        UserError: `check_target` refuses the target, or writing fails; then the target is unchanged.

    Example:

    ```python
    >>> import tempfile
    >>> from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM
    >>> from fundamentallm_hf.model_io.model_folder import write_model_folder
    >>> from fundamentallm_hf.model_io.tokenizer import build_tokenizer, character_vocabulary
    >>> model = FundamentaLLMForCausalLM(FundamentaLLMConfig(vocab_size=6, d_model=8, num_layers=1))
    >>> tokenizer = build_tokenizer(character_vocabulary(["ab"]), max_length=256)
    >>> folder = write_model_folder(tempfile.mkdtemp() + "/model", model, tokenizer)
    >>> (folder / "model.safetensors").exists()
    True

    ```
    """
    folder = check_target(target, force=force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with in_one_step(folder, force) as partial:
            model.save_pretrained(partial, max_shard_size=max_shard_size)
            tokenizer.save_pretrained(partial)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {str(target)!r}: {one_line(error)}") from error
    return Path(target)
