"""Writes Hugging Face model folders: whole or not at all.

A folder is written beside its target under a hidden name and moved into place when it is complete, so whoever looks at
the target sees the old model or the new one. A run that is killed leaves only hidden folders behind, named after the
target and ending in `.partial` (a new model, unfinished) or `.replaced` (the old one, whole, between two renames).

This file knows nothing of where models come from.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Without the registration `save_pretrained` would write a config and weights, but not the code that goes with them.
from . import registration as registration
from .configuration_fundamentallm import FundamentaLLMConfig
from .errors import UserError
from .modeling_fundamentallm import FundamentaLLMForCausalLM, FundamentaLLMModel, FundamentaLLMPreTrainedModel

# save_pretrained enters only the class at hand; a folder that holds a causal model serves AutoModel just as well.
AUTO_MAP = {
    auto_class: f"{cls.__module__.rpartition('.')[-1]}.{cls.__name__}"
    for auto_class, cls in (
        ("AutoConfig", FundamentaLLMConfig),
        ("AutoModel", FundamentaLLMModel),
        ("AutoModelForCausalLM", FundamentaLLMForCausalLM),
    )
}


def check_target(target: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Whether a model folder can be written at `target`, asked before any work starts.

    Args:
        target: the folder to write; it and its parents need not exist.
        force: let a folder that holds something be replaced.

    Returns:
        The folder itself, absolute and with symbolic links followed.

    Raises:
        UserError: `target` is a file or lies inside one, cannot be written, holds something and `force` is not set,
            or is the working directory, the home directory or a folder around them, which nothing may replace.

    Example:

    ```python
    >>> import tempfile
    >>> from fundamentallm_hf.model_folder import check_target
    >>> check_target(tempfile.mkdtemp() + "/model").name
    'model'

    ```
    """
    shown = repr(str(target))
    folder = Path(os.path.realpath(target))
    try:
        standing = next(place for place in (folder, *folder.parents) if place.exists())
        if not standing.is_dir():
            where = "is a file" if standing == folder else f"lies inside the file {str(standing)!r}"
            raise UserError(f"cannot write a model folder to {shown}, which {where}: give the path of a folder")
        for place, name in ((Path.cwd(), "working directory"), (Path(os.environ.get("HOME", "/")), "home directory")):
            if place.resolve().is_relative_to(folder):
                raise UserError(
                    f"cannot write a model folder to {shown}, which would replace the {name}: give a folder of its own"
                )
        if standing == folder and not force and any(folder.iterdir()):
            raise UserError(f"{shown} is not empty: give another folder, or force its replacement")
        place = folder.parent if standing == folder else standing
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"cannot write to {str(place)!r}: permission denied")
    except OSError as error:
        raise UserError(f"cannot write {shown}: {one_line(error)}") from error
    return folder


def write_model_folder(
    target: str | os.PathLike[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    force: bool = False,
) -> Path:
    """Write a model and its tokenizer as a Hugging Face folder, whole or not at all.

    Besides config, generation config, weights and tokenizer the folder of a FundamentaLLM model holds its code, so it
    loads with `trust_remote_code=True` where this package is missing. As in `save_pretrained`, the model's config
    learns its `architectures`, `dtype` and `auto_map`.

    Args:
        target: the folder to write; parents are made as needed.
        model: any model of transformers.
        tokenizer: the tokenizer that belongs to it.
        force: replace a folder that holds something. It is moved aside when the new one is whole, deleted when that
            is in place, and put back if it never gets there.

    Returns:
        `target` as a path.

    Raises:
        UserError: `check_target` refuses the target, or writing fails; then the target is as it was before.

    Example:

    ```python
    >>> import tempfile
    >>> from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM
    >>> from fundamentallm_hf.model_folder import write_model_folder
    >>> from fundamentallm_hf.tokenization import build_tokenizer, character_vocabulary
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
        with _in_one_step(folder, force) as partial:
            if isinstance(model, FundamentaLLMPreTrainedModel):
                model.config.auto_map = dict(AUTO_MAP)
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {str(target)!r}: {one_line(error)}") from error
    return Path(target)


@contextmanager
def _in_one_step(folder: Path, force: bool) -> Iterator[Path]:
    # Siblings lie on the same file system, where a rename is one step. Not mkdtemp: its folders are their owner's only.
    hidden = f".{folder.name[:40]}.{secrets.token_hex(4)}"
    partial, replaced = folder.with_name(f"{hidden}.partial"), folder.with_name(f"{hidden}.replaced")
    try:
        partial.mkdir()
        yield partial
        check_target(folder, force=force)  # somebody else may have filled it meanwhile
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
    except BaseException:
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def one_line(error: Exception) -> str:
    """What went wrong, without the path that the surrounding message names and without line breaks."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
