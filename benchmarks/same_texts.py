"""Writes texts over all controls and modes, so that two versions of this package can be compared.

    python benchmarks/same_texts.py write before.json     # in one checkout
    python benchmarks/same_texts.py write after.json      # in another
    python benchmarks/same_texts.py compare before.json after.json

Uses public names alone, so that it runs on any version. A call that is refused counts with its message.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from fundamentallm_hf import Generator, controlled_generate, load_model

CONTROLS = [
    {},
    {"bad_words": ["the", "and", "lil*"]},
    {"bad_words": ["/[aeiou]{2}/"]},
    {"must_include": ["dragon", "castle"]},
    {"must_include": ["king|queen", "run*"], "must_include_ordered": True},
    {"guide_attribute": ["positive_sentiment"], "guide_strength": 2.0},
    {"guide_attribute": ["animals"]},
    {"pattern": "(Monday|Tuesday), the [0-9]{1,2}th of (May|June)"},
    {"json_schema": {"type": "integer", "minimum": 10}},
    {"grammar": 'start: "a" | "b" start'},
    {"repetition_penalty": 1.3, "no_repeat_ngram": 3},
    {"length_penalty": 1.5},
    {"stop": ["the"], "min_tokens": 10},
    {"bad_words": ["was"], "must_include": ["dragon"], "guide_attribute": ["negative_sentiment"]},
    {"repetition_penalty": 1.3, "repetition_unit": "tokens"},
    {"guide_attribute": ["suspense:2", "positive_sentiment:-1"]},
]
MODES = [
    {"temperature": 0},
    {"temperature": 0.8, "top_p": 0.9, "seed": 1},
    {"temperature": 1.0, "top_k": 20, "seed": 5, "num_samples": 2},
    {"beam_size": 3, "temperature": 0},
    {"min_p": 0.05, "temperature": 1.1, "seed": 9},
]
FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "learned" / "final_model.pt"


def attempt(call):
    """What a call returns, or its refusal."""
    try:
        return call()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


def texts_of(generator, prompt, **settings):
    found = generator.complete(prompt, **settings)
    return [[each.text, each.finish_reason, each.seed] for each in found]


def write():
    """Texts by the name of their call."""
    model = load_model(device="cpu")
    stories, plays = Generator(model), Generator(load_model(FIXTURE, device="cpu"))
    found = {}
    for number, controls in enumerate(CONTROLS):
        for mode, settings in enumerate(MODES):
            call = partial(texts_of, stories, "Once upon a time", max_tokens=60, **controls, **settings)
            found[f"controls {number}, mode {mode}"] = attempt(call)
        for mode, settings in enumerate(MODES[:2]):
            prompts = ["One day", "The big dog ran to the"]
            call = partial(texts_of, stories, prompts, max_tokens=30, **controls, **settings)
            found[f"controls {number}, batch {mode}"] = attempt(call)
    for number in (0, 1, 3):  # past the window
        call = partial(texts_of, plays, "KING", max_tokens=200, temperature=0.7, seed=3, **CONTROLS[number])
        found[f"controls {number}, past the window"] = attempt(call)
    torch.manual_seed(0)
    size = model.config.vocab_size
    other = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3))
    ids = model.tokenizer("He ran", return_tensors="pt").input_ids
    bound = partial(controlled_generate, tokenizer=model.tokenizer)
    for number, controls in enumerate(CONTROLS):
        fields = {name: value for name, value in controls.items() if name not in ("min_tokens", "no_repeat_ngram")}
        call = partial(other.eval().generate, ids, custom_generate=bound, max_new_tokens=60, do_sample=True, seed=4)
        found[f"controls {number}, GPT-2"] = attempt(lambda call=call, f=fields: call(**f)[0].tolist())
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["write", "compare"])
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "write":
        arguments.files[0].write_text(json.dumps(write(), indent=1) + "\n", encoding="utf-8")
        return
    before, after = (json.loads(file.read_text(encoding="utf-8")) for file in arguments.files)
    differ = [name for name in before if before[name] != after.get(name)]
    for name in differ:
        print(f"{name}:\n  {before[name]}\n  {after.get(name)}")
    print(f"{len(before) - len(differ)} of {len(before)} calls give the same")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
