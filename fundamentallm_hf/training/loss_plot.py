"""Draws the loss of a training run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fundamentallm_hf.portable.errors import UserError


def plot_loss(history: Sequence[dict[str, Any]], file: Path, characters: int) -> Path:
    """Draw bits per character over characters read, of the training text and of the held-out text, as PNG.

    Args:
        history: the log of a Trainer (`state.log_history`).
        file: where to write it.
        characters: number that one step reads.

    Returns:
        `file`.

    Raises:
        UserError: matplotlib is not installed, nothing was logged, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("a plot of the loss needs matplotlib: pip install 'fundamentallm-hf[train]'") from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    drawn = 0
    for name, label, style in (
        ("bits_per_character", "training text", {"alpha": 0.6}),
        ("eval_bits_per_character", "held-out text", {"marker": "o", "markersize": 4}),
    ):
        points = [(entry["step"] * characters / 1e6, entry[name]) for entry in history if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
            drawn += 1
    if not drawn:
        raise UserError("the run logged no loss, so there is nothing to plot")
    axes.set(xlabel="characters read (millions)", ylabel="bits per character", title="Loss")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(file, dpi=120)
    except OSError as error:
        raise UserError(f"cannot write {str(file)!r}: {error.strerror or error}") from error
    return file
