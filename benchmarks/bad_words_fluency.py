"""What banning words costs in fluency, and what it does to innocent words.

    python benchmarks/bad_words_fluency.py --training-text stories.txt [--texts 100] [--temperature 0.8] [--top-p 0.9]

The same texts are written without a ban, with a plain mask that acts where a banned word would be completed, with the
look-ahead by word counts, and with the look-ahead that asks the model as well (what `bad_words` does). For each list of
banned words: bits per character of what is written under the model without a ban, its ratio to the unbanned texts, the
share of words that do not occur in the training text, the share of banned words, and how often innocent words that
contain banned ones appear per thousand words. The lists are fixed: common words of the model's own texts, and random
ones that make up 5% of them.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from models import MODELS, bits_per_character, words

from fundamentallm_hf import BadWordsLogitsProcessor, controlled_generate
from fundamentallm_hf.portable.controls.bad_words import compile_bad_words
from fundamentallm_hf.portable.decoding.sidecar_files import own_word_counts
from fundamentallm_hf.portable.text.word_counts import WordCounts

PROMPT = "Once upon a time"


class NoChances(WordCounts):
    """Makes the look-ahead blind: what is left is a plain mask."""

    def chance(self, beginning: str, word: str, stem: bool = False) -> float:
        return 0.0


def write(model, banned: Sequence[str], way: str, texts: int, tokens: int, **sampling) -> list[str]:
    """Write `texts` texts of `tokens` tokens; `way` is "free", "mask", "counts" or "model"."""
    tokenizer = model.tokenizer
    ids = tokenizer([PROMPT] * texts, return_tensors="pt")
    torch.manual_seed(0)
    arguments = dict(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, top_k=0, **sampling)
    if way == "model":
        arguments["bad_words"] = list(banned)
        if model.config.model_type != "fundamentallm":
            arguments["custom_generate"] = controlled_generate
    elif way != "free":
        counts = NoChances({"": 1}) if way == "mask" else own_word_counts(model)
        tables = compile_bad_words(banned, tokenizer, model.config.vocab_size, counts=counts)
        columns = ids.input_ids.shape[1]
        arguments["logits_processor"] = [
            BadWordsLogitsProcessor(
                tables,
                prompt_columns=columns,
                end_tokens=[model.config.eos_token_id],
                remaining=lambda ids: [columns + tokens - ids.shape[1]] * len(ids),
                temperature=sampling["temperature"],
            )
        ]
    output = model.generate(**ids, **arguments)
    return tokenizer.batch_decode(output, skip_special_tokens=True)


def random_list(counts: Counter, share: float, seed: int) -> list[str]:
    """Random words of at least three letters that together make up about `share` of all words."""
    wanted, total, chosen = share * counts.total(), 0, []
    candidates = sorted(word for word, count in counts.items() if len(word) > 2 and count >= 5)
    random.Random(seed).shuffle(candidates)
    for word in candidates:
        if total + counts[word] <= wanted * 1.05:
            chosen.append(word)
            total += counts[word]
        if total >= wanted * 0.97:
            break
    return chosen


def innocents(text: Sequence[str], banned: Sequence[str]) -> float:
    """Words that contain a banned word but are none, per thousand words that are not banned."""
    allowed = [word for word in text if word not in banned]
    return 1000 * sum(any(word in other for word in banned) for other in allowed) / max(1, len(allowed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training-text", type=Path, nargs="+", required=True)
    parser.add_argument("--model", choices=MODELS, default="demo")
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=380)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--lists", type=int, nargs="+", help="numbers of the lists to measure, from 0; default: all")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    model = MODELS[arguments.model]()
    known = {word for path in arguments.training_text for word in words(path.read_text(encoding="utf-8"))}
    size = {"texts": arguments.texts, "tokens": arguments.tokens}
    sampling = {"temperature": arguments.temperature, "top_p": arguments.top_p}
    free = write(model, [], "free", **size, **sampling)
    base = bits_per_character(model, PROMPT, free)
    counts = Counter(word for text in free for word in words(text[len(PROMPT) :]))
    lists = {
        "the, and, was": ["the", "and", "was"],
        "said, happy, mom, day, play, little": ["said", "happy", "mom", "day", "play", "little"],
        "lily": ["lily"],
        "he, art, all, his, ant": ["he", "art", "all", "his", "ant"],
        **{f"5% at random, {seed}": random_list(counts, 0.05, seed) for seed in range(3)},
    }
    print(f"{arguments.model}, temperature {arguments.temperature}, top-p {arguments.top_p}, {arguments.texts} texts")
    print("| banned | way | banned words | bits per character | ratio | words not in the training text | innocents |")
    print("|---|---|---|---|---|---|---|")
    for number, (name, banned) in enumerate(lists.items()):
        if arguments.lists is not None and number not in arguments.lists:
            continue
        for way in ("free", "mask", "counts", "model"):
            written = free if way == "free" else write(model, banned, way, **size, **sampling)
            bits = bits_per_character(model, PROMPT, written)
            found = [word for text in written for word in words(text[len(PROMPT) :])[:-1]]
            share = sum(word in banned for word in found) / len(found)
            unknown = sum(word not in known for word in found) / len(found)
            print(
                f"| {name} | {way} | {share:.2%} | {bits:.4f} | {bits / base:.3f} | {unknown:.2%} "
                f"| {innocents(found, banned):.1f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
