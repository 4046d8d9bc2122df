"""Does a guide turn texts the way it should, and what does that cost?

    python benchmarks/guided_attributes.py --reviews reviews.tsv [more.tsv] [--model demo] [--kind experts] \
        [--openings 20] [--samples 5] [--results results.jsonl] [--from negative]

From neutral openings, or from those of one sentiment, texts are sampled at temperature 0.8 and top-p 0.9 with each of
the strengths, by each kind of guide: the experts and the words of `positive_sentiment` and `negative_sentiment`, two
contexts that are contrasted (`prompts`), a text classifier in a folder (`classifier`, see `guided_classifier.py`), and
experts and words together. For each, judged behind the opening (see
`sentiment_judge.py`): the share of positive texts, by a classifier that learnt from reviews, by another that goes by
their words alone, and by VADER, whose lexicon the kind words is made of; the perplexity under SmolLM2-135M and its
ratio to no guide; and the share of distinct words, pairs and triples of words among all, with the ratio to no guide.
With SmolLM2 as the model it judges itself. `--results` adds a line for each strength to a file, of which
`guided_curve.py` draws a picture. `--keep` writes the shares into the bundled model's attribute, from where its card
tells them.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from models import MODELS, words
from sentiment_judge import SentimentJudge

from fundamentallm_hf import Attribute, controlled_generate
from fundamentallm_hf.model_io.loading import DEMO_MODEL
from fundamentallm_hf.portable.guides.attribute_lookup import BUNDLED

NAMES = ["Tim", "Lily", "Ben", "Mia", "Tom", "Sue", "Max", "Anna", "Sam", "Amy"]
PRONOUNS = ["he", "she", "he", "she", "he", "she", "he", "she", "he", "she"]
SCENES = {
    "neutral": [
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
    ],
    "negative": [
        "{} was very sad. The toy was broken, and {}",
        "It was a bad day. {} fell and hurt a knee, and {}",
        "{} was angry and began to cry. Then {}",
        "The storm was scary. {} was afraid, and {}",
        "{} lost the ball and felt terrible. After that {}",
    ],
    "positive": [
        "{} was very happy. The toy was new, and {}",
        "It was a lovely day. {} won a prize, and {}",
        "{} laughed and began to dance. Then {}",
        "The party was fun. {} was excited, and {}",
        "{} found the ball and felt great. After that {}",
    ],
}
CONTRAST = ("It was a happy story. Everything was wonderful. ", "It was a sad story. Everything was terrible. ")
KINDS = ("experts", "words", "prompts", "classifier", "both")


def openings(of: str, number: int) -> list[str]:
    """So many openings, spread over the scenes and the names."""
    made = [scene.format(name, pronoun) for name, pronoun in zip(NAMES, PRONOUNS, strict=True) for scene in SCENES[of]]
    return [made[index * 11 % len(made)] for index in range(min(number, len(made)))]


def guides(kind: str, contrast: tuple[str, str], classifier: Path, label: str) -> dict[str, Attribute]:
    """The attributes whose strengths are measured, by name."""
    bundled = Attribute.load(BUNDLED / "positive_sentiment")
    made = {
        "experts": bundled,
        "words": Attribute("words", "", bundled.words),
        "prompts": Attribute("prompts", "", {}, *contrast),
        "classifier": Attribute("classifier", classifier=classifier, label=label),
    }
    return {each: made[each] for each in (["experts", "words"] if kind == "both" else [kind])}


def write(model, prompts: list[str], names: list[str], strength: float, arguments, seed: int) -> list[tuple[str, str]]:
    """Openings and texts behind them."""
    how = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": seed}
    how |= {"max_new_tokens": arguments.tokens, "num_return_sequences": arguments.samples}
    how |= {"guide_attribute": names, "guide_strength": strength}
    if model.config.model_type != "fundamentallm":
        how["custom_generate"] = controlled_generate
    model.tokenizer.padding_side = "left"
    ids = model.tokenizer(prompts, return_tensors="pt", padding=True)
    found = model.generate(**ids, **how)[:, ids.input_ids.shape[1] :]
    texts = model.tokenizer.batch_decode(found, skip_special_tokens=True)
    return [(prompts[index // arguments.samples], text) for index, text in enumerate(texts)]


def distinct(texts: list[str], order: int) -> float:
    """The share of distinct sequences of words among all."""
    found = [tuple(of[place : place + order]) for of in map(words, texts) for place in range(len(of) - order + 1)]
    return len(set(found)) / max(1, len(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=Path, nargs="+", required=True)
    parser.add_argument("--cache", type=Path, help="a .npy file that keeps what the judge makes of the reviews")
    parser.add_argument("--model", choices=MODELS, default="demo")
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=["experts"])
    parser.add_argument("--contrast", nargs=2, metavar=("WITH", "WITHOUT"), default=CONTRAST)
    parser.add_argument("--classifier", type=Path, default=Path("classifier"), help="a folder")
    parser.add_argument("--label", default="POSITIVE", help="of the classifier")
    parser.add_argument("--strengths", type=float, nargs="+", default=[-4, -2, -1, -0.5, 0, 0.5, 1, 2, 4])
    parser.add_argument("--from", dest="source", choices=SCENES, default="neutral")
    parser.add_argument("--openings", type=int, default=100)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--tokens", type=int, help="default: 300 for the demo model, 60 for SmolLM2")
    parser.add_argument("--rows", type=int, default=50, help="texts that are written side by side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", type=Path, help="a file for the texts, one JSON object a line")
    parser.add_argument("--results", type=Path, help="a file to which the figures are added, one JSON object a line")
    parser.add_argument("--keep", action="store_true", help="with the demo model: keep the shares with the attribute")
    arguments = parser.parse_args()
    arguments.tokens = arguments.tokens or (300 if arguments.model == "demo" else 60)
    torch.set_num_threads(arguments.threads)
    model = MODELS[arguments.model]()
    judge = SentimentJudge(arguments.reviews, arguments.cache)
    print(f"classifier: {judge.reviews} reviews, accuracy {judge.accuracy:.1%} in five-fold cross-validation, ", end="")
    print(f"{judge.accuracy_of_words:.1%} by words alone")
    prompts = openings(arguments.source, arguments.openings)
    size = max(1, arguments.rows // arguments.samples)
    print(f"{arguments.model}, {len(prompts)} {arguments.source} openings x {arguments.samples} samples of ", end="")
    print(f"{arguments.tokens} tokens, temperature 0.8, top-p 0.9")
    print("| kind | strength | positive | by words | VADER | perplexity | ratio | distinct-1, 2, 3 | ratios | s |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    free = None
    for kind in arguments.kind:
        shares = {}
        model.attributes = guides(kind, tuple(arguments.contrast), arguments.classifier, arguments.label)
        for strength in sorted(arguments.strengths, key=abs):
            if strength == 0 and free is not None:
                continue
            started = time.perf_counter()
            pairs: list[tuple[str, str]] = []
            for place in range(0, len(prompts), size):
                part = prompts[place : place + size]
                pairs += write(model, part, list(model.attributes), strength, arguments, 1000 * place)
            took = (time.perf_counter() - started) / len(pairs)
            texts = [text for _, text in pairs]
            row = {
                "model": arguments.model,
                "kind": kind,
                "from": arguments.source,
                "strength": strength,
                "texts": len(texts),
                "positive": judge.positive(texts),
                "positive_by_words": judge.positive_by_words(texts),
                "positive_by_vader": judge.positive_by_vader(texts),
                "perplexity": judge.perplexity(pairs),
                "distinct": [distinct(texts, order) for order in (1, 2, 3)],
            }
            free = row if strength == 0 else free
            shares[strength] = row["positive"]
            ratio = row["perplexity"] / free["perplexity"] if free else float("nan")
            ratios = (
                [ours / theirs for ours, theirs in zip(row["distinct"], free["distinct"], strict=True)] if free else []
            )
            told, compared = (", ".join(f"{each:.2f}" for each in some) for some in (row["distinct"], ratios))
            print(
                f"| {kind} | {strength:+g} | {row['positive']:.1%} | "
                f"{row['positive_by_words']:.1%} | {row['positive_by_vader']:.1%} | "
                f"{row['perplexity']:.1f} | {ratio:.2f} | {told} | {compared} | {took:.2f} |",
                flush=True,
            )
            if arguments.results:
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            if arguments.save:
                with arguments.save.open("a", encoding="utf-8") as file:
                    for opening, text in pairs:
                        file.write(json.dumps({"kind": kind, "strength": strength, "text": opening + text}) + "\n")
        if arguments.keep and kind == "experts":
            keep(shares, len(texts))
    return 0


def keep(shares: dict[float, float], number: int) -> None:
    """Write the shares into the bundled attributes: mirrored into the negative one, whose experts are swapped."""
    what = f"of {number} texts are judged positive, by a classifier trained on reviews,"
    for name, sign in (("positive_sentiment", 1), ("negative_sentiment", -1)):
        folder = DEMO_MODEL / "attributes" / name
        told = {f"{sign * strength + 0.0:+g}": round(share, 4) for strength, share in shares.items()}
        effect = {"what": what, "shares": dict(sorted(told.items(), key=lambda item: float(item[0])))}
        attribute = Attribute.load(folder)
        replace(attribute, about={**attribute.about, "effect": effect}).save(folder)


if __name__ == "__main__":
    raise SystemExit(main())
