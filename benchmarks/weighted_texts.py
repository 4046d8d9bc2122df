"""The lists of word weights that are measured, and texts that models generate with them.

Weighted are 40 words of the bundled model's training text, each with one of eight weights; or thousands of words, and
regular expressions.
"""

import random

import torch
from results_file import ResultsFile

from fundamentallm_hf import controlled_generate
from fundamentallm_hf.portable.text.word_counts import WordCounts

WEIGHTS = (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0)
PROMPTS = ("Once upon a time", "One day", "The little girl", "In the forest", "Tom and his mom")
BATCH = 20
TEMPERATURE, TOP_P = 0.8, 0.9


def weighted_words(counts: WordCounts, number: int = 40) -> dict[str, float]:
    """Words from the most frequent to rank 600, evenly, and their weights in turn."""
    ranked = sorted((word for word in counts.counts if len(word) > 1), key=lambda word: -counts.counts[word])
    return {ranked[15 * index]: WEIGHTS[index * 3 % len(WEIGHTS)] for index in range(number)}


def long_list(counts: WordCounts, entries: int, expressions: int) -> dict[str, float]:
    """Words of the training text, but for the 300 most frequent ones, and regular expressions."""
    chance = random.Random(0)
    ranked = sorted((word for word in counts.counts if word.isalpha()), key=lambda word: -counts.counts[word])
    listed = ranked[300:]
    patterns = [rf"/\b{word}[a-z]*ly\b/" for word in chance.sample(ranked[300:], expressions // 2)]
    patterns += [rf"/not (just|only) [a-z ]*{word}/" for word in chance.sample(ranked, expressions - len(patterns))]
    chance.shuffle(listed)
    return {entry: chance.choice(WEIGHTS) for entry in [*listed[:entries], *patterns]}


def write(model, texts: int, tokens: int, first: int = 0, **control) -> list[list[int]]:
    """That many texts from number `first` on, over the prompts in turn, at temperature 0.8 and top-p 0.9, as tokens."""
    if control and model.config.model_type != "fundamentallm":
        control["custom_generate"] = controlled_generate
    found: list[list[int]] = []
    while len(found) < texts:
        number = first + len(found)
        ids = model.tokenizer([prompt_of(number)] * min(BATCH, texts - len(found)), return_tensors="pt")
        torch.manual_seed(number)
        output = model.generate(
            **ids, do_sample=True, temperature=TEMPERATURE, top_p=TOP_P, top_k=0, max_new_tokens=tokens, **control
        )
        found += [until_end(model, of_text.tolist(), ids.input_ids.shape[1]) for of_text in output]
    return found


def prompt_of(number: int) -> str:
    """The prompt of a text."""
    return PROMPTS[number // BATCH % len(PROMPTS)]


def until_end(model, tokens: list[int], prompt: int) -> list[int]:
    """A text without the padding behind the token that ends it."""
    end = model.config.eos_token_id
    return tokens[: tokens.index(end, prompt) + 1] if end in tokens[prompt:] else tokens


def as_text(model, tokens: list[int], number: int) -> str:
    """What was generated after the prompt of a text."""
    return model.tokenizer.decode(tokens, skip_special_tokens=True)[len(prompt_of(number)) :]


def generated(
    model, name: str, texts: int, tokens: int, ways: dict[str, dict], results: ResultsFile
) -> dict[str, list[list[int]]]:
    """Texts as tokens by way, which tells the controls; from a file of results where they are there."""
    for number in range(0, texts, BATCH):
        for way, control in ways.items():
            numbers = range(number, min(number + BATCH, texts))
            if any((name, tokens, way, each) not in results.records for each in numbers):
                pairs = zip(numbers, write(model, len(numbers), tokens, first=number, **control), strict=True)
                of_all = {"model": name, "tokens": tokens, "way": way}
                results.add([{**of_all, "number": each, "ids": ids} for each, ids in pairs])
    return {way: [results.records[name, tokens, way, each]["ids"] for each in range(texts)] for way in ways}
