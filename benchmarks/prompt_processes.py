"""How much faster two processes write the texts of a file of prompts than one.

    python benchmarks/prompt_processes.py --prompts 600

Starts the command of one process and that of two (`torchrun`) in turn, with all prompts and with a few, and takes the
difference, so that starting does not count. Prints elapsed and processor time. On idle cores the elapsed times are the
answer. On a busy machine the processor times are: what a text costs in two processes against one, from which follows
the most that two can be faster.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

WORDS = ("Once upon a time", "One day, Tim", "The dragon", "In the forest", "A girl")


def measure(command: list[str], folder: str) -> tuple[float, float]:
    """Elapsed and processor seconds of a command and all that it starts."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the command has failed: {command}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime


def run(folder: str, processes: int, prompts: int, tokens: int) -> tuple[float, float]:
    """The times of one run, and a check that it wrote everything."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "fundamentallm_hf", "generate", "--device", "cpu", "--quiet", "--force"]
    output = f"out.{processes}.{prompts}.jsonl"
    command += ["--prompts-file", f"in.{prompts}.jsonl", "--output-file", output, "--max-tokens", str(tokens)]
    times = measure([*command, "--seed", "7"], folder)
    Path(folder, f"{output}.run.json").unlink()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=600)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    few, found = 4, []
    with tempfile.TemporaryDirectory() as folder:
        for number in (few, arguments.prompts):
            lines = [json.dumps({"prompt": WORDS[index % len(WORDS)], "seed": index}) for index in range(number)]
            Path(folder, f"in.{number}.jsonl").write_text("\n".join(lines) + "\n")
        for _ in range(arguments.rounds):
            net = {}
            for processes in (1, 2):
                start, whole = (run(folder, processes, count, arguments.tokens) for count in (few, arguments.prompts))
                net[processes] = [after - before for before, after in zip(start, whole, strict=True)]
                elapsed, processor = net[processes]
                print(f"{processes} processes: {elapsed:.1f} s elapsed, {processor:.1f} s of processors", flush=True)
            outputs = {Path(folder, f"out.{count}.{arguments.prompts}.jsonl").read_bytes() for count in (1, 2)}
            print("the same bytes" if len(outputs) == 1 else "WRONG: the outputs differ")
            found.append((net[1][0] / net[2][0], 2 * net[1][1] / net[2][1]))
    elapsed, processor = (median(each) for each in zip(*found, strict=True))
    print(f"two processes are {elapsed:.2f} times as fast; by processor time at most {processor:.2f} times")


if __name__ == "__main__":
    main()
