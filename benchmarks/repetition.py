"""Do greedy loops break, and into what? Over words, over tokens as transformers does it, and not at all.

    python benchmarks/repetition.py --training-text stories.txt [--model final_model.pt] [--penalty 1.2] [--tokens 400]

Greedy texts from a few prompts: the share of word 4-grams that are distinct, bits per character under the model without
a penalty, and the share of words that do not occur in the training text. `--show` prints the beginning of each text.
"""

import argparse
from pathlib import Path

import torch
from models import bits_per_character, words

from fundamentallm_hf import load_model
from fundamentallm_hf.portable.decoding.sidecar_files import own_word_counts
from fundamentallm_hf.portable.text.word_counts import WordCounts

PROMPTS = {
    "stories": ["Once upon a time", "One day, a", "The little dog", "Tom and", "She was"],
    "plays": ["To be", "KING: My lord,", "What is", "ROMEO:\n", "The "],
}


def distinct(text: str, size: int = 4) -> float:
    """The share of a text's word n-grams that are distinct."""
    found = words(text)
    grams = [tuple(found[i : i + size]) for i in range(len(found) - size + 1)]
    return len(set(grams)) / max(1, len(grams))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training-text", type=Path, nargs="+", required=True)
    parser.add_argument("--model", help="default: the bundled story model")
    parser.add_argument("--prompts", choices=PROMPTS, default="stories")
    parser.add_argument("--penalty", type=float, default=1.2)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--count-words", action="store_true", help="give the model the word counts of the text")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    model = load_model(arguments.model, device="cpu")
    text = "\n".join(path.read_text(encoding="utf-8") for path in arguments.training_text)
    known = set(words(text))
    if arguments.count_words:
        model.word_counts = WordCounts.of_text(text, least=2)
    print(f"word counts: {own_word_counts(model) is not None}, penalty {arguments.penalty}, {arguments.tokens} tokens")
    print("| way | distinct word 4-grams | bits per character | words not in the training text |")
    print("|---|---|---|---|")
    ways = {
        "none": {},
        "over tokens": {"repetition_penalty": arguments.penalty, "repetition_unit": "tokens"},
        "over words": {"repetition_penalty": arguments.penalty, "repetition_unit": "words"},
        "no word 3-gram twice": {"no_repeat_ngram_size": 3, "repetition_unit": "words"},
    }
    for name, how in ways.items():
        grams, bits, written = 0.0, 0.0, []
        for prompt in PROMPTS[arguments.prompts]:
            ids = model.tokenizer(prompt, return_tensors="pt").input_ids
            # The window bounds what can be judged in one piece.
            limit = min(arguments.tokens, model.config.max_position_embeddings - ids.shape[1])
            output = model.generate(ids, max_new_tokens=limit, do_sample=False, **how)
            text = model.tokenizer.decode(output[0], skip_special_tokens=True)
            grams += distinct(text) / len(PROMPTS[arguments.prompts])
            bits += bits_per_character(model, prompt, [text]) / len(PROMPTS[arguments.prompts])
            written += words(text[len(prompt) :])[:-1]
            if arguments.show:
                print(repr(text[:200]))
        unknown = sum(word not in known for word in written) / len(written)
        print(f"| {name} | {grams:.1%} | {bits:.3f} | {unknown:.2%} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
