"""The architecture of a FundamentaLLM model, under Hugging Face's names.

FundamentaLLM's names (`d_model`, `num_heads`, …) are accepted wherever a config is built or read, so a `model.yaml` can
be passed unchanged.
"""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

POSITION_EMBEDDING_TYPES = ("learned", "sinusoidal")


@strict
class FundamentaLLMConfig(PreTrainedConfig):
    """Configuration of a FundamentaLLM model: a small pre-norm decoder, one token per character.

    Args:
        vocab_size (`int`): number of tokens, the specials included.
        hidden_size (`int`): width of the residual stream. FundamentaLLM: `d_model`, `hidden_dim`, `model_dim`.
        intermediate_size (`int`, *optional*): width of the feed-forward layer; by default four times `hidden_size`.
            FundamentaLLM gives it as the factor `ffn_expansion`.
        num_hidden_layers (`int`): number of blocks. FundamentaLLM: `num_layers`.
        num_attention_heads (`int`): heads per block; must divide `hidden_size`. FundamentaLLM: `num_heads`.
        max_position_embeddings (`int`): the context window in tokens. FundamentaLLM: `sequence_length`, `max_seq_len`.
        position_embedding_type (`str`): `"learned"` or `"sinusoidal"`. FundamentaLLM: `pos_encoding`.
        hidden_act (`str`): activation of the feed-forward layer; `"gelu"` is the exact (erf) form.
        dropout (`float`): dropout after the embeddings, the attention and the feed-forward layer, in training only.
        attention_dropout (`float`, *optional*): dropout of the attention weights; by default `dropout`.
        rms_norm_eps (`float`): added to the mean square inside the root of every RMSNorm.
        initializer_range (`float`): standard deviation of freshly initialised weights.

    Raises:
        ValueError: `hidden_size` is not a multiple of `num_attention_heads`, or the position type is not one of the
            two above (`rope` passes FundamentaLLM's validation, but no FundamentaLLM model can be built with it).

    Example:

    ```python
    >>> from fundamentallm_hf import FundamentaLLMConfig
    >>> FundamentaLLMConfig(d_model=64, num_heads=4, ffn_expansion=2).intermediate_size
    128

    ```
    """

    model_type = "fundamentallm"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]
    attribute_map: ClassVar[dict[str, str]] = {
        "d_model": "hidden_size",
        "hidden_dim": "hidden_size",
        "model_dim": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "sequence_length": "max_position_embeddings",
        "max_seq_len": "max_position_embeddings",
        "pos_encoding": "position_embedding_type",
    }
    base_model_tp_plan: ClassVar[dict[str, Any] | None] = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.fc1": "colwise",
        "layers.*.mlp.fc2": "rowwise",
    }

    vocab_size: int = 256
    hidden_size: int = 128
    intermediate_size: int | None = None
    num_hidden_layers: int = 6
    num_attention_heads: int = 2
    max_position_embeddings: int = 256
    position_embedding_type: str = "learned"
    hidden_act: str = "gelu"
    dropout: float | int = 0.1
    attention_dropout: float | int | None = None
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        for alias in self.attribute_map.keys() & kwargs.keys():
            setattr(self, alias, kwargs.pop(alias))
        ffn_expansion = kwargs.pop("ffn_expansion", 4)
        if self.intermediate_size is None:
            self.intermediate_size = int(ffn_expansion * self.hidden_size)
        if self.attention_dropout is None:
            self.attention_dropout = self.dropout
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Part of the validation that `@strict` runs on every new config."""
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} has to be at least 1 but is {getattr(self, name)}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size has to be a multiple of num_attention_heads but is {self.hidden_size} "
                f"with {self.num_attention_heads} heads"
            )
        if self.position_embedding_type not in POSITION_EMBEDDING_TYPES:
            raise ValueError(
                f"position_embedding_type has to be one of {', '.join(POSITION_EMBEDDING_TYPES)} "
                f"but is {self.position_embedding_type!r}"
            )


__all__ = ["FundamentaLLMConfig"]
