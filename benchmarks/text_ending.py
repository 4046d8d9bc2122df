"""Measures whether texts end as asked for, and what it costs in perplexity.

    python benchmarks/text_ending.py [--model demo] [--texts 330] [--first 0] [--batch 10] [--longest 400]
        [--kinds sentence,words,sentences,range,last,phrase] [--modes greedy,sampled,"4 beams"]

Texts are generated in batches. Each batch has a budget drawn from 40 to 400 tokens, is generated greedily, by sampling
or with 4 beams, and beside nothing, a list of bad words, required words or a guide. Its prompts are openings that the
model itself has continued for up to 12 words, so that no two texts are alike; `--first` is the number of the first. The
same call without the control gives the free texts, of which as many tokens count (`--alone` leaves them out). The
script prints how many texts end as asked for (judged by `tests/unit_checker.py`) and hold what the other control asks
for, how many end with the end of a sentence when they are free, the perplexity of both under the model itself, their
ratio, and the share of the budget that was used.
"""

import argparse
import math
import random
import re
import sys
from pathlib import Path

import torch
from models import MODELS

from fundamentallm_hf import controlled_generate

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from unit_checker import read_sentences, wrong_end

PROMPTS = [
    *("Once upon a time", "The dragon", "In the forest", "One day, a girl", "The old man was", "A small boat"),
    *("It was raining when", "Tom and his dog", "The king said", "Every morning", "Near the sea", "My friend"),
]
LEAST, LONGEST = 40, 400
# Tokens of a word, roughly.
WORD_RATE = {"demo": 5, "smollm2": 1}
MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0},
    "4 beams": {"num_beams": 4, "do_sample": False},
}
PARTNERS = (
    {},
    {"bad_words": ["very", "happy", "ran*"]},
    {},
    {"must_include": ["tree"]},
    {},
    {"guide_attribute": "positive_sentiment"},
)
# What is asked for, and the least budget of a model in tokens that is enough for it.
KINDS = {
    "sentence": ({"end_at": "sentence"}, {"demo": 40, "smollm2": 40}),
    "words": ({"words": 50}, {"demo": 400, "smollm2": 100}),
    "sentences": ({"sentences": 3}, {"demo": 400, "smollm2": 150}),
    "range": ({"words": "40-60", "end_at": "sentence"}, {"demo": 400, "smollm2": 100}),
    "last": ({"ends_with": ["The end."]}, {"demo": 70, "smollm2": 40}),
    "phrase": ({"ends_with": ["and they lived happily ever after."]}, {"demo": 100, "smollm2": 40}),
}


def opened(model, name, first, count):
    """Prompts of texts from number `first` on: openings, continued by the model up to a space."""
    found = []
    for number in range(first, first + count):
        prompt, words = PROMPTS[number % len(PROMPTS)], random.Random(number).randint(0, 12)
        if words:
            how = {"do_sample": True, "top_k": 0, "top_p": 0.9, "max_new_tokens": WORD_RATE[name] * words}
            ((given, added),) = written(model, [prompt], number, **how)
            text = model.tokenizer.decode(given + added, skip_special_tokens=True)
            prompt = text[: max(len(prompt), text.rfind(" "))].rstrip()
        found.append(prompt)
    return found


def written(model, prompts, seed, **how):
    """For each prompt its tokens, and those that are added to it, without end tokens."""
    asked = model.tokenizer(prompts, return_tensors="pt", padding=True)
    if model.config.model_type != "fundamentallm":
        how["custom_generate"] = controlled_generate
    torch.manual_seed(seed)
    rows = model.generate(input_ids=asked.input_ids, attention_mask=asked.attention_mask, **how).tolist()
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    found = []
    for row, ids, seen in zip(rows, asked.input_ids, asked.attention_mask, strict=True):
        added = row[len(ids) :]
        last = next((index for index, token in enumerate(added) if token in ends), len(added))
        found.append((ids[seen.bool()].tolist(), added[:last]))
    return found


@torch.no_grad()
def nats(model, given, added):
    """How improbable added tokens are under the model alone, in nats."""
    ids = torch.tensor([given + added])
    scores = model(ids).logits[0, len(given) - 1 : -1].log_softmax(dim=-1)
    return -float(scores.gather(1, torch.tensor(added)[:, None]).sum())


def _wrong(text, partner, ends_with=None, **asked):
    """What is wrong with an added text, if anything."""
    if "bad_words" in partner and re.search(r"\b(very|happy|ran\w*)\b", text, re.IGNORECASE):
        return "holds a bad word"
    if "must_include" in partner and not re.search(r"\btree\b", text, re.IGNORECASE):
        return "lacks a required word"
    if ends_with is None:
        return wrong_end(text, **asked)
    return "" if text.endswith(tuple(ends_with)) else f"does not end with {ends_with}"


class Sums:
    """What is added up over texts: how many, how improbable they are, and how long."""

    def __init__(self) -> None:
        self.good = self.tokens = 0
        self.cost = self.used = 0.0

    def add(self, model, given, added, is_good, budget):
        self.good += is_good
        self.cost += nats(model, given, added)
        self.tokens += len(added)
        self.used += len(added) / budget

    @property
    def perplexity(self):
        return math.exp(self.cost / max(self.tokens, 1))


def measure(model, name, kind, mode, given):
    """Print a line for one mode."""
    asked, least = KINDS[kind]
    own, free = Sums(), Sums()
    for first in range(given.first, given.first + given.texts, given.batch):
        chance = random.Random(f"{kind} {first}")
        budget = max(least[name], chance.randint(LEAST, given.longest))
        partner = dict(chance.choice(PARTNERS))
        if name != "demo" and "guide_attribute" in partner:
            partner = {}
        call = MODES[mode] | partner | {"max_new_tokens": budget}
        prompts = opened(model, name, first, min(given.batch, given.first + given.texts - first))
        texts = written(model, prompts, first, **call, **asked)
        for prompt, added in texts:
            text = model.tokenizer.decode(added, skip_special_tokens=True)
            wrong = _wrong(text, partner, **asked)
            own.add(model, prompt, added, not wrong, budget)
            if wrong:
                print(f"  {wrong}: {text!r} after {model.tokenizer.decode(prompt)!r} ({call})", flush=True)
        others = [] if given.alone else written(model, prompts, first, **call)
        for (_, added), (prompt, other) in zip(texts, others, strict=not given.alone):
            ends = read_sentences(model.tokenizer.decode(other, skip_special_tokens=True))[1]
            free.add(model, prompt, other[: len(added)], ends, budget)
    beside = "" if given.alone else f" free {free.perplexity:.3f} ratio {own.perplexity / free.perplexity:.3f}"
    print(
        f"{name} {kind:9} {mode:8} from {given.first}  as asked {own.good}/{given.texts}  perplexity "
        f"{own.perplexity:.3f}{beside}  budget used {own.used / given.texts:.0%}"
        + ("" if given.alone else f"  free at a sentence {free.good}/{given.texts}"),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", choices=MODELS)
    parser.add_argument("--texts", type=int, default=330)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--longest", type=int, default=LONGEST, help="the largest budget in tokens")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--alone", action="store_true", help="no free texts")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = MODELS[given.model]()
    for kind in given.kinds.split(","):
        for mode in given.modes.split(","):
            measure(model, given.model, kind, mode, given)


if __name__ == "__main__":
    main()
