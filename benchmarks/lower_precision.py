"""Passes of the network with weights of lower precision, and compiled: what each takes, and what it costs in quality.

    python benchmarks/lower_precision.py                     # milliseconds a pass, width 512 and 12 layers
    python benchmarks/lower_precision.py --text FILE         # and bits per character of the bundled model
    python benchmarks/lower_precision.py --compile           # a compiled pass of the bundled model; takes minutes

One thread, processor time, the median of passes in turn over 1, 4 and 8 tokens after 60 others. All ways compute what
`LeanStep` computes and differ in the products alone. int8 weights have one factor for each output; the kernels of int8
and bfloat16 round the states to bfloat16.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from decode import bundled_model, grown
from torch.nn import functional

from fundamentallm_hf import evaluate
from fundamentallm_hf.portable.model import lean_weights
from fundamentallm_hf.portable.model.lean_step import LeanStep

COUNTS, START, COLUMNS = (1, 4, 8), 60, 256
Product = Callable[[torch.Tensor], torch.Tensor]


def int8(weight: torch.Tensor, bias: torch.Tensor) -> Product:
    """A product with int8 weights."""
    factor = weight.abs().amax(dim=1) / 127
    whole, short = (weight / factor[:, None]).round().to(torch.int8), factor.bfloat16()
    return lambda given: torch._weight_int8pack_mm(given.bfloat16(), whole, short).float() + bias


def bfloat16(weight: torch.Tensor, bias: torch.Tensor) -> Product:
    """A product with bfloat16 weights, packed by oneDNN."""
    packed, short = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), COUNTS[-1]), bias.bfloat16()
    return lambda given: torch.ops.mkldnn._linear_pointwise(given.bfloat16(), packed, short, "none", [], "").float()


@torch.inference_mode()
def changed(model: Any, product: Callable[[torch.Tensor, torch.Tensor], Product]) -> LeanStep:
    """A step whose layers use another product."""
    step, layers = LeanStep(model, 1, COLUMNS), []
    for layer in model.model.layers:
        *projections, out, up, down = (product(each.weight, each.bias) for each in lean_weights.linears_of(layer))
        norms = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        joined = tuple(projections)
        layers.append(lean_weights.LeanLayer(norms[0], joined, out, norms[1], up, down, lean_weights._gelu))
    step.layers = lean_weights.LeanLayers(layers, layers)
    return step


def time_in_turn(ways: dict[str, Callable[[int], object]], counts: tuple[int, ...], rounds: int) -> None:
    """Print the milliseconds of each way for each number of tokens."""
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            for count in counts:
                start = time.thread_time()
                way(count)
                times.setdefault((name, count), []).append(time.thread_time() - start)
    print(f"| way | {' | '.join(f'{count} tokens, ms' for count in counts)} |\n|---|{'---|' * len(counts)}")
    for name in ways:
        print(f"| {name} | {' | '.join(f'{1000 * statistics.median(times[name, each]):.1f}' for each in counts)} |")


def one_pass(step: LeanStep) -> Callable[[int], object]:
    """A pass of a step over some tokens."""

    def run(count: int) -> object:
        step.length = START
        return step(torch.full((1, count), 20), torch.arange(START, START + count)[None], kept=count)

    return run


def compiled(model: Any) -> None:
    """Compare the lean step with the same pass, compiled over a cache of a fixed size."""
    step = LeanStep(model, 1, COLUMNS)
    cache = torch.zeros(len(step.layers.many), 2, 1, step.heads, COLUMNS, step.head_dim)

    def normed(states: torch.Tensor) -> torch.Tensor:
        return states * torch.rsqrt((states * states).mean(-1, keepdim=True) + step.eps)

    def network(tokens: torch.Tensor, at: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = functional.embedding(tokens, step.tokens) + functional.embedding(at, step.positions)
        for index, layer in enumerate(step.layers.many):
            qkv = layer.projections[0](normed(states)).view(len(tokens), 3, step.heads, step.head_dim)
            query, *others = qkv.permute(1, 2, 0, 3)
            cache[index, :, 0].index_copy_(2, at, torch.stack(others))
            found = functional.scaled_dot_product_attention(query[None], *cache[index], attn_mask=mask)
            states = states + layer.out(found.transpose(1, 2).reshape(len(tokens), step.hidden))
            raised = layer.up(normed(states))
            states = states + layer.down(raised + raised * torch.erf(raised))
        return functional.linear(functional.rms_norm(states, (step.hidden,), step.norm, step.eps), step.head)

    whole = torch.compile(network, dynamic=False)

    def run(count: int) -> object:
        at = torch.arange(START, START + count)
        mask = torch.zeros(1, 1, count, COLUMNS).masked_fill(torch.arange(COLUMNS) > at[:, None], -torch.inf)
        return whole(torch.full((count,), 20), at, mask)

    for count in (1, 5):
        start = time.perf_counter()
        with torch.no_grad():
            run(count)
        print(f"compiled for {count} tokens in {time.perf_counter() - start:.0f} s")
    with torch.no_grad():
        time_in_turn({"lean step": one_pass(step), "compiled": run}, (1, 5), 100)


def quality(model: Any, text: str) -> None:
    """Print the bits per character of the bundled model in each precision."""
    whole = copy.deepcopy(model)
    for layer in whole.model.layers:
        for linear in lean_weights.linears_of(layer):
            factor = linear.weight.data.abs().amax(dim=1, keepdim=True) / 127
            linear.weight.data = (linear.weight.data / factor).round() * factor
    models = {"float32": model, "int8 weights": whole, "bfloat16": copy.deepcopy(model).bfloat16()}
    models["weights rounded to float16"] = copy.deepcopy(model).half().float()
    for name, each in models.items():
        print(
            f"{name}: {evaluate(each, model.tokenizer, text, batch_size=1).bits_per_character:.4f} bits per character"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a text whose first 60,000 characters are predicted")
    parser.add_argument("--compile", action="store_true", help="compile a pass of the bundled model instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bundled = bundled_model()
    if arguments.compile:
        compiled(bundled)
        return
    large = grown(bundled, 512, 12, 8)
    steps = {
        "float32": LeanStep(large, 1, COLUMNS),
        "weights rounded to float16": LeanStep(copy.deepcopy(large).half().float(), 1, COLUMNS),
        "int8 weights": changed(large, int8),
        "bfloat16 weights": changed(large, bfloat16),
    }
    time_in_turn({name: one_pass(step) for name, step in steps.items()}, COUNTS, 20)
    if arguments.text:
        quality(bundled, arguments.text.read_text(encoding="utf-8")[:60000])


if __name__ == "__main__":
    main()
