"""generate() with its cache against decoding without one, in one run.

    python benchmarks/generation_speed.py [--model MODEL] [--tokens 400] [--rounds 5] [--threads 1]

The other side is a plain loop in the style of FundamentaLLM: every step encodes the whole window again and keeps the
last row of logits. Both are greedy, timed in turn, after one warm-up each; medians are printed as a Markdown table.
Peak
memory is that of a process of its own for each side.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from timing import peak_memory

from fundamentallm_hf import load_model

PROMPT = "Once upon a time"


@torch.no_grad()
def plain_loop(model: torch.nn.Module, ids: torch.Tensor, tokens: int) -> torch.Tensor:
    """`ids`: (1, length). Returns them with `tokens` more."""
    window = model.config.max_position_embeddings
    for _ in range(tokens):
        logits = model(ids[:, -window:], use_cache=False).logits
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


def with_generate(model: torch.nn.Module, ids: torch.Tensor, tokens: int) -> torch.Tensor:
    return model.generate(ids, max_new_tokens=tokens, do_sample=False, eos_token_id=None)


SIDES: dict[str, Callable] = {"generate()": with_generate, "loop without a cache": plain_loop}


def seconds(work: Callable, *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the bundled story model")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--alone", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model, device="cpu")
    ids = model.tokenizer(PROMPT, return_tensors="pt").input_ids
    if arguments.alone:
        SIDES[arguments.alone](model, ids, arguments.tokens)
        print(peak_memory())
        return 0

    fits = min(arguments.tokens, model.config.max_position_embeddings - ids.shape[1])
    texts = [side(model, ids, fits) for side in SIDES.values()]  # the warm-up
    if not torch.equal(*texts):
        raise SystemExit("the two sides wrote different texts: nothing can be compared")
    first: dict[str, list[float]] = {name: [] for name in SIDES}
    whole: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(arguments.rounds):
        for name, side in SIDES.items():
            first[name].append(seconds(side, model, ids, 1))
            whole[name].append(seconds(side, model, ids, arguments.tokens))
    print(f"{arguments.tokens} tokens, {arguments.rounds} rounds, {arguments.threads} threads\n")
    print("| | first token | tokens per second | peak memory |\n|---|---|---|---|")
    for name in SIDES:
        own = [sys.executable, __file__, "--alone", name, "--tokens", str(arguments.tokens)]
        own += ["--model", arguments.model] if arguments.model else []
        memory = float(subprocess.run(own, check=True, capture_output=True, text=True).stdout)
        rate = arguments.tokens / statistics.median(whole[name])
        print(f"| {name} | {statistics.median(first[name]) * 1000:.1f} ms | {rate:.0f} | {memory:.0f} MiB |")
    ratios = sorted(slow / fast for fast, slow in zip(*whole.values(), strict=True))
    print(f"\nratio, pair by pair: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
