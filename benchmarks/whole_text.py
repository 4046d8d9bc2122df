"""Do texts match as a whole, and what does it cost? `json_schema` and `pattern` beside llguidance's mask alone.

    python benchmarks/whole_text.py [--parts json schemas pattern speed] [--runs 200] [--tokens 120]

- json: SmolLM2 writes objects by a schema with nested objects, arrays, enums and numbers, sampled at temperature 0.8
  and top-p 0.9. Every text is parsed and validated with jsonschema. "Mask alone" closes only what cannot come next.
- schemas: texts by all schemas of a folder (see `json_schemas.py`), with as few tokens as there may be, a few more and
  many, greedy, sampled, with 4 beams, and beside words that must and must not appear; from SmolLM2, or with
  `--model random` from a small random model on its tokens. The bundled model writes those that its alphabet can.
- pattern: the bundled model writes dates, each matched by Python's re.
- speed: time per step and row with a pattern and without, all ways in turn in every round, medians.
"""

import argparse
import json
import re
import statistics
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import torch
from models import MODELS, TOKENIZERS
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from fundamentallm_hf import Generator, controlled_generate
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
# Tried where a refusal does not tell how many tokens are needed, as that of required words.
BUDGETS = (1, 8, 12, 20, 40, 80)
BAD, REQUIRED = ["the", "is", "pet"], ["story"]
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "num_return_sequences": 4},
    "4 beams": {"num_beams": 4, "num_return_sequences": 2},
    "bad words": {"do_sample": True, "bad_words": BAD, "num_return_sequences": 4},
    "bad and required words": {"do_sample": True, "bad_words": BAD, "must_include": REQUIRED},
    "required words, 4 beams": {"num_beams": 4, "must_include": REQUIRED},
}
FOLDER = Path(__file__).parent.parent / "tests" / "fixtures" / "json_schemas"
FREE = {"demo": "[A-Z][a-z ,.]{40,2000}", "smollm2": r"(?s).{40,2000}"}


class mask_alone:
    """For a while no room is kept: what llguidance's mask does by itself."""

    def __enter__(self) -> None:
        self.kept = WholeTextLogitsProcessor._open
        WholeTextLogitsProcessor._open = lambda self, state, *others: self.automaton.open(state)

    def __exit__(self, *exception: object) -> None:
        WholeTextLogitsProcessor._open = self.kept


def valid(text: str, schema: Any = SCHEMA) -> bool:
    """Whether a text is JSON by the schema."""
    try:
        jsonschema.validate(json.loads(text), schema)
    except (json.JSONDecodeError, jsonschema.ValidationError):
        return False
    return True


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
        right = sum(valid(done.completion) for done in texts)
        print(f"{name}: {right} of {len(texts)} parse and validate with at most {tokens} tokens")
    print(f"{other} of {len(kept)} texts differ from those of the mask alone; {taken:.0f} s for all", flush=True)


def random_model() -> GPT2LMHeadModel:
    """A small random model on the tokens of SmolLM2."""
    tokenizer = TOKENIZERS["smollm2"]()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=2048)
    model = GPT2LMHeadModel(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.tokenizer = tokenizer
    return model.eval()


def measure_schemas(name: str, folder: Path, step: int, first: int) -> None:
    """Count the texts that are complete, by way: with as few tokens as there may be, five more, and eighty more."""
    model = random_model() if name == "random" else MODELS[name]()
    found: dict[str, Counter[str]] = {way: Counter() for way in WAYS}
    for number, file in enumerate(sorted(folder.rglob("*.json"))[first::step]):
        schema = json.loads(file.read_text(encoding="utf-8"))["schema"]
        for way, how in WAYS.items():
            how = fitting(how, schema)
            if ("words" in way) != bool(set(how) & {"bad_words", "must_include"}):
                continue
            try:
                needed = needed_by(model, schema, how)
            except ValueError as error:
                found[way]["refused"] += 1
                print(f"{file.name}, {way}: {error}", flush=True)
                continue
            for more in (0, 5, 80):
                texts = added(model, needed + more, schema, number, how)
                for text in texts:
                    good = valid(text, schema) and not any(holds(word, text) for word in how.get("bad_words", ()))
                    good = good and all(holds(word, text) for word in how.get("must_include", ()))
                    found[way]["valid and complete" if good else "not"] += 1
                    if not good:
                        print(f"{file.name}, {way}, {needed} and {more} tokens: {text!r}", flush=True)
        so_far = sum(found.values(), Counter())
        print(f"{file.name}: so far {dict(so_far)}", file=sys.stderr, flush=True)
    for way, counts in found.items():
        print(f"{name}, {way}: {dict(counts)}")
    print(f"{name}: {dict(sum(found.values(), Counter()))}", flush=True)


def fitting(how: dict[str, Any], schema: Any) -> dict[str, Any]:
    """One of the ways, without the words that the schema requires, or has no state for."""
    text = json.dumps(schema)
    bad = [word for word in how.get("bad_words", ()) if not holds(word, text)]
    kept = {field: value for field, value in how.items() if field not in ("bad_words", "must_include")}
    if "must_include" in how and json.dumps(TEXT) not in text:
        return kept
    words = {"bad_words": bad, "must_include": how.get("must_include")}
    return kept | {field: value for field, value in words.items() if value}


def needed_by(model: PreTrainedModel, schema: Any, how: dict[str, Any]) -> int:
    """How many tokens a text needs, as the refusal of a smaller budget tells, or else the first of some that do.

    Raises:
        ValueError: none of them does.
    """
    for room in BUDGETS:
        try:
            added(model, room, schema, 0, how)
            return room
        except ValueError as error:
            told = re.search(r"needs about (\d+) tokens", str(error))
            if told is not None:
                return int(told[1])
            if room == BUDGETS[-1]:
                raise
    raise AssertionError


def added(model: PreTrainedModel, room: int, schema: Any, seed: int, how: dict[str, Any]) -> list[str]:
    """What the model adds to a prompt."""
    inputs = model.tokenizer("A pet: ", return_tensors="pt")
    if model.config.model_type != "fundamentallm":
        how = how | {"custom_generate": partial(controlled_generate, tokenizer=model.tokenizer)}
    torch.manual_seed(seed)
    rows = model.generate(**inputs, max_new_tokens=room, json_schema=schema, **how)
    return model.tokenizer.batch_decode(rows[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)


def holds(word: str, text: str) -> bool:
    """Whether a word stands in a text."""
    return re.search(rf"\b{word}\b", text, re.IGNORECASE) is not None


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
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of schemas")
    parser.add_argument("--step", type=int, default=1, help="take every n-th schema")
    parser.add_argument("--first", type=int, default=0, help="begin with this schema")
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
        measure_schemas(arguments.model, arguments.folder, arguments.step, arguments.first)
    if "pattern" in arguments.parts:
        measure_pattern(100)
    if "speed" in arguments.parts:
        measure_speed(arguments.speed_tokens, arguments.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
