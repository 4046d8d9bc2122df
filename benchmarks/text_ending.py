"""Measures whether texts end as asked for, and what it costs in perplexity.

    python benchmarks/text_ending.py [--model demo] [--texts 24]
        [--kinds sentence,words,sentences,range,last,phrase] [--modes greedy,sampled,"4 beams"]

Each text has a budget from 40 to 400 tokens, is generated greedily, by sampling or with 4 beams, and beside nothing, a
list of bad words, required words or a guide, in turn. The same call without the control gives the free text, of which
as many tokens count. The script prints how many texts end as asked for (judged by `tests/unit_checker.py`), how many
end with the end of a sentence when they are free, the perplexity of both under the model itself, their ratio, and the
share of the budget that was used.
"""

import argparse
import math
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
BUDGETS = (40, 70, 100, 150, 250, 400)
MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0},
    "4 beams": {"num_beams": 4, "do_sample": False},
}
PARTNERS = [
    {},
    {"bad_words": ["very", "happy", "ran*"]},
    {},
    {"must_include": ["tree"]},
    {},
    {"guide_attribute": "positive_sentiment"},
]
# What is asked for, and the least budget of a model in tokens that is enough for it.
KINDS = {
    "sentence": ({"end_at": "sentence"}, {"demo": 40, "smollm2": 40}),
    "words": ({"words": 50}, {"demo": 400, "smollm2": 100}),
    "sentences": ({"sentences": 3}, {"demo": 400, "smollm2": 150}),
    "range": ({"words": "40-60", "end_at": "sentence"}, {"demo": 400, "smollm2": 100}),
    "last": ({"ends_with": ["The end."]}, {"demo": 70, "smollm2": 40}),
    "phrase": ({"ends_with": ["and they lived happily ever after."]}, {"demo": 100, "smollm2": 40}),
}


def written(model, prompt, seed, **how):
    """The tokens that are added to a prompt, without end tokens."""
    ids = model.tokenizer(prompt, return_tensors="pt").input_ids
    if model.config.model_type != "fundamentallm":
        how["custom_generate"] = controlled_generate
    torch.manual_seed(seed)
    row = model.generate(ids, attention_mask=torch.ones_like(ids), **how)[0].tolist()
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    added = row[ids.shape[1] :]
    return ids[0].tolist(), added[: next((index for index, token in enumerate(added) if token in ends), len(added))]


@torch.no_grad()
def nats(model, given, added):
    """How improbable added tokens are under the model alone, in nats."""
    ids = torch.tensor([given + added])
    scores = model(ids).logits[0, len(given) - 1 : -1].log_softmax(dim=-1)
    return -float(scores.gather(1, torch.tensor(added)[:, None]).sum())


def _wrong(text, ends_with=None, **asked):
    """What is wrong with the end of an added text, if anything."""
    if ends_with is None:
        return wrong_end(text, **asked)
    return "" if text.endswith(tuple(ends_with)) else f"does not end with {ends_with}"


def measure(model, name, kind, texts, modes):
    """Print a line for each mode."""
    asked, least = KINDS[kind]
    budgets = [budget for budget in BUDGETS if budget >= least[name]]
    for mode, how in modes.items():
        good = free_ends = tokens = 0
        cost, free_cost, free_tokens, used = 0.0, 0.0, 0, 0.0
        for index in range(texts):
            budget, partner = budgets[index % len(budgets)], PARTNERS[index % len(PARTNERS)]
            if name != "demo" and "guide_attribute" in partner:
                partner = {}
            call = how | partner | {"max_new_tokens": budget}
            prompt = PROMPTS[index % len(PROMPTS)]
            given, added = written(model, prompt, index, **call, **asked)
            text = model.tokenizer.decode(added, skip_special_tokens=True)
            wrong = _wrong(text, **asked)
            good += not wrong
            if wrong:
                print(f"  {wrong}: {text!r} ({call})", flush=True)
            _, free = written(model, prompt, index, **call)
            free_ends += read_sentences(model.tokenizer.decode(free, skip_special_tokens=True))[1]
            free = free[: len(added)]
            cost, tokens = cost + nats(model, given, added), tokens + len(added)
            free_cost, free_tokens = free_cost + nats(model, given, free), free_tokens + len(free)
            used += len(added) / budget
        own, other = math.exp(cost / tokens), math.exp(free_cost / free_tokens)
        print(
            f"{name} {kind:9} {mode:8} as asked {good}/{texts}  free at a sentence {free_ends}/{texts}  "
            f"perplexity {own:.3f} free {other:.3f} ratio {own / other:.3f}  budget used {used / texts:.0%}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", choices=MODELS)
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--modes", default=",".join(MODES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = MODELS[given.model]()
    for kind in given.kinds.split(","):
        measure(model, given.model, kind, given.texts, {mode: MODES[mode] for mode in given.modes.split(",")})


if __name__ == "__main__":
    main()
