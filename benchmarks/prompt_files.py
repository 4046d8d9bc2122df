"""Memory of a run over a file of prompts, along the way: it must not grow with the file.

    python benchmarks/prompt_files.py --prompts 20000

Prints the resident memory (MiB) of the process after each thousand prompts of one token, and the slope of a straight
line through the second half, in MiB for each 100,000 prompts.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from fundamentallm_hf import Generator, load_model
from fundamentallm_hf.generation.file_run import FileOptions, run_file
from fundamentallm_hf.generation.prompt_files import PromptsFile
from fundamentallm_hf.generation.resumable_output import ResumableFile

MODEL = Path(__file__).parents[1] / "tests" / "fixtures" / "learned" / "final_model.pt"
EVERY = 1000


def resident() -> float:
    """MiB."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--unordered", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = Generator(load_model(MODEL, device="cpu"), max_tokens=1, seed=1, notice=lambda text: None)
    found: list[tuple[int, float]] = []

    def report(prompts: int, tokens: int) -> None:
        if prompts // EVERY > len(found):
            found.append((prompts, resident()))
            print(f"{prompts:>8,} prompts  {found[-1][1]:8.1f} MiB  {time.process_time():8.1f} CPU s", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "in.jsonl"
        with file.open("w") as stream:
            for number in range(arguments.prompts):
                row = {"prompt": f"To be {'or not ' * (number % 9)}", "id": f"p{number}"}
                stream.write(json.dumps(row | ({"temperature": 0.5} if number % 3 == 0 else {})) + "\n")
        output = ResumableFile(Path(folder) / "out.jsonl")
        options = FileOptions(rows=32, unordered=arguments.unordered)
        run_file(generator, PromptsFile(str(file)), output, generator.settings, options, report)
    half = found[len(found) // 2 :]
    mean = [sum(values) / len(half) for values in zip(*half, strict=True)]
    above = sum((x - mean[0]) * (y - mean[1]) for x, y in half)
    slope = above / sum((x - mean[0]) ** 2 for x, _ in half)
    print(f"slope of the second half: {slope * 100_000:+.1f} MiB for each 100,000 prompts")


if __name__ == "__main__":
    main()
