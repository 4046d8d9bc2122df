"""Makes the attributes that come with the bundled story model.

    python examples/story_attributes.py --stories train.txt [--out fundamentallm_hf/demo_model/attributes]

`positive_sentiment` and `negative_sentiment` hold a pair of experts, one trained on the sentences of stories that VADER
(Hutto and Gilbert 2014; the package vaderSentiment, MIT) finds positive, and one on those that it finds negative, each
in the context of its story. Beside them, for other models, are the words of its lexicon that the model's training text
has. `animals` and `suspense` are made as `train-attribute` makes them: words by log-odds between stories that hold a
word of the rule below, and stories that hold none. Stories stand in UTF-8 files, divided by lines of `<|endoftext|>`.
Nothing of the stories is kept but the weights of single words, and of experts.
"""

import argparse
import re
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import torch

from fundamentallm_hf import Attribute, load_model
from fundamentallm_hf.attribute_training import train_words, words_of
from fundamentallm_hf.expert_training import ExpertTraining, Passage, train_experts
from fundamentallm_hf.loading import DEMO_MODEL
from fundamentallm_hf.word_counts import FILE_NAME, WordCounts

RULES = {
    "animals": (
        "Stories about animals.",
        "dog cat bird fish bear rabbit fox lion mouse frog duck cow horse monkey elephant squirrel bunny puppy kitten "
        "butterfly owl pig sheep tiger turtle bee ant snake dragon wolf deer hen goat spider",
    ),
    "suspense": (
        "Stories in which something is dark, strange or about to happen.",
        "suddenly scared afraid dark monster danger dangerous noise trapped lost mysterious hide shadow scary storm "
        "thunder trembled ghost witch scream screamed",
    ),
}
# A word is kept only where the model can write it; and a rule needs so many of its words in a story.
LEAST = 2
SENTENCE = re.compile(r"[^.!?\n]*[.!?]+[\"']?\s*|[^.!?\n]+\n*|\n+")
# A sentence is positive or negative if VADER's compound score is so far from 0. The first of a story has no context.
CLEAR = 0.2


def passages(stories: list[str], compound: Callable[[str], float], sign: int) -> list[Passage]:
    """The stories that hold sentences of this sign, and where these stand."""
    found = []
    for story in stories:
        spans = [match.span() for match in SENTENCE.finditer(story) if sign * compound(match.group()) >= CLEAR]
        if spans := [span for span in spans if span[0] > 0]:
            found.append(Passage(story, spans))
    return found


def sentiment(stories: list[str], compound: Callable[[str], float]) -> ExpertTraining:
    """Experts for positive sentiment; swapped, they are those for negative."""
    model = load_model(device="cpu")
    good, bad = (passages(stories, compound, sign) for sign in (1, -1))
    return train_experts(model, model.tokenizer, good, bad)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=DEMO_MODEL / "attributes")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stories = [
        story.strip()
        for file in arguments.stories
        for story in file.read_text(encoding="utf-8").split("<|endoftext|>")
        if story.strip()
    ]
    counts = WordCounts.load(DEMO_MODEL / FILE_NAME).counts
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    words = {word: weight for word, weight in analyzer.lexicon.items() if word in counts and word.isalpha()}
    made = sentiment(stories, lambda text: analyzer.polarity_scores(text)["compound"])
    for name, sign, what in (("positive_sentiment", 1, "good"), ("negative_sentiment", -1, "bad")):
        pair = made.experts if sign > 0 else made.experts.swapped()
        sides = [{"with": each[0], "without": each[1]} for each in (made.texts[::sign], made.tokens[::sign])]
        about = {
            "source": "experts: sentences of TinyStories (Eldan and Li 2023) labelled by VADER (Hutto and "
            f"Gilbert 2014), with and without: compound score beyond {CLEAR}; words: VADER's lexicon (package "
            "vaderSentiment 3.3.2), those that occur in the bundled model's training text",
            # It asks to travel with what is made of it.
            "license": " ".join((distribution("vaderSentiment").read_text("LICENSE.txt") or "").split()),
            "texts": sides[0],
            "tokens": sides[1],
            "held_out_auc": round(made.separation or 0.0, 4),
        }
        signed = {word: sign * weight for word, weight in words.items()}
        experts = pair.to_bytes()
        kept = Attribute("experts", f"Texts in which things are {what}.", signed, about=about, experts=experts)
        print(f"{name}: {about['tokens']}, AUC {made.separation:.3f} in {kept.save(arguments.out / name)}")

    for name, (description, rule) in RULES.items():
        named = set(rule.split())
        found = [sum(word in named for word in words_of(story)) for story in stories]
        made = train_words(
            [story for story, hits in zip(stories, found, strict=True) if hits >= LEAST],
            [story for story, hits in zip(stories, found, strict=True) if hits == 0],
        )
        weights = {word: weight for word, weight in made.weights.items() if word in counts}
        about = {
            "source": f"log-odds over {sum(made.texts)} stories of TinyStories (Eldan and Li 2023), with: at least "
            f"{LEAST} of the words {rule}; without: none of them",
            "license": "CDLA-Sharing-1.0 of the stories, of which it holds single words with weights",
            "texts": {"with": made.texts[0], "without": made.texts[1]},
            "held_out_auc": round(made.separation or 0.0, 4),
        }
        kept = Attribute("words", description, weights, about=about)
        print(f"{name}: {len(weights)} words, {about['texts']}, AUC {made.separation:.3f} in ", end="")
        print(kept.save(arguments.out / name), list(weights)[:30])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
