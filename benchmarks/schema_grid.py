"""Texts by many schemas, in every mode and at tight and wide token budgets: are all of them valid and complete?

Part of `whole_text.py`. A call generates one text for each of twenty prompts. The calls of a schema are the
combinations of `WAYS` and `BUDGETS`; a run with a slow model takes some of them for each schema, in turn, so that all
combinations occur equally often. Each call is a line of the log, so the same command continues a run that was ended.
"""

import json
import re
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
from json_schemas import FOLDER, is_valid
from models import MODELS, TOKENIZERS
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from fundamentallm_hf import controlled_generate

FOLDERS = [FOLDER, FOLDER / "documents"]
PROMPTS = [
    "A pet: ",
    "The shop said:\n",
    "Once upon a time there was ",
    "In the garden ",
    "Data:\n",
    "She wrote down ",
    "Tom had a box. In it was ",
    "The answer is ",
    "Here is what they saw: ",
    "My friend ",
    "The list:\n",
    "And then ",
    "One day, ",
    "He said: ",
    "It was a big ",
    "Mom and dad ",
    "Look at this: ",
    "For example, ",
    "The end of ",
    "So ",
]
FREE_STRING = '{"type": "string"}'
# Tried in turn where a refusal does not report how many tokens are needed, as that of required words.
GUESSES = (1, 8, 12, 20, 40, 80)
BAD, REQUIRED = ["the", "is", "pet"], ["story"]
SAMPLED = {"do_sample": True, "temperature": 0.8, "top_p": 0.9}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": SAMPLED,
    "4 beams": {"num_beams": 4, "do_sample": False},
    "bad words": SAMPLED | {"bad_words": BAD},
    "bad and required words": SAMPLED | {"bad_words": BAD, "must_include": REQUIRED},
    "required words, 4 beams": {"num_beams": 4, "do_sample": False, "must_include": REQUIRED},
}
BUDGETS = {"as few tokens as there may be": 0, "5 more": 5, "80 more": 80}


def random_model() -> GPT2LMHeadModel:
    """A small random model on the tokens of SmolLM2."""
    tokenizer = TOKENIZERS["smollm2"]()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=2048)
    model = GPT2LMHeadModel(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.tokenizer = tokenizer
    return model.eval()


def measure(name: str, folders: list[Path], calls: int, log: Path) -> None:
    """Generate what the log lacks, then print the table.

    Args:
        name: the model.
        folders: of schemas.
        calls: combinations that are taken for each schema; all if 0.
        log: one JSON line for each call so far.
    """
    found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(each["model"], each["schema"], each["way"], each["budget"]) for each in found}
    model = None
    for file, number, way, budget in jobs(folders, calls):
        if (name, file.stem, way, budget) in done:
            continue
        if model is None:
            model = random_model() if name == "random" else MODELS[name]()
            model = model.bfloat16() if name == "smollm2" else model  # half as much to read in each pass
        line = {"model": name, "schema": file.stem, "way": way, "budget": budget}
        found.append(line | one_call(model, schema_of(file), WAYS[way], BUDGETS[budget], number))
        with log.open("a") as written:
            written.write(json.dumps(found[-1]) + "\n")
    print_table([each for each in found if each["model"] == name])


def jobs(folders: list[Path], calls: int) -> list[tuple[Path, int, str, str]]:
    """The calls as schema, its number, way and budget: the first of every schema, then the second, and so on."""
    found = []
    for number, file in enumerate(file for folder in folders for file in sorted(folder.glob("*.json"))):
        fit = [(way, budget) for budget in BUDGETS for way in WAYS if is_of_use(way, schema_of(file))]
        for index in range(min(calls, len(fit)) if calls else len(fit)):
            found.append((index, number, file, *fit[(7 * number + index) % len(fit)]))
    return [(file, number, way, budget) for _, number, file, way, budget in sorted(found)]


def schema_of(file: Path) -> Any:
    """The schema in a file of JSONSchemaBench's form."""
    return json.loads(file.read_text(encoding="utf-8"))["schema"]


def one_call(model: PreTrainedModel, schema: Any, how: dict[str, Any], more: int, seed: int) -> dict[str, Any]:
    """The result of one call: how many texts are good, and those that are not; or why it was refused."""
    how = fitting(how, schema)
    begin = time.thread_time()
    try:
        needed = needed_by(model, schema, how)
    except ValueError as error:
        return {"refused": str(error)}
    texts = added(model, PROMPTS, needed + more, schema, seed, how)
    bad = [text for text in texts if not is_good(text, schema, how)]
    taken = time.thread_time() - begin
    return {"needed": needed, "good": len(texts) - len(bad), "bad": bad, "seconds": round(taken, 2)}


def print_table(found: list[dict[str, Any]]) -> None:
    """Print the texts that are valid and complete by way and budget, and everything that is not."""
    print(f"| {found[0]['model'] if found else 'nothing'} | {' | '.join(BUDGETS)} |\n|---|{'---|' * len(BUDGETS)}")
    for way in WAYS:
        cells = []
        for budget in BUDGETS:
            here = [each for each in found if (each["way"], each["budget"]) == (way, budget) and "good" in each]
            good = sum(each["good"] for each in here)
            cells.append(f"{good} of {good + sum(len(each['bad']) for each in here)}")
        print(f"| {way} | {' | '.join(cells)} |")
    good, bad = (sum(each.get("good", 0) for each in found), sum(len(each.get("bad", ())) for each in found))
    print(f"{good} of {good + bad} texts by {len({each['schema'] for each in found})} schemas")
    for reason, count in Counter(each["refused"] for each in found if "refused" in each).items():
        print(f"refused {count} times: {reason}")
    for each in found:
        for text in each.get("bad", ()):
            print(f"{each['schema']}, {each['way']}, {each['needed']} tokens and {each['budget']}: {text!r}")


def is_of_use(way: str, schema: Any) -> bool:
    """Whether a way differs from the one without words for this schema."""
    return ("words" in way) == bool({"bad_words", "must_include"} & set(fitting(WAYS[way], schema)))


def fitting(how: dict[str, Any], schema: Any) -> dict[str, Any]:
    """One of the ways, without the words that the schema contains, and those that it has no position for."""
    text = json.dumps(schema)
    kept = {field: value for field, value in how.items() if field not in ("bad_words", "must_include")}
    if "must_include" in how:
        if FREE_STRING not in text:
            return kept
        kept["must_include"] = how["must_include"]
    bad = [word for word in how.get("bad_words", ()) if not holds(word, text)]
    return kept | ({"bad_words": bad} if bad else {})


def needed_by(model: PreTrainedModel, schema: Any, how: dict[str, Any]) -> int:
    """How many tokens a text needs, as the refusal of a smaller budget reports, or else the first guess that will do.

    Raises:
        ValueError: none will do.
    """
    for room in GUESSES:
        try:
            added(model, PROMPTS[:1], room, schema, 0, how)
            return room
        except ValueError as error:
            reported = re.search(r"needs about (\d+) tokens", str(error))
            if reported is not None:
                return int(reported[1])
            if room == GUESSES[-1]:
                raise
    raise AssertionError


def added(
    model: PreTrainedModel, prompts: list[str], room: int, schema: Any, seed: int, how: dict[str, Any]
) -> list[str]:
    """What the model adds to each prompt."""
    inputs = model.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    if model.config.model_type != "fundamentallm":
        how = how | {"custom_generate": partial(controlled_generate, tokenizer=model.tokenizer)}
    torch.manual_seed(seed)
    rows = model.generate(**inputs, max_new_tokens=room, json_schema=schema, **how)
    return list(model.tokenizer.batch_decode(rows[:, inputs.input_ids.shape[1] :], skip_special_tokens=True))


def is_good(text: str, schema: Any, how: dict[str, Any]) -> bool:
    """Whether a text is valid JSON under the schema, and keeps to the words."""
    good = is_valid(text, schema) and not any(holds(word, text) for word in how.get("bad_words", ()))
    return good and all(holds(word, text) for word in how.get("must_include", ()))


def holds(word: str, text: str) -> bool:
    """Whether a text contains a word."""
    return re.search(rf"\b{word}\b", text, re.IGNORECASE) is not None
