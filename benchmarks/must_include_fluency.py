"""Required words: are they there, where do they stand, and does the text around them read as if nobody had asked?

    python benchmarks/must_include_fluency.py --sets concept_sets.jsonl [--model demo] [--texts 40] [--decode sample]

Each line of the sets is a JSON object with a list of words, "concepts"; inflections count, so "dog" is asked for as
"dog*". The same texts are written in several ways:

- free: nothing is asked for;
- deadline: nothing is done until the words must be forced;
- bias: tokens that begin or go on with a word get a bonus that grows with the share of the budget that is used;
- counts: the look-ahead in closed form, with chances and frequencies from word counts alone;
- ngram: the same, with chances and frequencies under a character n-gram model times the words' automata, exactly, as
  GeLaTo and Ctrl-G do with hidden Markov models (`--training-text`, character models only);
- scored: the look-ahead with the model's own probability of the next token, and word counts for the rest of a word;
- model: the same, and the model reads the beginnings of words ahead; this is what `must_include` does.

For each: the share of the sets that are covered, by the tests' own matcher; where the words stand first (0 is the
beginning of the text, 1 its end), and the share of them in the last fifth; the perplexity of the text around the words
(their tokens left out, their context kept) and its ratio to free texts; and over the whole text the bits above free
texts beside the bits that the words' own tokens carry. The judge is SmolLM2-135M for the demo model, and itself for
itself. `--save` keeps the texts.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from models import MODELS, smollm2
from must_include_coverage import DECODING, PROMPTS, TOKENS
from ngram_placement import NGramPlacement

from fundamentallm_hf import controlled_generate
from fundamentallm_hf.portable.controls import logits_processors as controls
from fundamentallm_hf.portable.controls import must_include as package
from fundamentallm_hf.portable.controls import must_include_placement as placement
from fundamentallm_hf.portable.controls.must_include_placement import Outlook, Placement

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from text_matcher import violations

# What the bias grows to, in nats: enough that nearly all words come before they must be forced.
BIAS = 6.0


class Scored(Placement):
    """The model's next token and word counts; it is not asked further."""

    def __init__(self, requirements, lookahead=None, temperature=1.0) -> None:
        super().__init__(requirements, None, temperature)


class Forced(package.MustIncludeLogitsProcessor):
    """Waits until the words must be forced."""

    def _weigh(self, outlooks: Sequence[Outlook], left: float, shift: np.ndarray) -> None:
        pass


class Counted(package.MustIncludeLogitsProcessor):
    """Compares a place with a word's frequency in word counts; at 0.2 of it words fell most evenly over the text."""

    def _weigh(self, outlooks: Sequence[Outlook], left: float, shift: np.ndarray) -> None:
        for outlook in outlooks:
            frequency = self.requirements.tables[outlook.entry].patterns.frequency
            later = max(1e-7, -math.expm1(left * math.log1p(-0.2 * frequency)))
            hope = outlook.begun + (1 - outlook.begun) * later
            shift += math.log(later / hope)
            shift[outlook.tokens] += np.log((outlook.chances + (1 - outlook.chances) * later) / later)
            shift[outlook.completing] -= math.log(later)


class Biased(package.MustIncludeLogitsProcessor):
    """Gives words a bonus that grows with time."""

    def _weigh(self, outlooks: Sequence[Outlook], left: float, shift: np.ndarray) -> None:
        self.most = max(left, getattr(self, "most", 1.0))
        for outlook in outlooks:
            likely = outlook.tokens[outlook.chances > 1e-3]
            shift[likely] += BIAS * (1 - left / self.most)


WAYS = {
    "free": {},
    "deadline": {"MustIncludeLogitsProcessor": Forced},
    "bias": {"MustIncludeLogitsProcessor": Biased},
    "counts": {"MustIncludeLogitsProcessor": Counted, "Placement": Scored},
    "ngram": {"Placement": NGramPlacement},
    "scored": {"Placement": Scored},
    "model": {},
}


def write(
    model, way: str, words: Sequence[str], prompt: str, tokens: int, decoding: str, seed: int, samples: int
) -> list[str]:
    """Texts, without their prompt."""
    ids = model.tokenizer([prompt], return_tensors="pt")
    how = DECODING[decoding] | {"max_new_tokens": tokens, "min_new_tokens": tokens}
    if DECODING[decoding]["do_sample"]:
        how |= {"seed": seed, "num_return_sequences": samples}
    if way != "free":
        how["must_include"] = [f"{word}*" for word in words]
    if model.config.model_type != "fundamentallm":
        how["custom_generate"] = controlled_generate
    replaced = WAYS[way]
    kept = {name: getattr(package, name) for name in replaced}
    for name, new in replaced.items():
        setattr(package, name, new)
        if name == "MustIncludeLogitsProcessor":
            controls.MustIncludeLogitsProcessor = new
    try:
        output = model.generate(**ids, **how)
    finally:
        for name, old in kept.items():
            setattr(package, name, old)
        controls.MustIncludeLogitsProcessor = package.MustIncludeLogitsProcessor
    return [text[len(prompt) :] for text in model.tokenizer.batch_decode(output, skip_special_tokens=True)]


def spans(text: str, prompt: str, words: Sequence[str]) -> list[list[tuple[int, int]]]:
    """For each word, where it stands behind the prompt."""
    return [[(i, j) for _, i, j in violations(prompt + text, len(prompt), [f"{word}*"])] for word in words]


@torch.no_grad()
def judge(model, prompt: str, text: str, left_out: Sequence[tuple[int, int]]) -> tuple[float, int, float, int]:
    """Nats and tokens of the text around the places left out, and of those places."""
    encoded = model.tokenizer(prompt + text, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.offset_mapping[0].tolist()
    ids = encoded.input_ids
    logs = model(ids).logits[0, :-1].float().log_softmax(dim=-1).gather(1, ids[0, 1:, None])[:, 0]
    around, count, own, own_count = 0.0, 0, 0.0, 0
    for log, (start, end) in zip(logs.tolist(), offsets[1:], strict=True):
        if end <= len(prompt):
            continue
        if any(start < j and i < end for i, j in left_out):
            own, own_count = own - log, own_count + 1
        else:
            around, count = around - log, count + 1
    return around, count, own, own_count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, default="demo")
    parser.add_argument("--decode", choices=DECODING, default="sample")
    parser.add_argument("--texts", type=int, default=40, help="sets that are taken")
    parser.add_argument("--samples", type=int, default=4, help="texts for each set, where they are sampled")
    parser.add_argument("--skip", type=int, default=0, help="sets left out at the beginning of the file")
    parser.add_argument("--tokens", type=int, help="default: 400 for the demo model, 60 for SmolLM2")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--training-text", type=Path, help="for the n-gram model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="constants of placement.py to try")
    parser.add_argument("--save", type=Path, help="a file for the texts, one JSON object a line")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    for name, value in (each.split("=") for each in arguments.set):
        setattr(placement, name, type(getattr(placement, name))(value))
    lines = arguments.sets.read_text(encoding="utf-8").splitlines()
    sets = [json.loads(line)["concepts"] for line in lines][arguments.skip :][: arguments.texts]
    model = MODELS[arguments.model]()
    referee = model if arguments.model == "smollm2" else smollm2()
    tokens = arguments.tokens or TOKENS[arguments.model]
    if arguments.training_text:
        NGramPlacement.train(arguments.training_text.read_text(encoding="utf-8"))
    print(f"{arguments.model}, {arguments.decode}, {len(sets)} sets, {tokens} tokens")
    print("| way | covered | mean place | last fifth | perplexity around | ratio | bits above free | own bits | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    saved = arguments.save.open("w", encoding="utf-8") if arguments.save else None
    base = whole_base = math.nan
    for way in arguments.ways:
        if way == "ngram" and not arguments.training_text:
            continue
        places, written, covered, took = [], 0, 0, 0.0
        sums = np.zeros(4)
        for number, words in enumerate(sets):
            prompt = PROMPTS[number % len(PROMPTS)]
            started = time.perf_counter()
            texts = write(model, way, words, prompt, tokens, arguments.decode, 10 * number, arguments.samples)
            took += time.perf_counter() - started
            for text in texts:
                found = spans(text, prompt, words)
                written, covered = written + 1, covered + all(found)
                places += [(of_word[0][0] - len(prompt)) / len(text) for of_word in found if of_word]
                sums += judge(referee, prompt, text, [span for of_word in found for span in of_word])
                if saved:
                    saved.write(json.dumps({"way": way, "words": words, "prompt": prompt, "text": text}) + "\n")
                    saved.flush()
        perplexity = math.exp(sums[0] / sums[1])
        whole = (sums[0] + sums[2]) / math.log(2) / written
        if way == "free":
            base, whole_base = perplexity, whole
        print(
            f"| {way} | {covered}/{written} | {np.mean(places or [math.nan]):.2f} "
            f"| {np.mean(np.array(places or [math.nan]) > 0.8):.0%} | {perplexity:.2f} | {perplexity / base:.3f} "
            f"| {whole - whole_base:.1f} | {sums[2] / math.log(2) / written:.1f} | {took / written:.2f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
