"""Many visitors of the web demo at once: is everybody served or told to wait, does each get their own, does it leak?

    python benchmarks/web_load.py --visitors 20 --seconds 120

Starts `fundamentallm space` in a process of its own. Half of the visitors use the endpoints for programs, half the
page: they begin, write, and download the result that the page keeps for them alone. Every text is compared with the one
that the library writes for the same prompt and seed.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import httpx
import psutil

PROMPTS = ("Once upon a time", "One day, Tim", "The dragon", "In the forest")
SEEDS = (1, 2, 3)
# The page keeps no more (`fundamentallm_hf/web/app.py`).
SESSIONS = 300
MINUTE = 60  # in seconds, between two looks at the memory
SETTINGS = {"max_tokens": 60, "temperature": 0.8, "top_p": 0.9}


@dataclass
class Tally:
    """What happened to the requests of one visitor."""

    seconds: list[float] = field(default_factory=list)
    busy: int = 0
    wrong: int = 0
    failed: list[str] = field(default_factory=list)


class Program:
    """A visitor that calls the endpoint `write`."""

    def __init__(self, address: str, name: str, config: dict) -> None:
        self.client, self.address, self.name = httpx.Client(timeout=120), address, name

    def ask(self, prompt: str, seed: int) -> str | None:
        """The text; None if the model is busy."""
        body = {"prompt": prompt, "seed": seed, **SETTINGS}
        joined = self.client.post(f"{self.address}/gradio_api/call/v2/write", json=body)
        if joined.status_code == 503:
            return None
        joined.raise_for_status()
        with self.client.stream("GET", f"{self.address}/gradio_api/call/write/{joined.json()['event_id']}") as lines:
            event = ""
            for line in lines.iter_lines():
                event = line.removeprefix("event: ") if line.startswith("event: ") else event
                if line.startswith("data: ") and event in ("complete", "error"):
                    if event == "error":
                        raise RuntimeError(line)
                    return json.loads(line[6:])[0][0]["text"]
        raise RuntimeError("the answer ended too early")


class Visitor:
    """A visitor of the page: presses Write, then Download."""

    def __init__(self, address: str, name: str, config: dict) -> None:
        self.client, self.address, self.name = httpx.Client(timeout=120), address, name
        self.parts = {each["id"]: each["props"] for each in config["components"]}
        self.functions = {}
        for each in config["dependencies"]:
            # Write is the first that each of these stands for.
            self.functions.setdefault(each["api_name"], each)

    def call(self, function: str, **given: object) -> dict | None:
        """What a function of the page returns; None if it is busy."""
        dependency = self.functions[function]
        names = [str(self.parts[each].get("elem_id")).removeprefix("field-") for each in dependency["inputs"]]
        values = zip(names, dependency["inputs"], strict=True)
        data = [given.get(name, self.parts[each].get("value")) for name, each in values]
        body = {"data": data, "fn_index": dependency["id"], "session_hash": self.name}
        joined = self.client.post(f"{self.address}/gradio_api/queue/join", json=body)
        if joined.status_code == 503:
            return None
        joined.raise_for_status()
        event = joined.json()["event_id"]
        parameters = {"session_hash": self.name}
        with self.client.stream("GET", f"{self.address}/gradio_api/queue/data", params=parameters) as lines:
            for line in lines.iter_lines():
                message = json.loads(line[6:]) if line.startswith("data: ") else {}
                if message.get("msg") == "process_completed" and message["event_id"] == event:
                    if not message["success"]:
                        if "busy" in str(message["output"].get("error")):
                            return None
                        raise RuntimeError(str(message["output"]))
                    return message["output"]
        raise RuntimeError("the answer ended too early")

    def ask(self, prompt: str, seed: int) -> str | None:
        """The text that the page keeps for this visitor; None if the model is busy."""
        if self.call("begin") is None:
            return None
        written = self.call("run_write", prompt=prompt, seed=str(seed), max_tokens=SETTINGS["max_tokens"])
        self.call("show_result")
        self.call("end")
        if written is None:
            return None
        kept = self.call("make_json")
        assert kept is not None
        return json.loads(kept["data"][0])["text"]


def visit(kind: type, number: int, address: str, config: dict, expected: dict, until: float, tally: Tally) -> None:
    """Ask again and again until the time is up."""
    visitor = kind(address, f"visitor{number}", config)
    chance = random.Random(number)
    while time.monotonic() < until:
        prompt, seed = chance.choice(list(expected))
        began = time.monotonic()
        try:
            text = visitor.ask(prompt, seed)
        except Exception as error:
            tally.failed.append(f"{type(error).__name__}: {error}"[:200])
            continue
        if text is None:
            tally.busy += 1
            time.sleep(1)
            continue
        tally.seconds.append(time.monotonic() - began)
        tally.wrong += text != expected[prompt, seed]


def run(address: str, expected: dict, visitors: int, seconds: float) -> list[Tally]:
    """Let visitors ask for a while; half of them programs, half at the page."""
    config = httpx.get(f"{address}/config").json()
    tallies = [Tally() for _ in range(visitors)]
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(
            target=visit, args=((Program, Visitor)[i % 2], i, address, config, expected, until, tallies[i])
        )
        for i in range(visitors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tallies


def expected_texts() -> dict[tuple[str, int], str]:
    """What the library writes for every prompt and seed."""
    from fundamentallm_hf import Generator, load_model

    generator = Generator(load_model(device="cpu"))
    pairs = [(prompt, seed) for prompt in PROMPTS for seed in SEEDS]
    return {(prompt, seed): generator.generate(prompt, seed=seed, **SETTINGS) for prompt, seed in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--port", type=int, default=7961)
    options = parser.parse_args()
    expected = expected_texts()
    command = [sys.executable, "-m", "fundamentallm_hf", "space", "--device", "cpu", "--port", str(options.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            print(server.stdout.readline().strip())
            address = f"http://127.0.0.1:{options.port}"
            process = psutil.Process(server.pid)
            # To warm up: what is made once is made now, and as many sessions as are ever kept.
            for _ in range(SESSIONS):
                call = httpx.post(f"{address}/gradio_api/call/v2/attributes", json={}).json()
                httpx.get(f"{address}/gradio_api/call/attributes/{call['event_id']}")
            run(address, expected, options.visitors, 5)
            memory = [process.memory_info().rss]
            done = threading.Event()

            def watch() -> None:
                while not done.wait(min(MINUTE, options.seconds / 8)):
                    memory.append(process.memory_info().rss)

            watcher = threading.Thread(target=watch)
            watcher.start()
            began, used = time.monotonic(), sum(process.cpu_times()[:2])
            tallies = run(address, expected, options.visitors, options.seconds)
            took, used = time.monotonic() - began, sum(process.cpu_times()[:2]) - used
            done.set()
            watcher.join()
            memory.append(process.memory_info().rss)
        finally:
            server.terminate()
    served = sorted(second for tally in tallies for second in tally.seconds)
    failed = [text for tally in tallies for text in tally.failed]
    print(f"{options.visitors} visitors, {took:.0f} s: {len(served)} texts, {len(served) / took:.1f} a second")
    print(f"processor time of the server for a text: {1000 * used / len(served):.0f} ms")
    print(f"told to wait {sum(tally.busy for tally in tallies)}, failed {len(failed)} {failed[:3]}")
    print(f"texts that are not their own or differ: {sum(tally.wrong for tally in tallies)}")
    print(f"texts of each visitor: {min(len(t.seconds) for t in tallies)} to {max(len(t.seconds) for t in tallies)}")
    print(f"seconds for a text: median {statistics.median(served):.1f}, longest {served[-1]:.1f}")
    every = f"every {min(MINUTE, options.seconds / 8):g} s"
    print(f"memory in MiB, {every}: " + ", ".join(f"{each / 2**20:.0f}" for each in memory))


if __name__ == "__main__":
    main()
