"""How well does a story model spell, and do its stories end? Measured on sampled stories.

    python benchmarks/story_quality.py --training-text stories.txt [--model MODEL] [--show 3]

Prints the share of words that occur in the training text, the share of stories that end by themselves within the
limit, and, if asked, the first stories as they came, at three temperatures.
"""

import argparse
import re
import sys
from pathlib import Path

import torch

from fundamentallm_hf import Generator, load_model

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case; an apostrophe inside a word belongs to it."""
    return [word.lower() for word in WORD.findall(text)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training-text", type=Path, nargs="+", required=True)
    parser.add_argument("--model", help="default: the bundled story model")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--stories", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=1500)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print one unedited story each at three temperatures")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    known = {word for path in arguments.training_text for word in words(path.read_text(encoding="utf-8"))}
    generator = Generator(load_model(arguments.model, device="cpu"), seed=arguments.seed)
    stories = generator.complete(
        arguments.prompt,
        num_samples=arguments.stories,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
    )
    written = [word for story in stories for word in words(story.completion)]
    unknown = sorted({word for word in written if word not in known})
    ended = sum(story.finish_reason == "eos" for story in stories)
    lengths = sorted(story.tokens for story in stories)
    print(f"stories: {len(stories)}, temperature {arguments.temperature}, top-p {arguments.top_p}")
    print(f"words in the training text: {sum(word in known for word in written) / len(written):.2%} of {len(written)}")
    print(f"ended by themselves within {arguments.max_tokens} characters: {ended / len(stories):.0%}")
    print(f"characters: median {lengths[len(lengths) // 2]}, {lengths[0]} to {lengths[-1]}")
    print(f"words not in the training text: {', '.join(unknown) or 'none'}")
    if arguments.show:
        for temperature in (0.5, 0.8, 1.0):
            story = generator.complete(arguments.prompt, temperature=temperature, max_tokens=arguments.max_tokens)[0]
            print(f"\n### Temperature {temperature}, seed {story.seed}\n\n{story.text}\n[{story.finish_reason}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
