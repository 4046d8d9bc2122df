"""Does a guide turn texts the way it should, and what does that cost?

    python benchmarks/guided_attributes.py --reviews reviews.tsv [more.tsv] [--model demo] [--openings 20]

From neutral openings, texts are sampled at temperature 0.8 and top-p 0.9 with each of the strengths. For each: the
share of the texts judged positive, (a) by VADER's compound score, whose lexicon is also what `positive_sentiment` is
made of, and (b) by a classifier that has nothing to do with it: logistic regression over TF-IDF of words and pairs,
trained here on reviews (each line of a file is a 0 or 1, a tab, and a text), its accuracy in five-fold cross-validation
told first. Then the perplexity under SmolLM2-135M and its ratio to no guidance; and the share of distinct words, pairs
and triples of words among all. Everything is judged behind the opening. With SmolLM2 as the model it judges itself.
`--contrast WITH WITHOUT` measures a guide by two contexts instead. `--keep` writes the classifier's shares into the
attribute's own `attribute.json`, from where the model's card tells them.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from models import MODELS, smollm2, words

from fundamentallm_hf import Attribute, controlled_generate
from fundamentallm_hf.loading import DEMO_MODEL

NAMES = ["Tim", "Lily", "Ben", "Mia", "Tom", "Sue", "Max", "Anna", "Sam", "Amy"]
SCENES = [
    "Once upon a time, there was a child named {}. One day, {}",
    "One day, {} went to the park. There {}",
    "{} lived in a house near the lake. In the morning {}",
    "It was a Monday, and {} was at school. Then {}",
    "{} and a friend walked down the road. After a while {}",
    "In the kitchen, {} opened the door and {}",
    "The bus came to the town, and {} got off. Now {}",
    "{} had a box under the bed. That night {}",
    "There was a letter on the table. {} read it, and {}",
    "In the garden stood a big tree. {} looked at it and {}",
]
PRONOUNS = ["he", "she", "he", "she", "he", "she", "he", "she", "he", "she"]
OPENINGS = [scene.format(name, pronoun) for name, pronoun in zip(NAMES, PRONOUNS, strict=True) for scene in SCENES]


def classifier(files: list[Path]):
    """Trained on reviews; called with texts, tells the chance that each is positive."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline

    lines = [line.split("\t", 1) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [(text, int(label)) for label, text in (line for line in lines if len(line) == 2)]
    texts, labels = zip(*rows, strict=True)
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    # Balanced, so that a text of which nothing is known counts as neither.
    model = make_pipeline(features, LogisticRegression(C=4, max_iter=1000, class_weight="balanced"))
    accuracy = cross_val_score(model, texts, labels, cv=5).mean()
    print(f"classifier: {len(rows)} reviews, accuracy {accuracy:.1%} in five-fold cross-validation")
    return lambda found: model.fit(texts, labels).predict_proba(found)[:, 1]


def write(model, opening: str, strength: float, arguments, seed: int) -> list[str]:
    """Texts, without their opening."""
    ids = model.tokenizer([opening], return_tensors="pt")
    how = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": seed}
    how |= {"max_new_tokens": arguments.tokens, "num_return_sequences": arguments.samples}
    how |= {"guide_attribute": [arguments.attribute], "guide_strength": strength}
    if model.config.model_type != "fundamentallm":
        how["custom_generate"] = controlled_generate
    output = model.generate(**ids, **how)
    return [text[len(opening) :] for text in model.tokenizer.batch_decode(output, skip_special_tokens=True)]


@torch.no_grad()
def nats(judge, opening: str, text: str) -> tuple[float, int]:
    """Negative log-likelihood and number of the tokens behind the opening."""
    first = len(judge.tokenizer(opening).input_ids)
    ids = judge.tokenizer(opening + text, return_tensors="pt").input_ids
    logs = judge(ids).logits[0, :-1].float().log_softmax(dim=-1).gather(1, ids[0, 1:, None])[:, 0]
    return -float(logs[first - 1 :].sum()), ids.shape[1] - first


def distinct(texts: list[str], order: int) -> float:
    """The share of distinct sequences of words among all."""
    found = [tuple(of[place : place + order]) for of in map(words, texts) for place in range(len(of) - order + 1)]
    return len(set(found)) / max(1, len(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=Path, nargs="+", required=True)
    parser.add_argument("--model", choices=MODELS, default="demo")
    parser.add_argument("--attribute", default="positive_sentiment")
    parser.add_argument("--contrast", nargs=2, metavar=("WITH", "WITHOUT"))
    parser.add_argument("--strengths", type=float, nargs="+", default=[-4, -2, -1, 0, 1, 2, 4])
    parser.add_argument("--openings", type=int, default=len(OPENINGS))
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--tokens", type=int, help="default: 300 for the demo model, 60 for SmolLM2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", type=Path, help="a file for the texts, one JSON object a line")
    parser.add_argument("--keep", action="store_true", help="with the demo model: keep the shares with the attribute")
    arguments = parser.parse_args()
    arguments.tokens = arguments.tokens or (300 if arguments.model == "demo" else 60)
    torch.set_num_threads(arguments.threads)
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    compound = SentimentIntensityAnalyzer().polarity_scores
    chance_positive = classifier(arguments.reviews)
    model = MODELS[arguments.model]()
    judge = model if arguments.model == "smollm2" else smollm2()
    if arguments.contrast:
        arguments.attribute = "contrast"
        model.attributes = {"contrast": Attribute("prompts", "", {}, *arguments.contrast)}
    # Spread over the scenes and the names.
    openings = [OPENINGS[index * 11 % len(OPENINGS)] for index in range(arguments.openings)]
    print(
        f"{arguments.model}, {arguments.attribute}, {len(openings)} openings x {arguments.samples} samples of ", end=""
    )
    print(f"{arguments.tokens} tokens, temperature 0.8, top-p 0.9")
    print("| strength | positive: VADER | positive: classifier | perplexity | ratio | distinct-1, 2, 3 | s a text |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    saved = arguments.save.open("w", encoding="utf-8") if arguments.save else None
    for strength in sorted(arguments.strengths, key=abs):
        texts, sums, started = [], [0.0, 0], time.perf_counter()
        pairs = []
        for number, opening in enumerate(openings):
            pairs += [(opening, text) for text in write(model, opening, strength, arguments, 1000 * number)]
        took = (time.perf_counter() - started) / len(pairs)
        for opening, text in pairs:
            found = nats(judge, opening, text)
            sums = [sums[0] + found[0], sums[1] + found[1]]
            texts.append(text)
            if saved:
                saved.write(json.dumps({"strength": strength, "opening": opening, "text": text}) + "\n")
                saved.flush()
        by_vader = sum(compound(text)["compound"] > 0 for text in texts) / len(texts)
        by_classifier = float((chance_positive(texts) > 0.5).mean())
        perplexity = math.exp(sums[0] / sums[1])
        rows.append((strength, by_vader, by_classifier, perplexity, [distinct(texts, n) for n in (1, 2, 3)], took))
    base = next((row[3] for row in rows if row[0] == 0), math.nan)
    for strength, by_vader, by_classifier, perplexity, shares, took in sorted(rows, key=lambda row: row[0]):
        told = ", ".join(f"{share:.2f}" for share in shares)
        print(
            f"| {strength:+g} | {by_vader:.0%} | {by_classifier:.0%} | {perplexity:.1f} | {perplexity / base:.2f} "
            f"| {told} | {took:.2f} |"
        )
    if arguments.keep:
        folder = DEMO_MODEL / "attributes" / arguments.attribute
        shares = {f"{row[0]:+g}": round(row[2], 4) for row in sorted(rows, key=lambda row: row[0])}
        what = f"of {len(texts)} texts are judged positive, by a classifier trained on reviews,"
        attribute = Attribute.load(folder)
        replace(attribute, about={**attribute.about, "effect": {"what": what, "shares": shares}}).save(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
