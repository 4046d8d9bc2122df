"""Ten attributes on one model: how many texts have them by a rule, and what that costs.

    python benchmarks/ten_attributes.py --attributes FOLDER --reviews reviews.tsv [--model demo] [--strengths 4 8] \
        [--names formal animals] [--together formal,animals] [--openings 50] [--samples 2] [--results results.jsonl]

`examples/ten_attributes.py` makes the folder. After the neutral openings of `guided_attributes.py`, texts are sampled
at temperature 0.8 and top-p 0.9, without a guide and with each attribute at each strength, in the same batches and
with the same seeds. Each line has the share of texts that have the attribute (see `attribute_judges.py`), and the same
of the texts without a guide; the perplexity per word under the model itself without a guide, or with
`--evaluator smollm2` under SmolLM2-135M in bfloat16; the share of distinct triples of words among all; and the
processor time. The last three are relative to no guide. SmolLM2 generates in bfloat16, too. `--together` measures
several attributes at once, each by its own judge, at the strengths after their names (`formal:4,animals:8`) times each
strength.

With `--results`, every line is added to a file as JSON, with its texts. Lines of the same attributes, strength and
options that the file already has are not measured again; give another file for attributes that were made anew.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from attribute_judges import check, with_reviews
from guided_attributes import distinct, openings, write
from models import MODELS, smollm2, words

from fundamentallm_hf import Attribute
from fundamentallm_hf.portable.guides.attributes import read_guides
from fundamentallm_hf.training.text_likelihood import likelihoods

# What makes a line another one.
OPTIONS = ("model", "evaluator", "openings", "samples", "tokens", "rows")
RECIPES = Path(__file__).parent.parent / "examples" / "ten_attributes.json"


def perplexity(evaluator, pairs: list[tuple[str, str]]) -> float:
    """Per word, whatever the tokens, of texts after their openings: over all together."""
    read = likelihoods(evaluator, evaluator.tokenizer, pairs)
    return math.exp(-sum(each.log for each in read) / sum(len(words(text)) for _, text in pairs))


class Rows:
    """Measures texts, once for each guide and strength.

    Args:
        model: that generates.
        evaluator: that gives the perplexity.
        arguments: of the command.
    """

    def __init__(self, model, evaluator, arguments: argparse.Namespace) -> None:
        self.model, self.evaluator, self.arguments = model, evaluator, arguments
        self.file = arguments.results
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file and self.file.exists() else []
        self.known = [json.loads(line) for line in lines]

    def of(self, guide: str, strength: float):
        """The texts of a guide at a strength, and their figures."""
        options = {name: getattr(self.arguments, name) for name in OPTIONS}
        asked = {"guide": guide, "strength": strength, "options": options}
        for row in self.known:
            if row.items() >= asked.items():
                return row
        prompts, pairs = openings("neutral", self.arguments.openings), []
        size = max(1, self.arguments.rows // self.arguments.samples)
        started = time.process_time()
        for first in range(0, len(prompts), size):
            part = prompts[first : first + size]
            pairs += write(self.model, part, [guide] if guide else [], strength, self.arguments, 1000 * first)
        row = asked | {
            "seconds": time.process_time() - started,
            "perplexity": perplexity(self.evaluator, pairs),
            "distinct": distinct([text for _, text in pairs], 3),
            "texts": [text for _, text in pairs],
        }
        self.known.append(row)
        if self.file:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--reviews", type=Path, nargs="+", default=[], help="without them, sentiment is left out")
    parser.add_argument("--model", choices=MODELS, default="demo")
    parser.add_argument("--evaluator", choices=["smollm2"], help="default: the model itself")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="default: all in the folder")
    parser.add_argument("--together", nargs="+", default=[], metavar="NAME:STRENGTH,…")
    parser.add_argument("--strengths", type=float, nargs="+", default=[4, 8])
    parser.add_argument("--openings", type=int, default=50, help="at most 100")
    parser.add_argument("--samples", type=int, default=1, help="texts after each opening")
    parser.add_argument("--tokens", type=int, help="default: 300 for the demo model, 60 for SmolLM2")
    parser.add_argument("--rows", type=int, default=50, help="texts that are generated at once")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.tokens = arguments.tokens or (300 if arguments.model == "demo" else 60)
    torch.set_num_threads(arguments.threads)
    check(json.loads(RECIPES.read_text(encoding="utf-8")))
    judges = with_reviews(arguments.reviews)
    model = MODELS[arguments.model]()
    model = model.to(torch.bfloat16) if arguments.model == "smollm2" else model
    evaluator = model if arguments.evaluator in (None, arguments.model) else smollm2().to(torch.bfloat16)
    model.attributes = {each.name: Attribute.load(each) for each in sorted(arguments.attributes.iterdir())}
    rows = Rows(model, evaluator, arguments)
    free = rows.of("", 0.0)
    print(f"{arguments.model}, {len(free['texts'])} texts of {arguments.tokens} tokens; ", end="")
    print(f"perplexity {free['perplexity']:.1f} and distinct triples {free['distinct']:.2f} without a guide")
    print("| guide | strength | have it | without a guide | perplexity | distinct triples | time |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for guide in [*(arguments.names or model.attributes), *arguments.together]:
        names = [each for each in read_guides(guide) if each in judges]
        for strength in arguments.strengths if names else ():
            row = rows.of(guide, strength)
            shares, before = (
                ", ".join(f"{judges[name].judged_so(of['texts'], free['texts']):.0%}" for name in names)
                for of in (row, free)
            )
            ratios = [row[what] / free[what] for what in ("perplexity", "distinct", "seconds")]
            shown = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"| {guide} | {strength:+g} | {shares} | {before} | {shown} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
