"""Chooses stories by the recipes in `ten_attributes.json`: those that have an attribute, and those that lack it."""

import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fundamentallm_hf.training.word_training import words_of

RECIPES = json.loads((Path(__file__).parent / "ten_attributes.json").read_text(encoding="utf-8"))
_AFTER = "is|are|was|were|do|does|did|can|could|will|would|should|has|have|had"
_FIRST = "|".join(word.capitalize() for word in _AFTER.split("|"))
INVERTED = re.compile(
    r"(?:^|[.!?]\s+|\n)(?:But |And |So )?"
    rf"(?:(?:What|Why|How|Who|Where|When|Which)(?: \w+)? (?:{_AFTER})"
    rf"|(?:{_FIRST})(?:n't)? (?:he|she|it|they|there|you|we|the|his|her|this|that|I|[A-Z]\w+))\b"
)
QUOTED = re.compile(r'"[^"]*("|$)')
Recipe = Mapping[str, str]


def rating(recipe: Recipe, counts: Mapping[str, int]) -> Callable[[str], float]:
    """How well a story fits a recipe, for each word; `counts` are those of the words of all stories."""
    some, others = set(recipe.get("with_words", "").split()), set(recipe.get("without_words", "").split())
    rule = recipe.get("rule")

    def rate(story: str) -> float:
        found = words_of(QUOTED.sub(" ", story) if rule == "outside of speech" else story)
        if rule == "inverted questions":
            fit = len(INVERTED.findall(QUOTED.sub(" ", story)))
        elif rule == "frequent words":
            fit = sum(math.log(1 + counts[word]) for word in found)
        else:
            fit = sum((word in some) - (word in others) for word in found)
        return fit / max(1, len(found))

    return rate


def ranked(stories: Sequence[str], recipe: Recipe, counts: Mapping[str, int]) -> list[str]:
    """The stories, those that fit a recipe least first; equal ones in random order."""
    return sorted(random.Random(0).sample(stories, len(stories)), key=rating(recipe, counts))


def ends(order: Sequence[str], share: float) -> list[Sequence[str]]:
    """The share of ranked stories that fits best, and the share that fits least.

    Raises:
        ValueError: the share is less than one story, or more than half of them.
    """
    number = int(len(order) * share)
    if not 1 <= number <= len(order) / 2:
        raise ValueError(
            f"a share of {share:g} of {len(order)} stories is {number} stories: give from one story to half of them, "
            "and files in which lines of <|endoftext|> separate the stories"
        )
    return [order[-number:], order[:number]]
