"""Draws what `guided_attributes.py` has measured: how far each strength turns texts, and what that costs.

python benchmarks/guided_curve.py results.jsonl [--model demo] [--out docs/pictures/guided_attributes.svg]
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

COLORS = {"experts": "#0b7285", "words": "#e8590c", "both": "#5f3dc4", "prompts": "#2b8a3e", "classifier": "#862e9c"}
STYLE = {"svg.hashsalt": "fundamentallm", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/guided_attributes.svg"))
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.results.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["model"] == arguments.model and row["from"] == "neutral"]
    free = next(row for row in rows if row["strength"] == 0)
    plt.rcParams.update(STYLE)
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2))
    for kind in COLORS:
        found = {row["strength"]: row for row in rows if row["kind"] == kind} | {0.0: free}
        if len(found) == 1:
            continue
        strengths = sorted(found)
        style = {"color": COLORS[kind], "marker": "o", "markersize": 3.5, "label": kind}
        axes[0].plot(strengths, [100 * found[each]["positive"] for each in strengths], **style)
        axes[1].plot(strengths, [found[each]["perplexity"] / free["perplexity"] for each in strengths], **style)
        axes[2].plot(strengths, [found[each]["distinct"][2] / free["distinct"][2] for each in strengths], **style)
    titles = ("judged positive, %", "perplexity against no guide", "distinct triples of words against no guide")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("strength")
        axis.grid(alpha=0.25)
    axes[0].set_ylim(0, 100)
    axes[0].legend(frameon=False)
    figure.tight_layout()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, metadata={"Date": None})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
