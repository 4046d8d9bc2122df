"""How much the beams of one search differ when a word is required, and how probable their texts are.

    python benchmarks/must_include_beams.py [--odds 0.01 0] [--sampled]

The bundled model continues ten prompts with four beams, all of which are returned, with budgets of 30 and of 60 tokens:
freely, and with one required word or two, for each of the least odds against a position. The model itself scores the
texts, without controls. Variety is the share of distinct words in threes: of all in the four beams, those that differ.
"""

import argparse
import math
import re

import torch

from fundamentallm_hf import load_model
from fundamentallm_hf.portable.controls import must_include

CASES = {
    "Once upon a time": ["dragon"],
    "One day, Tim": ["castle"],
    "Lily had a": ["knight", "king"],
    "The little dog": ["river"],
    "Mom said": ["moon"],
    "There was a boy": ["ship", "island"],
    "Anna and Ben": ["rain"],
    "In the forest": ["fox"],
    "The sun was": ["horse"],
    "Max liked": ["cake", "tree"],
}
BUDGETS, BEAMS = (30, 60), 4


def bits_of(model, row, start):
    """The bits of what was added, under the model alone."""
    with torch.no_grad():
        chances = model(row[None]).logits[0, start - 1 : -1].float().log_softmax(dim=-1)
    return -float(chances.gather(-1, row[start:, None]).sum()) / math.log(2)


def threes(text):
    """The words in threes of a text."""
    words = re.findall(r"\w+", text.lower())
    return list(zip(words, words[1:], words[2:], strict=False))


def measure(model, sampled, odds):
    """Variety, bits per token, and how many of the texts hold their words; `odds` is None for free texts."""
    bits, tokens, all_threes, distinct, covered, texts = 0.0, 0, 0, 0, 0, 0
    for prompt, words in CASES.items():
        ids = model.tokenizer(prompt, return_tensors="pt").input_ids
        for budget in BUDGETS:
            torch.manual_seed(1)
            asked = {} if odds is None else {"must_include": words}
            how = {"num_beams": BEAMS, "num_return_sequences": BEAMS, "max_new_tokens": budget, "do_sample": sampled}
            found = set()
            for row in model.generate(ids, **how, **asked):
                row = row[row != model.generation_config.pad_token_id]
                added = model.tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True)
                bits, tokens, texts = (
                    bits + bits_of(model, row, ids.shape[1]),
                    tokens + len(row) - ids.shape[1],
                    texts + 1,
                )
                covered += all(re.search(rf"\b{word}\b", added, re.IGNORECASE) for word in words)
                all_threes, found = all_threes + len(threes(added)), {*found, *threes(added)}
            distinct += len(found)
    return (
        f"variety {distinct / all_threes:.3f}, {bits / tokens:.3f} bits per token, {covered} of {texts} hold the words"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--odds", type=float, nargs="+", default=[must_include.BEAM_ODDS])
    parser.add_argument("--sampled", action="store_true", help="sample the beams")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(device="cpu")
    for odds in [None, *args.odds]:
        if odds is not None:
            must_include.BEAM_ODDS = odds
        print(
            "free" if odds is None else f"least odds {odds}", measure(model, args.sampled, odds), sep=": ", flush=True
        )


if __name__ == "__main__":
    main()
