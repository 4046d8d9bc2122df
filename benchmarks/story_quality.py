"""How well does a story model spell, do its stories end, and how fluent are they? Measured on sampled stories.

    python benchmarks/story_quality.py --training-text stories.txt [--model MODEL] [--held-out valid.txt] [--show]

Prints the share of words that occur in the training text, and the share of stories that end by themselves within the
limit. With `--held-out`, also the perplexity of SmolLM2-135M over the stories, behind the prompt, next to that over
passages of the held-out text that begin with the same prompt and are as long. With `--save` all stories are kept in a
file, and with `--show` one is printed at each of three temperatures, as it came.
"""

import argparse
import math
import re
import sys
from pathlib import Path
from typing import Any

import torch
from models import smollm2

from fundamentallm_hf import Generator, load_model

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case; an apostrophe inside a word belongs to it."""
    return [word.lower() for word in WORD.findall(text)]


def held_out_passages(file: Path, prompt: str, lengths: list[int]) -> list[str]:
    """Passages of a text that begin a line with the prompt, of these lengths in characters."""
    text = file.read_text(encoding="utf-8")
    starts = [match.start() for match in re.finditer(rf"^{re.escape(prompt)}", text, re.MULTILINE)]
    if not starts:
        sys.exit(f"no line of {file} begins with {prompt!r}")
    # Spread over the whole text, and each long enough.
    chosen = [starts[place * len(starts) // len(lengths)] for place in range(len(lengths))]
    return [text[min(start, len(text) - length) :][:length] for start, length in zip(chosen, lengths, strict=True)]


def perplexity(judge: Any, prompt: str, texts: list[str]) -> float:
    """Of the tokens behind the prompt, under the judge, over all texts together."""
    nats, tokens = 0.0, 0
    skip = len(judge.tokenizer(prompt).input_ids)
    for text in texts:
        ids = judge.tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            logs = judge(ids).logits[0, skip - 1 : -1].log_softmax(dim=-1)
        nats -= float(logs.gather(1, ids[0, skip:, None]).sum())
        tokens += ids.shape[1] - skip
    return math.exp(nats / max(1, tokens))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training-text", type=Path, nargs="+", required=True)
    parser.add_argument("--model", help="default: the bundled story model")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--stories", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=1500)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--length-penalty", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=Path, help="a held-out text, to compare the perplexity of SmolLM2 with")
    parser.add_argument("--save", type=Path, help="write all stories to this file, as they came")
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
        length_penalty=arguments.length_penalty,
    )
    written = [word for story in stories for word in words(story.completion)]
    unknown = sorted({word for word in written if word not in known})
    ended = sum(story.finish_reason == "eos" for story in stories)
    lengths = sorted(story.tokens for story in stories)
    print(f"stories: {len(stories)}, temperature {arguments.temperature}, top-p {arguments.top_p}", end="")
    print(f", length penalty {arguments.length_penalty}")
    print(f"words in the training text: {sum(word in known for word in written) / len(written):.2%} of {len(written)}")
    print(f"ended by themselves within {arguments.max_tokens} characters: {ended / len(stories):.0%}")
    print(f"characters: median {lengths[len(lengths) // 2]}, {lengths[0]} to {lengths[-1]}")
    print(f"words not in the training text: {', '.join(unknown) or 'none'}")
    if arguments.save:
        texts = [f"### seed {story.seed}\n\n{story.text}\n[{story.finish_reason}]\n" for story in stories]
        arguments.save.write_text("\n".join(texts), encoding="utf-8")
    if arguments.held_out:
        passages = held_out_passages(arguments.held_out, arguments.prompt, [len(story.text) for story in stories])
        judge = smollm2()
        found, real = (
            perplexity(judge, arguments.prompt, texts) for texts in ([story.text for story in stories], passages)
        )
        print(f"SmolLM2's perplexity: {found:.2f}, of held-out passages of the same lengths {real:.2f}", end="")
        print(f", ratio {found / real:.3f}")
    if arguments.show:
        for temperature in (0.5, 0.8, 1.0):
            story = generator.complete(arguments.prompt, temperature=temperature, max_tokens=arguments.max_tokens)[0]
            print(f"\n### Temperature {temperature}, seed {story.seed}\n\n{story.text}\n[{story.finish_reason}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
