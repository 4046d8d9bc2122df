"""Do texts match as a whole, and what does it cost? `json_schema` and `pattern` beside llguidance's mask alone.

    python benchmarks/whole_text.py [--parts json schemas pattern speed] [--runs 200] [--tokens 120]

- json: SmolLM2 writes objects by a schema with nested objects, arrays, enums and numbers, sampled at temperature 0.8
  and top-p 0.9. Every text is parsed and validated with jsonschema. "Mask alone" closes only what cannot come next.
- schemas: texts by all schemas of some folders (see `json_schemas.py`), with as few tokens as there may be, a few more
  and many, greedy, sampled, with 4 beams, and with required and banned words; from SmolLM2 in bfloat16, or with
  `--model random` from a small random model on its tokens. The bundled model writes those that its alphabet can. The
  same command continues the run of a `--log`.
- pattern: the bundled model writes dates, each matched by Python's re.
- speed: time per step and row with a pattern and without, all ways in turn in every round, medians.
"""

import argparse
import re
import statistics
import time
from pathlib import Path

import schema_grid
import torch
from json_schemas import is_valid
from models import MODELS

from fundamentallm_hf import Generator
from fundamentallm_hf.portable.structured.structured_output import WholeTextLogitsProcessor

PET = "Describe a pet as JSON, with its name, kind, age, weight, tags and owner.\n"
TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "kind": {"enum": ["cat", "dog", "parrot"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "weight": {"type": "number"},
        "tags": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 4},
        "owner": {
            "type": "object",
            "properties": {
                "name": TEXT,
                "address": {
                    "type": "object",
                    "properties": {"street": TEXT, "number": {"type": "integer"}},
                    "required": ["street", "number"],
                    "additionalProperties": False,
                },
                "phones": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["name", "address"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "kind", "age", "weight", "tags", "owner"],
    "additionalProperties": False,
}
DATE = "(Monday|Tuesday), the [0-9]{1,2}(st|nd|rd|th) of (May|June)"
SAMPLED = {"temperature": 0.8, "top_p": 0.9}
FREE = {"demo": "[A-Z][a-z ,.]{40,2000}", "smollm2": r"(?s).{40,2000}"}


class mask_alone:
    """For a while no room is kept: what llguidance's mask does by itself."""

    def __enter__(self) -> None:
        self.kept = WholeTextLogitsProcessor._open
        WholeTextLogitsProcessor._open = lambda self, state, *others: self.automaton.open(state)

    def __exit__(self, *exception: object) -> None:
        WholeTextLogitsProcessor._open = self.kept


def measure_json(runs: int, tokens: int, rows: int) -> None:
    """Count the texts that are JSON by the schema, with room kept and with the mask alone."""
    model = MODELS["smollm2"]()
    generator = Generator(model, model.tokenizer, **SAMPLED, json_schema=SCHEMA, max_tokens=tokens, num_samples=rows)
    begin = time.perf_counter()
    kept = [done for seed in range(0, runs, rows) for done in generator.complete(PET, seed=seed)]
    taken = time.perf_counter() - begin
    with mask_alone():
        masked = [done for seed in range(0, runs, rows) for done in generator.complete(PET, seed=seed)]
    other = sum(one.completion != two.completion for one, two in zip(kept, masked, strict=True))
    for name, texts in (("room kept", kept), ("mask alone", masked)):
        right = sum(is_valid(done.completion, SCHEMA) for done in texts)
        print(f"{name}: {right} of {len(texts)} parse and validate with at most {tokens} tokens")
    print(f"{other} of {len(kept)} texts differ from those of the mask alone; {taken:.0f} s for all", flush=True)


def measure_pattern(runs: int) -> None:
    """Count the dates of the bundled model that match."""
    generator = Generator(MODELS["demo"](), **SAMPLED, pattern=DATE, max_tokens=28, num_samples=runs, seed=0)
    texts = [done.completion for done in generator.complete("It was on ")]
    right = sum(re.fullmatch(DATE, text) is not None for text in texts)
    print(f"dates: {right} of {len(texts)} match, {len(set(texts))} different", flush=True)


def measure_speed(tokens: int, rounds: int) -> None:
    """Print the time per step of every way."""
    for name in ("demo", "smollm2"):
        model = MODELS[name]()
        generator = Generator(model, model.tokenizer, **SAMPLED, seed=1)
        ways = {
            "no control": {"max_tokens": tokens},
            "pattern, plenty of room": {"pattern": FREE[name], "max_tokens": 600},
            "pattern, little room": {"pattern": FREE[name], "max_tokens": tokens},
        }
        if name == "smollm2":
            ways["json_schema"] = {"json_schema": SCHEMA, "max_tokens": tokens}
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(rounds + 1):
            for way, settings in ways.items():
                begin = time.perf_counter()
                with generator.stream("Once upon a time", **settings) as stream:
                    written = 0
                    for written, _ in enumerate(stream, 1):
                        if written == tokens:
                            break
                    spent = time.perf_counter() - begin
                if number:  # the first round warms up
                    taken[way].append(1000 * spent / written)
        base = taken["no control"]
        for way, times in taken.items():
            more = statistics.median(mine - plain for mine, plain in zip(times, base, strict=True))
            print(f"| {name} | {way} | {statistics.median(times):.2f} ms | {more:+.2f} ms |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=["json", "schemas", "pattern", "speed"], default=["json", "pattern", "speed"]
    )
    parser.add_argument("--model", choices=["smollm2", "demo", "random"], default="smollm2", help="of schemas")
    parser.add_argument("--folders", nargs="+", type=Path, default=schema_grid.FOLDERS, help="of schemas")
    parser.add_argument("--calls", type=int, default=0, help="calls for each schema; default: all that differ")
    parser.add_argument("--log", type=Path, default=Path("schemas.log.jsonl"), help="calls so far, one per line")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=20, help="texts at a time")
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--speed-tokens", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if "json" in arguments.parts:
        measure_json(arguments.runs, arguments.tokens, arguments.rows)
    if "schemas" in arguments.parts:
        schema_grid.measure(arguments.model, arguments.folders, arguments.calls, arguments.log)
    if "pattern" in arguments.parts:
        measure_pattern(100)
    if "speed" in arguments.parts:
        measure_speed(arguments.speed_tokens, arguments.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
