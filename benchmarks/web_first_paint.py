"""How long the web demo takes on a fresh start: until it serves, until it is painted, until the first text appears.

    python benchmarks/web_first_paint.py --rounds 3

Every round starts `fundamentallm space` and Chromium anew. Needs playwright and Debian's chromium.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import time

from playwright.sync_api import sync_playwright

# From the click to the first letter that the model has written.
FIRST_LETTER = """() => new Promise(resolve => {
  const began = performance.now(), texts = document.querySelector("#texts");
  const look = () => {
    if (texts.querySelector("[aria-busy=true] .caret")) {  // it stands behind what is written
      observer.disconnect();
      resolve((performance.now() - began) / 1000);
    }
  };
  const observer = new MutationObserver(look);
  observer.observe(texts, {subtree: true, childList: true, characterData: true});
  document.querySelector("#write").click();
})"""
PAINT = """() => new Promise(resolve => new PerformanceObserver(list => {
  for (const each of list.getEntriesByName("first-contentful-paint")) resolve(each.startTime / 1000);
}).observe({type: "paint", buffered: true}))"""


def measure(port: int) -> dict[str, float]:
    """Seconds of one fresh start."""
    command = [sys.executable, "-m", "fundamentallm_hf", "space", "--device", "cpu", "--port", str(port)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            serving = time.monotonic() - began
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            opened = time.monotonic()
            page.goto(f"http://127.0.0.1:{port}/")
            paint = page.evaluate(PAINT)
            page.wait_for_selector("#write")
            ready = time.monotonic() - opened
            page.wait_for_selector("#texts .text")
            first = time.monotonic() - opened
            page.wait_for_selector("#texts .see")
            whole = time.monotonic() - opened
            page.wait_for_selector("#write:not([disabled])")
            again = page.evaluate(FIRST_LETTER)
            browser.close()
        finally:
            server.terminate()
    return {
        "start to serving": serving,
        "first contentful paint": paint,
        "until it can be used": ready,
        "until the first letters, without a click": first,
        "until the first text is complete": whole,
        "click to first letters": again,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=7962)
    options = parser.parse_args()
    rounds = [measure(options.port + number) for number in range(options.rounds)]
    print("| | seconds (median) |\n|---|---|")
    for name in rounds[0]:
        print(f"| {name} | {statistics.median(each[name] for each in rounds):.2f} |")


if __name__ == "__main__":
    main()
