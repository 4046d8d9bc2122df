"""Times ways of generating against each other in turn, so that other work meets them alike, and measures memory."""

import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from fundamentallm_hf import controlled_generate

Way = TypeVar("Way", bound=Hashable)


def take_turns(
    model: Any,
    prompt: str,
    ways: Mapping[Way, Callable[[int], dict[str, Any]]],
    tokens: int,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[Way, list[float]]:
    """Write equally many tokens in every way, sampled at temperature 0.8 and top-p 0.9, in turn in every round.

    Args:
        model: with its tokenizer as the attribute `tokenizer`.
        prompt: how every text begins.
        ways: by name, what gives the arguments of `generate()` in a round. Without arguments it is transformers' own;
            with some, a model that does not know the controls gets them through `custom_generate`.
        tokens: how many are written.
        rounds: how many count, after one to warm up.
        clock: returns seconds; those of the processor leave out the time of other processes.

    Returns:
        For each way the seconds of each round.
    """
    inputs = model.tokenizer(prompt, return_tensors="pt")
    own = model.config.model_type == "fundamentallm"
    taken: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, arguments in ways.items():
            control = arguments(number)
            if control and not own and "bad_words_ids" not in control:  # those are transformers' own
                control["custom_generate"] = controlled_generate
            torch.manual_seed(number)
            start = clock()
            model.generate(
                **inputs,
                do_sample=True,
                temperature=0.8,
                top_k=0,
                top_p=0.9,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                **control,
            )
            if number:
                taken[way].append(clock() - start)
    return taken


def bandwidth(clock: Callable[[], float] = time.perf_counter) -> float:
    """Memory bandwidth in bytes per second, with the current number of threads; `clock` as in `take_turns`."""
    block, best = torch.ones(64 * 2**20), float("inf")  # 256 MiB
    for _ in range(5):
        start = clock()
        block.sum()
        best = min(best, clock() - start)
    return block.nbytes / best


def peak_memory() -> float:
    """The most memory that this process has held, in MiB; `ru_maxrss` also counts that of the process it came from."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("this system does not tell how much memory a process has held: there is no VmHWM")
