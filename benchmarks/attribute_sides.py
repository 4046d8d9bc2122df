"""How well do the recipes of ten attributes agree with their judges? It bounds what can be learnt from stories.

    python benchmarks/attribute_sides.py --stories train.txt [more.txt] [--shares 0.03 0.2] [--excerpts 1000]

For every recipe of `examples/ten_attributes.json` the stories that fit it best and least are chosen as
`examples/ten_attributes.py` does. Of random excerpts of 300 characters from each side, and from all stories, a line has
the share that the judge of the attribute (`attribute_judges.py`) finds to have it, and the mean number of words of the
recipe in an excerpt (`with_words`), which a guide learns as well. The last column is the least factor by which the
perplexity per word grows if 90% of texts are to have it and these are as varied as without a guide: e^(d/n), where n is
the words of an excerpt, and d = 0.9 log(0.9 / p) + 0.1 log(0.1 / (1 - p)) for the share p of all excerpts that have it.
No distribution of texts of which 90% have it is closer to that of the stories, by its relative entropy.
"""

import argparse
import math
import random
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from attribute_judges import JUDGES, check
from models import words

sys.path.append(str(Path(__file__).parent.parent / "examples"))
from attribute_recipes import RECIPES, ends, ranked
from story_excerpts import read_stories

from fundamentallm_hf.training.word_training import words_of

CHARACTERS = 300
GOAL = 0.9


def excerpts(stories: Sequence[str], number: int) -> list[str]:
    """That many excerpts from anywhere in the stories."""
    chance, found = random.Random(0), []
    for story in chance.choices(stories, k=number):
        start = chance.randint(0, max(0, len(story) - CHARACTERS))
        found.append(story[start : start + CHARACTERS])
    return found


def taught(texts: Sequence[str], recipe: Mapping[str, str]) -> float:
    """How many of the words of a recipe a text has, on average."""
    some = set(recipe.get("with_words", "").split())
    return statistics.fmean(sum(word in some for word in words_of(text)) for text in texts)


def divergence(share: float) -> float:
    """The least relative entropy, in nats, of texts of which 90% have what this share has."""
    return GOAL * math.log(GOAL / share) + (1 - GOAL) * math.log((1 - GOAL) / (1 - share))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, nargs="+", required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.03, 0.2])
    parser.add_argument("--excerpts", type=int, default=1000, help="of each side")
    arguments = parser.parse_args()
    check(RECIPES)
    stories = read_stories(arguments.stories)
    counts = Counter(word for story in stories for word in words_of(story))
    every = excerpts(stories, 4 * arguments.excerpts)
    length = statistics.fmean(len(words(text)) for text in every)
    print(
        f"{len(stories)} stories, {arguments.excerpts} excerpts of {CHARACTERS} characters ({length:.0f} words) a side"
    )
    print("| recipe | all stories | share chosen | best | least | words taught: best, least | perplexity at least |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, recipe in RECIPES.items():
        if name not in JUDGES or not recipe.keys() & {"with_words", "rule"}:
            continue
        having = JUDGES[name].judged_so(every, every)
        order = ranked(stories, recipe, counts)
        least = math.exp(divergence(having) / length)
        for share in arguments.shares:
            sides = [excerpts(side, arguments.excerpts) for side in ends(order, share)]
            found = [f"{JUDGES[name].judged_so(side, every):.0%}" for side in sides]
            words_found = ", ".join(f"{taught(side, recipe):.1f}" for side in sides)
            print(
                f"| {name} | {having:.0%} | {share:.0%} | {found[0]} | {found[1]} | {words_found} | {least:.2f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
