"""Does every required word appear? Whole lists of concept sets, in several ways of decoding, down to the least budget.

    python benchmarks/must_include_coverage.py --sets concept_sets.jsonl [--model demo] [--decode sample greedy beams]

Each line of the sets is a JSON object with a list of words, "concepts"; inflections count, so "dog" is asked for as
"dog*". The texts have 400 tokens (60 for SmolLM2), or with `--tight` the fewest that the call accepts, and 10 more.
Coverage is checked on the decoded text by the tests' own matcher. Exits with 1 if anything is missing.
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path

import torch
from models import MODELS

from fundamentallm_hf import controlled_generate

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from text_matcher import violations

PROMPTS = ["Once upon a time", "One day", "The", "Tom and his friend"]
DECODING = {
    "sample": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0, "seed": 0},
    "greedy": {"do_sample": False},
    "beams": {"num_beams": 4, "do_sample": False},
}
TOKENS = {"demo": 400, "smollm2": 60}


def least_tokens(write, words: list[str]) -> int:
    """The fewest tokens that the call accepts, as its refusal of a single one tells."""
    try:
        write(words, 1)
    except ValueError as error:
        found = re.search(r"at least (\d+) tokens", str(error))
        if found:
            return int(found[1])
        raise
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, default="demo")
    parser.add_argument("--decode", choices=DECODING, nargs="+", default=[*DECODING])
    parser.add_argument("--texts", type=int, default=10**6)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--tight", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = arguments.sets.read_text(encoding="utf-8").splitlines()
    sets = [json.loads(line)["concepts"] for line in lines][arguments.skip :][: arguments.texts]
    model = MODELS[arguments.model]()
    tokenizer = model.tokenizer
    missing = 0
    print(f"{arguments.model}, {len(sets)} sets")
    print("| decoding | tokens | covered | words in the last fifth | mean place | seconds a text |")
    print("|---|---|---|---|---|---|")
    for decoding in arguments.decode:
        for spare in (0, 10) if arguments.tight else (None,):
            covered, places, started = 0, [], time.perf_counter()
            for number, words in enumerate(sets):
                prompt = PROMPTS[number % len(PROMPTS)]
                ids = tokenizer([prompt], return_tensors="pt")

                def write(words: list[str], tokens: int, ids=ids, decoding=decoding) -> str:
                    how = DECODING[decoding] | {"max_new_tokens": tokens}
                    how["must_include"] = [f"{word}*" for word in words]
                    if model.config.model_type != "fundamentallm":
                        how["custom_generate"] = controlled_generate
                    return tokenizer.decode(model.generate(**ids, **how)[0], skip_special_tokens=True)

                tokens = TOKENS[arguments.model] if spare is None else least_tokens(write, words) + spare
                text = write(words, tokens)
                found = [violations(text, len(prompt), [f"{word}*"]) for word in words]
                if not all(found):
                    print(f"MISSING {words} in {text!r}", flush=True)
                covered += all(found)
                places += [(each[0][1] - len(prompt)) / max(1, len(text) - len(prompt)) for each in found if each]
            missing += len(sets) - covered
            late = sum(place > 0.8 for place in places) / len(places)
            budget = TOKENS[arguments.model] if spare is None else f"least + {spare}" if spare else "least"
            print(
                f"| {decoding} | {budget} | {covered}/{len(sets)} | {late:.0%} | {sum(places) / len(places):.2f} "
                f"| {(time.perf_counter() - started) / len(sets):.2f} |",
                flush=True,
            )
    return bool(missing)


if __name__ == "__main__":
    raise SystemExit(main())
