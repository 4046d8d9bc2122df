"""What a guide costs in time.

    python benchmarks/guided_speed.py [--models demo smollm2] [--rounds 7] [--threads 1]

One prompt, sampled at temperature 0.8 and top-p 0.9; 400 tokens (60 for SmolLM2). Without a guide and with each kind
equally many tokens are written, in turn in every round, after a warm-up each. Given are the medians over the rounds of
the time relative to no guide in the same round. SmolLM2 has no experts.
"""

import argparse
import statistics
import time

import torch
from guided_attributes import CONTRAST
from models import MODELS

from fundamentallm_hf import Attribute, controlled_generate
from fundamentallm_hf.attributes import BUNDLED

TOKENS = {"demo": 400, "smollm2": 60}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["demo", "smollm2"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundled = Attribute.load(BUNDLED / "positive_sentiment")
    print("| model | guide | time, median | all rounds |\n|---|---|---|---|")
    for name in arguments.models:
        model = MODELS[name]()
        own = model.config.model_type == "fundamentallm"
        other = {} if own else {"custom_generate": controlled_generate}
        model.attributes = {
            **({"experts": bundled} if own else {}),
            "words": Attribute("words", "", bundled.words),
            "prompts": Attribute("prompts", "", {}, *CONTRAST),
        }
        inputs = model.tokenizer("One day, Tim", return_tensors="pt")
        taken: dict[str | None, list[float]] = {each: [] for each in (None, *model.attributes)}
        for number in range(arguments.rounds + 1):
            for guide, times in taken.items():
                torch.manual_seed(number)
                start = time.perf_counter()
                model.generate(
                    **inputs,
                    do_sample=True,
                    temperature=0.8,
                    top_k=0,
                    top_p=0.9,
                    max_new_tokens=TOKENS[name],
                    min_new_tokens=TOKENS[name],
                    **({"guide_attribute": guide, **other} if guide else {}),
                )
                if number:  # the first round warms up
                    times.append(time.perf_counter() - start)
        for guide in model.attributes:
            ratios = sorted(mine / plain for mine, plain in zip(taken[guide], taken[None], strict=True))
            told = " ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"| {name} | {guide} | {statistics.median(ratios):.2f} | {told} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
