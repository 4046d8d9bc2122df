"""Judges of texts that know nothing of what made an attribute: no neural network, and no words that taught it.

A judge gives a text a score. Some scores have a natural zero (`has_zero`): a text above 0 has the attribute. By the
other judges, a text has it that scores above the median of the texts that the model writes without a guide after the
same openings, so at most half of these have it. `check` makes sure that no word that taught an attribute counts for its
judge.
"""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import words

QUOTED = re.compile(r'"[^"]*("|$)|“[^”]*(”|$)')
CONTRACTED = re.compile(r"[a-z]['\u2019](t|s|m|re|ll|ve|d)\b", re.IGNORECASE)
SIMILE = re.compile(r"\b(like an?|as \w+ as|as if|as though)\b", re.IGNORECASE)
# Long words that taught formal, and so do not count for its judge.
TAUGHT = {"permission", "therefore", "remained", "received", "required"}
# Words that go with an attribute.
LISTS = {
    "poetic": (
        "moon star stars sky wind shimmering golden gold silver gentle gently dance danced dancing glow glowed "
        "glowing sparkle sparkled sparkling sparkly dream dreams dreaming rainbow breeze petals twinkle twinkled "
        "twinkling sun sunlight sunshine sunset sunrise cloud clouds rain snow snowflakes meadow butterfly "
        "butterflies night heart dawn mist tears silent shadows"
    ),
    "suspense": (
        "suddenly afraid frightened frightening frighten dark darkness monster monsters danger dangerous noise noises "
        "lost mysterious hide hid hiding hidden shadow shadows storm stormy thunder lightning ghost ghosts witch "
        "secret secrets fear fearful fears worried worry escape escaped whisper whispered quietly silent silence "
        "trembled night evil wicked"
    ),
    "humour": (
        "funny funnier laugh laughs laughed laughing laughter giggle giggles giggled giggling chuckle chuckled "
        "chuckling grin grinned fun"
    ),
    "concrete_detail": (
        "red blue green yellow brown purple orange pink gold golden wooden metal round shiny soft fluffy tall tiny "
        "smooth wet sticky gray grey long sharp furry cold warm hot huge"
    ),
    "animals": (
        "dog dogs doggy cat cats kitty bird birds birdie fish bear bears rabbit rabbits fox foxes lion lions mouse "
        "mice frog frogs duck ducks cow cows horse horses monkey monkeys elephant elephants squirrel squirrels bunny "
        "bunnies puppy puppies kitten kittens butterfly butterflies owl owls pig pigs sheep tiger tigers turtle "
        "turtles bee bees ant ants snake snakes dragon dragons wolf wolves deer hen hens goat goats spider spiders "
        "parrot parrots penguin dolphin whale shark crab octopus giraffe zebra hippo kangaroo panda koala camel "
        "donkey crocodile snail worm worms caterpillar bug bugs chicken chickens swan goose lizard beaver hedgehog "
        "raccoon pigeon pigeons dove raven bull mule rat beetle otter leopard dinosaur"
    ),
}


@dataclass(frozen=True)
class RuleJudge:
    """A score of texts by a rule.

    Attributes:
        what: what it looks at, in one line.
        score: of one text; 0 if it has no words.
        has_zero: whether texts above 0 have the attribute; otherwise those above the median of texts without a guide.
    """

    what: str
    score: Callable[[str], float]
    has_zero: bool = False

    def judged_so(self, texts: Sequence[str], free: Sequence[str]) -> float:
        """The share of texts that have the attribute; `free` are those that the model writes without a guide."""
        least = 0.0 if self.has_zero else statistics.median(map(self.score, free))
        return sum(self.score(text) > least for text in texts) / len(texts)


def unquoted(text: str) -> str:
    """The text without direct speech."""
    return QUOTED.sub(" ", text)


def _share(listed: str) -> Callable[[str], float]:
    some = set(listed.split())

    def score(text: str) -> float:
        found = words(text)
        return sum(word in some for word in found) / max(1, len(found))

    return score


def _formality(text: str) -> float:
    found = words(text)
    long = sum(len(word) > 7 and word not in TAUGHT for word in found)
    return (long - 2 * len(CONTRACTED.findall(text)) - 2 * text.count("!")) / max(1, len(found))


def _simplicity(text: str) -> float:
    found = words(text)
    return -sum(map(len, found)) / max(1, len(found))


def _person(text: str) -> float:
    found = re.findall(r"\b(I|he|she|they)\b", unquoted(text))
    return found.count("I") - len(found) / 2


LISTED = "the share of words of a list"
JUDGES: Mapping[str, RuleJudge] = {
    "formal": RuleJudge("words of over 7 letters, minus contractions and exclamation marks", _formality),
    "simple_words": RuleJudge("mean length of words, the shorter the better", _simplicity),
    "poetic": RuleJudge(
        f"{LISTED}, and similes",
        lambda text: _share(LISTS["poetic"])(text) + len(SIMILE.findall(text)) / max(1, len(words(text))),
    ),
    "suspense": RuleJudge(LISTED, _share(LISTS["suspense"])),
    "humour": RuleJudge(LISTED, _share(LISTS["humour"])),
    "questions": RuleJudge("question marks outside of speech", lambda text: unquoted(text).count("?"), has_zero=True),
    "concrete_detail": RuleJudge(LISTED, _share(LISTS["concrete_detail"])),
    "first_person": RuleJudge("I more often than he, she and they, outside of speech", _person, has_zero=True),
    "animals": RuleJudge(LISTED, _share(LISTS["animals"]), has_zero=True),
}


def with_reviews(files: Sequence[Path]) -> dict[str, RuleJudge]:
    """All judges, and those of sentiment: the words and pairs of words of reviews, of which each line of a file is one.

    A line is a 0 or 1, a tab, and a text, as `sentiment_judge.py` reads them.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    lines = [line.split("\t", 1) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [(line[1], int(line[0])) for line in lines if len(line) == 2]
    if not rows:
        return dict(JUDGES)
    learnt = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10, max_iter=500, class_weight="balanced"),
    )
    learnt.fit(*map(list, zip(*rows, strict=True)))

    def positive(text: str) -> float:
        return float(learnt.predict_proba([text])[0, 1]) - 0.5

    what = "words and pairs of words of reviews"
    return {
        **JUDGES,
        "positive": RuleJudge(what, positive, has_zero=True),
        "negative": RuleJudge(what, lambda text: -positive(text), has_zero=True),
    }


def check(recipes: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that no word that taught an attribute counts for its judge.

    Raises:
        ValueError: one does.
    """
    for name, recipe in recipes.items():
        taught = f"{recipe.get('with_words', '')} {recipe.get('without_words', '')}".split()
        if shared := sorted(word for word in taught if JUDGES[name].score(word)):
            raise ValueError(f"{name}: {', '.join(shared)} would judge what they have taught")
