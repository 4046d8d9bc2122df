"""Makes the attributes that come with the bundled story model.

    python examples/story_attributes.py --stories train.txt [--teacher words --ratings FILES] [--out FOLDER]

`animals` and `suspense` are made as `train-attribute` makes them: words by log-odds between stories that hold a word of
the rule below, and stories that hold none. With a teacher, `positive_sentiment` and `negative_sentiment` are made as
`train-attribute --classifier --kind experts` makes them: a teacher rates texts, and a pair of experts learns from those
at both ends. The texts are what the model writes after openings from the stories, or, with `--from-stories`, what the
stories say after them. The teacher is `words` (`word_teacher.py`: it learns from `--ratings` in seconds, and rates
thousands of texts a second), `vader` (VADER's rules alone), or a folder that `sentiment_teacher.py` wrote, which takes
a GPU or hours. Next to the experts, for other models, are the words of VADER's lexicon (Hutto and Gilbert 2014; the
package vaderSentiment, MIT) that the model's training text has.

The bundled attributes are made by one command, from the four files of stories that the model was trained on:

    python examples/story_attributes.py --from-stories --texts 25000 --share 0.12 --stories train_cased.txt \
        train_more_recased.txt tinystories_more_a.txt tinystories_more_b.txt --teacher words \
        --ratings movieReviewSnippets_GroundTruth.txt tweets_GroundTruth.txt nytEditorialSnippets_GroundTruth.txt

Of 25,000 passages, the experts learn from the 12% that are rated highest and the 12% that are rated lowest in every
part of the stories, so that positive passages stand as far from the end of a story as negative ones do. Most of the
time is spent on reading them: some minutes on one core. `--save` keeps the ratings, and `--read` goes on from there.

Stories are in UTF-8 files, separated by lines of `<|endoftext|>`. Nothing of them is kept but the weights of single
words, and of experts.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sentiment_teacher import Teacher, fast_bf16
from story_excerpts import excerpts, long_excerpts, parts_of_stories, read_stories
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
from word_teacher import Vader, WordTeacher

from fundamentallm_hf import Attribute, load_model
from fundamentallm_hf.model_io.loading import DEMO_MODEL
from fundamentallm_hf.portable.text.word_counts import FILE_NAME, WordCounts
from fundamentallm_hf.training.expert_training import ExpertTraining, train_experts
from fundamentallm_hf.training.labelled_samples import OwnText, Writing, sort_texts, write_texts
from fundamentallm_hf.training.word_training import train_words, words_of

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
# Characters of each text.
TOKENS = 300
# All of the texts of both sides are read, and learnt from in large batches.
LEARNING = {"most_tokens": 8_000_000, "batch": 4096}
Rater = Teacher | Vader | WordTeacher


class Judged(NamedTuple):
    """A text with the teacher's rating, and the part of a story that it is from, within which texts are compared."""

    opening: str
    text: str
    part: int
    score: float


def judged_texts(
    writer: Any, stories: list[str], teacher: Rater, arguments: argparse.Namespace, told: Any
) -> list[Judged]:
    """Texts after openings from the stories, by the model or else by the stories themselves, with their ratings."""
    number = arguments.texts
    if isinstance(teacher, Teacher):
        teacher.to(arguments.device)
    if writer is None:
        found = long_excerpts(stories, number, TOKENS)
        written, parts = [each.own for each in found], parts_of_stories(found)
    else:
        openings = [each.own.opening for each in excerpts(stories, number, TOKENS)]
        written = write_texts(writer, writer.tokenizer, Writing(openings, number, TOKENS), told)
        parts = [0] * number
    scores = teacher.rate([each.text for each in written])
    judged = [Judged(*each, part, round(score, 4)) for each, part, score in zip(written, parts, scores, strict=True)]
    if arguments.save:
        arguments.save.write_text("\n".join(map(json.dumps, judged)), encoding="utf-8")
    return judged


def sentiment(stories: list[str], teacher: Rater, arguments: argparse.Namespace) -> ExpertTraining:
    """Experts for positive sentiment; swapped, they are those for negative."""
    started = time.perf_counter()

    def told(*how: object) -> None:
        print(f"\r{time.perf_counter() - started:6.0f} s", *how, end="", file=sys.stderr, flush=True)

    if arguments.read:
        judged = [Judged(*json.loads(line)) for line in arguments.read.read_text(encoding="utf-8").splitlines()]
    else:
        writer = None if arguments.from_stories else load_model(device=arguments.device)
        judged = judged_texts(writer, stories, teacher, arguments, told)
    arguments.texts = len(judged)
    model = load_model(device=arguments.device)
    texts = [OwnText(each.opening, each.text) for each in judged]
    # Stories end well. Without parts, the texts rated highest would be ends of stories, and those rated lowest middles:
    # experts would learn to end a story, with the phrases in which stories end.
    parts = [each.part for each in judged]
    ends = sort_texts(texts, [each.score for each in judged], arguments.share, parts)
    sides = [[each.passage for each in end] for end in ends]
    if fast_bf16(model.device):  # nearly all of the time is spent on reading
        model.forward = torch.autocast(model.device.type, torch.bfloat16)(model.forward)
    return train_experts(model, model.tokenizer, sides[0], sides[1], told, **LEARNING)


def keep_sentiment(made: ExpertTraining, counts: Mapping[str, int], arguments: argparse.Namespace) -> None:
    """Write the pair, and the swapped one."""
    lexicon = SentimentIntensityAnalyzer().lexicon
    whose, ends = "the model itself", ""
    if arguments.from_stories:
        whose, ends = "the stories", " of every part of the stories"
    words = {word: weight for word, weight in lexicon.items() if word in counts and word.isalpha()}
    for name, sign, what in (("positive_sentiment", 1, "good"), ("negative_sentiment", -1, "bad")):
        pair = made.experts if sign > 0 else made.experts.swapped()
        sides = [{"with": each[0], "without": each[1]} for each in (made.texts[::sign], made.tokens[::sign])]
        about = {
            "source": f"experts: {arguments.texts} texts of {whose} behind openings from TinyStories (Eldan "
            f"and Li 2023), on each side the {arguments.share:.0%}{ends} that fit best by "
            f"{arguments.taught_by or teaching(arguments)}; "
            "words: VADER's lexicon (Hutto and Gilbert 2014, package vaderSentiment 3.3.2), those that occur in the "
            "bundled model's training text",
            # It asks to travel with what is made of it.
            "license": " ".join((distribution("vaderSentiment").read_text("LICENSE.txt") or "").split()),
            "texts": sides[0],
            "tokens": sides[1],
            "held_out_auc": round(made.separation or 0.0, 4),
        }
        signed = {word: sign * weight for word, weight in words.items()}
        description = f"Texts in which things are {what}."
        kept = Attribute("experts", description, signed, about=about, experts=pair.to_bytes())
        print(f"{name}: {about['tokens']}, AUC {made.separation:.3f} in {kept.save(arguments.out / name)}")


def teaching(arguments: argparse.Namespace) -> str:
    """What `--teacher` is, for the attribute."""
    if arguments.teacher == "words":
        rated = ", ".join(file.stem.removesuffix("_GroundTruth") for file in arguments.ratings)
        return (
            "the sum of VADER's rating and a ridge regression on words and pairs of words, fitted to people's ratings "
            f"of texts ({rated}; Hutto and Gilbert 2014)"
        )
    return "VADER's rules" if arguments.teacher == "vader" else "a teacher"


def teacher_of(arguments: argparse.Namespace) -> Rater:
    """What `--teacher` names."""
    if arguments.teacher == "words":
        return WordTeacher(arguments.ratings)
    return Vader() if arguments.teacher == "vader" else Teacher.load(Path(arguments.teacher))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=DEMO_MODEL / "attributes")
    parser.add_argument("--teacher", help="words, vader or a folder; without it sentiment is left as it is")
    parser.add_argument("--ratings", type=Path, nargs="+", default=[], help="files that the teacher words learns from")
    parser.add_argument("--taught-by", help="what the teacher is, for the attribute; words and vader are known")
    parser.add_argument("--texts", type=int, default=32_768, help="number of texts that the teacher rates")
    parser.add_argument("--share", type=float, default=0.5, help="share of them that is taken at each end")
    parser.add_argument(
        "--from-stories", action="store_true", help="texts are what the stories say: minutes, not hours"
    )
    parser.add_argument(
        "--save", type=Path, help="a file for these texts, each a line of JSON: opening, text, part, score"
    )
    parser.add_argument("--read", type=Path, help="such a file, instead of generating and rating texts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.teacher == "words" and not arguments.ratings:
        parser.error("--teacher words learns from rated texts: give --ratings FILES")
    torch.set_num_threads(arguments.threads)
    stories = read_stories(arguments.stories)
    counts = WordCounts.load(DEMO_MODEL / FILE_NAME).counts
    if arguments.teacher:
        made = sentiment(stories, teacher_of(arguments), arguments)
        keep_sentiment(made, counts, arguments)

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
