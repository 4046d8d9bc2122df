"""Maps FundamentaLLM's config fields and tensor names to those of Hugging Face.

This is the only file that knows the content of a FundamentaLLM checkpoint: the names of its config fields and tensors,
    and the shapes that the config requires of the tensors.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.model.configuration_fundamentallm import FundamentaLLMConfig
from fundamentallm_hf.portable.model.modeling_fundamentallm import FundamentaLLMSinusoidalPositions

EMBEDDING, OUTPUT, SINUSOIDAL_TABLE = "token_embedding.weight", "output_proj.weight", "positional_encoding.pe"
HF_EMBEDDING, HF_OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def translate_config(raw: Mapping[str, Any], origin: str, **extra: Any) -> FundamentaLLMConfig:
    """The config under Hugging Face's names.

    Args:
        raw: names and values as FundamentaLLM writes them; unknown names and empty values are left out.
        origin: the name of their file in errors.
        extra: fields of the config that FundamentaLLM does not have.

    Raises:
        UserError: the config is invalid, or two names for the same field have different values.

    Example:

    ```python
    >>> from fundamentallm_hf.model_io.weight_mapping import translate_config
    >>> translate_config({"vocab_size": 70, "hidden_dim": 64, "ffn_expansion": 2}, "model.yaml").intermediate_size
    128

    ```
    """
    known = {**FundamentaLLMConfig.attribute_map, **{name: name for name in ("vocab_size", "dropout", "ffn_expansion")}}
    fields: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in known or value is None:
            continue
        if fields.setdefault(known[name], value) != value:
            same = [other for other in raw if known.get(other) == known[name]]
            raise UserError(f"{origin} gives different values to {' and '.join(same)}, which mean the same: keep one")
    if "vocab_size" not in fields:
        raise UserError(f"{origin} has no vocab_size: give the model config that the checkpoint was trained with")
    if fields.get("position_embedding_type") == "rope":
        raise UserError(
            f"{origin} asks for pos_encoding rope, which FundamentaLLM has no model for: expected learned or sinusoidal"
        )
    # The one value that is not a field of the config class, whose types are checked.
    expansion = fields.get("ffn_expansion", 4)
    if isinstance(expansion, bool) or not isinstance(expansion, int | float):
        raise UserError(f"{origin} has an ffn_expansion of {expansion!r}: expected a number such as 4")
    try:
        return FundamentaLLMConfig(**fields, **extra)
    except Exception as error:  # the checks of huggingface_hub raise errors that have no common base but this
        reason = str(error).splitlines()[-1].strip().removeprefix("ValueError: ").removeprefix("TypeError: ")
        raise UserError(f"{origin} describes no FundamentaLLM model: {reason}") from error


def _expected_tensors(config: FundamentaLLMConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For each of FundamentaLLM's names, Hugging Face's and the shape; without optional tensors."""
    width, inner = config.hidden_size, config.intermediate_size or 0
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        EMBEDDING: (HF_EMBEDDING, (config.vocab_size, width)),
        "output_norm.weight": ("model.norm.weight", (width,)),
    }
    if config.position_embedding_type == "learned":
        shape = (config.max_position_embeddings, width)
        expected["positional_encoding.embeddings.weight"] = ("model.embed_positions.weight", shape)
    linears = {
        "attention.W_q": ("self_attn.q_proj", width, width),
        "attention.W_k": ("self_attn.k_proj", width, width),
        "attention.W_v": ("self_attn.v_proj", width, width),
        "attention.W_o": ("self_attn.o_proj", width, width),
        "ffn.linear1": ("mlp.fc1", inner, width),
        "ffn.linear2": ("mlp.fc2", width, inner),
    }
    for i in range(config.num_hidden_layers):
        theirs, ours = f"blocks.{i}", f"model.layers.{i}"
        expected[f"{theirs}.norm1.weight"] = (f"{ours}.input_layernorm.weight", (width,))
        expected[f"{theirs}.norm2.weight"] = (f"{ours}.post_attention_layernorm.weight", (width,))
        for name, (hf_name, rows, columns) in linears.items():
            expected[f"{theirs}.{name}.weight"] = (f"{ours}.{hf_name}.weight", (rows, columns))
            expected[f"{theirs}.{name}.bias"] = (f"{ours}.{hf_name}.bias", (rows,))
    return expected


def translate_weights(
    weights: Mapping[str, Tensor], config: FundamentaLLMConfig, shown: str, origin: str
) -> dict[str, Tensor]:
    """The weights of `FundamentaLLMForCausalLM`, after checking that they match the config.

    Args:
        weights: tensors under FundamentaLLM's names. A table of sinusoidal positions is compared with the computed one
            that replaces it, and dropped; the output layer is dropped if `config` ties it to the embedding.
        config: the config that the weights have to match.
        shown: the name of the checkpoint in errors.
        origin: the name of the config's file in errors.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape, or the positions are not the usual ones.
    """
    # Before any work for each layer: a config may claim any number of them.
    layers = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    if layers != config.num_hidden_layers:
        raise UserError(
            f"{shown} holds the weights of {layers} layers but num_layers is {config.num_hidden_layers} in {origin}: "
            "give the model config that the checkpoint was trained with"
        )
    expected = _expected_tensors(config)
    optional = {OUTPUT: (HF_OUTPUT, (config.vocab_size, config.hidden_size))}
    if config.position_embedding_type == "sinusoidal":
        optional[SINUSOIDAL_TABLE] = ("", (config.max_position_embeddings, config.hidden_size))
    if missing := [name for name in expected if name not in weights]:
        raise UserError(
            f"{shown} lacks {quote_some(missing)}, which {origin} calls for: give the whole checkpoint, or its config"
        )
    if unexpected := [name for name in weights if name not in expected and name not in optional]:
        raise UserError(
            f"{shown} holds {quote_some(unexpected)}, which {origin} has no place for: give the matching config"
        )
    for name, (_, shape) in (expected | optional).items():
        if name in weights and tuple(weights[name].shape) != shape:
            raise UserError(
                f"{name} in {shown} has the shape {tuple(weights[name].shape)} but {origin} makes it {shape}: give the "
                "model config that the checkpoint was trained with"
            )
    if (table := weights.get(SINUSOIDAL_TABLE)) is not None:
        ours = FundamentaLLMSinusoidalPositions.compute(*table.shape).to(table.dtype)
        # A table in bfloat16 is coarser than the tolerance: there, neighbouring values count as equal.
        tolerance = max(1e-3, torch.finfo(table.dtype).eps)
        if not bool((table.float() - ours.float()).abs().max() <= tolerance):
            raise UserError(
                f"{SINUSOIDAL_TABLE} in {shown} is not the table of sines and cosines with base 10000 that is computed "
                "in its place, so the model would differ: give an unchanged FundamentaLLM checkpoint"
            )
    state_dict = {hf_name: weights[name] for name, (hf_name, _) in expected.items()}
    if not config.tie_word_embeddings:
        state_dict[HF_OUTPUT] = weights[OUTPUT]
    return state_dict


def quote_some(names: Iterable[Any], limit: int = 3) -> str:
    """The first few names, and how many more there are: `'a', 'b', 'c' and 9 more`."""
    listed = [repr(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return (", ".join(listed[:limit]) or "nothing") + more
