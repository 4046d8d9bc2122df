"""Trains a judge of sentiment to teach a story model's experts (`story_attributes.py --teacher`).

    python examples/sentiment_teacher.py --ratings *_GroundTruth.txt --base BASE --out teacher

The ratings are those that Hutto and Gilbert (2014) collected to try VADER on: texts that 20 people each rated from -4
to 4, in the file `hutto_ICWSM_2014.tar.gz` of vaderSentiment's source distribution (MIT): snippets of movie reviews,
tweets, newspaper editorials. (Leave out its reviews of goods: they come from a data set that sentiment is often judged
by, and what judges a guide must not have taught it.) Each line holds a number, the mean rating and the text, with tabs
between them. BASE is a causal language model that `AutoModel` reads, or a GGUF file. A tenth is held out. Takes a
minute on a GPU, and hours on two cores.

What BASE makes of all tokens is averaged: of its last token alone, a teacher told the story model's texts apart less
well (area under the ROC curve 0.76 instead of 0.88, against a judge that learnt from reviews), though it came closer to
held-out ratings (correlation 0.89 instead of 0.85).

`--frozen` leaves BASE as it is and fits the line through it alone, by ridge regression: minutes on one core.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoTokenizer, GgufConfig

HELD_OUT, LONGEST = 10, 512
# Texts are put together by length within so many batches.
POOL = 40
# Characters that a frozen BASE reads at once, and the ridges that are tried, relative to the variance of its states.
READ, RIDGES = 16_384, (0.0001, 0.001, 0.01, 0.1)
HEAD_NAME = "head.safetensors"


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32 there: on GPUs, and on CPUs that multiply bf16 matrices."""
    return device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_amx_tile_supported())


class Teacher(nn.Module):
    """Rates texts: a line through the mean of what a model makes of their tokens.

    Args:
        base: of a model or a folder, or a GGUF file.
    """

    def __init__(self, base: str) -> None:
        super().__init__()
        path, how, options = Path(base), {}, {}
        if path.suffix == ".gguf":
            base, how = str(path.parent), {"gguf_file": path.name}
            options = {"quantization_config": GgufConfig(dequantize=True)}
        self.tokenizer = AutoTokenizer.from_pretrained(base, **how)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.tokenizer.padding_side = "right"
        self.body = AutoModel.from_pretrained(base, dtype=torch.float32, **how, **options)
        self.head = nn.Linear(self.body.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def keep_layers(self, number: int) -> None:
        """Drop the later layers, which are about the next token more than about what was said."""
        self.body.layers = self.body.layers[:number]
        self.body.config.num_hidden_layers = number

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        """(texts,) ratings."""
        return self.head(self.states(texts))[:, 0]

    def states(self, texts: Sequence[str]) -> torch.Tensor:
        """(texts, hidden size): what the model makes of the tokens of each text, averaged."""
        device = self.head.weight.device
        batch = self.tokenizer([text or " " for text in texts], return_tensors="pt", padding=True, truncation=True,
                               max_length=LONGEST).to(device)  # fmt: skip
        # Weights that are bf16 already need not be cast in every call.
        cast = fast_bf16(device) and self.body.dtype == torch.float32
        with torch.autocast(device.type, torch.bfloat16, enabled=cast):
            states = self.body(batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).last_hidden_state
        mask = batch.attention_mask[..., None].float()
        return (states.float() * mask).sum(dim=1) / mask.sum(dim=1)

    @torch.no_grad()
    def states_of_all(self, texts: Sequence[str]) -> torch.Tensor:
        """The states of any number of texts, read with others of their length."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        found = torch.zeros(len(texts), self.head.in_features)
        place = 0
        while place < len(order):
            rows = max(1, READ // (len(texts[order[min(place + 256, len(order) - 1)]]) + 1))
            part = order[place : place + min(rows, 256)]
            found[part] = self.states([texts[index] for index in part]).cpu()
            place += len(part)
            print(f"\r{place} of {len(order)} texts read", end="", file=sys.stderr, flush=True)
        return found

    @torch.no_grad()
    def rate(self, texts: Sequence[str]) -> list[float]:
        """What it would rate them; long ones together, so that little is padding."""
        return self.head(self.states_of_all(texts).to(self.head.weight.device))[:, 0].tolist()

    def save(self, folder: Path) -> None:
        """Keep it."""
        self.body.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file(self.head.state_dict(), folder / HEAD_NAME)

    @classmethod
    def load(cls, folder: Path) -> "Teacher":
        """Read what `save` wrote."""
        teacher = cls(str(folder))
        teacher.head.load_state_dict(load_file(folder / HEAD_NAME))
        if fast_bf16(teacher.head.weight.device):
            teacher.body.bfloat16()
        return teacher.eval()


def read(files: Sequence[Path]) -> list[tuple[str, float]]:
    """Texts with their mean ratings, in an order by chance."""
    lines = [line.split("\t", 2) for file in files for line in file.read_text("latin-1").splitlines()]
    found = [(line[2].strip(), float(line[1])) for line in lines if len(line) == 3]
    random.Random(0).shuffle(found)
    return found


def batches(rated: list[tuple[str, float]], rows: int, order: random.Random) -> list[list[tuple[str, float]]]:
    """Full batches in a random order, each of texts of about one length, so that little is padding."""
    shuffled = order.sample(rated, len(rated))
    found = []
    for start in range(0, len(shuffled), rows * POOL):
        pool = sorted(shuffled[start : start + rows * POOL], key=lambda each: len(each[0]))
        found += [pool[place : place + rows] for place in range(0, len(pool) - rows + 1, rows)]
    order.shuffle(found)
    return found


def fit_head(teacher: Teacher, rated: list[tuple[str, float]]) -> None:
    """Fit the head alone, by ridge regression; a tenth of the texts picks the ridge, and is learnt from after that."""
    texts, ratings = zip(*rated, strict=True)
    states, wanted = teacher.states_of_all(texts).double(), torch.tensor(ratings).double()
    mean, scale = states.mean(dim=0), states.std(dim=0)
    states = torch.cat([(states - mean) / scale, torch.ones(len(states), 1)], dim=1)
    first = len(rated) // HELD_OUT

    def solve(rows: torch.Tensor, targets: torch.Tensor, ridge: float) -> torch.Tensor:
        penalty = torch.full((rows.shape[1],), ridge * len(rows)).double()
        penalty[-1] = 0  # the constant costs nothing
        return torch.linalg.solve(rows.T @ rows + penalty.diag(), rows.T @ targets)

    errors = {
        ridge: float(((states[:first] @ solve(states[first:], wanted[first:], ridge) - wanted[:first]) ** 2).mean())
        for ridge in RIDGES
    }
    best = min(errors, key=errors.__getitem__)
    print("mean squared error by ridge:", ", ".join(f"{ridge:g} {error:.3f}" for ridge, error in errors.items()))
    line = solve(states, wanted, best)
    with torch.no_grad():
        weights = line[:-1] / scale
        teacher.head.weight.copy_(weights[None])
        teacher.head.bias.copy_(line[-1:] - (weights * mean).sum())


def train(teacher: Teacher, rest: list[tuple[str, float]], arguments: argparse.Namespace) -> None:
    """Train BASE and head together."""
    steps = arguments.epochs * len(batches(rest, arguments.rows, random.Random(0)))
    parts = [{"params": teacher.body.parameters()}, {"params": teacher.head.parameters(), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(parts, lr=arguments.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / min(100, steps)) * (1 - step / steps)
    )
    order = random.Random(0)
    for epoch in range(arguments.epochs):
        losses = []
        for batch in batches(rest, arguments.rows, order):
            texts, ratings = zip(*batch, strict=True)
            found = teacher(texts)
            loss = ((found - torch.tensor(ratings, device=found.device)) ** 2).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.detach())
            if len(losses) % 10 == 0:
                print(
                    f"{len(losses)} batches: {float(torch.stack(losses[-10:]).mean()):.3f}", file=sys.stderr, flush=True
                )
        print(f"epoch {epoch + 1}: mean squared error {float(torch.stack(losses).mean()):.3f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=Path, nargs="+", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--most", type=int, help="learn from so many of the texts only")
    parser.add_argument("--layers", type=int, help="keep only so many layers of BASE, the first, to save time")
    parser.add_argument("--frozen", action="store_true", help="leave BASE as it is, and fit the line alone")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rated = read(arguments.ratings)[: arguments.most]
    held, rest = rated[: len(rated) // HELD_OUT], rated[len(rated) // HELD_OUT :]
    torch.manual_seed(0)
    teacher = Teacher(arguments.base).to("cuda" if torch.cuda.is_available() else "cpu").train()
    if arguments.layers:
        teacher.keep_layers(arguments.layers)
    if arguments.frozen:
        if fast_bf16(teacher.head.weight.device):
            teacher.body.bfloat16()
        fit_head(teacher.eval(), rest)
    else:
        train(teacher, rest, arguments)
    teacher.eval()
    texts, ratings = zip(*held, strict=True)
    correlation = np.corrcoef(teacher.rate(texts), ratings)[0, 1]
    print(f"{len(rest)} texts learnt; {len(held)} held out: correlation {correlation:.3f}")
    teacher.save(arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
