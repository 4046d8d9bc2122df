"""What a guide costs in time.

    python benchmarks/guided_speed.py [--models demo smollm2] [--rounds 7] [--threads 1]

One prompt, sampled at temperature 0.8 and top-p 0.9; 400 tokens (60 for SmolLM2). Without a guide and with each kind
equally many tokens are written, in turn in every round, after a warm-up each. Given are the medians over the rounds of
the processor time relative to no guide in the same round. SmolLM2 has no experts.
"""

import argparse
import statistics

import torch
from guided_attributes import CONTRAST
from models import MODELS
from timing import take_turns

from fundamentallm_hf import Attribute
from fundamentallm_hf.portable.guides.attribute_lookup import BUNDLED

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
        model.attributes = {
            **({"experts": bundled} if own else {}),
            "words": Attribute("words", "", bundled.words),
            "prompts": Attribute("prompts", "", {}, *CONTRAST),
        }
        guides = {each: lambda _, each=each: {"guide_attribute": each} for each in model.attributes}
        taken = take_turns(model, "One day, Tim", {None: lambda _: {}, **guides}, TOKENS[name], arguments.rounds)
        for guide in model.attributes:
            ratios = sorted(mine / plain for mine, plain in zip(taken[guide], taken[None], strict=True))
            told = " ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"| {name} | {guide} | {statistics.median(ratios):.2f} | {told} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
