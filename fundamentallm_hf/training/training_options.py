"""The options of a training run: name, type, default, range and help of each, written once for Python and the command.

Imports nothing heavy, so the command's help answers at once.
"""

# ruff: noqa: RUF009 - what is called makes fields

import math
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from fundamentallm_hf.portable.errors import UsageError

OPTIMIZERS = ("adamw", "muon")
ATTENTIONS = ("auto", "sdpa", "eager", "blockwise")
PRECISIONS = ("auto", "float32", "bfloat16")
POSITIONS = ("learned", "sinusoidal")
DATA, SHAPE, RUN = "Data", "Shape of a new model", "Run"
# The defaults of a new model. A model that is trained further keeps its architecture.
SHAPE_DEFAULTS = {"hidden_size": 192, "layers": 4, "heads": 3, "window": 512, "positions": "learned", "dropout": 0.0}


def _option(default: Any, group: str, text: str, free: bool = False, **limits: Any) -> Any:
    """A field with the metadata that a command needs.

    Args:
        free: the option does not change the result, so an interrupted run may continue with another value.
        limits: `minimum`, `above`, `maximum` or `choices`; `shown` where the default needs words.
    """
    return field(default=default, metadata={"group": group, "help": text, "free": free, **limits})


@dataclass(frozen=True)
class TrainingOptions:
    """The options of a training run.

    Raises:
        UsageError: a value is out of its range, or options contradict each other.

    Example:

    ```python
    >>> from fundamentallm_hf.training.training_options import TrainingOptions
    >>> TrainingOptions(files=("stories.txt",), output_dir="runs/stories", steps=500).shape()["hidden_size"]
    192

    ```
    """

    files: Sequence[str | Path] = _option((), DATA, "Text files in UTF-8.", free=True)
    output_dir: str | Path = _option("", RUN, "Folder for checkpoints; the model is written to its `model`.", free=True)
    dataset: str | None = _option(
        None, DATA, "A data set on the Hub or a folder instead of files, streamed.", metavar="ID"
    )
    dataset_column: str = _option("text", DATA, "Column of the data set that holds the text.")
    dataset_texts: int = _option(20_000, DATA, "Number of texts read from the data set.", minimum=1)
    separator: str = _option("<|endoftext|>", DATA, "What separates two texts in a file.")
    held_out: str | Path | None = _option(
        None, DATA, "Text to measure on.", free=True, metavar="FILE", shown="the last texts, 5% at most"
    )
    held_out_characters: int = _option(
        60_000, DATA, "Characters of it that are read in each measurement; 0 reads all.", minimum=0
    )
    init_from: str | Path | None = _option(
        None, DATA, "Train this model further: a .pt file or a model folder.", metavar="MODEL"
    )
    hidden_size: int | None = _option(None, SHAPE, "Width.", minimum=1)
    layers: int | None = _option(None, SHAPE, "Number of layers.", minimum=1)
    heads: int | None = _option(None, SHAPE, "Attention heads per layer.", minimum=1)
    window: int | None = _option(None, SHAPE, "Context length in characters.", minimum=2)
    positions: str | None = _option(None, SHAPE, "Kind of position embeddings.", choices=POSITIONS)
    dropout: float | None = _option(None, SHAPE, "Dropout while training.", minimum=0, maximum=0.99)
    steps: int = _option(1000, RUN, "Number of optimizer steps.", free=True, minimum=1)
    batch_characters: int = _option(8192, RUN, "Characters per step and process.", minimum=2)
    stages: str = _option(
        "", RUN, "Shorter windows first: LENGTH:SHARE,... of the steps, such as 128:0.6,256:0.2.", metavar="TEXT"
    )
    optimizer: str = _option("adamw", RUN, "AdamW, or Muon for matrices and AdamW for the rest.", choices=OPTIMIZERS)
    lr: float = _option(3e-3, RUN, "Peak learning rate; with Muon, that of the matrices.", above=0)
    adamw_lr: float = _option(3e-3, RUN, "With Muon: peak learning rate of everything else.", above=0)
    weight_decay: float = _option(0.1, RUN, "Weight decay.", minimum=0)
    warmup_steps: int = _option(50, RUN, "Steps in which the learning rate rises, a tenth of all at most.", minimum=0)
    decay_share: float = _option(
        0.7, RUN, "Share of the steps, at the end, in which the learning rate falls.", above=0, maximum=1
    )
    precision: str = _option(
        "auto", RUN, "Precision of the matrix products; auto is bfloat16 where the hardware has it.", choices=PRECISIONS
    )
    attention: str = _option("auto", RUN, "Implementation of attention.", choices=ATTENTIONS)
    compile: bool = _option(
        False, RUN, "Compile the model: takes a minute or two first, and is up to twice as fast then.", free=True
    )
    eval_every: int = _option(250, RUN, "Steps between two measurements and checkpoints.", free=True, minimum=1)
    patience: int = _option(5, RUN, "Stop after this many measurements without an improvement.", free=True, minimum=1)
    seed: int = _option(0, RUN, "Seed of the weights, the order of the text and dropout.", minimum=0)
    threads: int | None = _option(None, RUN, "CPU threads per process.", free=True, minimum=1)
    cpu: bool = _option(False, RUN, "Stay on the CPU even if there is a GPU.")

    def __post_init__(self) -> None:
        for each in fields(self):
            check(each, getattr(self, each.name))
        if not str(self.output_dir):
            raise UsageError("output_dir has to name the folder of the run")
        if bool(self.files) == bool(self.dataset):
            raise UsageError("give text files or a dataset, and not both")
        if self.init_from is not None:
            given = [name for name in SHAPE_DEFAULTS if getattr(self, name) is not None]
            if given:
                raise UsageError(f"{given[0]} belongs to a new model, and init_from has its own: leave one of them out")
        else:
            shape = self.shape()
            if shape["hidden_size"] % shape["heads"]:
                raise UsageError(
                    f"hidden_size has to be a multiple of heads but is {shape['hidden_size']} with {shape['heads']}"
                )
        parse_stages(self.stages)

    def shape(self) -> dict[str, Any]:
        """The architecture of a new model, by name, with defaults for options that are not set."""
        return {
            name: default if getattr(self, name) is None else getattr(self, name)
            for name, default in SHAPE_DEFAULTS.items()
        }


def check(option: Field, value: Any) -> None:
    """Raise UsageError where `value` is out of the range of `option`."""
    about = option.metadata
    if value is None and option.default is None:
        return
    kind = number_of(option)
    if kind is not None:
        whole = kind is int
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not math.isfinite(value):
            raise UsageError(f"{option.name} has to be a {'whole ' if whole else ''}number but is {value!r}")
        for name, says, wrong in (
            ("minimum", "at least", lambda limit: value < limit),
            ("above", "more than", lambda limit: value <= limit),
            ("maximum", "at most", lambda limit: value > limit),
        ):
            if name in about and wrong(about[name]):
                raise UsageError(f"{option.name} has to be {says} {about[name]} but is {value}")
    if "choices" in about and value not in about["choices"]:
        raise UsageError(f"{option.name} has to be one of {', '.join(about['choices'])} but is {value!r}")


def number_of(option: Field) -> type | None:
    """The type of an option: a whole number (int), a number (float), or none (None)."""
    default = SHAPE_DEFAULTS.get(option.name, option.default)
    if option.name == "threads":
        return int
    return type(default) if type(default) in (int, float) and default is not MISSING else None


def parse_stages(text: str) -> tuple[tuple[int, float], ...]:
    """Read `"128:0.6,256:0.2"` as (window length, share of the steps) pairs.

    Raises:
        UsageError: it is anything else.

    Example:

    ```python
    >>> from fundamentallm_hf.training.training_options import parse_stages
    >>> parse_stages("128:0.6,256:0.2")
    ((128, 0.6), (256, 0.2))

    ```
    """
    try:
        pairs = tuple(
            (int(length), float(share)) for length, share in (part.split(":") for part in text.split(",") if part)
        )
        # nan fails each comparison, so what has to hold is asked for and not its opposite.
        if all(length >= 2 and share > 0 for length, share in pairs) and sum(share for _, share in pairs) <= 1 + 1e-9:
            return pairs
    except ValueError:
        pass
    raise UsageError(f"stages has to be LENGTH:SHARE pairs whose shares sum up to 1 at most but is {text!r}")
