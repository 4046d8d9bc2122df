"""Measures how rare required words are spelled.

    python benchmarks/must_include_spelling.py [--words 60] [--tokens 40] [--save texts.jsonl]

SmolLM2 continues ordinary texts, each of which must contain one rare word of several tokens. The script counts the
words in their usual spelling (as listed, capitalised, or all in capitals), and the texts that stammer: they contain
prefixes of the word before the word.
"""

import argparse
import json
import re
from pathlib import Path

import torch
from models import smollm2

from fundamentallm_hf import controlled_generate

WORDS = [
    *("quixotic", "smørrebrød", "velociraptor", "marmalade", "bouillabaisse", "zeppelin", "kaleidoscope", "jackfruit"),
    *("ylang-ylang", "crème brûlée", "Łódź", "Reykjavík", "naïveté", "onomatopoeia", "xylophone", "gnocchi"),
    *("flibbertigibbet", "axolotl", "sarsaparilla", "Kyrgyzstan", "mnemonic", "chiaroscuro", "pterodactyl", "quinoa"),
    *("Wojciech", "schadenfreude", "obsequious", "jalapeño", "ukulele", "tchotchke", "vichyssoise", "brouhaha"),
    *("Ouagadougou", "kohlrabi", "perspicacious", "doppelgänger", "zugzwang", "halberd", "ocelot", "lacquer"),
    *("sycamore", "mezzanine", "trebuchet", "papaya", "Zanzibar", "gazpacho", "wunderkind", "isthmus"),
    *("rutabaga", "Phnom Penh", "catamaran", "soliloquy", "hovercraft", "amethyst", "paella", "yurt"),
    *("Nietzsche", "macramé", "bandicoot", "effervescent"),
]
OPENINGS = [
    "The weather that morning was",
    "My grandmother always told us that",
    "In the middle of the town there is",
    "Scientists have recently found",
    "She opened the letter and",
    "The best part of the trip was",
]


def as_people_do(word: str, text: str) -> bool:
    """Whether the word appears in a text, always in its usual spelling."""
    found = re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
    usual = {word, word[0].upper() + word[1:], word.upper(), word.title()}
    return bool(found) and set(found) <= usual


def stammers(word: str, text: str) -> bool:
    """Whether two or more prefixes of the word appear as separate words before it."""
    before = text[: max(0, text.lower().find(word.lower()))][-60:]
    tried = [
        part
        for part in re.findall(r"\w+", before)
        if 1 < len(part) < len(word) and word.lower().startswith(part.lower())
    ]
    return len(tried) > 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=int, default=len(WORDS))
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = smollm2()
    right = broken = 0
    rows = []
    for index, word in enumerate(WORDS[: given.words]):
        prompt = OPENINGS[index % len(OPENINGS)]
        ids = model.tokenizer(prompt, return_tensors="pt").input_ids
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            custom_generate=controlled_generate,
            must_include=[word],
            max_new_tokens=given.tokens,
            do_sample=True,
            temperature=0.8,
            top_p=0.9,
            top_k=0,
            seed=index,
        )
        text = model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        spelled, stammered = as_people_do(word, text), stammers(word, text)
        right, broken = right + spelled, broken + stammered
        rows.append({"word": word, "text": text, "as people do": spelled, "stammers": stammered})
        print(f"{'' if spelled else 'SPELLED '}{'STAMMERS ' if stammered else ''}{word}: {prompt}{text!r}", flush=True)
    print(f"{right} of {len(rows)} spelled as people spell them, {broken} stammer")
    if given.save:
        given.save.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
