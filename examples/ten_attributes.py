"""Makes ten attributes for a model, by the recipes in `ten_attributes.json`.

    python examples/ten_attributes.py --stories train.txt --kind experts --out attributes    # for the bundled model
    python examples/ten_attributes.py --model user/chat --kind steering --out attributes     # by descriptions

With stories, an attribute is made of the stories that fit its recipe best and of those that fit it least: words of
whole stories, experts of excerpts from them (see `story_excerpts.py`). A recipe counts words: `with_words` minus
`without_words`, per word of the story, in all of it or outside of speech. Whole stories are rated, because the words
that go with the listed ones are then learnt, too. Two recipes are rules: how frequent the words are, and how many
sentences outside of speech begin like a question, with an auxiliary before its subject ("What could it be"). Sentiment
has no recipe for stories, because the bundled model has it already. Without stories, an attribute is made of its
description, by a model that follows instructions.

Stories are in UTF-8 files, separated by lines of `<|endoftext|>`. Nothing of them is kept but the attribute. Move the
folders that are written into `attributes` next to the model, or among your own (see `fundamentallm attributes`).
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from attribute_recipes import RECIPES, Recipe, ends, ranked
from sentiment_teacher import fast_bf16
from story_excerpts import long_excerpts, read_stories

from fundamentallm_hf import Attribute, AttributeSamples, AttributeSource, load_model, train_attribute
from fundamentallm_hf.portable.guides.attributes import FITTED
from fundamentallm_hf.training.attribute_training import words_for_other_models
from fundamentallm_hf.training.expert_training import train_experts
from fundamentallm_hf.training.make_attribute import weigh_words
from fundamentallm_hf.training.word_training import words_of

# Characters of an excerpt after its opening.
CHARACTERS = 200
# All of the texts of both sides are read, and learnt from in large batches.
LEARNING = {"most_tokens": 8_000_000, "batch": 4096}


def experts(model, description: str, sides: list[Sequence[str]], arguments: argparse.Namespace) -> Attribute:
    """A pair of experts, which learn what the stories of both sides say after each opening."""
    started = time.perf_counter()

    def told(*how: object) -> None:
        print(f"\r{time.perf_counter() - started:6.0f} s", *how, end="", file=sys.stderr, flush=True)

    having, lacking = (
        [each.own.passage for each in long_excerpts(side, arguments.excerpts, CHARACTERS)] for side in sides
    )
    if fast_bf16(model.device):  # nearly all of the time is spent on reading
        model.forward = torch.autocast(model.device.type, torch.bfloat16)(type(model).forward.__get__(model))
    made = train_experts(model, model.tokenizer, having, lacking, told, arguments.bottleneck, **LEARNING)
    about = {
        "method": "output-layer experts (adapters with a bottleneck), contrasted as in DExperts",
        "source": "excerpts of TinyStories (Eldan and Li 2023), by the recipe in examples/ten_attributes.json",
        "texts": {"with": made.texts[0], "without": made.texts[1]},
        "tokens": {"with": made.tokens[0], "without": made.tokens[1]},
        "held_out_auc": round(made.separation or 0.0, 4),
    }
    words = words_for_other_models(having, lacking)
    return Attribute("experts", description, words, about=about, experts=made.experts.to_bytes())


def made_of_stories(model, recipe: Recipe, sides: list[Sequence[str]], arguments: argparse.Namespace) -> Attribute:
    """An attribute of the stories of both sides."""
    description = recipe["description"]
    if arguments.kind == "experts":
        return experts(model, description, sides, arguments)
    if arguments.kind == "words":
        return weigh_words(description, *sides)
    source = AttributeSource(description, with_texts=sides[0], without_texts=sides[1])
    return train_attribute(model, source, AttributeSamples(measured=arguments.measure), kind=arguments.kind)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, nargs="+", default=[])
    parser.add_argument("--model", help="default: the bundled story model")
    parser.add_argument("--names", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="NAME")
    parser.add_argument("--kind", choices=["words", *FITTED], default="words", help="words need stories")
    parser.add_argument("--excerpts", type=int, default=2400, help="of each side, for experts")
    parser.add_argument("--share", type=float, default=0.2, help="of the stories that is taken at each end")
    parser.add_argument("--bottleneck", type=int, default=64, help="width of experts that are made of stories")
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
    stories = read_stories(arguments.stories)
    counts = Counter(word for story in stories for word in words_of(story))
    for name in arguments.names:
        recipe, started = RECIPES[name], time.perf_counter()
        if not stories:
            samples = AttributeSamples(texts=arguments.texts, measured=arguments.measure)
            source = AttributeSource(recipe["description"], recipe["opposite"])
            made = train_attribute(model, source, samples, kind=arguments.kind)
        elif recipe.keys() & {"with_words", "rule"}:
            sides = ends(ranked(stories, recipe, counts), arguments.share)
            made = made_of_stories(model, recipe, sides, arguments)
        else:
            print(f"{name}: no recipe for stories", file=sys.stderr)
            continue
        folder = made.save(arguments.out / name)
        print(f"{name}: {made.about} in {folder}, {time.perf_counter() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
