"""Reads FundamentaLLM's `.pt` checkpoints, and converts them to models and Hugging Face folders.

A checkpoint is untrusted. Only weights and plain values are read, nothing in it is ever run, and its parts are checked
against each other (weights, config, vocabulary) before a model is built.
"""

import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast

from fundamentallm_hf.files import check_target, one_line, read_text
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.model.configuration_fundamentallm import FundamentaLLMConfig
from fundamentallm_hf.portable.model.modeling_fundamentallm import FundamentaLLMForCausalLM
from fundamentallm_hf.portable.model.records import TRAINING, weights_digest

from .model_folder import write_model_folder
from .tokenizer import BOS, EOS, PAD, build_tokenizer
from .weight_mapping import (
    EMBEDDING,
    HF_EMBEDDING,
    HF_OUTPUT,
    OUTPUT,
    SINUSOIDAL_TABLE,
    quote_some,
    translate_config,
    translate_weights,
)

PATH_LIKE_NAME = re.compile(r"(^|_)(paths?|dirs?|directory|files?|folder|root|cache|home)($|_)")


@dataclass(frozen=True)
class Checkpoint:
    """A checked FundamentaLLM checkpoint, under Hugging Face's names.

    Attributes:
        config: the model's config; `tie_word_embeddings` is False where the output layer has separate weights.
        state_dict: the weights of `FundamentaLLMForCausalLM`, on the CPU, all of one dtype; tied weights once.
        tokenizer: the stock fast tokenizer of the checkpoint's characters.
        provenance: `epoch`, `step`, `metrics` and `training_config` as far as the file has them, as plain values and
            without any local path.
    """

    config: FundamentaLLMConfig
    state_dict: dict[str, Tensor]
    tokenizer: PreTrainedTokenizerFast
    provenance: dict[str, Any]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a FundamentaLLM checkpoint without running anything in it.

    Weights that are all float16, all bfloat16 or all float32 keep their dtype; others become float32.

    Args:
        path: a `.pt` file, or a folder of FundamentaLLM output: then its `final_model.pt`, else its `best.pt`, else its
            `epoch_*.pt` with the highest number. A file without `model_config` needs `model.yaml`, `config.yaml` or a
            `.yaml` of the same name next to it; `tokenizer.json` is next to it or one folder up.

    Raises:
        UserError: a part is missing, unreadable, damaged, unsafe or contradicts another.

    Example:

    ```python
    >>> from fundamentallm_hf.model_io.checkpoint import read_checkpoint
    >>> read_checkpoint("tests/fixtures/learned/best.pt").config.num_hidden_layers
    2

    ```
    """
    file = _find_file(Path(path))
    loaded = _load(file)
    weights = _find_weights(loaded, file)
    fields, origin = _find_config(loaded, file)
    vocabulary, vocabulary_file = _find_vocabulary(file)
    tied = OUTPUT not in weights or (EMBEDDING in weights and torch.equal(weights[OUTPUT], weights[EMBEDDING]))
    special_ids = {
        f"{name}_token_id": vocabulary.get(token) for name, token in (("pad", PAD), ("bos", BOS), ("eos", EOS))
    }
    config = translate_config(fields, origin, tie_word_embeddings=tied, **special_ids)
    state_dict = translate_weights(weights, config, repr(str(file)), origin)
    if len(vocabulary) != config.vocab_size:
        raise UserError(
            f"{origin} has a vocab_size of {config.vocab_size} but {str(vocabulary_file)!r} has {len(vocabulary)} "
            "tokens: give the tokenizer.json that the model was trained with"
        )
    try:
        tokenizer = build_tokenizer(vocabulary, config.max_position_embeddings)
    except (TypeError, ValueError) as error:
        raise UserError(f"{str(vocabulary_file)!r} cannot be used: {one_line(error)}") from error
    told = {name: loaded[name] for name in ("epoch", "step", "metrics", "training_config") if name in loaded}
    return Checkpoint(config, state_dict, tokenizer, _plain_values(told))


def load_checkpoint(
    path: str | os.PathLike[str], dtype: torch.dtype | None = None
) -> tuple[FundamentaLLMForCausalLM, PreTrainedTokenizerFast]:
    """Load a FundamentaLLM checkpoint as a model in memory, ready to generate.

    Args:
        path: as in `read_checkpoint`; it becomes the model's `name_or_path`.
        dtype: of the model's weights; by default that of the checkpoint.

    Returns:
        The model, on the CPU and in evaluation mode, and its tokenizer. The checkpoint's training metadata travels with
        the model, in `records`, as long as its weights do not change.

    Raises:
        UserError: as in `read_checkpoint`.

    Example:

    ```python
    >>> from fundamentallm_hf.model_io.checkpoint import load_checkpoint
    >>> model, tokenizer = load_checkpoint("tests/fixtures/learned")
    >>> inputs = tokenizer("To be", return_tensors="pt")
    >>> tokenizer.decode(model.generate(**inputs, do_sample=False, max_new_tokens=4)[0])
    'To be the'

    ```
    """
    checkpoint = read_checkpoint(path)
    config, weights = checkpoint.config, dict(checkpoint.state_dict)
    if config.tie_word_embeddings:
        weights[HF_OUTPUT] = weights[HF_EMBEDDING]
    # Building the model draws random weights, which are then replaced: the caller's random numbers must not change.
    with torch.random.fork_rng(devices=[]):
        model = FundamentaLLMForCausalLM(config)
    model.load_state_dict(weights)
    model.to(dtype=dtype or weights[HF_EMBEDDING].dtype).eval()
    # FundamentaLLM trains on text without ends, so its models cannot predict <EOS>: no token ends their texts.
    model.generation_config = GenerationConfig(pad_token_id=config.pad_token_id, bos_token_id=config.bos_token_id)
    model.name_or_path = config.name_or_path = str(path)
    if checkpoint.provenance:
        record = {"weights": weights_digest(model.state_dict().values()), **checkpoint.provenance}
        model.records = {TRAINING: [record]}
    return model, checkpoint.tokenizer


def convert_checkpoint(source: str | os.PathLike[str], target: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Convert a FundamentaLLM checkpoint to a Hugging Face model folder.

    The folder loads with `from_pretrained`, with the Auto classes, and with `trust_remote_code=True` where this
    package is not installed.

    Args:
        source: as `path` in `read_checkpoint`.
        target: the folder to write, atomically (see `write_model_folder`).
        force: replace a folder that is not empty.

    Returns:
        `target` as a path.

    Raises:
        UserError: the source cannot be read, the target cannot be written, or the target contains the source.

    Example:

    ```python
    >>> import tempfile
    >>> from fundamentallm_hf import convert_checkpoint
    >>> folder = convert_checkpoint("tests/fixtures/learned/final_model.pt", tempfile.mkdtemp() + "/shakespeare")
    >>> (folder / "config.json").exists()
    True

    ```
    """
    file = _find_file(Path(source))
    if file.resolve().is_relative_to(os.path.realpath(target)):
        raise UserError(f"{str(target)!r} holds the checkpoint {str(file)!r}: give another folder to write to")
    check_target(target, force=force)
    return write_model_folder(target, *load_checkpoint(file), force=force)


def is_fundamentallm_source(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is for `read_checkpoint` rather than for `from_pretrained`.

    True for a folder of FundamentaLLM output and for every other path that ends in `.pt`, even if nothing is there: a
    mistyped file name is then reported as missing, and not looked up on the Hub.

    Example:

    ```python
    >>> from fundamentallm_hf.model_io.checkpoint import is_fundamentallm_source
    >>> is_fundamentallm_source("tests/fixtures/learned"), is_fundamentallm_source("openai-community/gpt2")
    (True, False)

    ```
    """
    path = Path(path)
    if path.is_dir():
        return not (path / "config.json").is_file() and _best_file(path) is not None
    return path.suffix == ".pt"


def _best_file(folder: Path) -> Path | None:
    # By the numbers in the names: modification times do not survive a copy or a download.
    epochs = sorted(
        folder.glob("epoch_*.pt"), key=lambda file: [int(digits) for digits in re.findall(r"\d+", file.stem)]
    )
    files = (folder / "final_model.pt", folder / "best.pt", *reversed(epochs))
    return next((file for file in files if file.is_file()), None)


def _find_file(path: Path) -> Path:
    shown = repr(str(path))
    try:
        if path.is_dir():
            if (path / "config.json").is_file():
                raise UserError(
                    f"{shown} is a Hugging Face model folder already: there is nothing to convert, load it as it is"
                )
            file = _best_file(path)
            if file is None:
                raise UserError(
                    f"the folder {shown} holds no final_model.pt, best.pt or epoch_*.pt: give the path of a .pt file"
                )
            return file
        if not path.exists():
            raise UserError(f"{shown} does not exist: give a FundamentaLLM .pt file or the folder that holds it")
        if not path.is_file():
            raise UserError(f"{shown} is neither a file nor a folder: give a FundamentaLLM .pt file")
        if path.suffix == ".safetensors":
            raise UserError(f"{shown} is a file of a Hugging Face model folder: load the folder as it is")
    except OSError as error:
        raise UserError(f"cannot read {shown}: {one_line(error)}") from error
    return path


def _load(file: Path) -> Any:
    shown = repr(str(file))
    try:
        with file.open("rb") as opened:
            is_pickle = opened.read(1) == b"\x80"
    except OSError as error:
        raise UserError(f"cannot read {shown}: {one_line(error)}") from error
    try:
        with warnings.catch_warnings():
            # torch warns about odd files before it refuses them; the error below says it in one line.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    # Invalid data makes the reader fail in any way, with OSError too: it may seek to before the start of the file. The
    # cause is dropped, because torch's advice is to run the file.
    except Exception as error:
        if asked_for := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UserError(
                f"{shown} would run code when it is read ({asked_for[1]}), so it was not read and nothing was run: "
                "give a checkpoint of weights and plain values only"
            ) from None
        if is_pickle:
            raise UserError(
                f"{shown} is a Python pickle that is not torch's, or a damaged one: a pickle can run code, so it was "
                "not read and nothing was run; give a .pt file as FundamentaLLM writes it"
            ) from None
        raise UserError(
            f"{shown} is not a torch checkpoint, or is truncated or damaged: give a whole .pt file as FundamentaLLM "
            "writes it"
        ) from None


def _find_weights(loaded: Any, file: Path) -> dict[str, Tensor]:
    """FundamentaLLM's names and tensors, without the prefixes of wrappers, the weights all of one dtype."""
    state = loaded.get("model_state", loaded) if isinstance(loaded, Mapping) else None
    if not state or not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        found = f"a dict with {quote_some(loaded)}" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise UserError(f"{str(file)!r} holds no weights: expected model_state or a bare state_dict but found {found}")
    weights = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            raise UserError(
                f"{name!r} in {str(file)!r} has to be a dense tensor of floating-point numbers but is "
                f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            )
        # torch.compile and DataParallel add these prefixes to the names.
        parts = [part for part in str(name).split(".") if part not in ("_orig_mod", "module")]
        weights[".".join(parts)] = tensor.detach()
    # The table is not a weight: it is only compared with ours, for which its precision matters.
    dtypes = {tensor.dtype for name, tensor in weights.items() if name != SINUSOIDAL_TABLE}
    dtype = dtypes.pop() if dtypes in ({torch.float16}, {torch.bfloat16}) else torch.float32
    return {
        name: tensor if name == SINUSOIDAL_TABLE else tensor.to(dtype).contiguous() for name, tensor in weights.items()
    }


def _find_config(loaded: Mapping[str, Any], file: Path) -> tuple[Mapping[str, Any], str]:
    """The raw model config, and the name of its file in errors."""
    if (fields := loaded.get("model_config")) is not None:
        origin = f"model_config in {str(file)!r}"
    else:
        names = dict.fromkeys(("model.yaml", "config.yaml", f"{file.stem}.yaml"))
        beside = next((file.with_name(name) for name in names if file.with_name(name).exists()), None)
        if beside is None:
            raise UserError(
                f"{str(file)!r} has no model_config and there is no {' or '.join(names)} in {str(file.parent)!r}: "
                "put the model.yaml of the training run there"
            )
        origin = repr(str(beside))
        try:
            fields = yaml.safe_load(read_text(beside))
        except (yaml.YAMLError, RecursionError) as error:
            raise UserError(f"{origin} is not valid YAML: {one_line(error)}") from error
    if not isinstance(fields, Mapping):
        raise UserError(f"{origin} has to map names such as d_model to values but is a {type(fields).__name__}")
    return fields, origin


def _find_vocabulary(file: Path) -> tuple[dict[str, int], Path]:
    # The folder of the link, not of its target, as in the Hub's cache.
    folder = file.parent.resolve()
    paths = [folder / "tokenizer.json", folder.parent / "tokenizer.json"]
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise UserError(
            f"there is no tokenizer.json for {str(file)!r}, neither in {str(folder)!r} nor in {str(folder.parent)!r}: "
            "put that of the training run next to it"
        )
    try:
        content = json.loads(read_text(found))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{str(found)!r} is not valid JSON: {one_line(error)}") from error
    vocabulary = content.get("char_to_id") if isinstance(content, dict) else None
    if not isinstance(vocabulary, dict) or not all(type(index) is int for index in vocabulary.values()):
        raise UserError(
            f"{str(found)!r} is not FundamentaLLM's: expected a char_to_id that maps each character to its id; put the "
            "tokenizer.json of the training run there"
        )
    return vocabulary, found


def _plain_values(value: Any) -> Any:
    """Keep numbers, words and containers of them; drop all other values, and paths."""
    if isinstance(value, Mapping):
        return {
            name: _plain_values(item)
            for name, item in value.items()
            if isinstance(name, str) and not PATH_LIKE_NAME.search(name) and _is_plain(item)
        }
    if isinstance(value, list | tuple):
        return [_plain_values(item) for item in value if _is_plain(item)]
    return value


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return not re.search(r"[/\\~]", value)
    return value is None or isinstance(value, bool | int | float | Mapping | list | tuple)
