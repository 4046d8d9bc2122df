"""The cost of controls with a tokenizer of 151,000 tokens, 25,000 of which are single characters.

    python benchmarks/large_vocabulary.py [--steps 60] [--only "400 bans"]

The script builds the tokenizer: byte-level like Qwen's, with words of random syllables, other scripts and ideographs.
For each control it times the first use (compiling its entries and the first step), then the steps of a text whose
tokens are sampled by Zipf's law, without a model. Times are processor times, so other processes do not count. Each
control runs in a separate process, which reports the peak growth of its memory.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from timing import peak_memory
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from fundamentallm_hf import BadWordsLogitsProcessor, MustIncludeLogitsProcessor
from fundamentallm_hf.portable.controls.bad_words import compile_bad_words
from fundamentallm_hf.portable.controls.must_include_plan import Requirements
from fundamentallm_hf.portable.text.tokenizer_cache import OFF_VARIABLE
from fundamentallm_hf.portable.text.vocabulary import Vocabulary

SIZE, CHARACTERS = 151_000, 25_000
SCRIPTS = [range(0x4E00, 0x9FFF), range(0xAC00, 0xD7A3), range(0x400, 0x530), range(0xC0, 0x250), range(0x600, 0x700)]
ONSETS = ["", "b", "br", "c", "ch", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "sh", "st", "t", "th"]
VOWELS, CODAS = ["a", "e", "i", "o", "u", "ea", "ou"], ["", "", "n", "r", "s", "t", "l", "ng", "ck", "ing"]
DATE = r"/\b[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])\b/"
WORDS = ["dragon", "castle", "knight", "river", "happy"]
BANS = 400


def made_words(dice: random.Random, count: int) -> list[str]:
    """Words of one to four random syllables, shortest first."""
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = dice.choices([1, 2, 3, 4], [1, 6, 6, 2])[0]
        found["".join(dice.choice(ONSETS) + dice.choice(VOWELS) + dice.choice(CODAS) for _ in range(syllables))] = None
    return sorted(found, key=len)


def large_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer; it is the same in every process."""
    dice = random.Random(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    named = {
        byte: chr(byte)
        for byte in (*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1))
    }
    rest = [byte for byte in range(256) if byte not in named]
    named |= {byte: chr(256 + index) for index, byte in enumerate(rest)}
    others = [chr(code) for script in SCRIPTS for code in script if chr(code).isprintable()]
    texts: dict[str, None] = {}
    for word in made_words(dice, 42_000):
        texts |= {f" {word}": None, word: None, f" {word.capitalize()}": None}
    pairs = (dice.choice(others[:5000]) + dice.choice(others[:5000]) for _ in range(SIZE))
    wanted = [*WORDS, *(f" {word}" for word in WORDS), *others[: CHARACTERS - 128], *texts, *pairs]
    names = dict.fromkeys([*letters, *("".join(named[byte] for byte in text.encode()) for text in wanted)])
    vocabulary = {name: index for index, name in enumerate(list(names)[: SIZE - 1])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    logging.set_verbosity_error()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", clean_up_tokenization_spaces=False)


def bans() -> list[str]:
    """Invented banned words."""
    return random.Random(1).sample(made_words(random.Random(2), 20_000)[2000:], BANS)


CASES = {
    "400 bans": {"bad_words": "bans"},
    "a date": {"bad_words": [DATE]},
    "/[0-9]{4}/": {"bad_words": ["/[0-9]{4}/"]},
    "*ing": {"bad_words": ["*ing"]},
    "*a*": {"bad_words": ["*a*"]},
    "/[^\\x00-\\x7f]/": {"bad_words": ["/[^\\x00-\\x7f]/"]},
    "five words required": {"must_include": WORDS},
    "a date required": {"must_include": [DATE]},
    "/[0-9]{4}/ required": {"must_include": ["/[0-9]{4}/"]},
    "*ing required": {"must_include": ["*ing"]},
    "/a.{10}b/ without c*": {"must_include": ["/a.{10}b/"], "bad_words": ["c*"]},
    "400 bans, five words required": {"must_include": WORDS, "bad_words": "bans"},
}


def made(entries, tokenizer, steps):
    """The processors of a case, with everything compiled."""
    banned = entries.get("bad_words")
    tables = compile_bad_words(banned, tokenizer, len(tokenizer)) if banned else None
    if entries.get("must_include"):
        required = Requirements(entries["must_include"], tokenizer, len(tokenizer), barred=tables)
        yield MustIncludeLogitsProcessor(required, tokenizer, max_new_tokens=steps + 60)
    if tables:
        yield BadWordsLogitsProcessor(tables, end_tokens=[tokenizer.eos_token_id])


def peak_since() -> float:
    """Peak memory of this process since the last call, in MiB."""
    peak = peak_memory()
    Path("/proc/self/clear_refs").write_text("5")
    return peak


def measure(name: str, steps: int, folder: str) -> dict[str, float]:
    """Seconds for the vocabulary and the first use, milliseconds per later step, and memory in MB."""
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    entries = CASES[name] | ({"bad_words": bans()} if CASES[name].get("bad_words") == "bans" else {})
    peak_since()
    before = peak_since()
    begin = time.process_time()
    Vocabulary.of(tokenizer)
    vocabulary = time.process_time() - begin
    generator = torch.Generator().manual_seed(0)
    usual = -torch.log(torch.randperm(len(tokenizer), generator=generator) + 5.0)
    ids = torch.tensor([[tokenizer.convert_tokens_to_ids("Ġdragon")]])
    begin = time.process_time()
    processors = list(made(entries, tokenizer, steps))
    for processor in processors:
        processor(ids, usual[None])
    first = time.process_time() - begin
    spent = []
    for _ in range(steps):
        scores = usual[None].clone()
        begin = time.process_time()
        for processor in processors:
            scores = processor(ids, scores)
        spent.append(1000 * (time.process_time() - begin))
        token = torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)
        ids = torch.cat([ids, token], dim=1)
    return {
        "vocabulary": vocabulary,
        "first": first,
        "median": statistics.median(spent),
        "mean": statistics.mean(spent),
        "most": max(spent),
        "memory": peak_since() - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", choices=CASES, nargs="*")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], given.steps, given.one[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        large_tokenizer().save_pretrained(folder)
        for name in given.only or CASES:
            call = [sys.executable, __file__, "--one", name, folder, "--steps", str(given.steps)]
            ran = subprocess.run(call, stdout=subprocess.PIPE, check=True, env=os.environ | {OFF_VARIABLE: "1"})
            found = json.loads(ran.stdout)
            print(
                f"{name:30} vocabulary {found['vocabulary']:5.2f} s  first use {found['first']:5.2f} s  steps "
                f"{found['median']:5.1f} ms at the median, {found['mean']:5.1f} at the mean, {found['most']:6.1f} at "
                f"most  memory {found['memory']:4.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
