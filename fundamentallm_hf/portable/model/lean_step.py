"""The forward pass of the network with few operations, for decoding on the CPU.

`modeling_fundamentallm.py` is the readable network. This file computes the same with the same weights, in the form that
`lean_weights.py` gives them. It uses one projection for query, key and value, writes keys and values into preallocated
tensors, calls no modules, and builds a mask only where one is needed. `plain_network` checks whether the two are
equivalent for a model; if not, `forward()` is used.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as global_hooks

from ..decoding.network_step import Run
from ..decoding.watched_states import is_optional
from .lean_weights import FEW, LeanLayer, lean_layers, linears_of, steered_layers

_STOCK = (nn.Linear, nn.Embedding, nn.RMSNorm, nn.Dropout, nn.ModuleList)
_NETWORK = (
    "FundamentaLLMForCausalLM",
    "FundamentaLLMModel",
    "FundamentaLLMDecoderLayer",
    "FundamentaLLMAttention",
    "FundamentaLLMMLP",
    "FundamentaLLMSinusoidalPositions",
)
_ACTIVATIONS = ("transformers.activations", "torch.nn.modules.activation")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")
# Methods that `generate()` calls in every step. A replacement on a model must be called.
_STEP_METHODS = ("forward", "prepare_inputs_for_generation", "_update_model_kwargs_for_generation")
# Columns by which a cache grows at least.
_GROWTH = 64
# Columns of a new cache. Most texts are far shorter than their call allows, and clearing columns takes time.
_FIRST_COLUMNS = 256
# The most new tokens for which the mask is kept from pass to pass.
_MASKED = 32


def plain_network(model: Any) -> bool:
    """Whether `LeanStep` computes the same as this model.

    It does not for modules of other classes (adapters, quantised or parallel layers, parametrisations), hooks or
    replaced methods on a module, training mode, compiled modules, attention other than scaled dot-product attention,
    autocast, or weights that are not all float32 on the CPU. Below float32 the two round differently and may choose
    different tokens.
    """
    if model.config._attn_implementation != "sdpa" or torch.is_autocast_enabled("cpu"):
        return False
    if any(getattr(global_hooks, name, None) for name in _GLOBAL_HOOKS):
        return False
    home, kinds = type(model).__module__, set()
    for module in model.modules():
        kinds.add(type(module))
        if (
            module.training
            or module._compiled_call_impl is not None
            or not vars(module).keys().isdisjoint(_STEP_METHODS)
        ):
            return False
        if not all(map(_is_plain_parameter, module.parameters(recurse=False))):
            return False
        if any(not is_optional(hook) for name in _HOOKS for hook in getattr(module, name).values()):
            return False
    if not all(_is_known(kind, home) and _keeps_its_methods(kind) for kind in kinds):
        return False
    return _fits(model)


def _is_plain_parameter(given: Any) -> bool:
    return type(given) is nn.Parameter and given.dtype == torch.float32 and given.device.type == "cpu"


def _is_known(kind: type, home: str) -> bool:
    return kind in _STOCK or kind.__module__ in _ACTIVATIONS or (kind.__module__ == home and kind.__name__ in _NETWORK)


def _keeps_its_methods(kind: type) -> bool:
    """Whether no method of a class was replaced by another function."""
    for name in _STEP_METHODS:
        method = getattr(kind, name, None)
        owner = next((each for each in kind.__mro__ if name in vars(each)), None)
        if owner in (None, nn.Module):
            continue
        wanted = f"{owner.__qualname__}.{name}"
        if getattr(method, "__qualname__", None) != wanted or getattr(method, "__module__", None) != owner.__module__:
            return False
    return True


def _fits(model: Any) -> bool:
    """Whether the modules of a model have the sizes and biases of its configuration."""
    config, inner = model.config, model.model
    embeddings = [each for each in (inner.embed_tokens, inner.embed_positions) if isinstance(each, nn.Embedding)]
    norms = [inner.norm]
    linears = {model.lm_head: (config.hidden_size, False)}
    for layer in inner.layers:
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
        *before, last = linears_of(layer)
        linears |= dict.fromkeys(before, (config.hidden_size, True)) | {last: (config.intermediate_size, True)}
    return (
        all(each.max_norm is None for each in embeddings)
        and all(each.eps == config.rms_norm_eps and each.weight is not None for each in norms)
        and all(
            each.in_features == width and (each.bias is not None) == biased for each, (width, biased) in linears.items()
        )
    )


class LeanStep:
    """Computes logits for new tokens, and caches their keys and values.

    Args:
        model: a model for which `plain_network` holds.
        rows: number of texts decoded together.
        columns: the most tokens in the cache; callers must not exceed it.
        vectors: (hidden size,) each, added to the states after some layers, by their index; see `Steering`.

    Attributes:
        length: number of columns that hold keys and values.
        states: the input of the output layer in the last pass, (rows, kept, hidden size); after `packed` (new, hidden
            size).
    """

    def __init__(self, model: Any, rows: int, columns: int, vectors: Mapping[int, torch.Tensor] | None = None) -> None:
        config = model.config
        self.hidden, self.heads, self.eps = config.hidden_size, config.num_attention_heads, config.rms_norm_eps
        self.head_dim = self.hidden // self.heads
        self.columns = columns
        self.tokens = model.model.embed_tokens.weight
        positions = model.model.embed_positions
        self.positions = positions.weight if isinstance(positions, nn.Embedding) else positions.table.to(model.dtype)
        self.norm = model.model.norm.weight
        self.head = model.lm_head.weight
        self.layers = steered_layers(lean_layers(model), vectors or {})
        with torch.inference_mode():
            shape = (len(self.layers.many), 2, rows, self.heads, min(columns, _FIRST_COLUMNS), self.head_dim)
            # Unused columns are masked, but must be finite: 0 times NaN is NaN.
            self.cache = torch.zeros(shape, dtype=model.dtype)
            self.mean = torch.full((self.hidden, 1), 1 / self.hidden, dtype=model.dtype)
            self.added = torch.tensor(self.eps, dtype=model.dtype)
        self.causal: torch.Tensor | None = None
        self.length = 0
        self.states: torch.Tensor | None = None

    @property
    def rows(self) -> int:
        """Number of rows in the cache."""
        return self.cache.shape[2]

    @torch.inference_mode()
    def __call__(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None = None, kept: int = 1
    ) -> torch.Tensor:
        """Compute logits, and cache the keys and values.

        Args:
            tokens: (rows, new) token ids; with fewer rows than the cache, its first rows are used.
            positions: (rows or 1, new).
            mask: (rows, length + new) 1 for real tokens and 0 for padding; None if there is no padding.
            kept: number of last tokens to return logits for.

        Returns:
            (rows, kept, vocabulary) logits in the model's dtype.
        """
        new, start = tokens.shape[1], self.length
        visible = self._visible(start, new, mask)
        hidden = self._hidden(tokens, positions, visible, kept, causal=visible is None and new > 1)
        self.length += new
        return self._logits(hidden)

    @torch.inference_mode()
    def packed(self, runs: Sequence[Run]) -> torch.Tensor:
        """Compute tokens of rows that have different lengths. `length` does not change.

        Args:
            runs: the tokens of each row; no row has two.

        Returns:
            (new, vocabulary) logits of the tokens of all runs, one after the other.
        """
        sizes = [len(run.tokens) for run in runs]
        new, ends = sum(sizes), [run.column + size for run, size in zip(runs, sizes, strict=True)]
        self._make_room(max(ends))
        rows = torch.tensor([run.row for run in runs]).repeat_interleave(torch.tensor(sizes))
        columns = [column for run, end in zip(runs, ends, strict=True) for column in range(run.column, end)]
        positions = [position for run in runs for position in run.positions]
        masks = [self._mask_of(run, end) for run, end in zip(runs, ends, strict=True)]
        at = torch.tensor(columns)
        hidden = functional.embedding(torch.tensor([token for run in runs for token in run.tokens]), self.tokens)
        hidden += functional.embedding(torch.tensor(positions), self.positions)
        every = slice(None)
        seen = [
            (every, slice(run.row, run.row + 1), every, slice(run.padding, end))
            for run, end in zip(runs, ends, strict=True)
        ]
        for layer, cache in zip(self._layers(new), self.cache, strict=True):
            qkv = self._projected(layer, hidden).view(new, 3, self.heads, self.head_dim)
            cache[:, rows, :, at] = qkv[:, 1:]
            queries = qkv[None, :, 0].transpose(1, 2).split(sizes, dim=2)
            held = [cache[part].unbind(0) for part in seen]
            # One product for each row costs less than one for all, which would need masks and filling.
            found = [
                functional.scaled_dot_product_attention(query, keys, values, mask)
                for query, (keys, values), mask in zip(queries, held, masks, strict=True)
            ]
            self._add(layer, hidden, torch.cat(found, dim=2).transpose(1, 2).reshape(new, self.hidden))
        return self._logits(hidden)

    def _mask_of(self, run: Run, end: int) -> torch.Tensor | None:
        """The additive mask of a run, (1, 1, tokens, end - padding); None where none is needed."""
        if run.visible is not None:
            visible = run.visible[:, run.padding :]
            return torch.zeros(visible.shape, dtype=self.cache.dtype).masked_fill_(~visible, -torch.inf)[None, None]
        return self._visible(run.column - run.padding, len(run.tokens), None, first=True)

    @torch.inference_mode()
    def aside(
        self, tokens: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor, kept: int = 0
    ) -> torch.Tensor:
        """Compute tokens after the cached ones, without keeping them.

        Args:
            tokens: (rows, new) token ids.
            positions: (rows, new).
            visible: (rows, 1, new, length + new) bool, the cached and new columns that each token may attend to.
            kept: how many of the new tokens, from the first on, are kept after all.

        Returns:
            (rows, new, vocabulary) logits.
        """
        mask = torch.zeros(visible.shape, dtype=self.cache.dtype).masked_fill_(~visible, -torch.inf)
        before = self.states
        logits = self._logits(self._hidden(tokens, positions, mask, kept=tokens.shape[1]))
        if kept:
            self.length += kept
            assert self.states is not None
            self.states = self.states[:, :kept]
        else:
            self.states = before
        return logits

    def _hidden(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        visible: torch.Tensor | None,
        kept: int,
        causal: bool = False,
    ) -> torch.Tensor:
        """Run the layers, and write keys and values after the cached ones; (rows, kept, hidden size)."""
        rows, new = tokens.shape
        start, end = self.length, self.length + new
        self._make_room(end)
        hidden = functional.embedding(tokens, self.tokens) + functional.embedding(positions, self.positions)
        hidden, asked = hidden.view(rows * new, self.hidden), new
        for index, (layer, cache) in enumerate(zip(self._layers(rows * new), self.cache, strict=True)):
            qkv = self._projected(layer, hidden).view(rows, new, 3, self.heads, self.head_dim)
            qkv = qkv.permute(2, 0, 3, 1, 4)  # (3, rows, heads, new, head_dim)
            cache[:, :rows, :, start:end], query = qkv[1:], qkv[0]
            if index == len(self.cache) - 1 and kept < new and (kept == 1 or not causal):
                # The last layer needs the keys and values of all tokens, and all else of the kept ones.
                query, asked, causal = query[:, :, -kept:], kept, False
                hidden = hidden.view(rows, new, self.hidden)[:, -kept:].reshape(rows * kept, self.hidden)
                visible = visible if visible is None else visible[:, :, -kept:]
            keys, values = cache[:, :rows, :, :end].unbind(0)
            attended = functional.scaled_dot_product_attention(query, keys, values, attn_mask=visible, is_causal=causal)
            self._add(layer, hidden, attended.transpose(1, 2).reshape(rows * asked, self.hidden))
        return hidden.view(rows, asked, self.hidden)[:, -kept:]

    def _layers(self, tokens: int) -> list[LeanLayer]:
        """The layers in the form that suits a number of tokens."""
        return self.layers.few if tokens <= FEW else self.layers.many

    def _projected(self, layer: LeanLayer, hidden: torch.Tensor) -> torch.Tensor:
        """Query, key and value of tokens, given their states, (tokens, hidden size); (tokens, 3 * hidden size)."""
        normed = self._normed(hidden, layer.attention_norm)
        found = [each(normed) for each in layer.projections]
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)

    def _add(self, layer: LeanLayer, hidden: torch.Tensor, attended: torch.Tensor) -> None:
        """Add to the states **in place** what follows from attention, (tokens, hidden size), and the feed-forward."""
        hidden += layer.out(attended)
        hidden += layer.down(layer.activation(layer.up(self._normed(hidden, layer.mlp_norm))))

    def _normed(self, hidden: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """The RMS norm of states, (tokens, hidden size). For few tokens, torch's takes twice as long."""
        normed = hidden * torch.rsqrt(torch.addmm(self.added, hidden * hidden, self.mean))
        return normed if weight is None else normed * weight

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits of states, (…, hidden size)."""
        self.states = torch.rms_norm(hidden, (self.hidden,), self.norm, self.eps)
        return functional.linear(self.states, self.head)

    def _make_room(self, end: int) -> None:
        """Extend the cache to at least this many columns."""
        now = self.cache.shape[4]
        if end > now:
            # Beyond the most columns of the text, only tokens that are not kept need some.
            most = max(self.columns, now + _GROWTH)
            self.cache = functional.pad(self.cache, (0, 0, 0, max(end, min(2 * now, most)) - now))

    def _visible(self, start: int, new: int, mask: torch.Tensor | None, first: bool = False) -> torch.Tensor | None:
        """The additive attention mask, (rows or 1, 1, new, start + new); None where none is needed.

        Args:
            start: columns before the new ones.
            new: number of new columns.
            mask: as in `__call__`.
            first: whether the first tokens of a text get a mask, too.
        """
        if mask is None and (new == 1 or (start == 0 and not first)):
            return None
        if mask is None and new <= _MASKED and start <= self.columns:
            if self.causal is None:
                shape = (_MASKED, self.columns + _MASKED)
                self.causal = torch.full(shape, -torch.inf, dtype=self.cache.dtype).triu_(self.columns + 1)
            return self.causal[None, None, :new, self.columns - start : self.columns + new]
        seen = torch.ones(new, start + new, dtype=torch.bool).tril(start)[None, None]
        if mask is not None:
            seen = seen & mask.bool()[:, None, None]
            # Padding attends to itself: a softmax over no columns is NaN, which would spread through its values.
            seen[..., range(new), range(start, start + new)] = True
        return torch.zeros(seen.shape, dtype=self.cache.dtype).masked_fill_(~seen, -torch.inf)

    @torch.inference_mode()
    def spread(self, copies: int) -> None:
        """Copy each computed row to `copies` adjacent rows."""
        held = self.cache[:, :, : self.rows // copies, :, : self.length]
        self.cache[:, :, :, :, : self.length] = held.repeat_interleave(copies, dim=2)

    @torch.inference_mode()
    def keep_rows(self, rows: list[int]) -> None:
        """Keep only these rows."""
        self.cache = self.cache[:, :, rows]
