"""What banning words costs in time, beside transformers' own `bad_words_ids`.

    python benchmarks/bad_words_speed.py --list words.txt [--models demo smollm2] [--tokens 200] [--rounds 5]

One prompt, sampled at temperature 0.8 and top-p 0.9. Every way writes the same number of tokens, all ways in turn in
every round, after a warm-up each; printed are the medians over the rounds of tokens per second and of the time
relative to no control in the same round, and the time it takes to compile a list the first time. All times are those
of the processor. `bad_words_ids` gets every tokenisation of six spellings of a word that the tokenizer itself would
choose, which is not all there are.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from models import MODELS
from timing import take_turns

from fundamentallm_hf.portable.controls.bad_words import compile_bad_words
from fundamentallm_hf.portable.decoding.sidecar_files import own_word_counts

PROMPT = "Once upon a time"


def spellings(tokenizer, word: str) -> list[list[int]]:
    """The tokens of a word in three cases, at the beginning of a text and behind a space."""
    forms = {lead + form for lead in ("", " ") for form in (word.lower(), word.capitalize(), word.upper())}
    unknown = tokenizer.unk_token_id
    tokens = [tokenizer(form, add_special_tokens=False).input_ids for form in sorted(forms)]
    return [ids for ids in tokens if ids and (unknown is None or unknown not in ids)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", type=Path, required=True, help="words to ban, one a line")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["demo", "smollm2"])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 40, 400], help="numbers of words to ban")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    words = [line.strip() for line in arguments.list.read_text(encoding="utf-8").splitlines() if line.strip()]

    print("| model | banned | way | tokens per second | time | compiled in |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        model = MODELS[name]()
        tokenizer = model.tokenizer
        ways: dict[tuple[str, str], dict] = {("0", "no control"): {}}
        compiled = {}
        for count in arguments.counts:
            banned = words[:count]
            ways[str(count), "bad_words"] = {"bad_words": banned}
            ids = [tokens for word in banned for tokens in spellings(tokenizer, word)]
            ways[str(count), f"bad_words_ids ({len(ids)})"] = {"bad_words_ids": ids}
            start = time.process_time()
            compile_bad_words(banned, tokenizer, model.config.vocab_size, counts=own_word_counts(model))
            compiled[str(count)] = time.process_time() - start
        asked = {way: lambda _, control=control: dict(control) for way, control in ways.items()}
        taken = take_turns(model, PROMPT, asked, arguments.tokens, arguments.rounds)
        base = taken["0", "no control"]
        for (count, way), times in taken.items():
            ratio = statistics.median(mine / plain for mine, plain in zip(times, base, strict=True))
            first = f"{compiled[count]:.2f} s" if way == "bad_words" else ""
            speed = arguments.tokens / statistics.median(times)
            print(f"| {name} | {count} | {way} | {speed:.1f} | {ratio:.3f} | {first} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
