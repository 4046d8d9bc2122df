"""Measures whether texts end as asked for, and what it costs in perplexity.

    python benchmarks/text_ending.py [--model demo] [--texts 330] [--first 0] [--batch 10] [--longest 400]
        [--kinds sentence,words,sentences,range,last,phrase] [--modes greedy,sampled,"4 beams"] [--alone]
        [--results results.jsonl]
    python benchmarks/text_ending.py --table --results results.jsonl

Texts are generated in batches. Each batch has a budget drawn from 40 to 400 tokens, is generated greedily, by sampling
or with 4 beams, and beside nothing, a list of bad words, required words or a guide. Its prompts are openings that the
model itself has continued for up to 12 words, so that no two texts are alike; `--first` is the number of the first. The
same call without the control gives the free texts, of which as many tokens count (`--alone` leaves them out). SmolLM2
runs in bfloat16.

The table shows for each model, kind and mode how many texts there are, how many differ, how many end as asked for
(judged by `tests/unit_checker.py`) and hold what the other control asks for, how many end with the end of a sentence
when they are free, the perplexity of both under the model itself, their ratio, and the share of the budget that was
used. `--table` prints that of a results file.

With `--results`, every text is added to a file as JSON, and what the file has already is not generated again.
"""

import argparse
import math
import random
import re
import sys
from pathlib import Path

import torch
from models import MODELS
from results_file import ResultsFile

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
        prompt = PROMPTS[number % len(PROMPTS)]
        if number >= len(PROMPTS):
            words = random.Random(number).randint(1, 12)
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
    scores = model(ids).logits[0, len(given) - 1 : -1].float().log_softmax(dim=-1)
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


def perplexity(texts):
    """Per token, over all texts together."""
    return math.exp(sum(each["nats"] for each in texts) / max(1, sum(each["tokens"] for each in texts)))


def table(records):
    """Print a row for each model, kind and mode, and the texts that do not end as asked for."""
    print("| model | asked for | mode | texts | different | as asked | free at a sentence | ", end="")
    print("perplexity | free | ratio | budget used |\n" + "|---" * 11 + "|")
    rows = {}
    for record in records:
        rows.setdefault((record["model"], record["kind"], record["mode"]), []).append(record)
    for key, texts in rows.items():
        pairs = [record for record in texts if record["free"]]
        free = [record["free"] for record in pairs]
        ends = f"{sum(each['ends'] for each in free)}/{len(free)}" if free else ""
        ratio = f"{perplexity(pairs) / perplexity(free):.3f}" if free else ""
        used = sum(record["tokens"] / record["budget"] for record in texts) / len(texts)
        cells = [
            *(*key, len(texts), len({record["text"] for record in texts})),
            *(sum(not record["wrong"] for record in texts), ends, f"{perplexity(pairs or texts):.3f}"),
            *(f"{perplexity(free):.3f}" if free else "", ratio, f"{used:.0%}"),
        ]
        print("| " + " | ".join(map(str, cells)) + " |")
    for record in records:
        if record["wrong"]:
            print(record)


def measure(model, kind, mode, given, results):
    """Generate the texts of one kind and mode that have no record yet."""
    asked, least = KINDS[kind]
    for first in range(given.first, given.first + given.texts, given.batch):
        numbers = range(first, min(first + given.batch, given.first + given.texts))
        if all((given.model, kind, mode, number) in results.records for number in numbers):
            continue
        chance = random.Random(f"{kind} {first}")
        budget = max(least[given.model], chance.randint(LEAST, given.longest))
        partner = dict(chance.choice(PARTNERS))
        call = MODES[mode] | partner | {"max_new_tokens": budget}
        prompts = opened(model, given.model, first, len(numbers))
        records = []
        for number, (prompt, added) in zip(numbers, written(model, prompts, first, **call, **asked), strict=True):
            text = model.tokenizer.decode(added, skip_special_tokens=True)
            records.append({"model": given.model, "kind": kind, "mode": mode, "number": number, "budget": budget})
            records[-1] |= {"partner": partner, "prompt": model.tokenizer.decode(prompt), "text": text}
            records[-1] |= {"wrong": _wrong(text, partner, **asked), "tokens": len(added), "free": None}
            records[-1]["nats"] = nats(model, prompt, added)
        if not given.alone:
            for record, (prompt, other) in zip(records, written(model, prompts, first, **call), strict=True):
                ends = read_sentences(model.tokenizer.decode(other, skip_special_tokens=True))[1]
                other = other[: record["tokens"]]
                record["free"] = {"tokens": len(other), "nats": nats(model, prompt, other), "ends": ends}
        results.add(records)
        faults = [record["wrong"] for record in records if record["wrong"]]
        print(f"{kind}, {mode}, from {first}: budget {budget}, beside {partner or 'nothing'}, {faults}", flush=True)


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
    parser.add_argument("--results", type=Path, help="a file of records, one per line")
    parser.add_argument("--table", action="store_true", help="generate nothing, print the table of --results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = ResultsFile(given.results, ("model", "kind", "mode", "number"))
    if not given.table:
        model = MODELS[given.model]()
        model = model.to(torch.bfloat16) if given.model == "smollm2" else model
        for kind in given.kinds.split(","):
            for mode in given.modes.split(","):
                measure(model, kind, mode, given, results)
    table(results.records.values())


if __name__ == "__main__":
    main()
