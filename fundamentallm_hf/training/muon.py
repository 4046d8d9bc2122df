"""Muon for the hidden matrices, AdamW for the rest, as one optimizer.

Muon (Jordan et al., 2024) orthogonalises the momentum of a matrix; embeddings, norms and biases are not matrices in
that sense and stay with AdamW. Both optimizers are torch's; this file only combines them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that step together and share one list of parameter groups, so schedulers reach both."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    @classmethod
    def from_model(cls, model: nn.Module, lr: float, adamw_lr: float, weight_decay: float) -> "MuonWithAdamW":
        """Split the parameters of `model`: Muon gets the weight matrices of its linear layers, AdamW all others.

        Args:
            lr: learning rate of Muon, on AdamW's scale (its update has the root mean square of an AdamW update).
            adamw_lr: learning rate of AdamW.
            weight_decay: of the matrices; embeddings, norms and biases do not decay.
        """
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embeddings]
        chosen = set(map(id, matrices))
        others = [p for p in model.parameters() if id(p) not in chosen]
        return cls(
            torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=adamw_lr, betas=(0.9, 0.98), weight_decay=0.0),
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]
