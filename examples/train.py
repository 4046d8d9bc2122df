"""Trains the story model that is bundled with the package.

    python examples/train.py train_cased.txt train_more_recased.txt tinystories_more_a.txt tinystories_more_b.txt \\
        --output-dir runs/stories

What stands here is particular to that model: its shape, its plan, and what its card tells of its text. All else is
`fundamentallm train`, which trains models of any text. There are two runs, of which the second trains the model of the
first further. The same command continues them where they were interrupted, with the same result. With
`accelerate launch examples/train.py ...` it runs in several processes or on several GPUs.
"""

import argparse
import os
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from fundamentallm_hf import UserError
from fundamentallm_hf.portable.model.records import TRAINING, read_records, weights_digest, write_records
from fundamentallm_hf.training.train_model import train_model
from fundamentallm_hf.training.training_options import TrainingOptions

# Chosen by short trials at equal compute, which the model's card lists.
PLAN = {
    "hidden_size": 256,
    "layers": 4,
    "heads": 4,
    "window": 1024,
    "stages": "256:0.8",
    "steps": 4600,
    "batch_characters": 8192,
    "optimizer": "muon",
    "lr": 0.01,
    "adamw_lr": 0.004,
    "decay_share": 0.6,
    "precision": "bfloat16",
    "compile": True,
    "eval_every": 500,
    "patience": 100,
}
# The first run's model is trained further on other cuts of the same text; the rate rises once more, less high.
SHAPE = ("hidden_size", "layers", "heads", "window")
FURTHER = {name: value for name, value in PLAN.items() if name not in SHAPE} | {
    "seed": 1,
    "stages": "256:0.65",
    "steps": 3000,
    "lr": 0.006,
    "adamw_lr": 0.0024,
    "decay_share": 0.95,
}
ABOUT = {"license": "apache-2.0", "language": ["en"], "datasets": ["roneneldan/TinyStories"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="stories, with a line <|endoftext|> after each")
    parser.add_argument("--output-dir", type=Path, required=True, help="of both runs: folders first and further")
    parser.add_argument("--threads", type=int, help="CPU threads per process")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU even if there is a GPU")
    given = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        folder = given.output_dir
        first = train_model(TrainingOptions(**{**PLAN, **vars(given), "output_dir": folder / "first"}), about=ABOUT)
        how = {**FURTHER, **vars(given), "output_dir": folder / "further", "init_from": first}
        print(stored_in_half(train_model(TrainingOptions(**how), about=ABOUT)))
    except UserError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


def stored_in_half(folder: Path) -> Path:
    """Rewrite the weights of a model folder in float16. Its config still says float32, in which they are loaded.

    Half the bytes; a character of the held-out text takes 0.000001 bits more.
    """
    file = folder / "model.safetensors"
    halved = {name: each.half() for name, each in load_file(file).items()}
    save_file(halved, file, {"format": "pt"})
    digest = weights_digest(halved.values())
    write_records(folder / TRAINING, [each | {"weights": digest} for each in read_records(folder / TRAINING)])
    return folder


if __name__ == "__main__":
    sys.exit(main())
