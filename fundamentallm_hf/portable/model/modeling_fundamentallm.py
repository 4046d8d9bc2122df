"""The FundamentaLLM network as a `PreTrainedModel`.

Specific to this transformer:

- absolute positions, learned or sinusoidal, added once to the token embeddings; the exact (erf) GELU;
- RMSNorm before attention and before the feed-forward layer, and once more at the end;
- biases on every projection but the output, which is tied to the token embedding;
- `generate()` has controls and continues past the window of positions (see `generation_fundamentallm.py`).

This module, and what it imports by relative imports, is copied into every model repository (see `code_files.py`).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel, slice_logits_to_keep
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.hub import resolve_revision
from transformers.utils.output_capturing import capture_outputs

from ..decoding.cache_names import CACHE, cache_of, given_cache
from ..decoding.forward import positions_of
from ..decoding.sidecar_files import save_sidecars
from ..guides.attribute_lookup import save_attributes
from .code_files import name_code, save_code
from .configuration_fundamentallm import FundamentaLLMConfig
from .generation_fundamentallm import ControlledGenerationMixin
from .publishing_mixin import PublishingMixin
from .records import save_records


class FundamentaLLMSinusoidalPositions(nn.Module):
    """Sines on the even columns, cosines on the odd ones, base 10000 (Vaswani et al., 2017, section 3.5)."""

    table: torch.Tensor

    def __init__(self, num_positions: int, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("table", self.compute(num_positions, hidden_size), persistent=False)

    @staticmethod
    def compute(num_positions: int, hidden_size: int) -> torch.Tensor:
        """The table, `(num_positions, hidden_size)`, in float32."""
        positions = torch.arange(num_positions, dtype=torch.float32)[:, None]
        columns = torch.arange(0, hidden_size, 2, dtype=torch.float32)
        frequencies = torch.exp(columns * (-math.log(10000.0) / hidden_size))
        table = torch.zeros(num_positions, hidden_size)
        table[:, 0::2] = torch.sin(positions * frequencies)
        table[:, 1::2] = torch.cos(positions * frequencies[: hidden_size // 2])
        return table

    def forward(self, position_ids: torch.Tensor) -> torch.Tensor:
        return self.table[position_ids]


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled dot-product attention that returns its weights; the only backend that can.

    `query`, `key`, `value`: (batch, heads, length, head_dim); `attention_mask`: additive, broadcastable to
    (batch, heads, queries, keys). Returns (batch, queries, heads, head_dim) and the weights.
    """
    weights = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class FundamentaLLMAttention(nn.Module):
    """Causal multi-head attention with biases on all four projections."""

    def __init__(self, config: FundamentaLLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        earlier: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]
        # The number of heads is left to -1: under tensor parallelism a process holds only some of them.
        heads_shape = (*input_shape, -1, self.head_dim)
        query = self.q_proj(hidden_states).view(heads_shape).transpose(1, 2)
        key = self.k_proj(hidden_states).view(heads_shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(heads_shape).transpose(1, 2)
        if earlier is not None:
            # A paged cache passes its state to the attention function through the arguments.
            key, value = earlier.update(key, value, self.layer_idx, kwargs=kwargs)

        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(*input_shape, -1).contiguous()), weights


class FundamentaLLMMLP(nn.Module):
    """The feed-forward layer: up, activation, down."""

    def __init__(self, config: FundamentaLLMConfig) -> None:
        super().__init__()
        assert config.intermediate_size is not None  # the config fills it in
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class FundamentaLLMDecoderLayer(GradientCheckpointingLayer):
    """One pre-norm block: `x + attention(norm(x))`, then `x + mlp(norm(x))`."""

    def __init__(self, config: FundamentaLLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = FundamentaLLMAttention(config, layer_idx)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = FundamentaLLMMLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        earlier: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attended, _ = self.self_attn(
            self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            earlier=earlier,
            **kwargs,
        )
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


class FundamentaLLMPreTrainedModel(PreTrainedModel):
    """Base of the two models: their config, and the features that transformers may use."""

    config: FundamentaLLMConfig
    config_class = FundamentaLLMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["FundamentaLLMDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache", "earlier"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": FundamentaLLMDecoderLayer,
        "attentions": FundamentaLLMAttention,
    }

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, revision: str | None = "main", **kwargs: Any
    ) -> Any:
        """Load a model, as transformers does.

        The model remembers its commit, so that its tokenizer and attributes are looked up in the same commit.
        """
        options = {name: kwargs[name] for name in ("token", "local_files_only", "cache_dir") if name in kwargs}
        revision = resolve_revision(pretrained_model_name_or_path, revision, **options)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, revision=revision, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.config._commit_hash = getattr(revision, "resolved", None)
        return loaded

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write the model, as transformers does, with its code, which its config names (`auto_map`)."""
        name_code(self.config)
        super().save_pretrained(save_directory, *args, **kwargs)
        save_code(save_directory)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FundamentaLLMSinusoidalPositions):
            # The table is not in the checkpoint, and a model is built without storage before it is loaded.
            init.copy_(module.table, module.compute(*module.table.shape))


class FundamentaLLMModel(FundamentaLLMPreTrainedModel):
    """The network without its output layer: tokens in, final hidden states out."""

    def __init__(self, config: FundamentaLLMConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions: nn.Module
        if config.position_embedding_type == "sinusoidal":
            self.embed_positions = FundamentaLLMSinusoidalPositions(config.max_position_embeddings, config.hidden_size)
        else:
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([FundamentaLLMDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def _positions(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None, earlier: Cache | None
    ) -> torch.Tensor:
        """Positions of the new tokens, `(batch or 1, new)`: counted over real tokens, without padding."""
        new = inputs_embeds.shape[1]
        if attention_mask is not None and attention_mask.dim() == 2:
            return positions_of(attention_mask)[:, -new:]
        past = earlier.get_seq_length() if earlier is not None else 0
        return (torch.arange(new, device=inputs_embeds.device) + past).unsqueeze(0)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Encode tokens.

        Args:
            input_ids: `(batch, length)` token ids; or give `inputs_embeds`, `(batch, length, hidden_size)`, before
                positions are added.
            attention_mask: `(batch, past + length)`, 1 for real tokens, 0 for padding on either side.
            position_ids: `(batch, length)`, from 0 to `max_position_embeddings - 1`; by default counted over the
                real tokens of `attention_mask`.
            cache: keys and values of the tokens before these, extended in place. `past_key_values` is an alias, so the
                argument has the name of any version of transformers.

        Raises:
            ValueError: two caches are given, neither or both of `input_ids` and `inputs_embeds` are given, or a
                position is outside the window.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds has to be given")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        earlier = given_cache(cache, past_key_values, kwargs)
        if use_cache and earlier is None:
            earlier = DynamicCache(config=self.config)
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            earlier = None  # layers run again in the backward pass, and would extend it again
        if position_ids is None:
            position_ids = self._positions(inputs_embeds, attention_mask, earlier)
        self._check_positions(position_ids)

        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **{CACHE: earlier},
        )
        hidden_states = self.dropout(inputs_embeds + self.embed_positions(position_ids))
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                attention_mask=causal_mask,
                earlier=earlier,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), **{CACHE: earlier})

    def _check_positions(self, position_ids: torch.Tensor) -> None:
        # Reading a value would break a compiled graph and stall an accelerator, so only the CPU looks.
        if torch.compiler.is_compiling() or position_ids.device.type != "cpu":
            return
        if position_ids.numel() and int(position_ids.max()) >= self.config.max_position_embeddings:
            raise ValueError(
                f"a position of {int(position_ids.max())} is outside the model's window of "
                f"{self.config.max_position_embeddings} tokens: shorten the input, or use generate(), which slides"
            )


class FundamentaLLMForCausalLM(PublishingMixin, ControlledGenerationMixin, FundamentaLLMPreTrainedModel):
    """A FundamentaLLM model that predicts the next character, and generates text with `generate()`."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}

    def __init__(self, config: FundamentaLLMConfig) -> None:
        super().__init__(config)
        self.model = FundamentaLLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """Predict the next token at every position.

        Args:
            labels: `(batch, length)` token ids, -100 where no loss is wanted; shifted inside, as usual in transformers.
                The loss is the mean cross-entropy in nats per token.
            logits_to_keep: compute logits only for that many last positions (0: all), or for these indices.

        The other arguments are those of `FundamentaLLMModel`.

        Returns:
            `CausalLMOutputWithPast` with `logits` of shape `(batch, positions kept, vocab_size)`.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            cache=cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: cache_of(outputs)},
        )

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write the model, as transformers does, with the data of its controls and the records of its weights."""
        super().save_pretrained(save_directory, *args, **kwargs)
        save_sidecars(self, save_directory)
        save_attributes(self, save_directory)
        save_records(self, save_directory)


__all__ = ["FundamentaLLMForCausalLM", "FundamentaLLMModel", "FundamentaLLMPreTrainedModel"]
