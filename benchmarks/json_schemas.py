"""JSON schemas: coverage, correctness and cost of `json_schema`, compared with llguidance alone.

    python benchmarks/json_schemas.py [FOLDER] [--parts instances texts arrays] [--limit 300] [--room 4000] [--texts 1]

The folder contains schemas in the format of JSONSchemaBench's maskbench, one per file:
{"schema": …, "tests": [{"data": …, "valid": …}]}. The default is the folder of the tests. Every instance is passed
through both masks token by token, ours and llguidance's in turn. Texts are sampled from a bigram model of the
instances' tokens, which costs almost nothing and depends on the last token only.

Times are thread processor times in milliseconds, including the scores of the whole vocabulary.
"""

import argparse
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher
from models import TOKENIZERS

from fundamentallm_hf.portable.structured.grammar_states import GrammarAutomaton
from fundamentallm_hf.portable.structured.grammars import read_grammar
from fundamentallm_hf.portable.structured.structured_output import WholeTextLogitsProcessor

OURS, ALONE = "ours", "llguidance alone"
FOLDER = Path(__file__).parent.parent / "tests" / "fixtures" / "json_schemas"
PROMPT = "Answer in JSON.\n"


@dataclass
class Tally:
    """The results of one way."""

    accepted: int = 0
    refused: list[str] = field(default_factory=list)
    allowed: Counter[bool] = field(default_factory=Counter)
    rejected: Counter[bool] = field(default_factory=Counter)
    steps: list[float] = field(default_factory=list)
    compiled: list[float] = field(default_factory=list)
    good: Counter[bool] = field(default_factory=Counter)
    items: list[int] = field(default_factory=list)


class Alone:
    """llguidance's mask alone, with its own reading of the tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.size = len(tokenizer)
        self.machine = llguidance.hf.from_tokenizer(tokenizer)
        self.words = np.zeros((1, -(-self.machine.vocab_size // 32)), dtype=np.int32)

    def compile(self, grammar: str) -> Any:
        """llguidance's matcher; None if it rejects the grammar."""
        matcher = LLMatcher(self.machine, grammar, log_level=0)
        return None if matcher.is_error() else matcher

    def mask(self, matcher: Any, scores: torch.Tensor) -> torch.Tensor:
        """Mask `scores`, (1, vocabulary)."""
        matcher.unsafe_compute_mask_ptr(self.words.ctypes.data, self.words.nbytes)
        bits = np.unpackbits(self.words.view(np.uint8), axis=1, count=self.size, bitorder="little")
        return torch.where(torch.from_numpy(bits.view(np.bool_)), scores, -torch.inf)


class Pairs:
    """A bigram model: scores of the next token by the last one, counted on some texts."""

    def __init__(self, tokenizer: Any, texts: list[str]) -> None:
        self.size, self.end = len(tokenizer), tokenizer.eos_token_id
        self.after: dict[int, Counter[int]] = {}
        for text in texts:
            tokens = [*tokenizer(text).input_ids, self.end]
            for last, token in pairwise(tokens):
                self.after.setdefault(last, Counter())[token] += 1
        chance = torch.Generator().manual_seed(0)
        self.unseen = torch.randn(1, self.size, generator=chance) - 6
        # Adding Gumbel noise and taking the maximum samples a token; a random offset into fixed noise is random enough.
        self.noise = -torch.rand(5 * self.size, generator=chance).clamp(min=1e-9).log().neg().log()

    def choose(self, scores: torch.Tensor, chance: random.Random) -> int:
        """Sample a token by its score, (1, vocabulary)."""
        begin = chance.randrange(4 * self.size)
        return int((scores[0] + self.noise[begin : begin + self.size]).argmax())

    def __call__(self, last: int) -> torch.Tensor:
        """The scores after the token `last`, (1, vocabulary)."""
        scores = self.unseen.clone()
        for token, count in self.after.get(last, {}).items():
            scores[0, token] = 3 + float(np.log(count))
        return scores


class Benchmark:
    """One run over a folder."""

    def __init__(self, tokenizer: Any, room: int) -> None:
        self.tokenizer, self.room = tokenizer, room
        self.alone = Alone(tokenizer)
        self.prompt = tokenizer(PROMPT, return_tensors="pt").input_ids
        self.tallies = {OURS: Tally(), ALONE: Tally()}

    def processor(self, automaton: GrammarAutomaton, room: int) -> WholeTextLogitsProcessor:
        """Our processor, for one text."""
        columns = self.prompt.shape[1]
        return WholeTextLogitsProcessor(
            automaton,
            remaining=lambda ids: [room - (ids.shape[1] - columns)] * len(ids),
            end_tokens=[self.tokenizer.eos_token_id],
            prompt_columns=columns,
        )

    def compile(self, schema: Any) -> tuple[GrammarAutomaton, Any] | None:
        """Both ways for one schema, ours with its first plan; None if one rejects the schema."""
        ours, alone = self.tallies[OURS], self.tallies[ALONE]
        begin = time.thread_time()
        # Each parses the schema separately.
        grammar = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})
        matcher = self.alone.compile(grammar)
        if matcher is None:
            return None
        alone.compiled.append(1000 * (time.thread_time() - begin))
        alone.accepted += 1
        begin = time.thread_time()
        try:
            automaton = GrammarAutomaton(
                read_grammar({"json_schema": schema}) or "", self.tokenizer, len(self.tokenizer)
            )
            self.processor(automaton, self.room).check(self.prompt)
        except ValueError as error:
            ours.refused.append(str(error))
            return None
        ours.compiled.append(1000 * (time.thread_time() - begin))
        ours.accepted += 1
        return automaton, matcher

    def lead(self, automaton: GrammarAutomaton, matcher: Any, data: Any, valid: bool) -> None:
        """Pass an instance through both masks, token by token."""
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        end = self.tokenizer.eos_token_id
        row = torch.cat([self.prompt, torch.tensor([[*self.tokenizer(text).input_ids, end]])], dim=1)
        processor, matcher = self.processor(automaton, self.room), matcher.deep_copy()
        scores = torch.zeros(1, len(self.tokenizer))
        open_tokens = {OURS: True, ALONE: True}
        for column in range(self.prompt.shape[1], row.shape[1]):
            token = int(row[0, column])
            taken = {}
            begin = time.thread_time()
            kept = {OURS: processor(row[:, :column], scores)}
            taken[OURS] = time.thread_time() - begin
            begin = time.thread_time()
            kept[ALONE] = self.alone.mask(matcher, scores)
            matcher.consume_token(token)
            taken[ALONE] = time.thread_time() - begin
            for way, of_way in kept.items():
                open_tokens[way] = open_tokens[way] and bool(of_way[0, token] > -torch.inf)
                if valid:
                    self.tallies[way].steps.append(1000 * taken[way])
            if not any(open_tokens.values()):
                break
        for way, is_open in open_tokens.items():
            tally = self.tallies[way]
            (tally.allowed if valid else tally.rejected)[is_open == valid] += 1

    def draw(self, way: str, both: tuple[GrammarAutomaton, Any], pairs: Pairs, room: int, seed: int) -> list[int]:
        """The tokens of one text, without the end token."""
        automaton, matcher = both[0], both[1].deep_copy()
        processor = self.processor(automaton, room)
        chance = random.Random(seed)
        row = self.prompt
        for _ in range(room):
            scores = pairs(int(row[0, -1]))
            scores = processor(row, scores) if way == OURS else self.alone.mask(matcher, scores)
            token = pairs.choose(scores, chance)
            if token == self.tokenizer.eos_token_id:
                break
            matcher.consume_token(token)
            row = torch.cat([row, torch.tensor([[token]])], dim=1)
        added: list[int] = row[0, self.prompt.shape[1] :].tolist()
        return added

    def write(self, schema: Any, both: tuple[GrammarAutomaton, Any], pairs: Pairs, texts: int) -> None:
        """Sample texts with the smallest token budget, a slightly larger one and a large one; count the valid texts."""
        start = self.processor(both[0], self.room).states(self.prompt)[0]
        needed = len(both[0].plan(start) or ())
        for room in (needed, needed + 5, needed + 100):
            for seed in range(texts):
                for way, tally in self.tallies.items():
                    text = self.tokenizer.decode(self.draw(way, both, pairs, max(1, room), seed))
                    tally.good[is_valid(text, schema)] += 1

    def fill(self, both: tuple[GrammarAutomaton, Any], pairs: Pairs, seeds: int) -> None:
        """Sample texts of at most 400 tokens, complete those that were cut off, and count the items of their arrays."""
        for way, tally in self.tallies.items():
            for seed in range(seeds):
                tokens = self.draw(way, both, pairs, 400, seed)
                row = torch.cat([self.prompt, torch.tensor([tokens], dtype=torch.long)], dim=1)
                state = self.processor(both[0], self.room).states.read(row[0].tolist())
                text = self.tokenizer.decode([*tokens, *(both[0].plan(state) or ())])
                tally.items.append(items_of(json.loads(text)))


def is_valid(text: str, schema: Any) -> bool:
    """Whether a text is valid JSON under a schema."""
    try:
        jsonschema.validate(json.loads(text), schema)
    except (json.JSONDecodeError, jsonschema.ValidationError):
        return False
    return True


def items_of(value: Any) -> int:
    """The number of items of all arrays in a value."""
    inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    return (len(value) if isinstance(value, list) else 0) + sum(map(items_of, inner))


def has_array(schema: Any) -> bool:
    """Whether a schema mentions arrays."""
    return '"array"' in json.dumps(schema)


def percentile(values: list[float], share: float) -> str:
    """A percentile of some values, as text."""
    return f"{sorted(values)[min(len(values) - 1, int(share * len(values)))]:.2f}" if values else "none"


def rows(tallies: dict[str, Tally], schemas: int) -> Iterator[tuple[str, list[str]]]:
    """The rows of the table."""
    both = list(tallies.values())

    def share(found: Counter[bool]) -> str:
        return f"{found[True]} of {found.total()}"

    yield f"schemas accepted, of {schemas}", [str(tally.accepted) for tally in both]
    yield "refused although llguidance accepts", [str(len(tally.refused)) for tally in both]
    yield "valid instances never closed", [share(tally.allowed) for tally in both]
    yield "invalid instances rejected", [share(tally.rejected) for tally in both]
    for name, state in (("median", 0.5), ("99th percentile", 0.99)):
        yield f"a step, {name}, ms", [percentile(tally.steps, state) for tally in both]
    more = [ours - alone for ours, alone in zip(both[0].steps, both[1].steps, strict=True)]
    yield (
        "ours above llguidance's, median and 99th percentile",
        [f"{percentile(more, 0.5)}, {percentile(more, 0.99)}", ""],
    )
    for name, state in (("median", 0.5), ("95th percentile", 0.95)):
        yield f"compile, {name}, ms", [percentile(tally.compiled, state) for tally in both]
    yield "texts valid and complete", [share(tally.good) for tally in both]
    yield (
        "items of arrays with 400 tokens, mean",
        [f"{statistics.mean(tally.items):.2f}" if tally.items else "none" for tally in both],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parts = ["instances", "texts", "arrays"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--tokenizer", choices=sorted(TOKENIZERS), default="smollm2")
    parser.add_argument("--limit", type=int, default=300, help="schemas at most")
    parser.add_argument("--room", type=int, default=4000, help="tokens there are for an instance")
    parser.add_argument("--texts", type=int, default=1, help="texts drawn for each schema and budget")
    parser.add_argument("--arrays", type=int, default=20, help="schemas with arrays whose items are counted")
    parser.add_argument("--seeds", type=int, default=3, help="texts for each of them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = TOKENIZERS[arguments.tokenizer]()
    benchmark = Benchmark(tokenizer, arguments.room)
    files = sorted(arguments.folder.rglob("*.json"))[: arguments.limit]
    cases = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    valid = [test["data"] for case in cases for test in case["tests"] if test["valid"]]
    pairs = Pairs(tokenizer, [json.dumps(data, separators=(",", ":")) for data in valid])
    benchmark.compile({"type": "object"})  # builds what is cached per tokenizer
    benchmark.tallies.update({OURS: Tally(), ALONE: Tally()})
    arrays = 0
    for case in cases:
        both = benchmark.compile(case["schema"])
        if both is None:
            continue
        for test in case["tests"] if "instances" in arguments.parts else ():
            benchmark.lead(*both, test["data"], test["valid"])
        if "texts" in arguments.parts:
            benchmark.write(case["schema"], both, pairs, arguments.texts)
        if "arrays" in arguments.parts and has_array(case["schema"]) and arrays < arguments.arrays:
            arrays += 1
            benchmark.fill(both, pairs, arguments.seeds)
    print(f"| {len(files)} schemas, {arguments.tokenizer} | {' | '.join(benchmark.tallies)} |\n|---|---|---|")
    for name, cells in rows(benchmark.tallies, len(files)):
        print(f"| {name} | {' | '.join(cells)} |")
    for reason in sorted(set(benchmark.tallies[OURS].refused)):
        print(f"refused: {reason}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
