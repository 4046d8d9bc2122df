"""Makes ten attributes for a model, by the recipes in `ten_attributes.json`.

    python examples/ten_attributes.py --stories train.txt --out attributes                  # for the bundled model
    python examples/ten_attributes.py --model user/chat --out attributes                    # by descriptions

With stories, an attribute is made of the passages that fit its recipe best and of those that fit it least. A recipe
counts words: `with_words` minus `without_words`, per word of the passage, in all of it, outside of speech, or at the
starts of sentences. One recipe rates passages by how frequent their words are. Sentiment has no recipe for stories,
because the bundled model has it already. Without stories, an attribute is made of its description, by a model that
follows instructions.

Stories are in UTF-8 files, separated by lines of `<|endoftext|>`. Nothing of them is kept but the attribute. Move the
folders that are written into `attributes` next to the model, or among your own (see `fundamentallm attributes`).
"""

import argparse
import json
import math
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from fundamentallm_hf import AttributeSamples, AttributeSource, load_model, train_attribute
from fundamentallm_hf.portable.guides.attributes import FITTED
from fundamentallm_hf.training.make_attribute import weigh_words
from fundamentallm_hf.training.word_training import words_of

RECIPES = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
# Characters of a passage, and the fewest of one that ends a story.
LONG, SHORT = 300, 120
QUOTED = re.compile(r'"[^"]*("|$)')
Recipe = Mapping[str, str]


def passages(stories: Sequence[str], number: int) -> list[str]:
    """That many passages from all over the stories, whole sentences cut off after `LONG` characters."""
    found = []
    for story in stories:
        part = ""
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(story.split())):
            part = f"{part} {sentence}".strip()
            if len(part) >= LONG:
                found.append(part[:LONG])
                part = ""
        found += [part] if len(part) >= SHORT else []
    return random.Random(0).sample(found, min(number, len(found)))


def rating(recipe: Recipe, counts: Mapping[str, int]) -> Callable[[str], float]:
    """How well a text fits a recipe, for each word; `counts` are those of the words of the stories."""
    some, others = set(recipe.get("with_words", "").split()), set(recipe.get("without_words", "").split())
    rule = recipe.get("rule")

    def rate(text: str) -> float:
        if rule == "sentence starts":
            sentences = [words_of(each) for each in re.split(r"[.!?]", QUOTED.sub(" ", text))]
            found = [each[0] for each in sentences if each]
        else:
            found = words_of(QUOTED.sub(" ", text) if rule == "outside of speech" else text)
        if rule == "frequent words":
            return sum(math.log(1 + counts[word]) for word in found) / max(1, len(found))
        return sum((word in some) - (word in others) for word in found) / max(1, len(found))

    return rate


def sides(recipe: Recipe, texts: Sequence[str], counts: Mapping[str, int], number: int) -> tuple[list[str], list[str]]:
    """That many texts that fit a recipe best, and as many that fit it least."""
    order = sorted(texts, key=rating(recipe, counts))  # texts that fit equally well stay in their random order
    return order[-number:], order[:number]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, nargs="+", default=[])
    parser.add_argument("--model", help="default: the bundled story model")
    parser.add_argument("--names", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="NAME")
    parser.add_argument("--kind", choices=["words", *FITTED], default="words", help="words need stories")
    parser.add_argument("--passages", type=int, default=20_000, help="from which those of both sides are taken")
    parser.add_argument("--sides", type=int, default=1000, help="passages on each side")
    parser.add_argument("--texts", type=int, help="texts that the model writes, for a description")
    parser.add_argument("--measure", type=int, default=0, help="texts for each strength that is tried; 0 tries none")
    parser.add_argument("--dtype", default="float32", help="of the model")
    parser.add_argument("--out", type=Path, default=Path("attributes"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.kind == "words" and not arguments.stories:
        parser.error("words are made of stories: give --stories FILES")
    model = None if arguments.kind == "words" else load_model(arguments.model, dtype=arguments.dtype, device="cpu")
    whole = "\n<|endoftext|>\n".join(file.read_text(encoding="utf-8") for file in arguments.stories)
    stories = [story for story in whole.split("<|endoftext|>") if story.strip()]
    counts, texts = Counter(words_of(whole)), passages(stories, arguments.passages)
    samples = AttributeSamples(texts=arguments.texts, measured=arguments.measure)
    for name in arguments.names:
        recipe, started = RECIPES[name], time.perf_counter()
        description = recipe["description"]
        if stories and not recipe.keys() & {"with_words", "rule"}:
            print(f"{name}: no recipe for stories", file=sys.stderr)
            continue
        having, lacking = sides(recipe, texts, counts, arguments.sides) if stories else (None, None)
        if arguments.kind == "words":
            made = weigh_words(description, having, lacking)
        else:
            opposite = "" if stories else recipe["opposite"]
            source = AttributeSource(description, opposite, with_texts=having, without_texts=lacking)
            made = train_attribute(model, source, samples, kind=arguments.kind)
        folder = made.save(arguments.out / name)
        print(f"{name}: {made.about} in {folder}, {time.perf_counter() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
