"""Does a banned word ever appear? Thousands of generations, checked on the decoded text by an independent matcher.

    python benchmarks/bad_words_violations.py [--generations 2000] [--models demo smollm2] [--list words.txt]

Every batch draws a model, a way of decoding (greedy, sampling at temperatures up to 2, beams, sampled beams, several
return sequences, prompt lookup), prompts (padded, some ending inside a banned word), and a list: one to hundreds of
words of a list file, the words the model uses most, stems, phrases, words with stars, regular expressions, accents and
other scripts. The matcher is that of the tests and shares no code with the package. Exits with 1 if anything is found.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import torch
from models import MODELS

from fundamentallm_hf import controlled_generate

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from text_matcher import violations

PROMPTS = [
    "Once upon a time",
    "The",
    "She said",
    "One day, Tom and",
    "They all",
    "I think that",
    "Lily saw a big",
    "In the",
]
USED = ["the", "and", "was", "to", "a", "she", "he", "it", "they", "her", "said", "day", "mom", "Lily", "Tom", "happy"]
STEMS = ["play*", "want*", "th*", "lov*", "run*", "*ing", "*ed", "*oo*", "w*s", "s*d"]
PHRASES = ["once upon a time", "there was", "a little girl", "of the", "in the park", "said no", "very happy", "to be"]
PATTERNS = ["/[0-9]/", r"/\bw\w+\b/", "/ee/", r"/\b(he|she) \w+ed\b/", r"/\.\s+The/", "/q/", r"/\bi\b/", "/!$/"]
OTHER = ["café", "naïve", "straße", "日本", "😀", "ИЗ", "ﬁ", "l'eau", "c++", "o'clock", "don't", "Mr."]


def draw_list(draw: random.Random, words: list[str]) -> list[str]:
    """A list of banned words."""
    kind = draw.random()
    if kind < 0.3:
        return draw.sample(words, draw.choice([1, 5, 40, min(400, len(words))]))
    if kind < 0.55:
        return draw.sample(USED, draw.choice([1, 2, 3, 8]))
    pools = [STEMS, PHRASES, PATTERNS, OTHER, USED]
    chosen = [entry for pool in draw.sample(pools, draw.choice([1, 2, 3])) for entry in draw.sample(pool, 2)]
    return chosen + draw.sample(words, 10)


def draw_prompts(draw: random.Random, banned: list[str], rows: int) -> list[str]:
    """Prompts of different lengths; some stop inside a banned word, some behind one."""
    prompts = []
    for _ in range(rows):
        prompt = draw.choice(PROMPTS)
        plain = [entry.strip("*") for entry in banned if entry.strip("*") and not entry.startswith("/")]
        if plain and draw.random() < 0.5:
            word = draw.choice(plain)
            prompt += " " + word[: draw.randint(1, len(word))]
        prompts.append(prompt)
    return prompts


def draw_mode(draw: random.Random) -> tuple[str, dict]:
    """A way of decoding: its name, and the arguments of `generate()`."""
    kind = draw.choice(["greedy", "sample", "sample", "sample", "beams", "sampled beams", "several", "lookup"])
    hot = {
        "do_sample": True,
        "temperature": draw.choice([0.7, 1.0, 1.5, 2.0]),
        "top_k": 0,
        "top_p": draw.choice([0.9, 1.0]),
    }
    if kind == "sample":
        return f"sample {hot['temperature']}", hot
    return kind, {
        "greedy": {"do_sample": False},
        "beams": {"do_sample": False, "num_beams": 4},
        "sampled beams": dict(hot, num_beams=3),
        "several": dict(hot, num_return_sequences=2),
        "lookup": {"do_sample": False, "prompt_lookup_num_tokens": 4},
    }[kind]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=2000)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["demo", "smollm2"])
    parser.add_argument("--share", type=float, default=0.15, help="of the generations that the second model writes")
    parser.add_argument("--list", type=Path, help="words to draw from, one a line; default: a few mild ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    if arguments.list:
        words = [line.strip() for line in arguments.list.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        words = ["ass", "damn", "hell", "crap", "stupid", "ugly", "hate", "kill", "dead", "fool", "shut up", "bad"]
    draw = random.Random(arguments.seed)
    models = {name: MODELS[name]() for name in arguments.models}
    done: dict[str, int] = {}
    modes: dict[str, int] = {}
    found = 0
    start = time.perf_counter()
    while sum(done.values()) < arguments.generations:
        name = arguments.models[-1] if draw.random() < arguments.share else arguments.models[0]
        model = models[name]
        banned = draw_list(draw, words)
        mode, how = draw_mode(draw)
        prompts = draw_prompts(draw, banned, 1 if mode == "lookup" else 8)
        # A character that a model cannot read is lost in decoding, and the prompt's end with it.
        prompts = [p if model.tokenizer.decode(model.tokenizer(p).input_ids) == p else PROMPTS[0] for p in prompts]
        inputs = model.tokenizer(prompts, return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)
        if model.config.model_type != "fundamentallm":
            how["custom_generate"] = controlled_generate
        tokens = draw.choice([20, 60, 120] if name == "demo" else [10, 30])
        torch.manual_seed(draw.randint(0, 2**31))
        output = model.generate(**inputs, max_new_tokens=tokens, bad_words=banned, **how)
        texts = model.tokenizer.batch_decode(output, skip_special_tokens=True)
        starts = model.tokenizer.batch_decode(inputs.input_ids, skip_special_tokens=True)
        for row, text in enumerate(texts):
            prompt = starts[row * len(starts) // len(texts)]
            wrong = violations(text, len(prompt), banned)
            if wrong:
                found += 1
                print(f"FOUND {wrong[:3]} in {text!r} after {prompt!r} ({name}, {mode}, {banned[:8]})", flush=True)
        done[name] = done.get(name, 0) + len(texts)
        modes[mode] = modes.get(mode, 0) + len(texts)
    print(f"generations: {sum(done.values())} ({', '.join(f'{name} {count}' for name, count in done.items())})")
    print("by mode: " + ", ".join(f"{mode} {count}" for mode, count in sorted(modes.items())))
    print(f"with a banned word: {found}; {time.perf_counter() - start:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
