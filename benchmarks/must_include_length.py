"""Measures whether required words change the length of a text.

    python benchmarks/must_include_length.py [--model demo] [--texts 200] [--tokens 3000] [--batch 50]
    python benchmarks/must_include_length.py --model smollm2 [--texts 50] [--tokens 200] [--save answers.jsonl]
    python benchmarks/must_include_length.py --model smollm2 --again answers.jsonl

The story model generates stories with and without three words; SmolLM2 answers questions with one word and without. The
script prints the share of texts that contain all words, the share that end naturally, the median length, its ratio to
unconstrained texts, the share of the words in the last fifth, and the share of texts with a word after the last
sentence. `--lengths` prints the quantiles of the unconstrained lengths in tokens. With `--write FILE` it also writes
them as `text_lengths` to a model's `generation_config.json`, from which the placement of required words reads them.

`--again` answers the questions whose unconstrained answer ends by itself in a file of `--save` four more times without
a required word, and prints how many of those answers end by themselves: what chance alone changes.
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

import torch
from models import MODELS

from fundamentallm_hf import controlled_generate

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from text_matcher import violations

OTHER_SEED = 1000
WORDS = ["dragon", "castle", "knight"]
QUANTILES = 40
TOPICS = [
    *("the moon", "a happy dog", "bread", "the sea", "winter", "a good friend", "trains", "the colour blue", "bees"),
    *("music", "tea", "mountains", "a library", "rain", "football", "the internet", "cats", "gardens", "honesty"),
    *("the sun", "gold", "a bicycle", "sleep", "maps", "chess"),
]
ASKED = ["What is special about {}?", "Tell me one sentence about {}."]
QUESTIONS = len(ASKED) * len(TOPICS)
ONE_WORD = ["river", "garden", "music", "silver", "window", "bridge", "summer", "letter", "market", "forest"]


def stories(model, texts, tokens, batch, words):
    """The prompt of each text, its completion, and whether it ended naturally."""
    prompt = "Once upon a time"
    for first in range(0, texts, batch):
        rows = min(batch, texts - first)
        how = {"seed": first, "num_return_sequences": rows, "do_sample": True, "temperature": 0.8, "top_p": 0.9}
        yield from _written(model, [prompt], max_new_tokens=tokens, must_include=words, top_k=0, **how)


def answers(model, texts, tokens, batch, words):
    """The same for questions with one word each; the questions that require the same word are one batch."""
    found = {}
    for first in range(0, texts, QUESTIONS):
        for number, word in enumerate(ONE_WORD):
            indices = range(first + number, min(first + QUESTIONS, texts), len(ONE_WORD))
            if not indices:
                continue
            prompts = [_question(model.tokenizer, index) for index in indices]
            how = {"seed": first + number, "do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0}
            required = [word] if words else []
            written = _written(model, prompts, max_new_tokens=tokens, must_include=required, **how)
            found.update(zip(indices, written, strict=True))
    return [found[index] for index in range(texts)]


def again(model, ended, tokens):
    """Other unconstrained answers to these questions, by their kind, each with whether it ended naturally."""
    for kind in range(len(ASKED)):
        prompts = [_question(model.tokenizer, index) for index in ended if index % len(ASKED) == kind]
        how = {"seed": OTHER_SEED, "num_return_sequences": 4, "do_sample": True, "temperature": 0.8, "top_p": 0.9}
        yield ASKED[kind], list(_written(model, prompts, max_new_tokens=tokens, top_k=0, **how))


def _question(tokenizer, index):
    content = ASKED[index % 2].format(TOPICS[index // 2 % len(TOPICS)])
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def _written(model, prompts, **how):
    batch = model.tokenizer(prompts, return_tensors="pt", padding=True)
    if model.config.model_type != "fundamentallm":
        how["custom_generate"] = controlled_generate
    torch.manual_seed(how["seed"])
    for row in model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **how):
        added = row[batch.input_ids.shape[1] :].tolist()
        end = model.generation_config.eos_token_id
        ends = [end] if isinstance(end, int) else end
        stops = [index for index, token in enumerate(added) if token in ends]
        text = model.tokenizer.decode(added[: stops[0]] if stops else added, skip_special_tokens=True)
        yield text, stops[0] if stops else len(added), bool(stops)


def report(name, written, wanted, free=None):
    """Print one line about some texts, and return their median length."""
    median = statistics.median(len(text) for text, _, _ in written)
    line = f"{name:10} median {median:6.0f}"
    if free is not None:
        line += f" ({median / free:.2f} times free)"
    line += f"  end by themselves {sum(ended for _, _, ended in written) / len(written):6.1%}"
    line += f"  'Once upon' again {sum('Once upon' in text for text, _, _ in written)}"
    if any(wanted):
        places, covered, late = [], 0, 0
        for (text, _, _), words in zip(written, wanted, strict=True):
            first = [violations(text, 0, [word])[:1] for word in words]
            covered += all(first)
            spots = [found[0][1] for found in first if found]
            places += [spot / max(1, len(text)) for spot in spots]
            # A sentence that contains a word is complete.
            late += any(not re.search(r"[.!?\n:]", text[spot:]) for spot in spots)
        line += f"  covered {covered}/{len(written)}  mean place {statistics.mean(places):.2f}"
        line += f"  in the last fifth {sum(place > 0.8 for place in places) / len(places):.1%}  after the end {late}"
    print(line, flush=True)
    return median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", choices=MODELS)
    parser.add_argument("--texts", type=int)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--lengths", action="store_true")
    parser.add_argument("--again", type=Path, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = MODELS[given.model]()
    write, texts, tokens = (stories, 200, 3000) if given.model == "demo" else (answers, 50, 200)
    texts, tokens = given.texts or texts, given.tokens or tokens
    if given.again:
        saved = [json.loads(line) for line in given.again.read_text(encoding="utf-8").splitlines()]
        for kind, written in again(model, [index for index, row in enumerate(saved) if row["free"][2]], tokens):
            report(kind.format("it"), written, [[]] * len(written))
        return
    free = list(write(model, texts, tokens, given.batch, None))
    median = report("free", free, [[]] * texts)
    if given.lengths:
        lengths = sorted(length for _, length, _ in free)
        quantiles = [lengths[(2 * part + 1) * len(lengths) // (2 * QUANTILES)] for part in range(QUANTILES)]
        print(json.dumps(quantiles))
        if given.write:
            config = json.loads(given.write.read_text(encoding="utf-8")) | {"text_lengths": quantiles}
            given.write.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return
    required = list(write(model, texts, tokens, given.batch, WORDS))
    wanted = [WORDS if given.model == "demo" else [ONE_WORD[index % len(ONE_WORD)]] for index in range(texts)]
    report("required", required, wanted, median)
    both = [(old[2], new[2]) for old, new in zip(free, required, strict=True)]
    print(
        f"of those that end by themselves free: {sum(new for old, new in both if old)} of {sum(old for old, _ in both)}"
    )
    if given.save:
        rows = [{"free": old, "required": new} for old, new in zip(free, required, strict=True)]
        given.save.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
