"""Makes the attributes that come with the bundled story model.

    python examples/story_attributes.py --stories train.txt [--out fundamentallm_hf/demo_model/attributes]

`positive_sentiment` and `negative_sentiment` are the words of VADER's lexicon (Hutto and Gilbert 2014; the package
vaderSentiment, MIT) that the model's training text has. `animals` and `suspense` are made as `train-attribute` makes
them: words by log-odds between stories that hold a word of the rule below, and stories that hold none. Stories stand in
UTF-8 files, divided by lines of `<|endoftext|>`. Nothing of the stories is kept but the weights of single words.
"""

import argparse
from importlib.metadata import distribution
from pathlib import Path

from fundamentallm_hf import Attribute
from fundamentallm_hf.attribute_training import train_words, words_of
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=DEMO_MODEL / "attributes")
    arguments = parser.parse_args()
    counts = WordCounts.load(DEMO_MODEL / FILE_NAME).counts
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    lexicon = SentimentIntensityAnalyzer().lexicon
    words = {word: weight for word, weight in lexicon.items() if word in counts and word.isalpha()}
    about = {
        "source": "VADER's lexicon (Hutto and Gilbert 2014), package vaderSentiment 3.3.2: the words that occur in the "
        "bundled model's training text",
        # It asks to travel with what is made of it.
        "license": " ".join((distribution("vaderSentiment").read_text("LICENSE.txt") or "").split()),
    }
    for name, sign, what in (("positive_sentiment", 1, "good"), ("negative_sentiment", -1, "bad")):
        signed = {word: sign * weight for word, weight in words.items()}
        kept = Attribute("words", f"Texts in which things are {what}.", signed, about=about)
        print(f"{name}: {len(signed)} words in {kept.save(arguments.out / name)}")

    stories = [
        story
        for file in arguments.stories
        for story in file.read_text(encoding="utf-8").split("<|endoftext|>")
        if story.strip()
    ]
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
