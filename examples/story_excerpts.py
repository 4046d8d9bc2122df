"""Excerpts of stories: an opening, and what the story says after it. Teachers rate them; experts learn from them."""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fundamentallm_hf.training.labelled_samples import OwnText

# Openings are cut after so many characters, after the beginning of a story or of a sentence in it.
SHORTEST, LONGEST = 10, 110
# Parts of a story, by how much of it has been told, within which texts are compared.
PARTS = 10


class Excerpt(NamedTuple):
    """What a story says after an opening.

    Attributes:
        own: the opening and the text.
        begins: whether the opening begins the story.
        told: share of the story that has been told where the text ends.
    """

    own: OwnText
    begins: bool
    told: float


def read_stories(files: Sequence[Path]) -> list[str]:
    """The stories of UTF-8 files, in which lines of `<|endoftext|>` separate them."""
    whole = [story.strip() for file in files for story in file.read_text(encoding="utf-8").split("<|endoftext|>")]
    return [story for story in whole if story]


def long_excerpts(stories: Sequence[str], number: int, characters: int) -> list[Excerpt]:
    """Excerpts whose texts have at least half of so many characters, which is enough to be rated."""
    found = excerpts(stories, number * 3, characters)
    return [each for each in found if len(each.own.text) >= characters // 2][:number]


def excerpts(stories: Sequence[str], number: int, characters: int) -> list[Excerpt]:
    """Beginnings of stories and of sentences in them, half and half, each with the characters that follow."""
    chance = random.Random(0)
    found = []
    while len(found) < number:
        story = chance.choice(stories)
        starts = [0] if chance.random() < 0.5 else [match.end() for match in re.finditer(r"[.!?]\s", story)]
        start = chance.choice(starts or [0])
        if cut := story[start : start + chance.randint(SHORTEST, LONGEST)].lstrip():
            first = story.index(cut, start) + len(cut)
            text = story[first : first + characters]
            found.append(Excerpt(OwnText(cut, text), start == 0, (first + len(text)) / len(story)))
    return found


def parts_of_stories(found: Sequence[Excerpt]) -> list[int]:
    """For each excerpt the number of its part: a tenth of the beginnings, or a tenth of the others, by `told`."""
    parts = [0] * len(found)
    for begins in (True, False):
        order = sorted((i for i, each in enumerate(found) if each.begins == begins), key=lambda i: found[i].told)
        for rank, index in enumerate(order):
            parts[index] = rank * PARTS // len(order) + PARTS * (not begins)
    return parts
