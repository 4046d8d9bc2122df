"""An hour of work in the web demo: does the page stay quick with 200 branches, and does the server's memory stay flat?

    python benchmarks/web_session.py --branches 200

Starts `fundamentallm space` in a process of its own, and writes branches in Chromium: continuations, retries and other
choices. At times it undoes, redoes, goes to another branch and compares. Prints the milliseconds of each of these on
the clock until the page can answer again (median), and of processor time (mean, with what follows on the page), and the
memory of the server and of the page. Needs playwright and a Chromium.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import time

import httpx
import psutil
from playwright.sync_api import Page, sync_playwright

# What a click does before the page can answer the next one; the writing itself goes on later.
CLICK = """async (find) => {
  const target = new Function("return " + find)();
  if (!target || target.disabled) return null;
  const began = performance.now();
  target.click();
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""
BRANCH = (
    "document.querySelectorAll('#branches .name')[Math.floor(document.querySelectorAll('#branches .name').length / 2)]"
)
ACTIONS = {
    "undo": "document.querySelector('[data-do=undo]')",
    "redo": "document.querySelector('[data-do=redo]')",
    "go to a branch": BRANCH,
    "compare": "document.querySelector('#branches [data-do=compare]')",
    "close": "document.querySelector('#texts [data-do=cancel]')",
    "alternatives": "document.querySelector('.tok:nth-child(5)')",
}
WRITES = ("document.querySelector('[data-do=more]')", "document.querySelector('[data-do=retry]')")
RUN = "(document.querySelector('#texts .run[data-run]') || {dataset: {}}).dataset.run || ''"
NODES = "JSON.parse(localStorage.getItem('fundamentallm-tree')).nodes.length"


def write(page: Page, number: int) -> float:
    """Write one branch; returns the seconds until it is complete."""
    began, before = time.monotonic(), page.evaluate(RUN)
    if number % 3 == 2 and page.locator(".tok").count() > 9:
        page.locator(".tok").nth(number % 9).click()
        page.locator(".panel .go").first.click()
    else:
        page.evaluate(CLICK, WRITES[number % 2])
    page.wait_for_function(f"before => ![before, ''].includes({RUN})", arg=before)
    page.wait_for_selector("#write:not([disabled])")
    return time.monotonic() - began


def processor_time() -> float:
    """Milliseconds that the pages have computed, however busy the machine is."""
    times = 0.0
    for each in psutil.Process().children(recursive=True):
        if "--type=renderer" in each.cmdline():
            times += sum(each.cpu_times()[:2])
    return times * 1000


def use(page: Page, took: dict[str, list[float]], computed: dict[str, list[float]]) -> None:
    """Do everything that computes nothing."""
    for name, find in ACTIONS.items():
        before = processor_time()
        found = page.evaluate(CLICK, find)
        page.wait_for_timeout(300)  # what it starts on the page besides
        if found is not None:
            took.setdefault(name, []).append(found)
            computed.setdefault(name, []).append(processor_time() - before)
    if page.evaluate("document.querySelector('#texts [data-do=cancel]') !== null"):
        page.evaluate(CLICK, ACTIONS["close"])


def work(page: Page, server: psutil.Process, branches: int, tokens: int) -> None:
    """Write the branches, and report after every quarter."""
    page.locator("#field-max_tokens input[type=number]").fill(str(tokens))
    page.locator("#field-max_tokens input[type=number]").press("Tab")
    took: dict[str, list[float]] = {}
    computed: dict[str, list[float]] = {}
    writing: list[float] = []
    page.evaluate(CLICK, "document.querySelector('#write')")
    page.wait_for_selector("#write:not([disabled])")
    print(f"| branches | server, MiB | page, MiB | {' | '.join(ACTIONS)} | writing, s |")
    print("|---|---|---|" + "---|" * (len(ACTIONS) + 1))
    for number in range(branches):
        writing.append(write(page, number))
        if number % 10 == 0:
            use(page, took, computed)
        if (number + 1) % max(1, branches // 4) == 0:
            heap = page.evaluate("performance.memory ? performance.memory.usedJSHeapSize : 0") / 2**20
            medians = [
                f"{statistics.median(took[name]):.0f} / {statistics.mean(computed[name]):.0f}" if name in took else ""
                for name in ACTIONS
            ]
            cells = [page.evaluate(NODES), f"{server.memory_info().rss / 2**20:.0f}", f"{heap:.0f}"]
            print("|", " | ".join(map(str, [*cells, *medians, f"{statistics.median(writing):.1f}"])), "|", flush=True)
            took, computed, writing = {}, {}, []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--branches", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--port", type=int, default=7963)
    options = parser.parse_args()
    command = [sys.executable, "-m", "fundamentallm_hf", "space", "--device", "cpu", "--port", str(options.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(120_000)
            page.goto(f"http://127.0.0.1:{options.port}/?bad_words=was&must_include=dragon&max_tokens={options.tokens}")
            page.wait_for_selector("#texts .see")
            page.wait_for_selector("#write:not([disabled])")
            # The tensors for keys and values grow with the longest text so far, up to the window: that is no leak.
            body = {
                "prompt": "Once upon a time. " * 80,
                "max_tokens": 500,
                "bad_words": ["was"],
                "must_include": ["dragon"],
            }
            call = httpx.post(f"http://127.0.0.1:{options.port}/gradio_api/call/v2/write", json=body).json()
            answer = f"http://127.0.0.1:{options.port}/gradio_api/call/write/{call['event_id']}"
            httpx.get(answer, timeout=300).raise_for_status()
            work(page, psutil.Process(server.pid), options.branches, options.tokens)
            browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
