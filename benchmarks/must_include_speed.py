"""What required words cost in time.

    python benchmarks/must_include_speed.py [--models demo smollm2] [--rounds 7] [--threads 1]

One prompt, sampled at temperature 0.8 and top-p 0.9; 400 tokens (60 for SmolLM2). Both ways write equally many
tokens, in turn in every round, after a warm-up each; every round asks for other five words, inflections allowed. Given
are the medians over the rounds of tokens per second and of the time relative to no control in the same round, in
processor time.
"""

import argparse
import statistics

import torch
from models import MODELS
from timing import take_turns

PROMPT = "Once upon a time"
TOKENS = {"demo": 400, "smollm2": 60}
WORDS = [
    ["dog", "garden", "rain", "song", "friend"],
    ["castle", "dragon", "sword", "knight", "gold"],
    ["boat", "fish", "river", "net", "wait"],
    ["bread", "oven", "flour", "mother", "smell"],
    ["train", "window", "mountain", "hat", "sleep"],
    ["apple", "basket", "climb", "tree", "share"],
    ["snow", "sled", "hill", "laugh", "mitten"],
    ["book", "lamp", "read", "blanket", "night"],
    ["horse", "farm", "fence", "jump", "proud"],
    ["drum", "music", "dance", "loud", "street"],
    ["beach", "shell", "wave", "sand", "run"],
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["demo", "smollm2"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| model | tokens | tokens per second, no control | with five words | time, median | all rounds |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        model, tokens = MODELS[name](), TOKENS[name]
        ways = {
            False: lambda _: {},
            True: lambda number: {"must_include": [f"{word}*" for word in WORDS[number % len(WORDS)]]},
        }
        taken = take_turns(model, PROMPT, ways, tokens, arguments.rounds)
        ratios = [mine / plain for mine, plain in zip(taken[True], taken[False], strict=True)]
        speeds = [tokens / statistics.median(taken[asked]) for asked in (False, True)]
        print(
            f"| {name} | {tokens} | {speeds[0]:.1f} | {speeds[1]:.1f} | {statistics.median(ratios):.3f} "
            f"| {' '.join(f'{ratio:.2f}' for ratio in sorted(ratios))} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
