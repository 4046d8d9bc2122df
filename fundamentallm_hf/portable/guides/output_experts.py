"""A pair of experts on a model's last layer: one generates with an attribute, the other without it.

Each is a residual adapter with a bottleneck (Houlsby et al. 2019) between the last layer and the output layer, which
stay unchanged. So the two share the model's forward pass, and cost two small matrix products a step instead of two more
models, as DExperts (Liu et al. 2021) needs. A pair fits one model only, which it recognizes by a signature of the
output layer.
"""

from typing import Any, NamedTuple

import torch
from torch import nn

from .signed_tensors import Signature, SignedTensors, reading, same_signature, signature_of

# The width of a bottleneck: at 64 the bundled model's pair separated held-out sentences a little less well.
BOTTLENECK = 256
_EXPERTS = "fundamentallm-output-experts"


class OutputWeights(NamedTuple):
    """The parameters of an output layer.

    Attributes:
        weight: (vocabulary, hidden size).
        bias: (vocabulary,), if it has one.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, model: Any) -> "OutputWeights":
        """The output weights of a model.

        Raises:
            ValueError: it has no output layer that is a matrix of numbers, one row for each token.
        """
        output = model.get_output_embeddings()
        weight = getattr(output, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.dim() != 2 or not weight.is_floating_point():
            raise ValueError("experts need a model with an output layer of plain weights, and this one has none")
        bias = getattr(output, "bias", None)
        return cls(weight.detach(), None if bias is None else bias.detach())

    def in_float32(self) -> "OutputWeights":
        """The same in float32, of which the states of a pass are multiplied; these weights if they are that already."""
        return OutputWeights(self.weight.float(), None if self.bias is None else self.bias.float())

    @property
    def signature(self) -> Signature:
        """Identifies an output layer."""
        return signature_of(self.weight)


class OutputAdapter(nn.Module):
    """Adds the output of a bottleneck to a state; all its weights are initially zero.

    Args:
        hidden_size: of the states.
        bottleneck: width inside.
    """

    def __init__(self, hidden_size: int, bottleneck: int) -> None:
        super().__init__()
        # Experts are made within `generate()`, where every random number taken here would change the text.
        self.down = nn.utils.skip_init(nn.Linear, hidden_size, bottleneck)
        self.up = nn.utils.skip_init(nn.Linear, bottleneck, hidden_size)
        for each in self.parameters():
            nn.init.zeros_(each)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`states`: (..., hidden size). Returns the same shape."""
        # No calls of modules: they take as long as the products.
        inner = nn.functional.gelu(nn.functional.linear(states, self.down.weight, self.down.bias))
        return states + nn.functional.linear(inner, self.up.weight, self.up.bias)


class ExpertPair(nn.Module):
    """Two experts for one model.

    Args:
        hidden_size: of the states that the model's output layer reads.
        bottleneck: width of each adapter.
        signature: of the output layer they were trained with; see `OutputWeights`.
    """

    def __init__(self, hidden_size: int, bottleneck: int = BOTTLENECK, signature: Signature = ()) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.bottleneck = bottleneck
        self.signature = signature
        self.having = OutputAdapter(hidden_size, bottleneck)
        self.lacking = OutputAdapter(hidden_size, bottleneck)

    def forward(self, states: torch.Tensor, output: OutputWeights) -> torch.Tensor:
        """The log-ratio of each token's probability with the attribute to that without it.

        Args:
            states: (rows, hidden size), as the output layer reads them.
            output: of the model.

        Returns:
            (rows, vocabulary) the log of the ratio of the two experts' probabilities, in nats.
        """
        states = states.float()
        having, lacking = output_logs(torch.stack([self.having(states), self.lacking(states)]), output)
        return having - lacking

    def joined(self, output: OutputWeights) -> "JoinedPair":
        """The same for many calls with one model, in fewer operations."""
        return JoinedPair.of(self, output)

    def swapped(self) -> "ExpertPair":
        """The pair of the opposite attribute; it shares its weights with this one."""
        pair = ExpertPair(self.hidden_size, self.bottleneck, self.signature)
        pair.having, pair.lacking = self.lacking, self.having
        return pair

    def misfit(self, model: Any) -> str | None:
        """Why these experts cannot be used with a model; None if they can."""
        try:
            output = OutputWeights.of(model)
        except ValueError as error:
            return str(error)
        width = output.weight.shape[1]
        if width != self.hidden_size:
            return f"its experts read states of {self.hidden_size} numbers, and this model's have {width}"
        if not same_signature(self.signature, output.signature):
            return "its experts were trained on another model"
        return None

    def to_bytes(self) -> bytes:
        """The pair as the content of a safetensors file, in half precision."""
        tensors = {name: each.detach().half().contiguous() for name, each in self.state_dict().items()}
        return SignedTensors(tensors, self.signature).to_bytes(_EXPERTS)

    @classmethod
    def from_bytes(cls, content: bytes) -> "ExpertPair":
        """Read the result of `to_bytes`.

        Raises:
            ValueError: it is anything else.
        """
        with reading("experts"):
            tensors, signature = SignedTensors.from_bytes(content, _EXPERTS)
            bottleneck, hidden_size = tensors["having.down.weight"].shape
            pair = cls(hidden_size, bottleneck, signature)
            pair.load_state_dict({name: each.float() for name, each in tensors.items()})
        return pair.eval().requires_grad_(False)


class JoinedPair(NamedTuple):
    """The weights of two experts and an output layer, copied so that both are computed at once.

    Attributes:
        down, up: (2, inputs, outputs), of the bottlenecks.
        down_bias, up_bias: (2, 1, outputs).
        output: of the model.
    """

    down: torch.Tensor
    down_bias: torch.Tensor
    up: torch.Tensor
    up_bias: torch.Tensor
    output: OutputWeights

    @classmethod
    def of(cls, pair: ExpertPair, output: OutputWeights) -> "JoinedPair":
        """Join them."""

        def joined(*layers: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
            weights = [each.weight.detach().float().t() for each in layers]
            return torch.stack(weights), torch.stack([each.bias.detach().float()[None] for each in layers])

        having, lacking = pair.having, pair.lacking
        return cls(*joined(having.down, lacking.down), *joined(having.up, lacking.up), output)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.down.device

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """What `ExpertPair` returns: (…, vocabulary), for (…, hidden size)."""
        given = states.float().reshape(1, -1, states.shape[-1]).expand(2, -1, -1)
        inner = nn.functional.gelu(torch.baddbmm(self.down_bias, given, self.down))
        having, lacking = output_logs(torch.baddbmm(self.up_bias, inner, self.up).add_(given), self.output)
        return (having - lacking).view(*states.shape[:-1], -1)


def expert_logs(adapter: OutputAdapter, states: torch.Tensor, output: OutputWeights) -> torch.Tensor:
    """(rows, vocabulary) log-probabilities of one expert; `states` are (rows, hidden size) in float32."""
    return output_logs(adapter(states), output)


def output_logs(states: torch.Tensor, output: OutputWeights) -> torch.Tensor:
    """(..., vocabulary) log-probabilities that an output layer gives; `states` are (..., hidden size) in float32."""
    bias = None if output.bias is None else output.bias.float()
    return nn.functional.linear(states, output.weight.float(), bias).log_softmax(dim=-1)
