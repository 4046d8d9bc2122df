"""Many clients of `fundamentallm serve` at once: is every answer right, and how much faster than one after the other?

    python benchmarks/serve_load.py --clients 32 --seconds 120
    python benchmarks/serve_load.py --clients 32 --seconds 120 --workers 2

Starts the server in a process of its own, or in several. First one client asks one request after another, then all
clients at once, with the openai client, controls and seeds mixed, half of them streaming. Every text is compared with
the one that the command writes for the same settings and seed. "texts in a pass" is the mean number of texts that
shared a pass of the model, in that run alone.
"""

import argparse
import itertools
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field

import httpx
import openai
import psutil

PROMPTS = ("Once upon a time", "One day, Tim", "The dragon", "In the forest")
# Half of the requests are plain; the others have one control each.
FIELDS: tuple[dict, ...] = (
    *({"temperature": temperature, "top_p": 0.9} for temperature in (0.7, 0.8, 1.0, 0.8)),
    {"temperature": 0},
    {"temperature": 0.8, "bad_words": ["the", "was"]},
    {"temperature": 0.8, "must_include": ["dragon"]},
    {"temperature": 0.8, "guide_attribute": ["positive_sentiment"]},
    {"temperature": 0.8, "repetition_penalty": 1.2},
    {"temperature": 0.8, "pattern": "[A-Za-z ,]{20,60}\\."},
)
PLAIN = 5


@dataclass
class Tally:
    """What happened to the requests of one client."""

    tokens: int = 0
    texts: int = 0
    wrong: int = 0
    failed: list[str] = field(default_factory=list)


def cases(tokens: int, seeds: int, plain: bool) -> list[dict]:
    """The settings of all requests."""
    fields = FIELDS[:PLAIN] if plain else FIELDS
    return [
        each | {"prompt": prompt, "seed": seed, "max_tokens": tokens}
        for each in fields
        for prompt in PROMPTS
        for seed in range(seeds)
    ]


def expected_texts(asked: list[dict]) -> list[tuple[str, int]]:
    """What the command adds for each, and its number of tokens."""
    from fundamentallm_hf import Generator, load_model

    generator = Generator(load_model(device="cpu"), notice=lambda line: None)
    found = []
    for each in asked:
        settings = dict(each)
        (completion,) = generator.complete(settings.pop("prompt"), **settings)
        found.append((completion.completion, completion.tokens))
    return found


def ask(client: openai.OpenAI, model: str, settings: dict, stream: bool) -> str:
    """The text of one request."""
    given = dict(settings)
    prompt, tokens = given.pop("prompt"), given.pop("max_tokens")
    found = client.completions.create(model=model, prompt=prompt, max_tokens=tokens, stream=stream, extra_body=given)
    if not stream:
        return found.choices[0].text
    return "".join(part.choices[0].text for part in found if part.choices)


def visit(
    number: int,
    address: str,
    model: str,
    asked: list[dict],
    expected: list[tuple[str, int]],
    until: float,
    tally: Tally,
) -> None:
    """Ask for all texts, in an order of its own, again and again until the time is up."""
    client, chance = openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=600), random.Random(number)
    for index in itertools.cycle(chance.sample(range(len(asked)), len(asked))):
        if time.monotonic() > until:
            return
        try:
            text = ask(client, model, asked[index], stream=bool(chance.randrange(2)))
        except Exception as error:
            tally.failed.append(f"{type(error).__name__}: {error}"[:200])
            continue
        tally.texts += 1
        tally.tokens += expected[index][1]
        tally.wrong += text != expected[index][0]


def run(
    address: str, model: str, asked: list[dict], expected: list, clients: int, seconds: float
) -> tuple[Tally, float]:
    """Let clients ask for a while. Returns their sum, and how long it took."""
    tallies = [Tally() for _ in range(clients)]
    began = time.monotonic()
    threads = [
        threading.Thread(target=visit, args=(i, address, model, asked, expected, began + seconds, tallies[i]))
        for i in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Tally(
        sum(each.tokens for each in tallies),
        sum(each.texts for each in tallies),
        sum(each.wrong for each in tallies),
        [line for each in tallies for line in each.failed],
    )
    return total, time.monotonic() - began


def metrics(address: str) -> dict[str, float]:
    """The numbers of the server's page of metrics."""
    lines = httpx.get(f"{address}/metrics", timeout=60).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.removeprefix("fundamentallm_"): float(value) for name, value in pairs}


def wait_for(server: subprocess.Popen, address: str, workers: int = 1) -> None:
    """Wait until all processes of the server answer."""
    while server.poll() is None:
        try:
            if metrics(address)["workers"] >= workers:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise RuntimeError("the server has ended")


def measure(address: str, model: str, asked: list[dict], expected: list, clients: int, seconds: float) -> float:
    """Let clients ask for a while, and report it. Returns the tokens a second."""
    before = metrics(address)
    tally, took = run(f"{address}/v1", model, asked, expected, clients, seconds)
    after = metrics(address)
    passes, texts = (after[name] - before[name] for name in ("passes_total", "texts_in_passes_total"))
    speed = tally.tokens / took
    print(
        f"{clients} clients, {took:.0f} s: {tally.texts} texts, {speed:.0f} tokens a second, "
        f"texts in a pass {texts / passes:.1f}, wrong {tally.wrong}, failed {len(tally.failed)} {tally.failed[:3]}",
        flush=True,
    )
    return speed


def memory(server: subprocess.Popen) -> list[int]:
    """MiB that each process of the server has for itself alone: the one that was started first, then its workers."""
    first = psutil.Process(server.pid)
    workers = [each for each in first.children() if "--multiprocessing-fork" in each.cmdline()]
    return [each.memory_full_info().uss >> 20 for each in (first, *workers)]


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def main() -> None:
    from fundamentallm_hf.model_io.loading import DEMO_MODEL

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1, help="processes of the server, with one thread each")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--tokens", type=int, default=100, help="of each text")
    parser.add_argument("--seeds", type=int, default=3, help="for each prompt and control")
    parser.add_argument("--plain", action="store_true", help="requests without controls only")
    parser.add_argument("--rounds", type=int, default=1, help="of one client and of all, in turn")
    options = parser.parse_args()
    asked = cases(options.tokens, options.seeds, options.plain)
    expected = expected_texts(asked)
    port, model = str(free_port()), str(DEMO_MODEL)
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "fundamentallm_hf", "serve", model, "--device", "cpu", "--port", port]
    command += ["--workers", str(options.workers)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # torch's, of each process; the clients need a core, too
    print(f"{options.workers} worker(s), load {os.getloadavg()[0]:.1f} at the start", flush=True)
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, env=one_thread, stdout=subprocess.DEVNULL, stderr=log) as server,
    ):
        try:
            wait_for(server, address, options.workers)
            run(f"{address}/v1", model, asked, expected, 4 * options.workers, 3)
            for _ in range(options.rounds):
                given = address, model, asked, expected
                one, all_clients = (measure(*given, clients, options.seconds) for clients in (1, options.clients))
                print(f"{all_clients / one:.2f} times the tokens of one client after the other", flush=True)
            print(f"MiB of the server's processes, the workers last: {memory(server)}")
        except RuntimeError:
            log.seek(0)
            print(log.read()[-2000:], file=sys.stderr)
            raise
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
