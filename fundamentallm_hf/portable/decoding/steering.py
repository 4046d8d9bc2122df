"""Vectors that are added to the hidden states between the layers of a model while one call of `generate()` runs.

Hooks on the layers add them. They act only in the thread of the call, because other calls may use the model meanwhile,
and are removed when the call ends, however it ends. A loop that calls no modules takes the vectors from here instead.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Steering:
    """What one call adds to the hidden states of its model, at every position of every row."""

    def __init__(self) -> None:
        self._parts: dict[int, list[torch.Tensor]] = {}

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, vectors: Mapping[int, torch.Tensor], strength: float) -> None:
        """Add vectors times a strength.

        Args:
            vectors: (hidden size,) each, by the index of the layer after which they are added.
            strength: any number; below 0 steers away.
        """
        for layer, vector in vectors.items():
            self._parts.setdefault(layer, []).append(vector.float() * strength)

    @property
    def vectors(self) -> dict[int, torch.Tensor]:
        """The sum of what is added after each layer, (hidden size,) in float32, the same in every order of adding."""
        return {layer: torch.stack(parts).sort(dim=0).values.sum(dim=0) for layer, parts in self._parts.items()}

    @contextmanager
    def acting(self, model: Any, has_hooks: bool = True) -> Iterator[None]:
        """Steer the passes of a model in this thread.

        Args:
            model: a model for which `decoder_layers` finds the layers.
            has_hooks: whether the passes of the call call the layers as modules, so that the hooks must act.

        Raises:
            RuntimeError: they did not act, so the text was not steered.
        """
        if not self:
            yield
            return
        layers = decoder_layers(model)
        hooks = {layer: _AddVector(vector) for layer, vector in self.vectors.items()}
        handles = []
        try:
            for layer, hook in hooks.items():
                handles.append(layers[layer].register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()
        if has_hooks and not all(hook.acted for hook in hooks.values()):
            raise RuntimeError(
                f"the text was not steered: {type(model).__name__} has run without calling its layers as modules"
            )


class _AddVector:
    """A hook that adds a vector to the output of a layer, in the thread in which it was made."""

    def __init__(self, vector: torch.Tensor) -> None:
        self.vector = vector
        self.thread = threading.get_ident()
        self.acted = False

    @property
    def is_optional_hook(self) -> bool:
        """See `watched_states.is_optional`: to other threads it does nothing."""
        return threading.get_ident() != self.thread

    def __call__(self, layer: nn.Module, given: Any, output: Any) -> Any:
        if threading.get_ident() != self.thread:
            return None
        states = output[0] if isinstance(output, tuple) else output
        if not isinstance(states, torch.Tensor) or states.shape[-1:] != self.vector.shape:
            raise ValueError(
                f"steering needs layers that return states of {len(self.vector)} numbers, and {type(layer).__name__} "
                "does not"
            )
        self.vector = self.vector.to(states)
        self.acted = True
        shifted = states + self.vector
        return (shifted, *output[1:]) if isinstance(output, tuple) else shifted


def decoder_layers(model: Any) -> nn.ModuleList:
    """The decoder layers of a causal language model: the outermost list of as many modules as its config has layers.

    Raises:
        ValueError: there is no such list, or there are several, or the model is compiled and ignores hooks.
    """
    if any(module._compiled_call_impl is not None for module in model.modules()):
        raise ValueError("steering cannot act in a compiled model: load it without compile()")
    number = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found = [
        (name.count("."), module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == number
    ]
    outermost = min((depth for depth, _ in found), default=0)
    lists = [module for depth, module in found if depth == outermost]
    if len(lists) != 1:
        raise ValueError(
            f"steering needs a model with one list of {number} decoder layers, and {type(model).__name__} has "
            f"{len(lists) or 'none'}"
        )
    return lists[0]
