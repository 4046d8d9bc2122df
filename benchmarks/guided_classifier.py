"""What does it cost to guide the bundled model by a small text classifier?

    python benchmarks/guided_classifier.py --reviews reviews.tsv [--save FOLDER] [--rounds 5] [--candidates 4 8 16]

A BERT of 2 layers with 128 hidden units is trained from scratch on reviews (each line of a file is a 0 or 1, a tab, and
a text), its accuracy told on a tenth that is held out. Then texts are written from one opening, without a guide and by
one at strength 2 that asks about so many candidates, in turn, and the median of the tokens a second is told, with how
many texts were judged for each token and how much of the model's probability the candidates have on average.
`--save` keeps the classifier, for `guided_attributes.py --kind classifier`.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from models import MODELS
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from fundamentallm_hf import Attribute
from fundamentallm_hf.portable.guides import build_guides as guides
from fundamentallm_hf.portable.guides.classifier_guide import ClassifierGuide

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
OPENING = "One day, Tim went to the park. There he"


def train(reviews: list[tuple[str, int]], folder: Path, epochs: int) -> float:
    """Train the classifier, write it to a folder, and return its accuracy on what was held out."""
    random.Random(0).shuffle(reviews)
    held, rest = reviews[: len(reviews) // 10], reviews[len(reviews) // 10 :]
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=4000, special_tokens=SPECIALS, show_progress=False)
    backend.train_from_iterator([text for text, _ in rest], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=256,
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=256,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01)
    of_label = [sum(label == each for _, label in rest) for each in (0, 1)]
    weights = torch.tensor([len(rest) / (2 * count) for count in of_label])
    for _ in range(epochs):
        random.shuffle(rest)
        for place in range(0, len(rest), 32):
            texts, labels = zip(*rest[place : place + 32], strict=True)
            logits = model(**tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True)).logits
            torch.nn.functional.cross_entropy(logits, torch.tensor(labels), weights).backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    texts, labels = zip(*held, strict=True)
    with torch.no_grad():
        logits = model(**tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True)).logits
    return float((logits.argmax(dim=-1) == torch.tensor(labels)).float().mean())


class Counting(ClassifierGuide):
    """Counts what is judged, and adds up the probability that candidates have."""

    asked = steps = 0
    mass = 0.0

    def __call__(self, input_ids, scores):
        chances = scores.float().softmax(dim=-1).topk(self.candidates).values
        Counting.mass += float(chances.sum(dim=-1).mean())
        Counting.steps += 1
        judge = self.judge

        def counted(texts):
            Counting.asked += len(texts)
            return judge(texts)

        self.judge = counted
        try:
            return super().__call__(input_ids, scores)
        finally:
            self.judge = judge


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=Path, nargs="+", required=True)
    parser.add_argument("--save", type=Path, help="a folder for the classifier")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--candidates", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = arguments.save or Path(tempfile.mkdtemp()) / "classifier"
    lines = [line.split("\t", 1) for file in arguments.reviews for line in file.read_text("utf-8").splitlines()]
    accuracy = train([(line[1], int(line[0])) for line in lines if len(line) == 2], folder, arguments.epochs)
    print(f"classifier: {accuracy:.1%} of held-out reviews")
    model = MODELS["demo"]()
    model.attributes = {"glad": Attribute("classifier", classifier=folder, label="POSITIVE")}
    ids = model.tokenizer([OPENING] * arguments.rows, return_tensors="pt")
    ways = [0, *arguments.candidates]
    speeds: dict[int, list[float]] = {way: [] for way in ways}
    told = {}
    for turn in range(-1, arguments.rounds):  # one to warm up
        for way in ways:
            guides.ClassifierGuide = type("Way", (Counting,), {"__init__": _asking(way)})
            Counting.asked = Counting.steps = 0
            Counting.mass = 0.0
            started = time.perf_counter()
            output = model.generate(
                **ids, do_sample=True, temperature=0.8, top_p=0.9, top_k=0, seed=turn + 1, guide_attribute="glad",
                guide_strength=2.0 if way else 0.0, max_new_tokens=arguments.tokens, min_new_tokens=arguments.tokens,
            )  # fmt: skip
            took = time.perf_counter() - started
            new = (output.shape[1] - ids.input_ids.shape[1]) * arguments.rows
            if turn >= 0:
                speeds[way].append(new / took)
            if Counting.steps:
                told[way] = f"{Counting.asked / new:.2f} | {Counting.mass / Counting.steps:.1%}"
    print(f"{arguments.rows} rows of {arguments.tokens} tokens, {arguments.threads} threads, {arguments.rounds} rounds")
    print("| candidates | tokens a second | judged a token | probability |\n|---|---|---|---|")
    for way in ways:
        print(f"| {way or 'no guide'} | {statistics.median(speeds[way]):.0f} | {told.get(way, '- | -')} |")
    return 0


def _asking(candidates: int):
    def init(self, *args):
        Counting.__init__(self, *args, candidates=candidates)

    return init


if __name__ == "__main__":
    raise SystemExit(main())
