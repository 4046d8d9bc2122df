"""Decoding speed: compares the ways to run these models, in turn, in one process.

    python benchmarks/decode.py --write    # docs/speed.md gets the tables
    python benchmarks/decode.py --write --parts many --threads 1    # replaces those tables, and keeps the others
    python benchmarks/decode.py --quick    # under one minute
    python benchmarks/decode.py --clock cpu --parts shapes,controls    # processor time, on a busy machine

The ways: FundamentaLLM's own loop, which encodes the whole text at every step; GPT-2 of the same shape in transformers'
`generate()`; a FundamentaLLM model in transformers' loop over `forward()`, which `return_dict_in_generate=True` asks
for; and in the library's own loop, without drafts and with them. The larger shapes have the bundled model's weights in
one corner and do not change its states elsewhere. They generate its text, and every product is computed in full. Every
number is the median of the rounds; the loop without a cache is timed once. Two limits are printed as well: the speed of
the loop with a tiny model, and the speed at which the measured memory bandwidth can read all weights once per token.
"""

import argparse
import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from timing import bandwidth, peak_memory
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, StoppingCriteriaList, pipeline

from fundamentallm_hf import FundamentaLLMConfig, FundamentaLLMForCausalLM, Generator, load_model
from fundamentallm_hf.portable.decoding.lean_loop import PassCounter

ROOT = Path(__file__).parents[1]
PROMPT = "Once upon a time"
SAMPLED = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0}
GREEDY = {"do_sample": False}
BANNED = (
    "angry,bad,bite,blood,broke,cried,cry,dark,dead,die,dirty,evil,fall,fear,fight,fire,hate,hit,hurt,kill,knife,lie,"
)
BANNED += "lonely,lost,mad,mean,monster,pain,poor,sad,scared,scary,sick,steal,storm,thief,ugly,war,witch,wrong"
CONTROLS: dict[str, dict[str, Any]] = {
    "40 banned words": {"bad_words": BANNED},
    "3 required words": {"must_include": "dragon,castle,friend"},
    "one guide": {"guide_attribute": "positive_sentiment"},
    "no repeated words": {"no_repeat_ngram_size": 4},
    "repetition penalty": {"repetition_penalty": 1.1},
    "a stop text": {"stop": ["THE END"]},
}
MAIN_CONTROLS = ("40 banned words", "3 required words", "one guide")
SLOW = "without a cache"
PAGE, BEGIN, END = ROOT / "docs" / "speed.md", "<!-- tables of benchmarks/decode.py -->\n", "<!-- end -->"
PRINTED: list[str] = []
Found = Mapping[str, Mapping[str, float]]
Run = Callable[[int], int]
_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def take_turns(
    ways: Mapping[str, Run], tokens: int, rounds: int, clock: str, least: int = 1
) -> dict[str, dict[str, float]]:
    """Time every way in every round, after a warm-up round; a call for `least` tokens times the first token.

    Returns:
        For each way, the seconds to the first token, the seconds for all, and the passes per token.
    """
    now, times = _CLOCKS[clock], {way: {"first": [], "all": [], "passes": []} for way in ways}
    for number in range(rounds + 1):
        for way, run in ways.items():
            if way == SLOW and number != 1:
                continue
            for name, many in (("first", least), ("all", tokens)):
                start = now()
                passes = run(many)
                if number:
                    times[way][name].append(now() - start)
                    if name == "all":
                        times[way]["passes"].append(passes / tokens)
    return {way: {name: statistics.median(values) for name, values in found.items()} for way, found in times.items()}


def uncached(model: Any, how: Mapping[str, Any]) -> Run:
    """The original FundamentaLLM loop, which encodes the whole text at every step."""

    @torch.no_grad()
    def run(tokens: int) -> int:
        ids = model.tokenizer(PROMPT, return_tensors="pt").input_ids
        window = model.config.max_position_embeddings
        torch.manual_seed(1)
        for _ in range(tokens):
            logits = model(ids[:, -window:], use_cache=False).logits[:, -1]
            if how["do_sample"]:
                ordered, order = (logits / 0.8).sort(descending=True)
                chances = ordered.softmax(-1)
                chances = chances.masked_fill(chances.cumsum(-1) - chances > 0.9, 0.0)
                token = order.gather(1, torch.multinomial(chances, 1))
            else:
                token = logits.argmax(-1, keepdim=True)
            ids = torch.cat([ids, token], dim=1)
        return tokens

    return run


def generate(model: Any, how: Mapping[str, Any]) -> Run:
    """`generate()` up to the maximum length."""

    def run(tokens: int) -> int:
        counter = PassCounter()
        ids = model.tokenizer(PROMPT, return_tensors="pt").input_ids
        torch.manual_seed(1)
        criteria = StoppingCriteriaList([counter])
        model.generate(ids, max_new_tokens=tokens, stopping_criteria=criteria, **how)
        return counter.passes

    return run


def gpt2_like(model: Any) -> GPT2LMHeadModel:
    """GPT-2 with random weights and the shape of a FundamentaLLM model."""
    config = model.config
    shape = GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.max_position_embeddings,
        n_embd=config.hidden_size,
        n_layer=config.num_hidden_layers,
        n_head=config.num_attention_heads,
        n_inner=config.intermediate_size,
    )
    return ready(GPT2LMHeadModel(shape), model.tokenizer)


def ready(model: Any, tokenizer: Any) -> Any:
    """A model that never ends a text, with a tokenizer."""
    model.generation_config = GenerationConfig(pad_token_id=0, bos_token_id=2)
    model.tokenizer = tokenizer
    return model.eval()


def shaped(like: Any, width: int, layers: int, heads: int, eps: float = 1e-6) -> Any:
    """A FundamentaLLM model of another shape, with random weights."""
    config = FundamentaLLMConfig(
        vocab_size=like.config.vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=like.config.max_position_embeddings,
        position_embedding_type=like.config.position_embedding_type,
        hidden_act=like.config.hidden_act,
        rms_norm_eps=eps,
    )
    model = ready(FundamentaLLMForCausalLM(config), like.tokenizer)
    model.draft_table = None
    return model


@torch.no_grad()
def grown(small: Any, width: int, layers: int, heads: int) -> Any:
    """A larger model that generates the text of a small one: its weights in one corner, zeros elsewhere.

    Additional layers have random weights, but output projections of zero, so they do not change the states.
    """
    old, share = small.config, small.config.hidden_size / width
    model = shaped(small, width, layers, heads, eps=old.rms_norm_eps * share)
    before, after = old.hidden_size // old.num_attention_heads, width // heads
    index = torch.arange(old.hidden_size)
    index = index // before * after + index % before  # maps each head into a larger head
    for name, target in model.named_parameters():
        parts = name.split(".")
        layer = int(parts[2]) if parts[1] == "layers" else -1
        if layer >= old.num_hidden_layers:
            if parts[-2] in ("o_proj", "fc2"):
                target.zero_()
            continue
        value = small.get_parameter(name)
        target.zero_()
        rows = index if parts[-2] in ("q_proj", "k_proj", "v_proj") else torch.arange(value.shape[0])
        if value.dim() == 1:
            target[rows] = value
        else:
            columns = index if parts[-2] == "o_proj" else torch.arange(value.shape[1])
            target[rows[:, None], columns] = value
        if parts[-2] == "q_proj":
            target *= (after / before) ** 0.5
        elif "norm" in parts[-2]:
            target *= share**0.5  # the mean is over more numbers
    model.draft_table = small.draft_table
    return model


def ways_of(model: Any, how: Mapping[str, Any]) -> dict[str, Run]:
    """The ways to generate with a model of this shape."""
    own = how | ({"seed": 1} if how["do_sample"] else {})
    ways = {
        "without a cache": uncached(model, how),
        "GPT-2 in generate()": generate(gpt2_like(model), how),
        "forward() in transformers' loop": generate(model, own | {"return_dict_in_generate": True}),
        "own loop": generate(model, own | {"speculate": False}),
    }
    if model.draft_table is None:
        return ways
    ways["own loop with drafts"] = generate(model, own)
    if model.config.hidden_size > 256:  # the bundled model's weights are float16 numbers already
        half = copy.deepcopy(model).half().float()
        ways["own loop with drafts, weights rounded to float16"] = generate(half, own)
    return ways


def table(title: str, found: Mapping[str, Mapping[str, float]], written: int, base: str) -> None:
    """Print one table; ratios are against the way named `base`."""
    say(f"\n### {title}\n\n| way | first token | tokens/s | against {base} | passes per token |\n|---|---|---|---|---|")
    for way, times in found.items():
        ratio = found[base]["all"] / times["all"]
        rate = written / times["all"]
        passes = f"{times['passes']:.2f}" if times["passes"] else "not counted"
        say(f"| {way} | {times['first'] * 1000:.1f} ms | {rate:.0f} | {ratio:.2f} | {passes} |")


def say(line: str) -> None:
    """Print a line, and store it for the page."""
    PRINTED.append(line)
    print(line, flush=True)


def shapes(bundled: Any, threads: int, quick: bool, rounds: int, clock: str) -> None:
    """Compare the ways for each shape."""
    models = {"bundled model": (bundled, 384)}
    if not quick:
        models["width 128, 6 layers, random weights"] = (shaped(bundled, 128, 6, 4), 48)
        models["width 512, 12 layers, the bundled model's text"] = (grown(bundled, 512, 12, 8), 48)
    speed = bandwidth(_CLOCKS[clock])
    for name, (model, tokens) in models.items():
        weights = sum(each.nbytes for each in model.parameters())
        for mode, how in {"greedy": GREEDY, "sampled at 0.8 and 0.9": SAMPLED}.items():
            ways = ways_of(model, how)
            if quick:
                tokens = 128
            found = take_turns(ways, tokens, rounds, clock)
            table(f"{name}, {mode}, threads: {threads}, tokens: {tokens}", found, tokens, "GPT-2 in generate()")
            if name == "bundled model" and threads == 1:
                PICTURE[mode] = {way: tokens / times["all"] for way, times in found.items()}
        say(f"\nReading the weights once a token at {speed / 1e9:.1f} GB/s: {speed / weights:.0f} tokens/s.")


def many(bundled: Any, threads: int, quick: bool, rounds: int, clock: str) -> None:
    """Compare one text, ten samples and four beams."""
    tokens, gpt2 = 64 if quick else 128, gpt2_like(bundled)
    empty = shaped(bundled, 8, 1, 1)
    ways = {
        "one sample": generate(bundled, SAMPLED | {"seed": 1}),
        "one sample, no drafts": generate(bundled, SAMPLED | {"seed": 1, "speculate": False}),
        "10 samples": generate(bundled, SAMPLED | {"seed": 1, "num_return_sequences": 10}),
        "10 samples, no drafts": generate(
            bundled, SAMPLED | {"seed": 1, "num_return_sequences": 10, "speculate": False}
        ),
        "10 samples, GPT-2": generate(gpt2, SAMPLED | {"num_return_sequences": 10}),
        "4 beams": generate(bundled, GREEDY | {"num_beams": 4}),
        "4 beams, GPT-2": generate(gpt2, GREEDY | {"num_beams": 4}),
        "one sample, width 8 and 1 layer": generate(empty, SAMPLED | {"seed": 1, "speculate": False}),
    }
    found = take_turns(ways, tokens, rounds, clock)
    table(f"several texts, threads: {threads}, tokens: {tokens} each", found, tokens, "one sample")


def controls(bundled: Any, threads: int, quick: bool, rounds: int, clock: str) -> None:
    """Every control by itself, and all together."""
    tokens, sampled = 64 if quick else 192, SAMPLED | {"seed": 1}
    chosen = {} if quick else CONTROLS
    together = {name: value for of_one in CONTROLS.values() for name, value in of_one.items()}
    ways = {"no control": generate(bundled, sampled)}
    ways |= {name: generate(bundled, sampled | how) for name, how in chosen.items()}
    three = {name: value for of_one in MAIN_CONTROLS for name, value in CONTROLS[of_one].items()}
    ways["banned, required and guide"] = generate(bundled, sampled | three)
    ways["the same in transformers' loop"] = generate(bundled, sampled | three | {"return_dict_in_generate": True})
    ways["all together"] = generate(bundled, sampled | together)
    ways["all together, no drafts"] = generate(bundled, sampled | together | {"speculate": False})
    # Required words need that many tokens, so the first-token column is the time for all of them.
    found = take_turns(ways, tokens, rounds, clock, least=24)
    table(f"controls, threads: {threads}, tokens: {tokens} (first column: 24 tokens)", found, tokens, "no control")


def entrances(bundled: Any, threads: int, quick: bool, rounds: int, clock: str) -> None:
    """`generate()`, `pipeline()`, the `Generator` and the command."""
    tokens = 64 if quick else 384
    stock = pipeline("text-generation", model=bundled, tokenizer=bundled.tokenizer)
    own = Generator(bundled, temperature=0.8, top_p=0.9, seed=1)

    def through_pipeline(many: int) -> int:
        stock(PROMPT, max_new_tokens=many, seed=1, **SAMPLED)
        return 0

    def through_generator(many: int) -> int:
        return own.complete(PROMPT, max_tokens=many)[0].passes or 0

    ways = {
        "generate()": generate(bundled, SAMPLED | {"seed": 1}),
        "pipeline()": through_pipeline,
        "Generator": through_generator,
    }
    found = take_turns(ways, tokens, rounds, clock)
    table(f"entrances, threads: {threads}, tokens: {tokens}", found, tokens, "generate()")
    command = [sys.executable, "-m", "fundamentallm_hf", "generate", "--prompt", PROMPT, "--max-tokens", str(tokens)]
    start = time.perf_counter()
    subprocess.run([*command, "--seed", "1"], check=True, capture_output=True)
    say(f"\nThe command, from its start to its end: {time.perf_counter() - start:.1f} s.")


def memory() -> None:
    """Peak memory of the bundled model's ways, each in a separate process."""
    say("\n### peak memory, bundled model, 384 tokens\n\n| way | MiB |\n|---|---|")
    for way in ways_of(bundled_model(), GREEDY):
        command = [sys.executable, __file__, "--alone", way]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        say(f"| {way} | {float(found.split()[-1]):.0f} |")


def bundled_model() -> Any:
    """The bundled model with its drafts, prevented from ending a text."""
    from fundamentallm_hf.portable.decoding.sidecar_files import own_draft_table

    model = load_model(device="cpu")
    own_draft_table(model)
    return ready(model, model.tokenizer)


def _blocks(text: str) -> dict[str, str]:
    """The tables of a page with what follows each, by their headings; the first one is the text before them."""
    first, *others = text.strip().split("\n### ")
    return {"": first.strip()} | {each.partition("\n")[0]: f"### {each.strip()}" for each in others}


def write_page() -> None:
    """Write the tables to docs/speed.md, in place of those with the same headings, and the picture of the speeds."""
    from matplotlib.figure import Figure

    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    known, _, after = rest.partition(END)
    blocks = _blocks(known) | _blocks("\n".join(PRINTED))
    PAGE.write_text(before + BEGIN + "\n\n".join(blocks.values()) + "\n\n" + END + after, encoding="utf-8")
    if not PICTURE:
        return
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    names = list(next(iter(PICTURE.values())))[::-1]
    for index, (mode, speeds) in enumerate(PICTURE.items()):
        bars = axes.barh([bar - 0.4 * index for bar in range(len(names))], [speeds[way] for way in names], 0.38)
        axes.bar_label(bars, fmt="%.0f", padding=3)
        bars.set_label(mode)
    axes.set_yticks([bar - 0.2 for bar in range(len(names))], names)
    axes.set(xlabel="characters per second, bundled model, one thread")
    axes.margins(x=0.12)
    axes.legend(loc="upper right")
    figure.savefig(PAGE.parent / "pictures" / "speed.svg", metadata={"Date": None})


PICTURE: dict[str, dict[str, float]] = {}
PARTS = {"shapes": shapes, "many": many, "controls": controls, "entrances": entrances}


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tokens, the bundled shape only, one thread")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, separated by commas")
    parser.add_argument("--parts", default=",".join([*PARTS, "memory"]), help="which tables, separated by commas")
    parser.add_argument("--clock", choices=_CLOCKS, default="wall", help="cpu: the process's time on the processor")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of, after one warm-up round")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/speed.md, with their picture")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        torch.set_num_threads(1)
        ways_of(bundled_model(), GREEDY)[arguments.alone](384)
        print(peak_memory())
        return 0
    bundled, parts = bundled_model(), arguments.parts.split(",")
    clock = {"wall": "elapsed time", "cpu": "processor time"}[arguments.clock]
    say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, torch {torch.__version__}, {clock}.")
    rounds = 1 if arguments.quick else arguments.rounds
    for index, threads in enumerate([1] if arguments.quick else map(int, arguments.threads.split(","))):
        torch.set_num_threads(threads)
        # Parts that hardly depend on the number of threads are measured once.
        for name in parts:
            if name in PARTS and (index == 0 or name in ("shapes", "many")):
                PARTS[name](bundled, threads, arguments.quick, rounds, arguments.clock)
                if arguments.write:  # the results so far
                    write_page()
    if "memory" in parts and not arguments.quick:
        memory()
    if arguments.write:
        write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
