"""Trains a text classifier that knows sentiment, to teach a story model's experts (`train-attribute --classifier`).

    python examples/sentiment_teacher.py --ratings *_GroundTruth.txt --base BASE --out teacher

The ratings are those that Hutto and Gilbert (2014) collected to try VADER on: texts that 20 people each rated from -4
to 4, in the file `hutto_ICWSM_2014.tar.gz` of vaderSentiment's source distribution (MIT): snippets of movie reviews,
tweets, newspaper editorials. (Leave out its reviews of goods: they come from a data set that sentiment is often judged
by, and what judges a guide must not have taught it.) Each line holds a number, the mean rating and the text, with tabs
between them. BASE is any model that `AutoModelForSequenceClassification` reads, or a GGUF file; its one new output
learns the mean rating. A tenth is held out. Takes a minute on a GPU, and hours on two cores.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GgufConfig

HELD_OUT, LONGEST = 10, 128


def read(files: list[Path]) -> list[tuple[str, float]]:
    """Texts with their mean ratings, in an order by chance."""
    lines = [line.split("\t", 2) for file in files for line in file.read_text("latin-1").splitlines()]
    found = [(line[2].strip(), float(line[1])) for line in lines if len(line) == 3]
    random.Random(0).shuffle(found)
    return found


def load(base: str):
    """A model with one output, and its tokenizer."""
    path, how, options = Path(base), {}, {}
    if path.suffix == ".gguf":
        base, how = str(path.parent), {"gguf_file": path.name}
        options = {"quantization_config": GgufConfig(dequantize=True)}
    tokenizer = AutoTokenizer.from_pretrained(base, **how)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, id2label={0: "POSITIVE"}, label2id={"POSITIVE": 0}, dtype=torch.float32, **how, **options
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def rate(model, tokenizer, texts: list[str], rows: int = 256) -> list[float]:
    """What the model would rate them."""
    found = []
    with torch.no_grad():
        for place in range(0, len(texts), rows):
            found += model(**encoded(model, tokenizer, texts[place : place + rows])).logits[:, 0].float().tolist()
    return found


def encoded(model, tokenizer, texts: list[str]):
    """A batch of texts as the model reads them."""
    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=LONGEST)
    return batch.to(model.device)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=Path, nargs="+", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--most", type=int, help="learn from so many of the texts only")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rated = read(arguments.ratings)[: arguments.most]
    held, rest = rated[: len(rated) // HELD_OUT], rated[len(rated) // HELD_OUT :]
    torch.manual_seed(0)
    model, tokenizer = load(arguments.base)
    model.to(device).train()
    steps = arguments.epochs * (len(rest) // arguments.rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / max(1, steps // 10)) * (1 - step / steps)
    )
    order = random.Random(0)
    for epoch in range(arguments.epochs):
        order.shuffle(rest)
        losses = []
        for place in range(0, len(rest) - arguments.rows + 1, arguments.rows):
            texts, ratings = zip(*rest[place : place + arguments.rows], strict=True)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                found = model(**encoded(model, tokenizer, list(texts))).logits[:, 0]
            loss = ((found.float() - torch.tensor(ratings, device=device)) ** 2).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.detach())
        print(f"epoch {epoch + 1}: mean squared error {float(torch.stack(losses).mean()):.3f}", flush=True)
    model.eval()
    texts, ratings = zip(*held, strict=True)
    found = rate(model, tokenizer, list(texts))
    print(f"{len(rest)} texts learnt; {len(held)} held out: correlation {np.corrcoef(found, ratings)[0, 1]:.3f}")
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
