"""What required and banned words cost beside `json_schema`, in time per step.

    python benchmarks/schema_words_speed.py [--model smollm2] [--tokens 80] [--rounds 2] [--schemas array_order ...]

The processors of whole calls are timed, with the scores of a bigram model of the schemas' own instances on SmolLM2's
49,152 tokens, which costs almost nothing and keeps the texts alike. All ways in turn for every schema and round. A step
is everything that turns the model's scores into those by which a token is chosen, in milliseconds of processor time.
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from json_schemas import FOLDER, Pairs
from models import words
from schema_grid import random_model
from transformers import LogitsProcessorList

from fundamentallm_hf import controlled_generate

PROMPT = "Answer in JSON.\n"
SCHEMAS = ["array_order", "array_people", "array_recipe", "object_package", "object_function_call", "scalar_any_string"]
# Forty frequent words of no schema or instance here.
BANNED = [
    "about",
    "above",
    "after",
    "again",
    "against",
    "because",
    "before",
    "behind",
    "between",
    "beyond",
    "damn",
    "during",
    "except",
    "hell",
    "hurt",
    "kill",
    "letter",
    "little",
    "money",
    "mother",
    "never",
    "night",
    "often",
    "people",
    "place",
    "really",
    "should",
    "something",
    "stupid",
    "terrible",
    "their",
    "there",
    "think",
    "through",
    "under",
    "water",
    "while",
    "woman",
    "world",
    "would",
    "young",
]
WAYS: dict[str, dict[str, Any]] = {
    "json_schema": {"schema": True},
    "40 bad words": {"bad_words": BANNED},
    "json_schema and 40 bad words": {"schema": True, "bad_words": BANNED},
    "a required word": {"must_include": ["story"]},
    "json_schema and a required word": {"schema": True, "must_include": ["story"]},
    "all three": {"schema": True, "must_include": ["story"], "bad_words": BANNED},
}


class Timed:
    """Times every call of a list of processors."""

    def __enter__(self) -> list[float]:
        self.kept, taken = LogitsProcessorList.__call__, []

        def call(processors: LogitsProcessorList, *arguments: Any, **others: Any) -> torch.Tensor:
            begin = time.thread_time()
            scores = self.kept(processors, *arguments, **others)
            taken.append(1000 * (time.thread_time() - begin))
            return scores

        LogitsProcessorList.__call__ = call
        return taken

    def __exit__(self, *exception: object) -> None:
        LogitsProcessorList.__call__ = self.kept


def bigram_model(texts: list[str]) -> Any:
    """A model of SmolLM2's tokens that gives the scores of `Pairs`."""
    model = random_model()
    pairs, forward = Pairs(model.tokenizer, texts), model.forward

    def with_pairs(input_ids: torch.Tensor, **others: Any) -> Any:
        output = forward(input_ids=input_ids, **others)
        last = output.logits.shape[1]
        output.logits = torch.stack([torch.cat([pairs(token) for token in row[-last:]]) for row in input_ids.tolist()])
        return output

    model.forward = with_pairs
    return model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--schemas", nargs="+", default=SCHEMAS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--tokens", type=int, default=80, help="most tokens of a text")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [json.loads((arguments.folder / f"{name}.json").read_text(encoding="utf-8")) for name in arguments.schemas]
    valid = [test["data"] for case in cases for test in case["tests"] if test["valid"]]
    texts = [json.dumps(data, separators=(",", ":")) for data in valid]
    assert not set(BANNED) & {word for text in texts for word in words(text)}
    model = bigram_model(texts)
    inputs = model.tokenizer(PROMPT, return_tensors="pt")
    write = partial(controlled_generate, tokenizer=model.tokenizer)
    taken: dict[str, list[float]] = {way: [] for way in arguments.ways}
    first: dict[str, list[float]] = {way: [] for way in arguments.ways}
    for case in cases:
        for number in range(arguments.rounds + 1):
            for way in arguments.ways:
                how = dict(WAYS[way])
                if how.pop("schema", False):
                    how["json_schema"] = case["schema"]
                torch.manual_seed(number)
                begin = time.thread_time()
                with Timed() as steps:
                    model.generate(
                        **inputs, custom_generate=write, do_sample=True, max_new_tokens=arguments.tokens, **how
                    )
                # The first text of a schema builds what is kept for the others.
                (taken if number else first)[way] += steps if number else [1000 * (time.thread_time() - begin)]
    print(
        "| way | median, ms | 99th percentile | worst | steps | first text of a schema, median |\n"
        "|---|---|---|---|---|---|"
    )
    for way, times in taken.items():
        times.sort()
        cells = [statistics.median(times), times[min(len(times) - 1, int(0.99 * len(times)))], times[-1]]
        shown = " | ".join(f"{cell:.2f}" for cell in cells)
        print(f"| {way} | {shown} | {len(times)} | {statistics.median(first[way]):.0f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
